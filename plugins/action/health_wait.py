# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for the health of a service."""

from __future__ import annotations

from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import health
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import AGENT_SPEC, CLUSTER_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **AGENT_SPEC,
    "service": {"type": "str", "required": True},
    "service_id": {"type": "str"},
    "tags": {"type": "list", "elements": "str", "default": []},
    "state": {"type": "str", "choices": ["passing", "checks_passing", "out_of_rotation"], "default": "passing"},
    "count": {"type": "int"},
    "stable_for": {"type": "float", "default": 0},
    "fresh": {"type": "bool", "default": False},
    "check_interval": {"type": "float", "default": DEFAULTS["check_interval"]},
    "accept_warning": {"type": "bool", "default": DEFAULTS["accept_warning"]},
    "deadline": {"type": "float", "default": DEFAULTS["healthy_deadline"]},
}


def perform(task: Task) -> dict[str, Any]:
    params = task.params
    node = task.node if params["count"] is None else None
    stable_for = params["stable_for"]
    instances, first = health.read_instances(task.consul, params["service"], node, params["tags"])
    instances = [one for one in instances if params["service_id"] in (None, one.service_id)]
    if params["fresh"]:
        stable_for = max(stable_for, health.freshness(instances, params["check_interval"]))
    wanted = health.Wanted(
        service=params["service"],
        state=params["state"],
        node=node,
        service_id=params["service_id"],
        tags=tuple(params["tags"]),
        count=1 if params["count"] is None else params["count"],
        stable_for=stable_for,
        accept_warning=params["accept_warning"],
    )
    if task.check_mode:  # What it would wait for has not been begun: tell how things stand.
        reached = health.Reached(instances, 0.0)
    else:
        reached = health.wait_for_health(task.consul, wanted, params["deadline"], first=first)
    return {
        "changed": False,
        "instances": [{"node": one.node, "id": one.service_id, "status": one.status} for one in reached.instances],
        "seconds": round(reached.seconds, 3),
    }


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC

    def perform(self, task: Task) -> dict[str, Any]:
        return perform(task)
