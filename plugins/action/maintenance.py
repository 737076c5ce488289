# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance of a service or node, seen in the catalog."""

from __future__ import annotations

from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import AGENT_SPEC, CLUSTER_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **AGENT_SPEC,
    "service": {"type": "str"},
    "service_id": {"type": "str"},
    "state": {"type": "str", "choices": ["enabled", "disabled"], "default": "enabled"},
    "reason": {"type": "str", "default": "maintenance"},
    "owner": {"type": "str", "default": "ansible"},
    "deadline": {"type": "float", "default": 60},
}


def perform(task: Task) -> dict[str, Any]:
    params = task.params
    owner = params["owner"]
    if owner.split() != [owner]:
        raise HitlessError(f"owner must be one word, not {owner!r}.")
    target = maintenance.Target(task.node, params["service"], params["service_id"])
    reason = f"{owner} {params['reason']}".strip()
    options = {"within": params["deadline"], "check_mode": task.check_mode}

    def ours(found: str) -> bool:
        return bool(found.partition(" ")[0] == owner)

    if params["state"] == "enabled":
        change = maintenance.enable(task.consul, task.agent, target, reason, ours, **options)
    else:
        change = maintenance.disable(task.consul, task.agent, target, ours, **options)
    return {
        "changed": change.changed,
        "node": target.node,
        # As it stands, or stood: Consul keeps the first one.
        "reason": next((found for found in (*change.after.values(), *change.before.values()) if found), ""),
        "instances": [name for name in change.after if name],
        "diff": {"before": {"maintenance": change.before}, "after": {"maintenance": change.after}},
    }


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC

    def perform(self, task: Task) -> dict[str, Any]:
        return perform(task)
