# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded versions of a service on its nodes."""

from __future__ import annotations

from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance, read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import meta_version, read_versions
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "nodes": {"type": "list", "elements": "str"},
    "meta_key": {"type": "str", "default": "version", "no_log": False},
}


def perform(task: Task) -> dict[str, Any]:
    params = task.params
    keys = task.keys(params["service"])
    instances: dict[str, list[Instance]] = {}
    if params["nodes"] is None or params["meta_key"]:
        for instance in read_instances(task.consul, params["service"])[0]:
            instances.setdefault(instance.node, []).append(instance)
    nodes = sorted(instances) if params["nodes"] is None else params["nodes"]
    found = read_versions(task.consul, keys, nodes)
    return {
        "changed": False,
        "nodes": {
            node: {
                "version": there.version,
                "previous": there.previous,
                "meta_version": meta_version(instances.get(node, ()), params["meta_key"]),
                "status": there.status,
            }
            for node, there in found.items()
        },
    }


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC

    def perform(self, task: Task) -> dict[str, Any]:
        return perform(task)
