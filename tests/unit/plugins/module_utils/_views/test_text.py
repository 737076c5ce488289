"""Text for a terminal."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._views.text import duration


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.9, "1 m 0 s"),
        (72, "1 m 12 s"),
        (3599.9, "1 h 0 m"),
        (7400, "2 h 3 m"),
        (100000, "1 d 3 h"),
    ],
)
def test_durations(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected
