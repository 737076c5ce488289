#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what becomes of a host whose deployment failed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rescue
short_description: Decide what becomes of a host whose deployment failed
version_added: 0.1.0
description:
  - Where the deployment never started, this deployment's own maintenance is cleared, and nothing else happens; what the
    user's drain tasks took out of a load balancer is restored first.
  - Where it started, the host goes back to its previous version if there is one; the role then takes the same steps.
  - If that failed too, or there is none, the host stays in maintenance. A broken instance never gets traffic.
  - Where the lock is lost, nothing is done, since another run may be at work.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: Service by name.
    type: str
    required: true
  deployment:
    description: Id of the deployment.
    type: str
    required: true
  session:
    description: Session of the deployment's lock.
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
  failed:
    description: The result of the task that failed.
    type: dict
    default: {}
  step:
    description: Its name, for the record.
    type: str
    default: ""
  started:
    description: When the deployment of this host began; empty where the host was never taken out.
    type: str
    default: ""
  attempt:
    description:
      - What failed.
      - V(restore) is for after the verdict V(restore), and O(failed) is empty where the restore tasks did well.
    type: str
    choices: [deploy, rollback, restore]
    default: deploy
  drained:
    description: The user's drain tasks have run, so that the host may be out of a load balancer of theirs.
    type: bool
    default: false
  not_restored:
    description: The user's restore tasks are what failed. No other version would help.
    type: bool
    default: false
  rollback:
    description: Whether a rollback is wanted.
    type: bool
    default: true
  from_version:
    description: The version that ran before.
    type: str
    default: ""
  to_version:
    description: The version that was to run.
    type: str
    default: ""
  rollback_to:
    description: The version a rollback goes to; empty where none is known.
    type: str
    default: ""
  mode:
    description: With V(agent) the machine's own deploy agent has seen to its maintenance already.
    type: str
    choices: [push, agent]
    default: push
  steps:
    description: The steps of the host's turn so far, for the record.
    type: list
    elements: dict
    default: []
  error:
    description: Why the deployment failed, where it is the rollback that failed now.
    type: str
    default: ""
  host:
    description: The host's name in the record; its node's where not given.
    type: str
  batch:
    description: Number of the host's batch, for the record.
    type: int
extends_documentation_fragment:
  - hitless.consul.cluster
  - hitless.consul.agent
  - hitless.consul.keys
  - hitless.consul.attributes
attributes:
  diff_mode:
    description: What it changes is the host's maintenance only.
    support: none
  idempotent:
    description: Running it again decides the same.
    support: full
seealso:
  - module: hitless.consul.take_out
  - module: hitless.consul.bring_back
"""

EXAMPLES = r"""
- name: What becomes of this host
  hitless.consul.rescue:
    service: web
    deployment: 20261123T142233Z-1.4.2-7f3a
    failed: "{{ ansible_failed_result }}"
    started: "{{ taken_out.started | default('') }}"
    to_version: 1.4.2
    rollback_to: 1.4.1
  register: rescued
"""

RETURN = r"""
verdict:
  description:
    - V(roll_back), the same steps are to be taken with the previous version.
    - V(restore), nothing was deployed, and the user's restore tasks are to run before the maintenance ends; then this
      task again, with O(attempt=restore).
    - V(cleared), nothing was deployed and the host is as it was.
    - V(kept), the host stays in maintenance.
    - V(lost), the host cannot be reached.
    - V(stopped), the lock is lost and nothing was done.
  returned: always
  type: str
  sample: roll_back
error:
  description: What failed, as a sentence with the end of what it printed.
  returned: always
  type: str
  sample: "Deploy: The deployment command exited with 3."
output:
  description: The end of what the failed step printed.
  returned: always
  type: str
  sample: package not found
