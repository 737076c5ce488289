"""The evidence that a version is worse: how often it is wrong, looked at all the time, and how soon it is right."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._rollout.evidence import RATIOS, Count, Evidence

pytestmark = pytest.mark.oldest

ALPHA = 0.01
REQUESTS = 300
FEW, MANY = 300, 10_000
NONE, GOOD, BAD = Count(), Count(1, 0), Count(1, 1)


def alarms(runs: int, *, share: float, rate: float, tolerated: float = 1.0, worse: float = 1.0, seed: int = 1) -> int:
    """Runs in which the evidence ever reaches 1/alpha, looked at after each request.

    :param share: of the requests that the new version gets; ``rate``: of errors of the old one, in the middle of the
        run: it begins at a third of that and ends at five thirds.
    :param worse: how many times as many errors the new one makes.
    """
    rng, found = random.Random(seed), 0
    for _run in range(runs):
        evidence = Evidence(tolerated)
        for number in range(REQUESTS):
            is_new = rng.random() < share
            chance = rate * (1 / 3 + 4 / 3 * number / REQUESTS) * (worse if is_new else 1)
            one = BAD if rng.random() < chance else GOOD
            evidence.add(*((one, NONE) if is_new else (NONE, one)))
            if evidence.log_bets[0] and evidence.e >= 1 / ALPHA:
                found += 1
                break
    return found


WITHOUT_DIFFERENCE = [(0.1, 0.1), (0.25, 0.3), (0.9, 0.05)]


@pytest.mark.parametrize(("share", "rate"), WITHOUT_DIFFERENCE)
def test_it_is_seldom_wrong_though_it_is_looked_at_after_each_request(share: float, rate: float) -> None:
    # Chances are that at most 3 of 300 are; 9 would be less than one in a thousand.
    assert alarms(FEW, share=share, rate=rate) < 9


@pytest.mark.slow
@pytest.mark.parametrize(("share", "rate"), WITHOUT_DIFFERENCE)
def test_in_ten_thousand_runs_it_is_wrong_in_at_most_alpha(share: float, rate: float) -> None:
    assert alarms(MANY, share=share, rate=rate) <= ALPHA * MANY


def test_nor_is_it_where_the_new_version_is_better() -> None:
    assert alarms(FEW, share=0.25, rate=0.1, worse=0.3) == 0


def test_what_is_tolerated_is_no_alarm() -> None:
    assert alarms(FEW, share=0.25, rate=0.05, worse=2, tolerated=2) < 9
    assert alarms(FEW, share=0.25, rate=0.05, worse=16, tolerated=2) > FEW / 2


def test_it_finds_what_is_worse() -> None:
    assert alarms(FEW, share=0.25, rate=0.02, worse=20) == FEW


@pytest.mark.parametrize("tolerated", [1.0, 1.5])
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_a_block_without_a_difference_is_worth_nothing_on_average(
    tolerated: float, new: int, old: int, chance: float
) -> None:
    """What the docstring proves, calculated: for each possible number of errors, by how likely that is."""
    a, b = min(1.0, tolerated * chance), chance
    mean = 0.0
    for x in range(new + 1):
        for y in range(old + 1):
            likely = math.comb(new, x) * a**x * (1 - a) ** (new - x) * math.comb(old, y) * b**y * (1 - b) ** (old - y)
            if likely > 1e-12:
                evidence = Evidence(tolerated)
                evidence.add(Count(new, x), Count(old, y))
                mean += likely * evidence.e
    assert mean <= 1 + 1e-6


def test_one_side_alone_tells_nothing_until_there_is_the_other() -> None:
    evidence = Evidence()
    evidence.add(Count(50, 50), Count())
    assert evidence.e == 1
    evidence.add(Count(), Count(50, 0))
    assert evidence.e > 100


def test_what_was_asked_before_an_interruption_is_not_held_against_what_is_asked_later() -> None:
    evidence = Evidence()
    evidence.add(Count(), Count(1000, 0))
    evidence.interrupt()
    evidence.add(Count(10, 5), Count(10, 5))
    assert evidence.e < 1


def test_it_goes_on_from_what_an_earlier_run_has_seen() -> None:
    first = Evidence()
    first.add(Count(50, 2), Count(50, 0))
    assert Evidence(log_bets=first.log_bets).e == pytest.approx(first.e)
    assert Evidence(log_bets=[7.0]).e == 1, "of another version of this collection"


def test_it_can_become_neither_too_large_nor_too_small_to_calculate_with() -> None:
    evidence = Evidence()
    for _look in range(1000):
        evidence.add(Count(100, 100), Count(100, 0))
    assert math.isfinite(evidence.e)
    for _look in range(5000):
        evidence.add(Count(100, 0), Count(100, 100))
    assert 0 <= evidence.e < 1e-9
    assert len(evidence.log_bets) == len(RATIOS)
