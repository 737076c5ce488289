"""How a host ended, and what many of those come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import (
    ERROR_LIMIT,
    OUTPUT_LIMIT,
    Outcome,
    budget_spent,
    summary_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import OUTCOMES
from tests.unit.plugins.module_utils._rollout.test_record import COUNT, NAME, TEXT, VERSION

outcomes = st.builds(
    Outcome,
    host=NAME,
    node=NAME,
    outcome=st.sampled_from(OUTCOMES),
    from_version=VERSION,
    to_version=VERSION,
    batch=st.none() | COUNT,
    started=st.none() | TEXT,
    finished=st.none() | TEXT,
    seconds=st.none() | st.integers(0, 100000).map(lambda hundredths: hundredths / 100),
    error=TEXT,
    output=TEXT,
)


@given(outcomes)
def test_an_outcome_comes_back_as_it_was_written(one: Outcome) -> None:
    assert Outcome.from_json(one.to_json(), one.node) == one


@given(st.lists(st.sampled_from(OUTCOMES)))
def test_each_host_is_counted_once_and_spends_at_most_once(results: list[str]) -> None:
    assert sum(summary_of(results).values()) == len(results)
    spent = budget_spent([Outcome(str(number), str(number), one) for number, one in enumerate(results)])
    assert spent == sum(one in ("rolled_back", "untouched", "regressed", "failed", "lost") for one in results)


def test_error_and_output_are_bounded_and_the_end_of_the_output_is_kept() -> None:
    told = Outcome("a", "a", "failed", error="e" * 10000, output="x" * 20000 + "the end").as_dict()
    assert len(told["error"]) == ERROR_LIMIT
    assert len(told["output"]) == OUTPUT_LIMIT
    assert told["output"].endswith("the end")


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(HitlessError, match="'fine' is no outcome"):
        Outcome("a", "a", "fine").to_json()
