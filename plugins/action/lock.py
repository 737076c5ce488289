# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a service's deployments."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Holder, refusal
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.operator import operator_of, origin_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction
from ansible_collections.hitless.consul.plugins.plugin_utils._controller import controller

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "deployment": {"type": "str", "default": ""},
    "note": {"type": "str", "default": ""},
    "holder": {"type": "str"},
    "wait": {"type": "float", "default": DEFAULTS["lock_wait"]},
    "ttl": {"type": "int", "default": 15},
    "keep": {"type": "bool", "default": True},
    "progress_deadline": {"type": "float"},
    "session": {"type": "str"},
}


def perform(task: Task, controller: Controller) -> dict[str, Any]:
    keys = task.keys(task.params["service"])
    if task.params["deployment"]:
        keys.deployment(task.params["deployment"])  # refuses what cannot stand in a key
    return (_absent if task.params["state"] == "absent" else _present)(task, keys, controller)


def _present(task: Task, keys: Keys, controller: Controller) -> dict[str, Any]:
    params = task.params
    if not 10 <= params["ttl"] <= 86400:
        raise HitlessError(f"ttl must be 10 to 86400 seconds, not {params['ttl']}: Consul allows no other.")
    progress_deadline = params["progress_deadline"] or 0
    if params["wait"] < 0 or progress_deadline < 0:
        raise HitlessError("wait and progress_deadline must not be negative.")
    held = lock.read_lock(task.consul, keys)
    if held and not held.alive:
        held = None
    if held and held.holder.deployment == params["deployment"]:
        session = lock.session_of(task.consul, keys, run=controller.name)
        if session:
            return {"changed": False, "session": session, "holder": asdict(held.holder), "waited": 0.0}
    holder = Holder.now(
        params["deployment"],
        params["holder"] or operator_of(task.variables),
        params["note"],
        origin_of(task.variables),
    )
    diff = {"before": asdict(held.holder) if held else {}, "after": asdict(holder)}
    result = {"changed": True, "session": "", "holder": asdict(holder), "waited": 0.0, "diff": diff}
    if not task.check_mode:
        began = time.monotonic()
        wanted = {name: params[name] for name in ("wait", "ttl", "keep")}
        session = lock.take(
            task.consul, keys, holder, controller, progress_deadline=progress_deadline, show=task.show, **wanted
        )
        return {**result, "session": session, "waited": round(time.monotonic() - began, 3)}
    if held and not params["wait"]:
        raise refusal(keys, held.holder)
    if held:
        task.warn(f"It would wait for the deployment lock of {keys.service}, which is held by {held.holder}.")
    return result


def _absent(task: Task, keys: Keys, controller: Controller) -> dict[str, Any]:
    params = task.params
    held = lock.read_lock(task.consul, keys)
    session = params["session"] or lock.session_of(
        task.consul, keys, run=controller.name, deployment=params["deployment"]
    )
    holder = asdict(held.holder) if held else {}
    ours = bool(held and session and held.session == session)
    if session and not task.check_mode:
        ours = lock.release(task.consul, keys, session)
    diff = {"before": holder, "after": {} if ours else holder}
    return {"changed": ours, "session": session or "", "holder": holder, "diff": diff}


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC

    def perform(self, task: Task) -> dict[str, Any]:
        return perform(task, controller())
