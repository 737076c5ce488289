# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs hitless.consul.lock in the controller process, and tells it of the run.

Ansible loads an action's file once, in the main process, before it forks the worker that runs the task; all workers
forked later inherit what the file holds. So the pipe made here ends when the main process and the last of its workers
are gone, however they ended. Programs that they execute, ssh for instance, do not inherit it (Python's pipes are not
inheritable), so that a connection kept open for later does not hold the lock.

The keeper gets the read end of the workers' results as well, and empties that pipe once the main process is dead: a
worker whose result is larger than the pipe could never end otherwise.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ansible.utils.display import Display

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.modules import lock as module
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

_READ_END, _WRITE_END = os.pipe()
_RUN = module.Run(name=f"run-{secrets.token_hex(8)}", pipe=_READ_END, controller=os.getpid())


class ActionModule(HitlessAction):
    module = module

    def _make_task(self, variables: Mapping[str, Any]) -> Task:
        task = super()._make_task(variables)
        run = replace(_RUN, results=_results())
        return module.LockTask(**{field.name: getattr(task, field.name) for field in fields(task)}, run=run)


def _results() -> int | None:
    """The read end of the pipe that workers write their results into; a worker's display uses the same."""
    reader = getattr(getattr(Display(), "_final_q", None), "_reader", None)
    return reader.fileno() if reader is not None else None
