"""Durations as Consul writes them."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.durations import is_duration, seconds_of

pytestmark = pytest.mark.oldest


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("1h0m0s", 3600),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("250µs", 0.00025),
        ("0s", 0),
        ("", 0),
        (None, 0),
        (90_000_000_000, 90),
    ],
)
def test_durations(duration: object, seconds: float) -> None:
    assert seconds_of(duration) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["10s", "1h30m", "1.5s", "250µs", "0s"])
def test_what_consul_takes(value: str) -> None:
    assert is_duration(value)


@pytest.mark.parametrize("value", ["", "10", 10, None, "10 s", "s", "-1s", "1d"])
def test_what_it_does_not_take(value: object) -> None:
    assert not is_duration(value)
