# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run of Ansible as the keeper of a lock sees it (a private helper of this collection).

Ansible loads an action's file, and with it this one, once, in the main process, before it forks the worker that runs
the task; all workers forked later inherit what the file holds. So the pipe made here ends when the main process and the
last of its workers are gone, however they ended. Programs that they execute, ssh for instance, do not inherit it
(Python's pipes are not inheritable), so that a connection kept open for later does not hold the lock.

The keeper gets the read end of the workers' results as well, and empties that pipe once the main process has ended: a
worker whose result is larger than the pipe could never end otherwise.
"""

from __future__ import annotations

import io
import os
import secrets
import sys
from dataclasses import replace

from ansible.utils.display import Display

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance_guard
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller
from ansible_collections.hitless.consul.plugins.plugin_utils._ansible_internals import results_pipe

_READ_END, _WRITE_END = os.pipe()
_CONTROLLER = Controller(name=f"run-{secrets.token_hex(8)}", pipe=_READ_END, process=os.getpid())

if isinstance(sys.stdout, io.TextIOWrapper):
    # Ansible's display leaves it to Python when a line is written: into a pipe or a file (tee, most CI) that is as the
    # next task is forked. What happens in a host's turn would be read minutes later.
    sys.stdout.reconfigure(line_buffering=True)


def controller() -> Controller:
    """This run, for ``lock.take``."""
    return replace(_CONTROLLER, results=results_pipe())


def guarded_run() -> maintenance_guard.Run:
    """This run, for a guard."""
    return maintenance_guard.Run(alive=_READ_END, leave=_leave)


def _leave() -> None:
    """What is forked from a worker holds the pipe's end too, and would keep the lock; what it shows nobody reads."""
    os.close(_WRITE_END)
    Display().verbosity = 0
