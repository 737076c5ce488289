# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times as they stand in keys (a private helper of this collection)."""

from __future__ import annotations

from datetime import datetime, timezone


def timestamp(at: datetime | None = None) -> str:
    """Now, or ``at``, as it stands in keys: ``2026-11-23T14:22:33Z``."""
    return f"{(at or datetime.now(timezone.utc)).astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def parse_timestamp(text: str | None) -> datetime | None:
    """A time as :func:`timestamp` writes it; None for anything else."""
    try:
        return datetime.strptime(text or "", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def seconds_between(started: str | None, finished: str | None) -> float | None:
    """Seconds from one time to another; None where either is unknown."""
    begin, end = parse_timestamp(started), parse_timestamp(finished)
    return (end - begin).total_seconds() if begin and end else None
