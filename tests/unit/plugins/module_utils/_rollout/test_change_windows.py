"""Times of the week, in a time zone whose clocks change."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import change_windows
from ansible_collections.hitless.consul.plugins.module_utils._rollout.change_windows import closed, parse_windows

pytestmark = pytest.mark.oldest

WEEK = ["Mon-Thu 09:00-16:00 Europe/Berlin"]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def is_open(windows: list[str], text: str) -> bool:
    return not closed(windows, at(text))


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ("2026-11-23 07:59", False),  # Monday in winter, one hour ahead of UTC
        ("2026-11-23 08:00", True),
        ("2026-11-23 14:59", True),
        ("2026-11-23 15:00", False),
        ("2026-11-26 10:00", True),
        ("2026-11-27 10:00", False),  # Friday
        ("2026-06-22 06:59", False),  # Monday in summer, two hours ahead
        ("2026-06-22 07:00", True),
        ("2026-06-22 13:59", True),
        ("2026-06-22 14:00", False),
    ],
)
def test_the_clock_on_the_wall_counts(moment: str, open_: bool) -> None:
    assert is_open(WEEK, moment) == open_


def test_without_windows_it_is_always_open() -> None:
    assert closed([]) == ""


def test_past_midnight() -> None:
    windows = ["Fri 22:00-02:00 UTC"]
    assert [is_open(windows, f"2026-11-{moment}") for moment in ("27 21:59", "27 22:00", "28 01:59", "28 02:00")] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 3), ("2026-10-25", 5), ("2026-11-29", 4)],
    ids=["clocks go forward", "clocks go back", "neither"],
)
def test_the_night_in_which_clocks_change(day: str, hours: int) -> None:
    """Sunday 00:00 to 04:00: one hour less, one more."""
    begin = at(f"{day} 00:00") - timedelta(hours=6)
    minutes = [begin + timedelta(minutes=one) for one in range(24 * 60)]
    assert sum(not closed(["Sun 00:00-04:00 Europe/Berlin"], one) for one in minutes) == hours * 60


def test_a_window_that_clocks_leave_out_opens_in_the_next_week() -> None:
    """02:00 to 03:00 is not on the night of March 29."""
    why = closed(["Sun 02:00-03:00 Europe/Berlin"], at("2026-03-29 00:30"))
    assert "the next one opens at 2026-04-05T00:00:00Z" in why


def test_overlapping_ones_are_open_where_one_is() -> None:
    windows = ["Mon 08:00-12:00 UTC", "Mon 10:00-14:00 UTC"]
    assert [is_open(windows, f"2026-11-23 {clock}") for clock in ("07:59", "09:00", "11:00", "13:00", "14:00")] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_a_whole_day_and_days_across_the_weekend() -> None:
    windows = ["Sat-Mon, Wed 00:00-24:00 UTC"]
    assert [is_open(windows, f"2026-11-{day} 23:59") for day in range(23, 30)] == [
        *(True, False, True),
        *(False, False, True, True),
    ]


def test_the_next_opening_is_told() -> None:
    assert closed(WEEK, at("2026-11-28 12:00")) == (
        "it is outside of rollout_windows (Mon-Thu 09:00-16:00 Europe/Berlin); the next one opens at "
        "2026-11-30T08:00:00Z"
    )


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (7, "must be a list of windows"),
        ([7], "must be a list of windows"),
        ("Mon-Thu", "is no window"),
        ("Mon-Thu 9-16 UTC", "is no window"),
        ("Mon-Thu 09:00-16:00", "is no window"),
        ("Mon-Thu 09:00-25:00 UTC", "25:00 in 'Mon-Thu 09:00-25:00 UTC' is no time of a day"),
        ("Mon-Thu 09:60-10:00 UTC", "is no time of a day"),
        ("Monday 09:00-16:00 UTC", "'Monday' in 'Monday 09:00-16:00 UTC' is no day"),
        ("Mon 09:00-09:00 UTC", "never opens"),
        ("Mon 09:00-16:00 Europe/Atlantis", "knows no time zone 'Europe/Atlantis'"),
        ("Mon 09:00-16:00 ../../etc/passwd", "knows no time zone"),
    ],
)
def test_what_is_no_window_is_refused(value: object, why: str) -> None:
    with pytest.raises(HitlessError, match=".") as caught:
        parse_windows(value, "rollout_windows")
    assert why in str(caught.value)


def test_it_may_come_as_text() -> None:
    windows = ["Mon 09:00-16:00 UTC", "Tue 09:00-16:00 UTC"]
    assert parse_windows("; ".join(windows), "x") == windows
    assert parse_windows("", "x") == []


def test_without_time_zones_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise change_windows.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(change_windows, "ZoneInfo", nothing)
    with pytest.raises(HitlessError, match="install the system's tzdata"):
        parse_windows(WEEK, "rollout_windows")


@given(st.integers(0, 6), st.integers(0, 23), st.integers(0, 23), st.integers(0, 7 * 24 * 60))
def test_each_window_opens_within_a_week(day: int, begin: int, end: int, minutes: int) -> None:
    if begin == end:
        return
    window = [f"{change_windows.DAYS[day]} {begin:02}:30-{end:02}:30 UTC"]
    now = at("2026-11-23 00:00") + timedelta(minutes=minutes)
    why = closed(window, now)
    assert not why or "the next one opens at" in why
