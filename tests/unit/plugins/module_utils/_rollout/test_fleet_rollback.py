"""A deployment that failed and the rollback of it, told as one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import Control, Controlled
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet_rollback import (
    joined,
    not_well,
    stopped_by_failure,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment

HOSTS = ("web1", "web2", "web3", "web4")


def deployment(name: str, outcomes: dict[str, str], *, back: bool = False, **about: object) -> Deployment:
    before, after = ("2", "1") if back else ("1", "2")
    hosts = {
        host: PlannedHost(
            host, host, batch=1 if host in outcomes or not back else None, from_version=before, to_version=after
        )
        for host in HOSTS
    }
    ended = {
        host: Outcome(host, host, one, before, after, error=f"{host}: {one}" if one != "ok" else "")
        for host, one in outcomes.items()
    }
    record = Record(name, "web", after, hosts=hosts, description=f"{name}.", **about)  # type: ignore[arg-type]
    return Deployment(record, outcomes=ended)


def test_each_host_is_told_as_it_is_now() -> None:
    first = deployment("a", {"web1": "ok", "web2": "regressed", "web3": "ok"}, state="failed")
    second = deployment("b", {"web1": "ok", "web2": "ok", "web3": "failed"}, back=True, state="failed")
    both = joined(first, second)
    assert both.results == {"web1": "rolled_back", "web2": "rolled_back", "web3": "failed", "web4": "pending"}
    assert both.record.id == "a"
    assert both.record.description == "a. b."
    assert both.outcomes["web2"].error == "web2: regressed"
    assert both.outcomes["web1"].error == ""
    assert {host: both.record.hosts[host].from_version for host in HOSTS} == dict.fromkeys(HOSTS, "1")


@pytest.mark.parametrize("ended", ["pending", "untouched", "skipped"])
def test_one_that_did_not_go_back_is_told_as_it_is(ended: str) -> None:
    """It runs the new version still, whatever kept its rollback from beginning."""
    first = deployment("a", {"web1": "ok", "web2": "regressed", "web3": "rolled_back"}, state="failed")
    second = deployment("b", {"web1": ended, "web2": "ok", "web3": "current", "web4": "current"}, back=True)
    one = joined(first, second).outcomes["web1"]
    assert (one.outcome, one.from_version, one.to_version) == ("ok", "1", "2")
    assert one.error == f"It was not rolled back: web1: {ended}"
    assert not_well(first, second.results) == ["web1", "web2", "web3"]


def test_so_is_one_that_the_rollback_left_alone() -> None:
    """In somebody else's maintenance as it was planned; one that it was not to change has nothing to tell."""
    first = deployment("a", {"web1": "ok", "web2": "regressed", "web3": "skipped"}, state="failed")
    second = deployment("b", {"web1": "skipped", "web2": "ok", "web3": "current", "web4": "current"}, back=True)
    hosts = {name: replace(one, batch=1 if name == "web2" else None) for name, one in second.record.hosts.items()}
    both = joined(first, replace(second, record=replace(second.record, hosts=hosts)))
    assert both.results["web1"] == "ok"
    assert both.outcomes["web1"].error == "It was not rolled back: web1: skipped"
    assert both.outcomes["web3"].error == "web3: skipped"
    assert not_well(first, second.results) == ["web1", "web2"]


def test_hosts_that_went_back_well_are_not_what_failed() -> None:
    first = deployment("a", {"web1": "ok", "web2": "regressed", "web3": "ok"}, state="failed")
    assert not_well(first, {"web1": "ok", "web2": "ok", "web3": "lost", "web4": "current"}) == ["web2", "web3"]


def test_what_an_interrupted_rollback_has_taken_back_is_back() -> None:
    """The next one finds it in place, on another version than the failed one."""
    first = deployment("a", {"web1": "ok", "web2": "regressed", "web3": "current", "web4": "ok"}, state="failed")
    second = deployment("b", {"web4": "ok"}, back=True, state="successful")
    for host in ("web1", "web2", "web3"):
        planned = PlannedHost(host, host, "current", from_version="1")
        second = replace(second, record=replace(second.record, hosts={**second.record.hosts, host: planned}))
        second = replace(second, outcomes={**second.outcomes, host: Outcome(host, host, "current", "1")})
    assert joined(first, second).results == dict.fromkeys(HOSTS, "rolled_back")
    assert joined(first, second).outcomes["web2"].error == "web2: regressed"


def test_hosts_that_it_did_not_come_to_still_have_the_version() -> None:
    first = deployment("a", {"web1": "ok", "web2": "regressed", "web3": "ok"}, state="failed")
    second = deployment("b", {"web1": "pending", "web2": "pending", "web3": "untouched"}, back=True, state="failed")
    assert joined(first, second).results == {"web1": "ok", "web2": "regressed", "web3": "ok", "web4": "pending"}
    assert not_well(first, {**second.results, "web4": "current"}) == ["web1", "web2", "web3"]


def test_only_a_spent_budget_is_a_failure_of_the_version() -> None:
    assert stopped_by_failure(deployment("a", {"web1": "rolled_back"}, state="failed"))
    assert not stopped_by_failure(deployment("a", {"web1": "rolled_back"}, state="failed", failure_budget=1))
    assert not stopped_by_failure(deployment("a", {"web1": "ok"}, state="failed"))
    assert not stopped_by_failure(deployment("a", {"web1": "ok"}, state="successful"))


@pytest.mark.parametrize(("kind", "goes_back"), [("abort", True), ("failure", True), ("stop", False), ("pause", False)])
def test_what_stopped_it_says_whether_it_goes_back(kind: str, goes_back: bool) -> None:
    failed = deployment("a", {"web1": "ok"}, state="failed")
    assert stopped_by_failure(replace(failed, control=Control(noted=Controlled(kind=kind)))) is goes_back
