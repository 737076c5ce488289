# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a host in maintenance between the tasks of its turn too, and while tasks of the user run there (a private
helper of this collection).

Ansible runs each task in a process of its own, which ends with it, and the user's tasks in others. So the watch over
the maintenance lives in a process beside them, from the beginning of the drain to the return to rotation. It says
nothing, and ends with the run: with the last process that holds the other end of its pipe, however that ended.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_watch import MaintenanceWatch
from ansible_collections.hitless.consul.plugins.module_utils._consul.process_file import (
    ID_SIZE,
    end_process,
    try_lock,
    write_id,
)

ENDS_WITHIN = 60.0
"""Seconds that a request which it has begun may take; after that it is killed."""
_DROPPED = b"dropped"


@dataclass(frozen=True)
class Run:
    """The run of Ansible that a guard, or another process beside it, belongs to.

    :param alive: read end of a pipe that ends with the run.
    :param leave: called in the process beside it: it lets go of all that makes that a process of the run.
    """

    alive: int
    leave: Callable[[], None]

    def detach(self) -> None:
        """Make this process, which was forked from one of the run, one beside it, without its terminal."""
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        self.leave()


class MaintenanceGuard:
    """The guard of one host in one run.

    Its file, see process_file.py, tells also whether the maintenance was dropped.

    :param session: of the run's lock; ``node``: of the host.
    """

    def __init__(self, run: Run, session: str, node: str) -> None:
        self._run = run
        name = hashlib.sha256(f"{session} {node}".encode()).hexdigest()[:32]
        self._file = Path(tempfile.gettempdir(), f"hitless-guard-{name}")

    def start(self, watch: Callable[[], MaintenanceWatch]) -> None:
        """Begin, unless it has begun; no thread may run here.

        :param watch: makes the watch, with connections of its own; it is called in the guard's process.
        """
        file = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not try_lock(file):
                return
            os.ftruncate(file, 0)
            if not os.fork():
                self._live(file, watch)
        finally:
            os.close(file)

    def end(self) -> bool:
        """End it where there is one, before the maintenance ends -> whether it had to put the maintenance back."""
        try:
            file = os.open(self._file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            end_process(file, ENDS_WITHIN)
            return _DROPPED in os.pread(file, 100, 0)
        finally:
            self._file.unlink(missing_ok=True)
            os.close(file)

    def _live(self, file: int, watch: Callable[[], MaintenanceWatch]) -> None:
        """The guard's process; it never returns into the code that has started it."""
        try:
            write_id(file)
            wake, woken = os.pipe()
            os.set_blocking(woken, False)
            signal.signal(signal.SIGTERM, lambda number, frame: _wake(woken))
            self._run.detach()
            with watch() as watching:
                ended = select.select([self._run.alive, wake], [], [])[0]
            if watching.dropped:
                os.pwrite(file, _DROPPED, ID_SIZE)
            if wake not in ended:  # nobody will ask any more
                self._file.unlink(missing_ok=True)
        finally:
            os._exit(0)


def _wake(pipe: int) -> None:
    with suppress(BlockingIOError):
        os.write(pipe, b"T")
