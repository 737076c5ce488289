# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a machine's service definitions, and has its agent read them."""

from __future__ import annotations

from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import registration
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import AGENT_SPEC, CLUSTER_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **AGENT_SPEC,
    "services": {"type": "list", "elements": "dict", "required": True},
    "phase": {"type": "str", "choices": ["check", "register"], "required": True},
    "deploy_timeout": {"type": "float", "default": DEFAULTS["deploy_timeout"]},
    "reload": {"type": "bool", "default": False},
    "deadline": {"type": "float", "default": 30},
}


def perform(task: Task) -> dict[str, Any]:
    params = task.params
    definitions = registration.read_definitions(params["services"], params["deploy_timeout"])
    if params["phase"] == "check":
        wanted = [
            {"id": one.id, "file": one.file, "present": one.present, "definition": dict(one.wanted)}
            for one in definitions
        ]
        return {"changed": False, "definitions": wanted}
    done = registration.register(
        task.agent, task.node, definitions, params["deadline"], reload=params["reload"], check_mode=task.check_mode
    )
    return {
        "changed": done.changed,
        "differences": done.before,
        "seconds": round(done.seconds, 3),
        "diff": {"before": {"catalog": done.before}, "after": {"catalog": []}},
    }


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC

    def perform(self, task: Task) -> dict[str, Any]:
        return perform(task)
