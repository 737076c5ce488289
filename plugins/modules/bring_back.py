#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a host back into rotation after its deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bring_back
short_description: Prove a host's new process and bring it back into rotation
version_added: 0.1.0
description:
  - The new process answers, its own checks pass and stay so while it gets no traffic; then maintenance off, seen in the
    catalog, passing in rotation, and the version and the host's outcome recorded.
  - Where the deployment dropped the maintenance (an application that registers itself) it is put back first.
  - It is the last of the three steps of a host in the role C(hitless.consul.rollout); with a smoke test it runs in
    two halves.
author:
  - Hitless contributors (@hitless)
options:
  session:
    description: Session of the deployment's lock. With it each change is refused once the lock is lost.
    type: str
    default: ""
  scope:
    description: What is in maintenance, as in M(hitless.consul.take_out).
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
      - V(prove) ends before the maintenance does, V(return) begins there, V(all) does both.
    type: str
    choices: [all, prove, return]
    default: all
  deployed:
    description:
      - Whether a deployment may have changed the host. Where it was drained only, V(false) leaves the proof out, since
        the same process runs there as before.
    type: bool
    default: true
  version:
    description: The version that runs there now; recorded at the end where given.
    type: str
  previous:
    description: The version that ran before; recorded as where a rollback goes.
    type: str
  forget_previous:
    description: Delete what is recorded as previous instead, after a rollback by hand.
    type: bool
    default: false
  health_url:
    description:
      - Asked B(from the host) until it answers with 2xx; the proof that the new process answers.
      - Without it a passing check counts only when it must have run anew.
    type: str
    default: ""
  health_match:
    description: Regular expression that the answer of O(health_url) must match, the version for instance.
    type: str
    default: ""
  healthy_deadline:
    description: Seconds the host has to become healthy.
    type: float
    default: 300
  min_healthy_time:
    description: Seconds it must stay so.
    type: float
    default: 10
  check_interval:
    description: Seconds within which each check runs anew, where Consul does not tell (before 1.20).
    type: float
    default: 30
  accept_warning:
    description: Whether warning counts as healthy.
    type: bool
    default: false
  outcome:
    description: What is recorded of the host.
    type: str
    choices: [ok, rolled_back]
    default: ok
  host:
    description: The host's name in the record; its node's where not given.
    type: str
  batch:
    description: Number of the host's batch, for the record.
    type: int
  started:
    description: When the host's turn began, for the record.
    type: str
  earlier_steps:
    description: The steps before this one, for the record.
    type: list
    elements: dict
    default: []
  error:
    description: Why it was rolled back, for the record.
    type: str
    default: ""
  output:
    description: What the failed deployment printed, for the record.
    type: str
    default: ""
  target_version:
    description: The version that was to run, where another one does now.
    type: str
extends_documentation_fragment:
  - hitless.consul.in_rollout
  - hitless.consul.cluster
  - hitless.consul.agent
  - hitless.consul.keys
  - hitless.consul.attributes
  - hitless.consul.attributes.diff
seealso:
  - module: hitless.consul.take_out
"""

EXAMPLES = r"""
- name: Bring this host back
  hitless.consul.bring_back:
    service: web
    deployment: 20261123T142233Z-1.4.2-7f3a
    version: 1.4.2
    health_url: http://127.0.0.1:8080/health
    health_match: '"version": "1\.4\.2"'
"""

RETURN = r"""
proven_after:
  description: Seconds until the new process was proven, the stable time included.
  returned: success, unless O(phase=return)
  type: float
  sample: 11.3
health_answer:
  description: The start of what O(health_url) answered; empty without one.
  returned: success, unless O(phase=return)
  type: str
  sample: '{"status": "ok", "version": "1.4.2"}'
unrecorded:
  description: Why the version could not be recorded, although the host is in rotation.
  returned: where that happened
  type: str
  sample: No answer from Consul ...
failing_checks:
  description: The checks that kept it from being healthy, with their output.
  returned: failure
  type: list
  elements: dict
  sample: [{node: web1, check: "service:web", name: HTTP, status: critical, output: connection refused}]
