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
host:
  description: The host's name in the inventory.
  returned: always
  type: str
  sample: web1
reachable:
  description: Whether the host's connection worked.
  returned: always
  type: bool
  sample: true
node:
  description: The host's name in Consul; empty where nobody told it.
  returned: always
  type: str
  sample: web1
problem:
  description: What is wrong, as a sentence; empty where nothing is.
  returned: always
  type: str
  sample: ""
"""

from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, HostLost
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._task import AGENT_SPEC, CLUSTER_SPEC, Task, agent_node

ARGUMENT_SPEC = {**CLUSTER_SPEC, **AGENT_SPEC}
RETRY_FOR = 3.0
"""Seconds an agent that does not answer is tried: nothing has begun that would need patience."""


def perform(task: Task) -> dict:
    expected = str(task.params["node"] or task.node_hint or "")
    result = {"changed": False, "host": task.host.name, "reachable": True, "node": expected, "problem": ""}
    try:
        task.agent.retry_for = RETRY_FOR
        told = agent_node(task.agent)
    except HostLost as error:
        return {**result, "reachable": False, "problem": str(error)}
    except ConsulError as error:
        # A token that may not read the agent is fine where somebody else names the node.
        if error.status == 403 and expected:
            return result
        return {**result, "problem": str(error)}
    except HitlessError as error:
        return {**result, "problem": str(error)}
    if expected and told != expected:
        return {
            **result,
            "problem": f"The agent asked there is that of the node {told}, and {task.host.name} is said to be the node "
            f"{expected}: set hitless_consul_agent_url (or consul_node) of this host right.",
        }
    return {**result, "node": told}


def main() -> None:
    run_module(ARGUMENT_SPEC, perform)


if __name__ == "__main__":
    main()
