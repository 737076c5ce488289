#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a host out of rotation for its deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: take_out
short_description: Take a host out of rotation for its deployment, and drain it
version_added: 0.1.0
description:
  - Maintenance on, seen in the catalog, and the drain time waited out from that moment.
  - The maintenance names the deployment, so that a later run can prove whose it is.
  - Somebody else's maintenance makes it fail; that of an earlier, dead deployment of the service is taken over.
  - It is the first of the three steps of a host in the role C(hitless.consul.rollout).
author:
  - Hitless contributors (@hitless)
options:
  session:
    description: Session of the deployment's lock. With it the step is refused once the lock is lost.
    type: str
    default: ""
  scope:
    description:
      - What goes into maintenance. V(service) is the instances of O(service), V(node) the whole node; else service
        names, which should hold O(service) too.
    type: list
    elements: str
    default: [service]
  tags:
    description: Only instances of O(service) with all these tags.
    type: list
    elements: str
    default: []
  drain_time:
    description: Seconds to wait after the catalog shows the maintenance.
    type: float
    default: 10
  attempt:
    description: What follows. V(rollback) says that a deployment has begun on the host already.
    type: str
    choices: [deploy, rollback]
    default: deploy
  started:
    description: When the host's turn began, where this is its rollback; else it begins now.
    type: str
  batch:
    description: Number of the host's batch. Where given, the deployment's record says from now on that it is begun.
    type: int
extends_documentation_fragment:
  - hitless.consul.in_rollout
  - hitless.consul.cluster
  - hitless.consul.agent
  - hitless.consul.keys
  - hitless.consul.attributes
  - hitless.consul.attributes.diff
seealso:
  - module: hitless.consul.bring_back
  - module: hitless.consul.maintenance
"""

EXAMPLES = r"""
- name: Take this host out of rotation
  hitless.consul.take_out:
    service: web
    deployment: 20261123T142233Z-1.4.2-7f3a
    drain_time: 5
"""

RETURN = r"""
instances:
  description: The IDs of the instances taken out; an empty name stands for the node.
  returned: success
  type: list
  elements: str
  sample: [web]
shown_after:
  description: Seconds until the catalog showed the maintenance.
  returned: success
  type: float
  sample: 0.006
started:
  description: When the host's turn began.
  returned: success
  type: str
  sample: "2026-11-23T14:22:40Z"
deployment:
  description: Id of the deployment.
  returned: success
  type: str
  sample: 20261123T142233Z-1.4.2-7f3a
foreign:
  description: Somebody else's maintenance is in the way.
  returned: failure, if so
  type: bool
  sample: true
"""

from ansible_collections.hitless.consul.plugins.module_utils import _rotation as rotation
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._record import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._step import IN_ROLLOUT_SPEC, unless_in_rollout
from ansible_collections.hitless.consul.plugins.module_utils._task import Task
from ansible_collections.hitless.consul.plugins.module_utils._turn import TURN_SPEC, turn_of

ARGUMENT_SPEC = {
    **TURN_SPEC,
    **IN_ROLLOUT_SPEC,
    "drain_time": {"type": "float", "default": 10},
    "attempt": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
    "batch": {"type": "int"},
    "started": {"type": "str"},
}
CONSTRAINTS = unless_in_rollout()


def perform(task: Task) -> dict:
    params = task.params
    rollback = params["attempt"] == "rollback"
    started = (params["started"] if rollback else None) or timestamp()
    done = rotation.take_out(
        turn_of(task), params["drain_time"], batch=params["batch"], rollback=rollback, check_mode=task.check_mode
    )
    return {
        "changed": done.changed,
        "instances": done.instances,
        "shown_after": round(done.shown_after, 3),
        "started": started,
        "deployment": params["deployment"],
        "diff": {"before": {"maintenance": not done.changed}, "after": {"maintenance": True}},
    }


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