"""

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout import rotation
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Outcome, seconds_between, timestamp
from ansible_collections.hitless.consul.plugins.module_utils._rollout.step import IN_ROLLOUT_SPEC, unless_in_rollout
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import outcome_ops
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import TURN_SPEC, turn_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import FORGET, RETURNING, record_version

ARGUMENT_SPEC = {
    **TURN_SPEC,
    **IN_ROLLOUT_SPEC,
    "phase": {"type": "str", "choices": ["all", "prove", "return"], "default": "all"},
    "deployed": {"type": "bool", "default": True},
    "version": {"type": "str"},
    "previous": {"type": "str"},
    "forget_previous": {"type": "bool", "default": False},
    "health_url": {"type": "str", "default": ""},
    "health_match": {"type": "str", "default": ""},
    "healthy_deadline": {"type": "float", "default": 300},
    "min_healthy_time": {"type": "float", "default": 10},
    "check_interval": {"type": "float", "default": 30},
    "accept_warning": {"type": "bool", "default": False},
    "outcome": {"type": "str", "choices": ["ok", "rolled_back"], "default": "ok"},
    "host": {"type": "str"},
    "batch": {"type": "int"},
    "started": {"type": "str"},
    "earlier_steps": {"type": "list", "elements": "dict", "default": []},
    "error": {"type": "str", "default": ""},
    "output": {"type": "str", "default": ""},
    "target_version": {"type": "str"},
}
CONSTRAINTS = unless_in_rollout()


def perform(task: Task) -> dict:
    params = task.params
    turn = turn_of(task)
    proof = rotation.Proof(
        health_url=params["health_url"],
        health_match=params["health_match"],
        deadline=params["healthy_deadline"],
        stable_for=params["min_healthy_time"],
        check_interval=params["check_interval"],
        accept_warning=params["accept_warning"],
    )
    if task.check_mode:
        return {"changed": True, "diff": {"before": {"maintenance": True}, "after": {"maintenance": False}}}
    result: dict = {"changed": False}
    seen = None
    if params["phase"] in ("all", "prove") and params["deployed"]:
        proven = rotation.prove(turn, task.host, proof)
        result.update(proven_after=round(proven.seconds, 3), health_answer=proven.answer)
        seen = proven.seen
    if params["phase"] in ("all", "return"):
        returning = timestamp()
        result["changed"] = rotation.put_back(turn, proof, deployed=params["deployed"], seen=seen)
        result["diff"] = {"before": {"maintenance": result["changed"]}, "after": {"maintenance": False}}
        if params["version"]:
            result.update(record(task, turn, returning))
    return result


def record(task: Task, turn: rotation.Turn, returning: str) -> dict:
    """Version and outcome in one transaction.

    The host is in rotation: what cannot be recorded now is reported and never a reason to roll it back.
    """
    params = task.params
    finished = timestamp()
    outcome = Outcome(
        host=params["host"] or turn.node,
        node=turn.node,
        outcome=params["outcome"],
        from_version=params["previous"],
        to_version=params["target_version"] or params["version"],
        batch=params["batch"],
        started=params["started"],
        finished=finished,
        seconds=seconds_between(params["started"], finished),
        error=params["error"],
        output=params["output"],
        steps=(
            *params["earlier_steps"],
            {"state": RETURNING, "at": returning},
            {"state": params["outcome"], "at": finished},
        ),
    )
    # An automatic rollback leaves "previous" as it was before the deployment.
    previous = None if params["outcome"] == "rolled_back" else params["previous"]
    try:
        record_version(
            turn.cluster,
            turn.keys,
            turn.node,
            params["version"],
            previous=FORGET if params["forget_previous"] else previous,
            session=turn.session or None,
            extra_ops=outcome_ops(turn.keys, turn.deployment, outcome) if turn.session else (),
        )
    except ConsulError as error:
        task.warn(f"{turn.node} is in rotation on {params['version']}, and that could not be recorded: {error}")
        return {"unrecorded": str(error)}
    return {}


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
