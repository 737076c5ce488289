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
    - The host as M(hitless.consul.plan) takes it, with its name in the inventory and in Consul, whether its connection
      worked, and why not.
  returned: always
  type: dict
  sample: {host: web1, node: web1, reachable: true, why: ""}
problem:
  description: What is wrong with a host that can be reached, as a sentence; empty where nothing is.
  returned: always
  type: str
  sample: ""
"""

from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, HostLost
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._task import AGENT_SPEC, CLUSTER_SPEC, Task, agent_node

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
        told = agent_node(task.agent)
    except HostLost as error:
        task.warn(f"{task.host.name} cannot be reached: {error}")
        return answer(task, expected, why=str(error))
    except ConsulError as error:
        # A token that may not read the agent is fine where somebody else names the node.
        return answer(task, expected, "" if error.status == 403 and expected else f"{task.host.name}: {error}")
    except HitlessError as error:
        return answer(task, expected, f"{task.host.name}: {error}")
    if expected and told != expected:
        return answer(
            task,
            expected,
            f"The agent asked on {task.host.name} is that of the node {told}, and the host is said to be the node "
            f"{expected}: set hitless_consul_agent_url (or consul_node) of this host right.",
        )
    return answer(task, told)


def answer(task: Task, node: str, problem: str = "", why: str = "") -> dict:
    found = {"host": task.host.name, "node": node or task.host.name, "reachable": not why, "why": why}
    return {"changed": False, "found": found, "problem": problem}


def main() -> None:
    run_module(ARGUMENT_SPEC, perform)


if __name__ == "__main__":
    main()
