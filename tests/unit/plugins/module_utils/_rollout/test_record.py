"""What a record holds, how it changes, and the verdict at the end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import VALUE_LIMIT
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import (
    Outcome,
    within_budget,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Brief, PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import CURRENT, OUTCOMES
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import FAILED as HOST_FAILED

STATES = (record.RUNNING, *record.ENDED)


TEXT = st.text(max_size=40)


VERSION = st.none() | st.from_regex(r"[A-Za-z0-9._+~:@-]{1,20}", fullmatch=True)


NAME = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)


COUNT = st.integers(min_value=0, max_value=1000)


WHY = st.none() | st.text(min_size=1, max_size=record.WHY_LIMIT)


@st.composite
def records(draw: st.DrawFn) -> Record:
    names = draw(st.lists(NAME, unique=True, max_size=5))
    hosts = {
        name: PlannedHost(
            host=name,
            node=draw(NAME),
            state=draw(st.sampled_from([record.TO_CHANGE, CURRENT, *record.LEFT_OUT])),
            batch=draw(st.none() | COUNT),
            from_version=draw(VERSION),
            to_version=draw(VERSION),
            rollback_to=draw(VERSION),
            why=draw(WHY),
            unsure=draw(st.booleans()),
        )
        for name in names
    }
    return Record(
        id=draw(NAME),
        service=draw(NAME),
        version=draw(VERSION),
        direction=draw(st.sampled_from(["deploy", "rollback"])),
        state=draw(st.sampled_from(STATES)),
        description=draw(TEXT),
        uncovered=tuple(draw(st.lists(NAME, max_size=3))),
        message=draw(TEXT),
        holder=draw(TEXT),
        origin=draw(TEXT),
        started=draw(st.none() | TEXT),
        finished=draw(st.none() | TEXT),
        hosts=hosts,
        failure_budget=draw(COUNT),
        options=draw(st.dictionaries(st.sampled_from(record.SETTINGS), COUNT | st.booleans() | TEXT)),
        summary=draw(st.dictionaries(st.sampled_from(OUTCOMES), COUNT)),
        resumes=draw(st.just("") | NAME),
        undoes=draw(st.just("") | NAME),
    )


@given(records())
def test_a_record_comes_back_as_it_was_written(one: Record) -> None:
    plan = one.plan_values()
    text = replace(one, chunks=len(plan)).to_json()
    assert Record.from_values(text, plan, one.id, one.service) == replace(one, chunks=len(plan))
    brief = Record.from_json(text, one.id, one.service)
    assert type(brief) is Brief
    assert brief.brief_dict() == one.brief_dict()


@given(
    st.text()
    | st.recursive(
        st.none() | st.integers() | TEXT,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["state", "plan", "hosts", "batches", "outcome", "failure_budget"]), inner
            )
        ),
    ).map(json.dumps)
)
def test_what_cannot_be_read_hides_nothing(text: str) -> None:
    assert Record.from_json(text, "id", "web").state == record.FAILED
    assert Record.from_values(text, [text], "id", "web").state == record.FAILED
    assert Record.from_values(json.dumps({"state": "running", "plan": {"chunks": 1}}), [text], "id", "web").hosts == {}
    assert Outcome.from_json(text, "n1").outcome == HOST_FAILED


@pytest.mark.parametrize(
    "plan",
    [
        [],
        ["{}"],
        ['{"hosts":{"a":1},"uncovered":[]}'],
        ['{"hosts":{},"uncovered":[]}'] * 2,
    ],
)
def test_a_record_whose_plan_is_not_there_as_a_whole_is_shown_as_failed(plan: list[str]) -> None:
    text = json.dumps({"state": "running", "version": "2", "plan": {"chunks": 1}})
    one = Record.from_values(text, plan, "id", "web")
    assert (one.state, one.description, one.version) == ("failed", "Its plan in Consul cannot be read.", "2")
    assert Record.from_json(text, "id", "web").state == "running"


@pytest.mark.parametrize(
    ("state", "summary", "unsettled"),
    [
        ("running", {}, True),
        ("interrupted", {}, True),
        ("interrupted", {"ok": 1}, False),
        ("failed", {}, False),
        ("successful", {"ok": 1}, False),
    ],
)
def test_a_deployment_is_unsettled_until_somebody_wrote_what_became_of_it(
    state: str, summary: dict[str, int], unsettled: bool
) -> None:
    assert Brief("id", "web", "2", state=state, summary=summary).is_unsettled is unsettled


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_only_a_running_deployment_ends_and_none_begins_again(before: str, after: str) -> None:
    one = Record("id", "web", "2", state=before)
    if before == "running" and after != "running":
        assert one.become(after, description="x") == replace(one, state=after, description="x")
    else:
        with pytest.raises(HitlessError, match=f"is {before} and cannot become {after}"):
            one.become(after)


@pytest.mark.parametrize(
    ("results", "expected", "within"),
    [
        ([], "successful", False),
        (["ok", "current", "skipped"], "successful", False),
        (["ok", "rolled_back"], "failed", True),
        (["failed", "ok"], "failed", True),
        (["lost"], "failed", True),
        (["ok", "pending"], "failed", False),
        (["ok", "rolled_back", "pending"], "failed", False),
        (["rolled_back", "lost"], "failed", False),
    ],
)
def test_verdict(results: list[str], expected: str, within: bool) -> None:
    assert record.verdict(results) == expected
    assert within_budget(results, 1) is within


def planned(**hosts: int | None) -> Record:
    """Hosts and their batches; the node of each is `n-<host>`."""
    return Record(
        "id", "web", "2", hosts={name: PlannedHost(name, f"n-{name}", batch=batch) for name, batch in hosts.items()}
    )


def settle(one: Record, outcomes: dict[str, str], **known: Any) -> dict[str, str]:
    told = {
        name: Outcome(name, f"n-{name}", outcome, batch=one.hosts[name].batch) for name, outcome in outcomes.items()
    }
    found = record.settle(one, told, **{"begun": 0, "touched": (), "why": "why", **known})
    assert list(found) == list(one.hosts)
    assert all(found[name] is outcome for name, outcome in told.items())
    assert {ended.error for name, ended in found.items() if name not in told and ended.outcome == "lost"} <= {"why"}
    return {name: ended.outcome for name, ended in found.items()}


@pytest.mark.parametrize(
    ("outcomes", "known", "expected"),
    [
        # nothing was begun
        ({}, {}, {"a": "pending", "b": "pending", "c": "pending"}),
        # the gate let the first batch go, and no host of it left a trace
        ({}, {"begun": 1}, {"a": "lost", "b": "lost", "c": "pending"}),
        # a host of the batch ended, so that the other had its turn
        ({"a": "ok"}, {}, {"a": "ok", "b": "lost", "c": "pending"}),
        ({"a": "ok", "b": "rolled_back"}, {}, {"a": "ok", "b": "rolled_back", "c": "pending"}),
        # only its status tells that a turn had begun
        ({}, {"touched": ["n-c"]}, {"a": "pending", "b": "pending", "c": "lost"}),
        # the gate of the second batch named the lost one of the first
        ({"a": "ok", "b": "lost"}, {"begun": 2}, {"a": "ok", "b": "lost", "c": "lost"}),
        ({"c": "pending"}, {}, {"a": "pending", "b": "pending", "c": "pending"}),
    ],
)
def test_a_host_without_an_outcome_is_lost_or_was_not_begun(
    outcomes: dict[str, str], known: dict[str, Any], expected: dict[str, str]
) -> None:
    assert settle(planned(a=1, b=1, c=2), outcomes, **known) == expected


def test_a_host_outside_all_batches_is_never_lost_by_the_batches() -> None:
    assert settle(planned(a=1, b=None), {"a": "ok"}, begun=1) == {"a": "ok", "b": "pending"}


def test_hosts_that_get_no_turn_have_the_outcome_that_the_plan_says() -> None:
    hosts = {
        "a": PlannedHost("a", "n-a", state="current"),
        "b": PlannedHost("b", "n-b", state="other_owner", why="oncall: disk"),
        "c": PlannedHost("c", "n-c", state="unreachable", why="no route"),
        "d": PlannedHost("d", "n-d", batch=1),
        "e": PlannedHost("e", "n-e", batch=1),
    }
    told = record.outcomes_of(Record("id", "web", "2", hosts=hosts), {"n-e": Outcome("x", "n-e", "ok")})
    assert {name: one.outcome for name, one in told.items()} == {
        "a": "current",
        "b": "skipped",
        "c": "skipped",
        "e": "ok",
    }
    assert told["b"].error == "oncall: disk"
    assert told["e"].host == "e"
    ended = Record("id", "web", "2", hosts=hosts, state="failed", summary={"pending": 1})
    assert record.outcomes_of(ended, {})["d"] == Outcome("d", "n-d", "pending", batch=1)


def test_the_plan_gives_each_host_its_batch_and_the_order_of_turns() -> None:
    hosts = record.hosts_of(
        {
            "batches": [["b"], ["a"]],
            "hosts": {
                "a": {"node": "n-a", "state": "to_change", "from": "1", "to": "2", "rollback_to": "1"},
                "b": {},
                "c": {"state": "current", "to": "2"},
            },
        }
    )
    assert Record("id", "web", "2", hosts=hosts).batches == [["b"], ["a"]]
    assert list(hosts) == ["b", "a", "c"]
    assert hosts["a"] == PlannedHost("a", "n-a", "to_change", 2, "1", "2", "1")
    assert hosts["b"] == PlannedHost("b", "b", "to_change", 1)
    assert hosts["c"].batch is None


def test_a_plan_whose_batches_name_an_unknown_host_is_refused() -> None:
    with pytest.raises(HitlessError, match="not among its hosts: x"):
        record.hosts_of({"batches": [["x"]], "hosts": {}})


def test_the_key_of_a_record_is_small_however_many_hosts_there_are() -> None:
    hosts = {f"web{number}": PlannedHost(f"web{number}", f"n{number}", batch=number) for number in range(1, 10_001)}
    one = Record("id", "web", "2", hosts=hosts, uncovered=tuple(hosts), chunks=7)
    assert json.loads(one.to_json())["plan"] == {"hosts": 10_000, "batches": 10_000, "chunks": 7, "windows": []}
    assert len(one.to_json()) < 1000


def test_a_message_that_fits_into_no_key_is_refused_with_a_sentence() -> None:
    one = Record("d1", "web", "2", message="x" * VALUE_LIMIT)
    with pytest.raises(HitlessError, match=r"The record of d1 takes \d+ bytes.*Shorten the message"):
        one.to_json()


def test_only_plain_settings_are_kept() -> None:
    options = {
        "rollout_batch_size": [1, "10%"],
        "min_healthy": "50%",
        "rollout_deploy_command": "deploy --token s3cret",
        "rollout_health_url": "http://user:s3cret@localhost/",
        "rollout_strict": None,
        "token": "s3cret",
    }
    assert record.settings_of(options) == {"batch_size": [1, "10%"], "min_healthy": "50%"}
