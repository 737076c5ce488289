"""Which counts of load balancers are evidence, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.comparison import Comparison
from ansible_collections.hitless.consul.plugins.module_utils._rollout.evidence import Count
from ansible_collections.hitless.consul.plugins.module_utils._rollout.haproxy import Server, Statistics

pytestmark = pytest.mark.oldest

SETTINGS = {"alpha": 0.01, "tolerated_ratio": 1, "slower_than": 0}
NEW, OLD = "10.0.0.1:80", "10.0.0.2:80"
SIDES = {NEW: "new", OLD: "old"}
LB, OTHER = "http://lb1/", "http://lb2/"


def shown(*servers: tuple[str, int, int], took: dict[str, int] | None = None) -> Statistics:
    """Servers in slots s1, s2, ..., each with address, requests and errors."""
    return Statistics(
        {
            ("web", f"s{number}"): Server(address, "UP", 0, 0, requests, errors, (took or {}).get(address, 0))
            for number, (address, requests, errors) in enumerate(servers, 1)
        },
        sessions_ever=0,
    )


def after(*looks: dict[str, Statistics], sides: list[dict[str, str]] | None = None, **changes: Any) -> Comparison:
    comparison = Comparison({**SETTINGS, **changes})
    for number, look in enumerate(looks):
        comparison.look(look, sides[number] if sides else SIDES)
    return comparison


def counts(comparison: Comparison) -> list[tuple[int, int]]:
    return [(one.requests, one.errors) for one in (comparison.counts["new"], comparison.counts["old"])]


def test_what_was_counted_before_is_nobodys() -> None:
    first = {LB: shown((NEW, 1000, 1000), (OLD, 5000, 0))}
    assert counts(after(first)) == [(0, 0), (0, 0)]
    assert counts(after(first, {LB: shown((NEW, 1010, 1002), (OLD, 5040, 1))})) == [(10, 2), (40, 1)]


def test_all_load_balancers_are_summed() -> None:
    looks = [{LB: shown((NEW, n, 0), (OLD, 4 * n, 0)), OTHER: shown((OLD, n, n))} for n in (0, 10)]
    assert counts(after(*looks)) == [(10, 0), (50, 10)]


def test_a_reload_begins_anew() -> None:
    looks = [{LB: shown((NEW, n, 0), (OLD, 100 + n, 0))} for n in (500, 3, 5)]
    assert counts(after(*looks))[0] == (2, 0)


def test_an_instance_that_is_changed_meanwhile_is_on_neither_side() -> None:
    looks = [{LB: shown((NEW, n, n), (OLD, n, 0))} for n in (0, 10, 20, 30)]
    sides = [{NEW: "old", OLD: "old"}, {OLD: "old"}, SIDES, SIDES]
    assert counts(after(*looks, sides=sides)) == [(10, 10), (10, 0)]


def test_a_slot_that_another_instance_takes_begins_anew() -> None:
    looks = [{LB: shown((NEW, 0, 0), (OLD, 0, 0))}, {LB: shown((OLD, 50, 5), (NEW, 70, 7))}]
    assert counts(after(*looks)) == [(0, 0), (0, 0)]


def test_a_load_balancer_that_did_not_answer_once_goes_on_where_it_was() -> None:
    looks = [{LB: shown((NEW, 0, 0), (OLD, 0, 0))}, {}, {LB: shown((NEW, 9, 1), (OLD, 9, 0))}]
    assert counts(after(*looks)) == [(9, 1), (9, 0)]


def test_only_what_both_were_asked_at_the_same_time_counts() -> None:
    """All instances have errors, from just before the new one gets its first requests on."""
    alone = [{LB: shown((NEW, 0, 0), (OLD, n, 0))} for n in range(0, 10_000, 1000)]
    both = [{LB: shown((NEW, n, n // 2), (OLD, 9000 + 4 * n, 2 * n))} for n in range(0, 100, 10)]
    sides = [{OLD: "old"}] * len(alone) + [SIDES] * len(both)
    comparison = after(*alone, *both, sides=sides)
    assert counts(comparison) == [(90, 45), (360, 180)]
    assert comparison.evidence.e < 1


@pytest.mark.parametrize("status", ["DOWN", "MAINT"])
def test_nor_does_it_while_an_instance_gets_no_requests(status: str) -> None:
    looks = [{LB: shown((NEW, n if n > 50 else 0, 0), (OLD, n, 0))} for n in (0, 50, 100, 150)]
    for one in looks[:2]:
        servers = dict(one[LB].servers)
        servers["web", "s1"] = replace(servers["web", "s1"], status=status)
        one[LB] = replace(one[LB], servers=servers)
    assert counts(after(*looks)) == [(50, 0), (50, 0)]


def test_it_says_that_it_is_worse() -> None:
    looks = [{LB: shown((NEW, n, n // 5), (OLD, 4 * n, 0))} for n in range(0, 61, 10)]
    comparison = after(*looks)
    assert comparison.worse == (
        "12 of 60 requests failed on new instances, 0 of 240 on old ones: worse (e > 1,000,000; 100 is enough)"
    )
    assert comparison.summary == comparison.worse


def test_it_says_that_it_is_not() -> None:
    looks = [{LB: shown((NEW, n, 0), (OLD, 4 * n, 4))} for n in (0, 100)]
    comparison = after(*looks)
    assert comparison.worse == ""
    assert comparison.summary.startswith("0 of 100 requests failed on new instances, 0 of 400 on old ones: no worse")


@pytest.mark.parametrize("old", [0, 400])
def test_it_says_that_there_is_nothing_to_compare(old: int) -> None:
    new = 0 if old else 100
    looks = [{LB: shown((NEW, share * new, 0), (OLD, share * old, 0))} for share in (0, 1)]
    assert after(*looks).summary.endswith(": nothing to compare")


def test_it_goes_on_where_an_earlier_run_of_the_deployment_was() -> None:
    looks = [{LB: shown((NEW, n, n // 5), (OLD, 4 * n, 0))} for n in range(0, 61, 10)]
    first = after(*looks)
    again = Comparison(SETTINGS, first.as_dict())
    assert again.counts == {"new": Count(60, 12), "old": Count(240, 0)}
    assert again.worse == first.worse
    assert again.as_dict() == first.as_dict()


# -- how long answers take ----------------------------------------------------------------------------------------


def slow(new: int, old: int, looks: int = 5, *, each: int = 3000, **changes: Any) -> Comparison:
    """The new instance was as quick as the old one before."""
    first = {LB: shown((NEW, 0, 0), (OLD, 0, 0), took={NEW: old, OLD: old})}
    rest = [{LB: shown((NEW, n * each, 0), (OLD, n * each, 0), took={NEW: new, OLD: old})} for n in range(1, looks + 1)]
    return after(first, *rest, **changes)


def test_it_is_told_and_stops_nothing_by_itself() -> None:
    comparison = slow(40, 10)
    assert comparison.worse == ""
    assert comparison.summary.endswith("; new instances answer in 40 ms, old ones in 10 ms")


def test_it_stops_where_a_factor_is_set_and_three_looks_agree() -> None:
    assert slow(40, 10, 2, slower_than=2).worse == ""
    assert slow(40, 10, 3, slower_than=2).worse == (
        "new instances answer in 40 ms, old ones in 10 ms: slower than 2 times"
    )
    assert slow(40, 10, 5, slower_than=4).worse == "", "a millisecond is the rounding of either"


def test_a_new_instance_has_to_have_answered_a_thousand_requests() -> None:
    assert slow(40, 10, 5, each=200, slower_than=2).worse == ""
    assert "answer in" not in slow(40, 10, 5, each=200).summary


def test_what_is_left_of_the_average_before_is_taken_out() -> None:
    """After 1,024 requests a share of 1/e of HAProxy's average is still that of the old version."""
    comparison = slow(29, 10, 1, each=1024)
    assert "new instances answer in 40 ms" in comparison.summary
