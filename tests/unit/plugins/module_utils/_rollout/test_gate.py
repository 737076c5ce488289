"""The decision at the head of a batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import parse_instances
from ansible_collections.hitless.consul.plugins.module_utils._rollout import gate
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, Record
from tests.unit.plugins.module_utils._consul.test_health import check, entry, maintenance

pytestmark = pytest.mark.oldest

FIVE = parse_instances(
    [
        entry(node="web1"),
        entry(node="web2"),
        entry(check("warning"), node="web3"),
        entry(check("critical"), node="web4"),
        entry(check(), maintenance(), node="web5"),
    ]
)


@pytest.mark.parametrize(
    ("nodes", "accept_warning", "expected"),
    [
        ([], False, gate.Head(5, 3, 3)),
        (["web1"], False, gate.Head(5, 3, 2)),
        (["web1", "web2"], False, gate.Head(5, 3, 1)),
        (["web4", "web5"], False, gate.Head(5, 3, 3)),
        (["web3"], True, gate.Head(5, 3, 2)),
        (["web3"], False, gate.Head(5, 3, 2, ("web3: web answers is warning",))),
        (["other"], False, gate.Head(5, 3, 3)),
    ],
)
def test_what_may_get_traffic_is_counted(nodes: list[str], accept_warning: bool, expected: gate.Head) -> None:
    assert gate.head_of(FIVE, nodes, accept_warning=accept_warning) == expected


def test_two_instances_on_one_node_go_together() -> None:
    twice = parse_instances([entry(), entry(service_id="web-2"), entry(node="web2")])
    assert gate.head_of(twice, ["web1"], accept_warning=False) == gate.Head(3, 3, 1)


@pytest.mark.parametrize(
    ("healthy", "without", "minimum", "expected"),
    [
        (5, 4, 3, True),
        (5, 3, 3, True),
        (5, 2, 3, False),
        (0, 0, 0, True),
        # It takes out only what is broken: that takes nothing away.
        (2, 2, 3, True),
        (0, 0, 3, True),
        (3, 2, 3, False),
    ],
)
def test_whether_a_batch_may_begin(healthy: int, without: int, minimum: int, expected: bool) -> None:
    assert gate.may_begin(gate.Head(5, healthy, without), minimum) is expected


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_our_own_action_never_goes_below_the_minimum(healthy: int, mine: int, minimum: int) -> None:
    without = max(0, healthy - mine)
    if gate.may_begin(gate.Head(20, healthy, without), minimum):
        assert without >= minimum or without == healthy


def outcome(host: str, ended: str, error: str = "") -> Outcome:
    return Outcome(host=host, node=host, outcome=ended, error=error)


@pytest.mark.parametrize(
    ("outcomes", "budget", "stop"),
    [
        ([], 0, ""),
        ([outcome("a", "ok"), outcome("b", "skipped"), outcome("c", "current")], 0, ""),
        ([outcome("a", "rolled_back")], 1, ""),
        ([outcome("a", "rolled_back", "x")], 0, "the failure budget of 0 is spent (a rolled back)"),
        (
            [outcome("a", "ok"), outcome("b", "failed"), outcome("c", "lost"), outcome("d", "skipped", "why")],
            1,
            "the failure budget of 1 is spent (b failed, c lost)",
        ),
    ],
)
def test_the_failure_budget(outcomes: list[Outcome], budget: int, stop: str) -> None:
    assert gate.budget_stop(outcomes, budget) == stop


def test_the_progress_deadline() -> None:
    assert gate.progress_stop(3600, 3600) == ""
    assert gate.progress_stop(3601, 3600) == (
        "no host has finished for 3601 s, more than rollout_progress_deadline (3600 s)"
    )


def test_hosts_of_earlier_batches_without_an_outcome_are_lost() -> None:
    batches = {"a": 1, "b": 1, "c": 2, "d": None}
    hosts = {name: PlannedHost(host=name, node=f"n-{name}", batch=batch) for name, batch in batches.items()}
    record = Record(id="x", service="web", version="1", hosts=hosts)
    written = [replace(outcome("a", "ok"), node="n-a")]
    assert gate.lost_before(record, written, 1) == []
    assert gate.lost_before(record, written, 2) == ["b"]
    assert gate.lost_before(record, written, 3) == ["b", "c"]
    assert gate.lost_before(record, [*written, replace(outcome("b", "failed"), node="n-b")], 3) == ["c"]


def test_a_batch_that_warns_does_not_begin() -> None:
    """Whatever the minimum: it would get no traffic back."""
    head = gate.head_of(FIVE, ["web3", "web4"], accept_warning=False)
    assert not gate.may_begin(head, 0)
    assert gate.may_begin(gate.head_of(FIVE, ["web3", "web4"], accept_warning=True), 0)
    assert gate.healthy_stop(head, 0, 300.4) == (
        "a check of what comes next still warns after 300 s (web3: web answers is warning), so that no deployment "
        "could be verified by it (repair it, or set rollout_accept_warning: true)"
    )


def test_why_it_stops_where_too_few_are_healthy() -> None:
    assert gate.healthy_stop(gate.Head(5, 3, 2), 3, 300.4) == (
        "only 3 of 5 instances are healthy after 300 s, and going on would leave 2, fewer than the minimum of 3 "
        "(rollout_min_healthy)"
    )
