"""Which hosts a restart takes: those that the one it goes on with has not, and none that a rollout holds."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import KINDS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import HostState, Maintenance
from ansible_collections.hitless.consul.plugins.module_utils._rollout.restart import find_restart
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment
from tests.unit.plugins.module_utils._rollout.deployments import all_of, deployment, history, node_of

HOSTS = ("web1", "web2", "web3")
SAME = ("1.4.2", "1.4.2")
ROLLED_OUT = deployment("1", "1.4.2", all_of(HOSTS, ("ok", "1.0.0", "1.4.2")))


def restarted(
    identity: str, outcomes: list[str], state: str = "failed", kind: str = "restart", **about: str
) -> Deployment:
    hosts = {host: (outcome, *SAME) for host, outcome in zip(HOSTS, outcomes, strict=True)}
    return deployment(identity, None, hosts, direction=kind, state=state, **about)


def taken(kept: History, kind: str = "restart", *, skip_current: bool = True, **about: object) -> dict[str, str]:
    """Host -> the version that it goes to, or why it gets no turn."""
    states = [HostState(host, node_of(host), version="1.4.2", **about) for host in HOSTS]  # type: ignore[arg-type]
    found = find_restart(kept, KINDS[kind], states, skip_current=skip_current)
    return {one.host: one.decided[1] if one.decided else str(one.target) for one in found.hosts}


@pytest.mark.parametrize(
    "before",
    [
        [ROLLED_OUT],
        [restarted("2", ["ok", "ok", "ok"], "successful")],
        [restarted("2", ["ok", "failed", "pending"], kind="reboot")],
        [restarted("2", ["ok", "failed", "pending"]), deployment("3", "2", {"web3": ("ok", "1.4.2", "2")})],
        [restarted("2", ["ok", "failed", "pending"]), restarted("3", ["ok", "ok", "ok"], "successful", "reboot")],
    ],
    ids=["after a rollout", "after one that did its work", "of another kind", "a rollout since", "a reboot since"],
)
def test_it_begins_afresh(before: list[Deployment]) -> None:
    assert taken(history(*before)) == dict.fromkeys(HOSTS, "1.4.2")


def test_it_goes_on_with_one_that_did_not_reach_all() -> None:
    kept = history(ROLLED_OUT, restarted("2", ["ok", "failed", "pending"]))
    assert taken(kept) == {"web1": "already restarted by 2", "web2": "1.4.2", "web3": "1.4.2"}
    again = history(
        ROLLED_OUT, restarted("2", ["ok", "failed", "pending"]), restarted("3", ["current", "ok", "lost"], resumes="2")
    )
    assert taken(again) == {"web1": "already restarted by 2", "web2": "already restarted by 3", "web3": "1.4.2"}
    assert taken(again, skip_current=False) == dict.fromkeys(HOSTS, "1.4.2")


def test_it_says_what_it_leaves_alone() -> None:
    states = [HostState(host, node_of(host), version="1.4.2") for host in HOSTS]
    kept = history(restarted("2", ["ok", "failed", "pending"], "interrupted"))
    note = (
        "1 host: web1 restarted already by 2, which did not reach all of its hosts, and left alone; "
        "rollout_skip_current: false takes all of them anew."
    )
    assert find_restart(kept, KINDS["restart"], states, skip_current=True).notes == [note]


def test_one_that_is_not_well_any_more_is_taken_again() -> None:
    kept = history(restarted("2", ["ok", "ok", "failed"]))
    assert taken(kept, serving=0) == dict.fromkeys(HOSTS, "1.4.2")


def test_what_a_rollout_holds_in_maintenance_is_left_alone() -> None:
    """That it runs again tells nothing of the version that is there; what a restart holds is its own."""
    kept = history(deployment("1", "1.4.2", all_of(HOSTS, ("failed", "1.0.0", "1.4.2"))))
    why = "held in maintenance by 1: roll out a version that works, or recover it"
    held = taken(kept, maintenance=Maintenance(True, "deploy:1 web"), serving=0)
    assert held == dict.fromkeys(HOSTS, why)
    gone = taken(history(), maintenance=Maintenance(True, "deploy:1 web"), serving=0)
    assert gone == dict.fromkeys(HOSTS, why), "nobody knows any more what has set it"
    own = history(restarted("2", ["failed", "failed", "failed"]))
    assert taken(own, maintenance=Maintenance(True, "deploy:2 web"), serving=0) == dict.fromkeys(HOSTS, "1.4.2")


def test_hosts_of_an_unknown_version_are_restarted_too() -> None:
    states = [HostState("web1", "node-web1")]
    found = find_restart(history(), KINDS["restart"], states, skip_current=True)
    assert [(one.target, one.decided) for one in found.hosts] == [(None, None)]
