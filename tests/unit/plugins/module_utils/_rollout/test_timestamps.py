"""Times as they stand in keys."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import (
    parse_timestamp,
    seconds_between,
    timestamp,
)

pytestmark = pytest.mark.oldest

ZONES = st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours)))


@given(st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1), timezones=ZONES))
def test_a_time_comes_back_to_the_second_in_utc(at: datetime) -> None:
    assert parse_timestamp(timestamp(at)) == at.replace(microsecond=0)


@pytest.mark.parametrize(
    "text", [None, "", "now", "2026-11-23 14:22:33", "2026-11-23T14:22:33", "2026-13-01T00:00:00Z"]
)
def test_anything_else_is_no_time(text: str | None) -> None:
    assert parse_timestamp(text) is None
    assert seconds_between(text, "2026-11-23T14:22:33Z") is None
    assert seconds_between("2026-11-23T14:22:33Z", text) is None


def test_seconds_between() -> None:
    assert seconds_between("2026-11-23T14:22:33Z", "2026-11-23T14:23:45Z") == 72
