#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a host's own Consul agent who it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reach
short_description: See whether a host and its Consul agent can be reached
version_added: 0.1.0
description:
  - One call through the host's connection to its own agent, all hosts at once, before a deployment begins.
  - It never fails for a host that cannot be reached; the result says so, and the plan decides.
author:
  - Hitless contributors (@hitless)
options:
  mode:
    description:
      - V(agent) connects to nothing, since the machine's own deploy agent does the work; the plan finds by Consul's own
        health of the node whether it is there.
    type: str
    choices: [push, agent]
    default: push
extends_documentation_fragment:
  - hitless.consul.cluster
  - hitless.consul.agent
  - hitless.consul.attributes
  - hitless.consul.attributes.info
seealso:
  - module: hitless.consul.plan
"""

EXAMPLES = r"""
- name: Which hosts can be reached
  hitless.consul.reach:
  register: reached
"""

RETURN = r"""
found:
  description:
    - The host as M(hitless.consul.plan) takes it, with its name in the inventory and in Consul, the datacenter that
      its agent tells, whether its connection worked, and why not.
  returned: always
  type: dict
  sample: {host: web1, node: web1, reachable: true, why: ""}
problem:
  description: What is wrong with a host that can be reached, as a sentence; empty where nothing is.
  returned: always
  type: str
  sample: ""
"""

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import AGENT_SPEC, CLUSTER_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout.reach import reach

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **AGENT_SPEC,
    "mode": {"type": "str", "choices": ["push", "agent"], "default": "push"},
}
RETRY_FOR = 3.0
"""Seconds an agent that does not answer is tried: nothing has begun that would need patience."""


def perform(task: Task) -> dict:
    expected = str(task.params["node"] or task.node_hint or "")
    if task.params["mode"] == "agent":
        return answer(task, expected)
    try:
        task.agent.retry_for = RETRY_FOR
    except HitlessError as error:  # its options cannot be right
        return answer(task, expected, f"{task.host.name}: {error}")
    found = reach(task.agent, task.host.name, expected, str(task.options.get("datacenter") or ""))
    return answer(task, found.node, found.problem, found.lost, found.datacenter)


def answer(task: Task, node: str, problem: str = "", why: str = "", datacenter: str = "") -> dict:
    found = {"host": task.host.name, "node": node or task.host.name, "reachable": not why, "why": why}
    if datacenter:
        found["datacenter"] = datacenter
    return {"changed": False, "found": found, "problem": problem}


def main() -> None:
    run_module(ARGUMENT_SPEC, perform)


if __name__ == "__main__":
    main()
