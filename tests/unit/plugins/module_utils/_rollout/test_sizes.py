"""Sizes of batches and minima: numbers, and percentages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import (
    minimum_of,
    parse_batch_size,
    parse_min_healthy,
    sizes_of,
)


@given(st.integers(0, 100), st.integers(0, 1000))
def test_a_minimum_in_percent_is_rounded_up(percent: int, registered: int) -> None:
    minimum = minimum_of(f"{percent}%", registered)
    assert (minimum - 1) * 100 < percent * registered <= minimum * 100


@pytest.mark.parametrize(
    ("given_size", "hosts", "sizes"),
    [(2, 5, [2]), ("25%", 10, [2]), ("25%", 3, [1]), ([1, "10%", "50%"], 20, [1, 2, 10])],
)
def test_batch_sizes_in_percent_are_rounded_down(given_size: object, hosts: int, sizes: list[int]) -> None:
    assert sizes_of(given_size, hosts) == sizes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (2, 2),
        ("2", 2),
        ("25 %", "25%"),
        ([1, "10%"], [1, "10%"]),
        ("1, 10%, 50%", [1, "10%", "50%"]),
        ('[1, "10%"]', [1, "10%"]),
    ],
)
def test_batch_sizes_are_read_from_text_too(value: object, parsed: object) -> None:
    assert parse_batch_size(value, "rollout_batch_size") == parsed


@pytest.mark.parametrize("value", [0, "0", -1, 1.5, True, "half", "0%", "120%", [], [1, 0], None])
def test_a_batch_size_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(HitlessError, match="rollout_batch_size"):
        parse_batch_size(value, "rollout_batch_size")


@pytest.mark.parametrize("value", [-1, "-1", False, "most", "101%"])
def test_a_minimum_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(HitlessError, match="rollout_min_healthy"):
        parse_min_healthy(value, "rollout_min_healthy")
