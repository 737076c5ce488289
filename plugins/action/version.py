# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded version of a service on a node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_delete
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import versions
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_version
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "node": {"type": "str"},
    "version": {"type": "raw"},
    "previous": {"type": "raw"},
    "expect": {"type": "raw"},
    "session": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
CONSTRAINTS = {"required_if": [("state", "present", ["version"])]}


def perform(task: Task) -> dict[str, Any]:
    params = task.params
    keys = task.keys(params["service"])
    wanted = _wanted(params)
    before = versions.read_version(task.consul, keys, task.node)
    expect = None
    if params["expect"] is not None:
        expected = checked_version(params["expect"], "expect") if params["expect"] != "" else None
        if before.version != expected:
            raise versions.changed_meanwhile(keys, before, expected)
        expect = before
    if wanted is None:
        after = replace(before, version=None, previous=None)
    else:
        version, previous = wanted
        if previous is None:
            previous = versions.previous_after(before, version)
        kept = before.previous if previous in (None, version) else previous
        after = replace(before, version=version, previous=kept or None)
    # Told by hand it is trusted, whatever a deployment left.
    after = replace(after, status=before.status if before.version_is_trusted else None)
    changed = after != before
    if changed and not task.check_mode:
        if wanted is None:
            versions.forget_version(task.consul, keys, task.node, session=params["session"], expect=expect)
        else:
            versions.record_version(
                task.consul,
                keys,
                task.node,
                version,
                previous=previous,
                session=params["session"],
                expect=expect,
                extra_ops=() if before.version_is_trusted else [kv_delete(keys.status(task.node))],
            )
    return {
        "changed": changed,
        "node": task.node,
        "version": after.version,
        "previous": after.previous,
        "diff": {"before": _shown(before), "after": _shown(after)},
    }


def _wanted(params: dict[str, Any]) -> tuple[str, str | None] | None:
    """Version and previous as asked for; None for absent."""
    if params["state"] == "absent":
        if params["version"] is not None or params["previous"] is not None:
            raise HitlessError("With state: absent there is no version and no previous to give.")
        return None
    previous = params["previous"]
    if previous not in (None, versions.FORGET):
        checked_version(previous, "previous")
    return checked_version(params["version"]), previous


def _shown(there: versions.NodeVersion) -> dict[str, Any]:
    return {"version": there.version, "previous": there.previous}


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC
    constraints = CONSTRAINTS

    def perform(self, task: Task) -> dict[str, Any]:
        return perform(task)
