# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of a process beside a run, by which any process of the run finds and ends it (a private helper).

It begins with the process's id, and is locked for as long as the process lives, so that the id is never that of another
one.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress

ID_SIZE = 20
"""Bytes that the id takes at most; what the process tells stands behind them."""


def try_lock(file: int) -> bool:
    """Whether the file could be locked; it stays so until the last process that has it open closes it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_id(file: int) -> None:
    """By the process itself, which holds the file locked."""
    os.pwrite(file, b"%d\n" % os.getpid(), 0)


def end_process(file: int, within: float) -> None:
    """Return once the process has ended; the file is locked by who asks then.

    :param within: seconds after which it is killed.
    """
    until, number = time.monotonic() + within, signal.SIGTERM
    while not try_lock(file):
        with suppress(ProcessLookupError, ValueError):  # it has ended, or only begins
            os.kill(int(os.pread(file, ID_SIZE, 0).split(b"\n")[0]), number)
        time.sleep(0.02)
        if time.monotonic() >= until:
            number = signal.SIGKILL
