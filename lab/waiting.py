# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for what a lab's processes do by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .errors import LabError

START_SECONDS = 60


def wait_until(
    what: str, condition: Callable[[], bool], seconds: float = START_SECONDS, log: Path | None = None
) -> None:
    """Return when `condition` holds; it is asked every 50 ms. LabError with the end of `log` otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            end = ""
            if log is not None and log.exists():
                end = "\n" + "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise LabError(f"{what}: not within {seconds:.0f} s{end}")
        time.sleep(0.05)
