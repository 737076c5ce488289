# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The times of the week in which hosts may begin, rollout_windows (a private helper of this collection). Pure.

A window is ``Mon-Thu 09:00-16:00 Europe/Berlin``: days, from and to on the wall clock there, a time zone. One that ends
before it begins ends on the next day. The wall clock counts: on the night when clocks change a window is an hour longer
or shorter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?P<days>[A-Za-z, -]+?)\s+(?P<begin>\d{1,2}:\d\d)\s*-\s*(?P<end>\d{1,2}:\d\d)\s+(?P<zone>\S+)")
_AHEAD = 8
"""Days looked ahead for the next opening: a week, and one more for a window that clocks leave out."""


@dataclass(frozen=True)
class ChangeWindow:
    """One window of each week.

    :param days: on which it begins, 0 for Monday.
    """

    days: frozenset[int]
    begin: time
    end: time
    zone: ZoneInfo

    def on(self, day: date) -> tuple[datetime, datetime]:
        """When it begins and ends, in UTC, where it begins on a day."""
        last = day if self.end > self.begin else day + timedelta(days=1)
        return self._at(day, self.begin), self._at(last, self.end)

    def spans(self, now: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Those that may hold ``now``, and those of the days to come."""
        today = now.astimezone(self.zone).date()
        for offset in range(-1, _AHEAD + 1):
            day = today + timedelta(days=offset)
            if day.weekday() in self.days:
                begin, end = self.on(day)
                if begin < end:  # clocks may leave all of it out
                    yield begin, end

    def _at(self, day: date, clock: time) -> datetime:
        return datetime.combine(day, clock, self.zone).astimezone(timezone.utc)


def parse_windows(value: object, name: str) -> list[str]:
    """A list of windows, or text with semicolons between them, as it was written.

    :raises HitlessError: one cannot be read, or never opens; the zone is not known here.
    """
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise HitlessError(f"{name} must be a list of windows such as 'Mon-Thu 09:00-16:00 UTC', and is {value!r}.")
    windows = [part.strip() for part in parts if part.strip()]
    for one in windows:
        parse_window(one, name)
    return windows


def parse_window(text: str, name: str = "rollout_windows") -> ChangeWindow:
    """One window; raises as :func:`parse_windows`."""
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise HitlessError(f"{name}: {text!r} is no window.", hint="Write it as 'Mon-Thu 09:00-16:00 Europe/Berlin'.")
    begin, end = (_clock(found[part], text, name) for part in ("begin", "end"))
    if found["begin"] == found["end"]:
        raise HitlessError(
            f"{name}: {text!r} never opens, since it ends when it begins.", hint="A whole day is 00:00-24:00."
        )
    return ChangeWindow(_days(found["days"], text, name), begin, end, _zone(found["zone"], name))


def closed(windows: Sequence[str], now: datetime | None = None) -> str:
    """Why no host may begin now; empty inside of a window, and where there are none."""
    if not windows:
        return ""
    at = now or datetime.now(timezone.utc)
    spans = [span for one in windows for span in parse_window(one).spans(at)]
    if any(begin <= at < end for begin, end in spans):
        return ""
    opens = min((begin for begin, _end in spans if begin > at), default=None)
    again = f"; the next one opens at {timestamp(opens)}" if opens else ""
    return f"it is outside of rollout_windows ({'; '.join(windows)}){again}"


def _clock(text: str, window: str, name: str) -> time:
    hour, minute = (int(part) for part in text.split(":"))
    if (hour, minute) == (24, 0):
        return time(0)
    if hour > 23 or minute > 59:
        raise HitlessError(f"{name}: {text} in {window!r} is no time of a day.")
    return time(hour, minute)


def _days(text: str, window: str, name: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, _dash, last = (one.strip().lower() for one in part.partition("-"))
        if first not in DAYS or (last or first) not in DAYS:
            raise HitlessError(f"{name}: {part.strip()!r} in {window!r} is no day; the days are Mon to Sun.")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days |= {(begin + offset) % 7 for offset in range((end - begin) % 7 + 1)}
    return frozenset(days)


def _zone(text: str, name: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise HitlessError(
            f"{name}: this controller knows no time zone {text!r}.",
            hint="Write UTC or a name such as Europe/Berlin; where those are missing too, install the system's tzdata.",
        ) from None
