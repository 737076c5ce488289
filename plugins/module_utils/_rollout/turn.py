# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tasks of one host's turn share: take_out, bring_back, rescue (a private helper of this collection)."""

from __future__ import annotations

from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    AGENT_SPEC,
    CLUSTER_SPEC,
    KEYS_SPEC,
    Task,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.rotation import Turn

TURN_SPEC: dict[str, dict[str, Any]] = {
    **CLUSTER_SPEC,
    **AGENT_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "deployment": {"type": "str", "required": True},
    "session": {"type": "str", "default": ""},
    "scope": {"type": "list", "elements": "str", "default": ["service"]},
    "tags": {"type": "list", "elements": "str", "default": []},
}


def turn_of(task: Task) -> Turn:
    """The turn that a task's options describe."""
    params = task.params
    return Turn(
        cluster=task.consul,
        agent=task.agent,
        keys=task.keys(params["service"]),
        deployment=params["deployment"],
        node=task.node,
        session=params["session"],
        scope=params["scope"],
        tags=tuple(params["tags"]),
    )
