"""Random deployments keep every promise, and a fault for each promise is found.

A seed that fails is named; SIMULATION_SEED=N runs that one alone, and its failure shows the whole story.
"""

from __future__ import annotations

import os
import random
import threading

import pytest

from .clock import START, Scheduler, Time
from .faults import FAULTS, FOUND_BY, broken_by
from .promises import PROMISES
from .scenario import scenario_of
from .simulation import simulate

FEW, MANY, PART = 100, 2000, 100
FOUND_WITHIN = sorted(range(2000), key=lambda seed: -scenario_of(seed).hosts)
"""Seeds within which a fault has to show: those of many hosts first, to which more happens."""

asked = os.environ.get("SIMULATION_SEED", "")


def keep_their_promises(seeds: range) -> None:
    broken = {}
    for seed in seeds:
        found = simulate(seed)
        if found.broken:
            broken[seed] = dict(found.broken)
    told = "\n".join(f"SIMULATION_SEED={seed}: {what}" for seed, what in broken.items())
    assert not broken, f"{len(broken)} of {len(seeds)} simulated deployments broke a promise:\n{told}"


if asked:

    def test_one_seed() -> None:
        found = simulate(int(asked), tells=True)
        print("\n".join(found.story))
        print(found.scenario)
        assert not found.broken


def test_a_few_deployments() -> None:
    keep_their_promises(range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(FEW, FEW + MANY, PART))
def test_many_deployments(start: int) -> None:
    keep_their_promises(range(start, start + PART))


def test_the_same_seed_is_the_same_story() -> None:
    for seed in (0, 7, 52):
        assert simulate(seed, tells=True).story == simulate(seed, tells=True).story


def test_there_is_a_fault_for_each_promise() -> None:
    assert {promise for promise, _patches in FAULTS.values()} == set(PROMISES)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str) -> None:
    promise = FAULTS[fault][0]
    with broken_by(fault):
        assert any(promise in simulate(seed).broken for seed in (FOUND_BY.get(fault, 0), *FOUND_WITHIN))


def test_a_thread_that_is_no_strand_keeps_its_own_time() -> None:
    scheduler = Scheduler(random.Random(1))
    thread = threading.Thread(target=Time(scheduler).sleep, args=(0.01,))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert scheduler.now == START
    scheduler.close()
