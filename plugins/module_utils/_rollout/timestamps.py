# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times as they stand in keys (a private helper of this collection)."""

from __future__ import annotations

import re
from datetime import datetime, timezone

_WRITTEN = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z")


def timestamp(at: datetime | None = None) -> str:
    """Now, or ``at``, as it stands in keys: ``2026-11-23T14:22:33Z``."""
    return f"{(at or datetime.now(timezone.utc)).astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def parse_timestamp(text: str | None) -> datetime | None:
    """A time as :func:`timestamp` writes it; None for anything else.

    Not by strptime, whose module each worker of Ansible would load anew: three milliseconds a host.
    """
    found = _WRITTEN.fullmatch(text or "")
    try:
        return datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc) if found else None
    except ValueError:
        return None


def seconds_between(started: str | None, finished: str | None) -> float | None:
    """Seconds from one time to another; None where either is unknown."""
    begin, end = parse_timestamp(started), parse_timestamp(finished)
    return (end - begin).total_seconds() if begin and end else None
