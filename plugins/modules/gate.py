#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides whether a batch of a deployment may begin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gate
short_description: Decide whether the next batch of a deployment may begin
version_added: 0.1.0
description:
  - The lock is still ours, the failure budget and the progress deadline hold, and enough instances are healthy without
    this batch; for the last it waits.
  - Hosts of earlier batches without an outcome are recorded as lost.
  - It never fails, since a coordinator that fails would end the playbook; RV(stop) says why a batch may not begin.
author:
  - Hitless contributors (@hitless)
options:
  session:
    description: Session of the deployment's lock. Required unless O(in_rollout=true).
    type: str
  batch:
    description: Number of the batch, 1 for the first. Required unless O(in_rollout=true).
    type: int
  nodes:
    description: The batch's nodes. Required unless O(in_rollout=true).
    type: list
    elements: str
  leads:
    description: Whether this host decides for its batch; the others of the batch just pass.
    type: bool
    default: true
  announce:
    description:
      - Whether to record that the batch is begun. The role leaves that to M(hitless.consul.take_out) where nothing else
        comes before it.
    type: bool
    default: true
  stopped:
    description: Why an earlier batch was stopped; this one then is, too.
    type: str
    default: ""
  tags:
    description: Only instances with all these tags count.
    type: list
    elements: str
    default: []
  min_healthy:
    description: Instances that must stay healthy.
    type: int
    default: 0
  accept_warning:
    description: Whether warning counts as healthy.
    type: bool
    default: false
  failure_budget:
    description: Hosts rolled back, failed or lost that are tolerated.
    type: int
    default: 0
  progress_deadline:
    description: Seconds without any host finishing.
    type: float
    default: 3600
  healthy_deadline:
    description: Seconds to wait for enough healthy instances.
    type: float
    default: 300
extends_documentation_fragment:
  - hitless.consul.in_rollout
  - hitless.consul.cluster
  - hitless.consul.keys
  - hitless.consul.attributes
  - hitless.consul.attributes.info
seealso:
  - module: hitless.consul.plan
"""

EXAMPLES = r"""
- name: May the second batch begin
  hitless.consul.gate:
    service: web
    deployment: 20261123T142233Z-1.4.2-7f3a
    session: "{{ lock.session }}"
    batch: 2
    nodes: [web3, web4]
    min_healthy: 3
  register: gate
"""

RETURN = r"""
proceed:
  description: Whether the batch may begin.
  returned: always
  type: bool
  sample: true
stop:
  description: Why it may not; empty where it may.
  returned: always
  type: str
  sample: ""
coordinator:
  description: The host that decided.
  returned: always
  type: str
  sample: web-batch-2-of-3
lost:
  description: Hosts of earlier batches that were found lost.
  returned: always
  type: list
  elements: str
  sample: []
"""

import time
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import AskAgain, kv_check_session
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    parse_instances,
    service_query,
    with_tags,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import DeadlineExceeded, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout import gate
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    LOST,
    parse_timestamp,
    planned_outcome,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.step import IN_ROLLOUT_SPEC, unless_in_rollout
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import batch_op, outcome_ops, require

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    **IN_ROLLOUT_SPEC,
    "session": {"type": "str"},
    "batch": {"type": "int"},
    "nodes": {"type": "list", "elements": "str"},
    "leads": {"type": "bool", "default": True},
    "announce": {"type": "bool", "default": True},
    "stopped": {"type": "str", "default": ""},
    "tags": {"type": "list", "elements": "str", "default": []},
    "min_healthy": {"type": "int", "default": 0},
    "accept_warning": {"type": "bool", "default": False},
    "failure_budget": {"type": "int", "default": 0},
    "progress_deadline": {"type": "float", "default": 3600},
    "healthy_deadline": {"type": "float", "default": 300},
}
CONSTRAINTS = unless_in_rollout("session", "batch", "nodes")


def perform(task: Task) -> dict:
    if not task.params["leads"]:
        return {"changed": False}
    lost: list[str] = []
    try:
        stop = task.params["stopped"] or decide(task, lost)
    except HitlessError as error:
        stop = str(error)
    return {"changed": False, "proceed": not stop, "stop": stop, "lost": lost, "coordinator": task.host.name}


def decide(task: Task, lost: list[str]) -> str:
    """Why the batch may not begin, empty where it may; what it finds lost is recorded and added to ``lost``."""
    params = task.params
    keys, client, batch = task.keys(params["service"]), task.consul, params["batch"]
    found = require(client, keys, params["deployment"])
    if found.lock is None or found.lock.session != params["session"]:
        holder = f"; {found.lock.holder} has it now" if found.lock is not None and found.lock.alive else ""
        return f"the lock of {params['service']} is no longer held by this run{holder}"

    outcomes = [one for name, one in found.outcomes.items() if found.record.hosts[name].batch is not None]
    fence = kv_check_session(keys.lock, params["session"])
    for name in gate.lost_before(found.record, outcomes, batch):
        why = "it could not be reached any more during its turn"
        outcomes.append(planned_outcome(found.record.hosts[name], LOST, why))
        client.txn([fence, *outcome_ops(keys, params["deployment"], outcomes[-1])])
        lost.append(name)

    finished = [parse_timestamp(one.finished) for one in outcomes] + [parse_timestamp(found.record.started)]
    latest = max((at for at in finished if at), default=datetime.now(timezone.utc))
    idle = (datetime.now(timezone.utc) - latest).total_seconds()
    stop = gate.budget_stop(outcomes, params["failure_budget"]) or gate.progress_stop(idle, params["progress_deadline"])
    stop = stop or wait_for_minimum(task)
    if not stop and params["announce"]:
        client.txn([fence, batch_op(keys, params["deployment"], batch)])
    return stop


def wait_for_minimum(task: Task) -> str:
    """Waits until enough instances are healthy without this batch; the reason to stop where that takes too long."""
    params = task.params
    head = gate.Head(0, 0, 0)

    def enough(data: Any) -> bool | None:
        nonlocal head
        instances = with_tags(parse_instances(data), params["tags"])
        head = gate.head_of(instances, params["nodes"], accept_warning=params["accept_warning"])
        if gate.may_begin(head, params["min_healthy"]):
            return True
        raise AskAgain(params["healthy_deadline"])

    path, query = service_query(params["service"], dc=task.consul.connection.datacenter)
    started = time.monotonic()
    try:
        task.consul.watch(path, query, enough, started + params["healthy_deadline"])
    except DeadlineExceeded:
        return gate.healthy_stop(head, params["min_healthy"], time.monotonic() - started)
    return ""


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
