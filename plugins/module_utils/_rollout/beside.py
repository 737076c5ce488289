# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process beside the run of Ansible, which ends with it (a private helper of this collection).

Ansible runs each task in a process that ends with it. What goes on from the first host to the last one, whatever the
tasks do meanwhile, is forked from one of them; it holds nothing of the run but the end of a pipe by which it learns
that the run is over, however that ended. It says nothing itself: what it finds stands in Consul, see findings.py.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_guard import Run

Ended = Callable[[float], bool]
"""Waits for so many seconds -> whether the run is over."""


def start(run: Run, work: Callable[[Ended], None]) -> int:
    """Begin -> the id of the process; no thread may run here.

    :param work: called there; it takes connections of its own, and returns where there is nothing left to do.
    """
    process = os.fork()
    if process:
        return process
    try:
        run.detach()
        work(lambda seconds: bool(select.select([run.alive], [], [], seconds)[0]))
    finally:
        os._exit(0)