"""

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    HitlessError,
    HostLost,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout import rescue
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    HOST_FAILED,
    LEFT_OUT,
    LOST,
    Outcome,
    seconds_between,
    timestamp,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.rotation import Turn
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import outcome_ops
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import TURN_SPEC, turn_of

ARGUMENT_SPEC = {
    **TURN_SPEC,
    "failed": {"type": "dict", "default": {}},
    "step": {"type": "str", "default": ""},
    "started": {"type": "str", "default": ""},
    "attempt": {"type": "str", "choices": ["deploy", "rollback", "restore"], "default": "deploy"},
    "drained": {"type": "bool", "default": False},
    "not_restored": {"type": "bool", "default": False},
    "rollback": {"type": "bool", "default": True},
    "from_version": {"type": "str", "default": ""},
    "to_version": {"type": "str", "default": ""},
    "rollback_to": {"type": "str", "default": ""},
    "mode": {"type": "str", "choices": ["push", "agent"], "default": "push"},
    "steps": {"type": "list", "elements": "dict", "default": []},
    "error": {"type": "str", "default": ""},
    "host": {"type": "str"},
    "batch": {"type": "int"},
}


def perform(task: Task) -> dict:
    params = task.params
    failure = rescue.failure_of(params["failed"], params["step"])
    if params["attempt"] == "restore":
        verdict, why = rescue.judge_undrained(failure if params["failed"] else None, params["error"])
    else:
        verdict, why = rescue.judge(
            failure,
            started=bool(params["started"]),
            attempt=params["attempt"],
            rollback=params["rollback"],
            rollback_to=params["rollback_to"],
            to_version=params["to_version"],
            from_version=params["from_version"] or "",
            earlier=params["error"],
            drained=params["drained"],
            not_restored=params["not_restored"],
        )
    turn = turn_of(task)
    if verdict != rescue.STOPPED and not task.check_mode:
        try:
            verdict, why = carry_out(task, turn, verdict, why, failure)
        except LockLost as error:
            verdict, why = rescue.STOPPED, f"{why} And {error}"
    # Shown where it happened, not only in the table at the end.
    task.warn(f"{params['host'] or turn.node}: {why}")
    return {"changed": verdict != rescue.STOPPED, "verdict": verdict, "error": why, "output": failure.output}


def carry_out(task: Task, turn: Turn, verdict: str, why: str, failure: rescue.Failure) -> tuple[str, str]:
    """Do to the host's maintenance what the verdict says, and record the host's outcome where it is final."""
    ours = maintenance.set_by_deployment_of(turn.keys.service)
    turn.begin("failed", why)
    try:
        if task.params["mode"] == "agent":
            pass
        elif verdict == rescue.CLEARED:
            for target in turn.targets:
                clear(turn, target, failure)
        elif verdict == rescue.KEPT:
            for target in turn.targets:
                maintenance.enable(turn.cluster, turn.agent, target, turn.reason, ours)
    except HostLost as error:
        verdict, why = rescue.LOST, f"{why} And {error}"
    except LockLost:
        raise
    except HitlessError as error:
        verdict, why = rescue.KEPT, f"{why} And {error}"
    if verdict not in (rescue.ROLL_BACK, rescue.RESTORE):
        record(task, turn, verdict, why, failure)
    return verdict, why


def clear(turn: Turn, target: maintenance.Target, failure: rescue.Failure) -> None:
    """End this very deployment's maintenance: what an earlier, dead one had taken out may be broken."""
    try:
        maintenance.disable(turn.cluster, turn.agent, target, lambda found: found == turn.reason)
    except HitlessError as error:
        # Where somebody else's was in the way, it is still there; what had been taken out before it is ours to clear.
        if not (failure.foreign and error.details.get("foreign")):
            raise


def record(task: Task, turn: Turn, verdict: str, why: str, failure: rescue.Failure) -> None:
    """The host's outcome; where Consul does not take it, the last play finds the host without one: lost."""
    if not turn.session:
        return
    params, finished = task.params, timestamp()
    outcome = LEFT_OUT if failure.foreign else LOST if verdict == rescue.LOST else HOST_FAILED
    told = Outcome(
        host=params["host"] or turn.node,
        node=turn.node,
        outcome=outcome,
        from_version=params["from_version"] or None,
        to_version=params["to_version"] or None,
        batch=params["batch"],
        started=params["started"] or None,
        finished=finished,
        seconds=seconds_between(params["started"], finished),
        error=why,
        output=failure.output,
        # The agent of a machine tells the end of its steps itself.
        steps=tuple(params["failed"].get("steps") or [*params["steps"], {"state": outcome, "at": finished}]),
    )
    try:
        turn.cluster.txn([*turn.fence(), *outcome_ops(turn.keys, turn.deployment, told)])
    except LockLost:
        raise
    except ConsulError as error:
        task.warn(f"{turn.node}: what became of it could not be recorded: {error}")


def main() -> None:
    run_module(ARGUMENT_SPEC, perform)


if __name__ == "__main__":
    main()
