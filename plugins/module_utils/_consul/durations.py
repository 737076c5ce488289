# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations as Consul writes them, which are Go's: ``1m30s`` (a private helper of this collection)."""

from __future__ import annotations

import re

_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def is_duration(value: object) -> bool:
    """Whether Consul takes it for a duration in a configuration file."""
    return bool(_WHOLE.fullmatch(str(value)))


def seconds_of(duration: object) -> float:
    """A duration in seconds, 0 for none; some of Consul's answers hold nanoseconds as a number."""
    if isinstance(duration, (int, float)):
        return float(duration) / 1e9
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(str(duration or "")))
