# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that is asked for by writing a key."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import trigger
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["posted", "read"], "required": True},
    "version": {"type": "raw"},
    "options": {"type": "dict", "default": {}},
}
CONSTRAINTS = {"required_if": [("state", "posted", ["version"])]}


def perform(task: Task) -> dict[str, Any]:
    keys = task.keys(task.params["service"])
    return _posted(task, keys) if task.params["state"] == "posted" else _read(task, keys)


def _posted(task: Task, keys: Keys) -> dict[str, Any]:
    params = task.params
    # Read as whoever follows it will.
    text = json.dumps({**params["options"], "version": params["version"]})
    wanted = trigger.parse_request(text, trigger.ALLOWABLE)
    changed = trigger.post(task.consul, keys, wanted, check_mode=task.check_mode)
    request = {"version": wanted.version, **wanted.options}
    return {"changed": changed, "state": trigger.REQUESTED, "request": request}


def _read(task: Task, keys: Keys) -> dict[str, Any]:
    if task.params["version"] is not None or task.params["options"]:
        raise HitlessError("version and options are for state: posted.")
    found = trigger.find(task.consul, keys)
    plain = found.pair.value.strip() if found.pair and not found.data else ""
    return {
        "changed": False,
        "state": found.state,
        "request": dict(found.data) or ({"version": plain} if plain else {}),
    }


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC
    constraints = CONSTRAINTS

    def perform(self, task: Task) -> dict[str, Any]:
        return perform(task)
