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
  - Maintenance on, seen in the catalog, and the drain time waited out from that moment; or until the load balancers
    themselves show that the host is drained (O(drain_observe)).
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
  phase:
    description:
      - V(out) ends when the catalog shows the maintenance, V(drain) begins there, V(all) does both. What takes the host
        out at a load balancer that does not follow Consul belongs between the two.
    type: str
    choices: [all, out, drain]
    default: all
  left:
    description: What the task with O(phase=out) returned. Needed with O(phase=drain).
    type: dict
  drain_time:
    description:
      - Seconds to wait after the catalog shows the maintenance; with O(phase=drain) from when the task begins.
      - With O(drain_observe) this is for load balancers that cannot be observed.
    type: float
    default: 10
  drain_observe:
    description:
      - Addresses of the statistics of each HAProxy that sends requests to the host (C(stats uri), without C(;csv)).
        They are asked from the controller, and the drain is over when all of them show the host's instances out,
        without a session and without a queue.
      - A load balancer that does not answer is named and waited for by O(drain_time). One that still sends new requests
        after O(drain_most) makes the task fail.
    type: list
    elements: str
    default: []
  drain_least:
    description: Seconds that an observed drain lasts at least.
    type: float
    default: 1
  drain_most:
    description: Seconds after which sessions that are left are given up.
    type: float
    default: 60
  attempt:
    description: What follows. V(rollback) says that a deployment has begun on the host already.
    type: str
    choices: [deploy, rollback]
    default: deploy
  earlier_steps:
    description: The steps of the deployment that is rolled back, for the record.
    type: list
    elements: dict
    default: []
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
steps:
  description: The steps of the host's turn so far.
  returned: success
  type: list
  elements: dict
  sample:
    - {state: draining, at: "2026-11-23T14:22:40Z"}
    - {state: deploying, at: "2026-11-23T14:22:50Z"}
deployment:
  description: Id of the deployment.
  returned: success
  type: str
  sample: 20261123T142233Z-1.4.2-7f3a
drain_notes:
  description: What a person should know of the drain; each is shown as a warning too.
  returned: success, unless O(phase=out)
  type: list
  elements: str
  sample: ["http://lb2:8404/ does not answer (timed out). It was waited for by the fixed time (10 s)."]
watched:
  description: The host's servers on each observed load balancer, for O(left).
  returned: success, unless O(phase=drain)
  type: list
  elements: dict
  sample: [{url: "http://lb1:8404/", servers: [[web, web3]], blind: "", final: false}]
foreign:
  description: Somebody else's maintenance is in the way.
  returned: failure, if so
  type: bool
  sample: true
"""

import time
from dataclasses import asdict

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout import drain, rotation
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._rollout.step import IN_ROLLOUT_SPEC, unless_in_rollout
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import TURN_SPEC, turn_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import DEPLOYING, DRAINING

ARGUMENT_SPEC = {
    **TURN_SPEC,
    **IN_ROLLOUT_SPEC,
    "phase": {"type": "str", "choices": ["all", "out", "drain"], "default": "all"},
    "left": {"type": "dict"},
    "drain_time": {"type": "float", "default": 10},
    "drain_observe": {"type": "list", "elements": "str", "default": []},
    "drain_least": {"type": "float", "default": 1},
    "drain_most": {"type": "float", "default": 60},
    "attempt": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
    "batch": {"type": "int"},
    "earlier_steps": {"type": "list", "elements": "dict", "default": []},
    "started": {"type": "str"},
}
CONSTRAINTS = unless_in_rollout()


def perform(task: Task) -> dict:
    params = task.params
    how = rotation.Drain(params["drain_time"], params["drain_observe"], params["drain_least"], params["drain_most"])
    if params["phase"] == "drain":
        return drain_what_left(task, how)
    rollback = params["attempt"] == "rollback"
    began = timestamp()
    turn = turn_of(task)
    done = rotation.take_out(turn, how, batch=params["batch"], rollback=rollback, check_mode=task.check_mode)
    result = {
        "changed": done.changed,
        "instances": done.instances,
        "shown_after": round(done.shown_after, 3),
        "started": params["started"] if rollback and params["started"] else began,
        "steps": [
            *(params["earlier_steps"] if rollback else ()),
            {"state": "failed" if rollback else DRAINING, "at": began},
        ],
        "deployment": params["deployment"],
        "watched": [asdict(one) for one in done.watched],
        "diff": {"before": {"maintenance": not done.changed}, "after": {"maintenance": True}},
    }
    if params["phase"] == "out" or task.check_mode:
        return result
    # Nothing is left to drain where this very deployment had taken it out before.
    over, watched = (rotation.Drain(), []) if done.drained else (how, done.watched)
    return {**result, **drained(task, over, watched, done.shown_at, result["steps"])}


def drain_what_left(task: Task, how: rotation.Drain) -> dict:
    """The second half; whatever stands between the two has taken its time."""
    left = task.params["left"]
    if left is None:
        raise HitlessError("With phase drain, left is needed: what the task with phase out returned.")
    if task.check_mode:
        return {**left, "changed": False}
    watched = [drain.Watched(**{**one, "servers": [tuple(name) for name in one["servers"]]}) for one in left["watched"]]
    told = {name: left[name] for name in ("instances", "shown_after", "started", "deployment")}
    return {"changed": False, **told, **drained(task, how, watched, time.monotonic(), left["steps"])}


def drained(task: Task, how: rotation.Drain, watched: list, since: float, steps: list) -> dict:
    """Wait for the end of the drain: from then on the deployment may have begun."""
    notes = rotation.drained(turn_of(task), how, watched, since)
    for note in notes:
        task.warn(f"{task.node}: {note}")
    return {"drain_notes": notes, "steps": [*steps, {"state": DEPLOYING, "at": timestamp()}]}


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
