#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a machine's own deploy agent for a deployment, and follows it to its end."""

from __future__ import annotations

DOCUMENTATION = r"""
module: request
short_description: Ask a machine's own deploy agent for a deployment, and follow it
version_added: 0.1.0
description:
  - Writes a request into the node's key C(new), which the deploy agent of the machine watches, and follows what
    becomes of it by blocking reads. No connection to the machine is needed.
  - The agent, which the role P(hitless.consul.deploy_agent#role) installs, takes all steps of the host - maintenance
    on, drain, the machine's own deployment command, proof, maintenance off, version. The request says which version,
    and never which command.
  - A request that nobody takes in time is withdrawn. A machine that comes back later does not deploy it.
  - It is the one step of a host in the role C(hitless.consul.rollout) with C(rollout_mode=agent).
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
    description: Session of the deployment's lock. The agent takes a request only while its session holds that lock.
    type: str
    required: true
  node:
    description: The machine's node in Consul; default is the variable C(consul_node), else the host's name.
    type: str
  version:
    description: The version to deploy; none with O(reason=recover).
    type: str
  reason:
    description: V(recover) runs no command. What is there has to prove itself, and comes back into rotation.
    type: str
    choices: [deploy, rollback, recover]
    default: deploy
  previous:
    description: The version that ran before, C(DEPLOY_PREVIOUS_VERSION) for the command.
    type: str
    default: ""
  from_version:
    description: The version that ran before the deployment; it becomes the node's previous version where O(outcome=ok).
    type: str
    default: ""
  target_version:
    description: The version that was to run, for the record, where it is another one than O(version).
    type: str
  forget_previous:
    description: Delete what is recorded as previous instead, after a rollback by hand.
    type: bool
    default: false
  scope:
    description: What goes into maintenance, as in M(hitless.consul.take_out).
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
  deploy_timeout:
    description: Seconds the command may take; the machine's own configuration may allow less.
    type: float
    default: 1800
  health_url:
    description: Asked by the machine itself, at one of its own addresses, until the new process answers.
    type: str
    default: ""
  health_match:
    description: Regular expression that its answer has to match.
    type: str
    default: ""
  healthy_deadline:
    description: Seconds the machine has to become healthy.
    type: float
    default: 300
  min_healthy_time:
    description: Seconds it must stay so.
    type: float
    default: 10
  check_interval:
    description: Seconds within which a check runs anew, where Consul does not tell.
    type: float
    default: 30
  accept_warning:
    description: A check in state warning counts as healthy.
    type: bool
    default: false
  pickup_deadline:
    description: Seconds in which the agent has to take the request, and that the machine may be out of Consul's sight.
    type: float
    default: 60
  show_log:
    description: What the command prints there - shown as it comes, where it failed, or not at all.
    type: str
    choices: [always, failed, never]
    default: failed
  event:
    description: Also fire a Consul event C(hitless-deploy) at the node. It is a hint, and nothing depends on it.
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
  began:
    description: When the host's turn began, for the record, where that was before this request.
    type: str
  earlier_steps:
    description: The steps of the deployment that is rolled back, for the record.
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
extends_documentation_fragment:
  - hitless.consul.cluster
  - hitless.consul.keys
  - hitless.consul.attributes
attributes:
  diff_mode:
    description: What a deployment changes is not known.
    support: none
  idempotent:
    description: As idempotent as the machine's command.
    support: partial
    details: The command decides.
seealso:
  - module: hitless.consul.deploy
"""

EXAMPLES = r"""
- name: Deploy by the machine's own agent
  hitless.consul.request:
    service: web
    deployment: 20261123T142233Z-1.4.2-7f3a
    session: "{{ lock.session }}"
    node: web1
    version: 1.4.2
"""

RETURN = r"""
state:
  description: Of the request in the end - V(done), V(failed), V(withdrawn) or V(given_up).
  returned: always
  type: str
  sample: done
steps:
  description: The steps it took, and when.
  returned: always
  type: list
  elements: dict
  sample: [{state: claimed, at: "2026-11-23T14:22:40Z"}]
began:
  description: When the host's turn began.
  returned: always
  type: str
  sample: "2026-11-23T14:22:40Z"
started:
  description: The same, and empty where the deployment has not touched the machine.
  returned: always
  type: str
  sample: "2026-11-23T14:22:40Z"
deployment:
  description: Id of the deployment.
  returned: always
  type: str
  sample: 20261123T142233Z-1.4.2-7f3a
stdout:
  description: The end of what the command printed.
  returned: failure
  type: str
  sample: "E: Unable to locate package"
lost:
  description: The machine does not answer; whether it was touched is not known where its state is V(given_up).
  returned: failure, if so
  type: bool
  sample: true
health_answer:
  description: What O(health_match) matched in the answer of O(health_url); empty without one.
  returned: with O(reason=recover)
  type: str
  sample: '"version": "1.4.2"'
unrecorded:
  description: Why the outcome could not be recorded, although the host is in rotation.
  returned: where that happened
  type: str
  sample: No answer from Consul ...
"""

import threading
from contextlib import suppress

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client, kv_check_session
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    CLUSTER_SPEC,
    KEYS_SPEC,
    Task,
    cluster_connection,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_protocol import (
    DONE,
    FAILED,
    WITHDRAWN,
    LogFollower,
    Order,
    Request,
    Status,
    unpicked,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_version
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    OUTPUT_LIMIT,
    Outcome,
    seconds_between,
    timestamp,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import outcome_ops, status_op
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import FORGET, RETURNING
from ansible_collections.hitless.consul.plugins.module_utils._views.report import printable

SHOWN = 200
"""Lines shown of the log of a deployment that failed."""

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "deployment": {"type": "str", "required": True},
    "session": {"type": "str", "required": True},
    "node": {"type": "str"},
    "version": {"type": "str"},
    "reason": {"type": "str", "choices": ["deploy", "rollback", "recover"], "default": "deploy"},
    "previous": {"type": "str", "default": ""},
    "from_version": {"type": "str", "default": ""},
    "target_version": {"type": "str"},
    "forget_previous": {"type": "bool", "default": False},
    "scope": {"type": "list", "elements": "str", "default": ["service"]},
    "tags": {"type": "list", "elements": "str", "default": []},
    "drain_time": {"type": "float", "default": 10},
    "deploy_timeout": {"type": "float", "default": 1800},
    "health_url": {"type": "str", "default": ""},
    "health_match": {"type": "str", "default": ""},
    "healthy_deadline": {"type": "float", "default": 300},
    "min_healthy_time": {"type": "float", "default": 10},
    "check_interval": {"type": "float", "default": 30},
    "accept_warning": {"type": "bool", "default": False},
    "pickup_deadline": {"type": "float", "default": 60},
    "show_log": {"type": "str", "choices": ["always", "failed", "never"], "default": "failed"},
    "event": {"type": "bool", "default": False},
    "outcome": {"type": "str", "choices": ["ok", "rolled_back"], "default": "ok"},
    "host": {"type": "str"},
    "batch": {"type": "int"},
    "began": {"type": "str"},
    "earlier_steps": {"type": "list", "elements": "dict", "default": []},
    "error": {"type": "str", "default": ""},
    "output": {"type": "str", "default": ""},
}
CONSTRAINTS = {"required_if": [("reason", "deploy", ["version"]), ("reason", "rollback", ["version"])]}


def perform(task: Task) -> dict:
    params = task.params
    node = task.node if params["node"] or task.node_hint else task.host.name
    request = Request(task.consul, task.keys(params["service"]), node, order_of(params), params["session"])
    if task.check_mode:
        return {"changed": True, "msg": f"would ask {node} for {params['version']}"}
    began = params["began"] or timestamp()
    log = _Log(task, request)
    request.submit()
    if params["event"]:
        request.fire_event()
    with log:
        status = request.follow(params["pickup_deadline"])
    result = {
        "changed": True,
        "state": status.state,
        "steps": [*params["earlier_steps"], *(dict(step) for step in status.steps)],
        "began": began,
        "started": began if status.touched or status.state not in (FAILED, WITHDRAWN) else "",
        "deployment": params["deployment"],
    }
    if status.state != DONE:
        raise failure(task, request, status, {**result, **log.of_failure()})
    if params["reason"] == "recover":
        leave_open(task, request)
        return {**result, "health_answer": status.answer}
    return {**result, **record(task, request, result)}


def order_of(params: dict) -> Order:
    """What the machine is asked for, from the task's options."""
    kept = None if params["outcome"] == "rolled_back" else params["from_version"] or None
    version = None if params["reason"] == "recover" else checked_version(params["version"])
    return Order(
        deployment=params["deployment"],
        version=version,
        reason=params["reason"],
        previous=params["previous"],
        # An automatic rollback leaves "previous" as it was before the deployment, as does the same version again.
        remember=FORGET if params["forget_previous"] else None if kept == version else kept,
        scope=tuple(params["scope"]),
        tags=tuple(params["tags"]),
        drain_time=params["drain_time"],
        deploy_timeout=params["deploy_timeout"],
        healthy_deadline=params["healthy_deadline"],
        min_healthy_time=params["min_healthy_time"],
        check_interval=params["check_interval"],
        accept_warning=params["accept_warning"],
        health_url=params["health_url"],
        health_match=params["health_match"],
    )


def failure(task: Task, request: Request, status: Status, result: dict) -> HitlessError:
    """The error of a request that did not end well, with all that the rescue needs."""
    if status.state == WITHDRAWN:
        error = unpicked(request.node, request.keys.service, task.params["pickup_deadline"])
        error.details.update(result)
        return error
    if status.state == FAILED:
        return HitlessError(status.message, details={**result, "foreign": status.foreign})
    return HitlessError(f"{request.node} is given up: {status.message}.", details={**result, "lost": True})


def leave_open(task: Task, request: Request) -> None:
    """The machine has proven itself, and which version it runs is not recorded: the next rollout deploys it anew.

    Unless somebody knows better and records that, see M(hitless.consul.version).
    """
    fence = kv_check_session(request.keys.lock, request.session)
    why = "recovered; which version it runs is not recorded"
    task.consul.txn([fence, status_op(request.keys, request.node, task.params["deployment"], RETURNING, why)])


def record(task: Task, request: Request, result: dict) -> dict:
    """The host's outcome; its version is written by its agent, in one transaction with the end of the request.

    The host is in rotation: what cannot be recorded now is reported and never a reason to roll it back.
    """
    params = task.params
    finished = timestamp()
    outcome = Outcome(
        host=params["host"] or request.node,
        node=request.node,
        outcome=params["outcome"],
        from_version=params["from_version"] or None,
        to_version=params["target_version"] or params["version"],
        batch=params["batch"],
        started=result["began"],
        finished=finished,
        seconds=seconds_between(result["began"], finished),
        error=params["error"],
        output=params["output"],
        steps=tuple(result["steps"]),
    )
    fence = kv_check_session(request.keys.lock, request.session)
    try:
        task.consul.txn([fence, *outcome_ops(request.keys, params["deployment"], outcome)])
    except LockLost:
        raise
    except ConsulError as error:
        task.warn(f"{request.node} is in rotation on {params['version']}, and that could not be recorded: {error}")
        return {"unrecorded": str(error)}
    return {}


class _Log:
    """Shows what the machine prints while the task waits: in a thread of its own, which nothing waits for long."""

    def __init__(self, task: Task, request: Request) -> None:
        self._task = task
        self._wanted = task.params["show_log"]
        self._name = task.params["host"] or request.node
        self._lines: list[str] = []
        self._partial = ""
        self._ended = threading.Event()
        self._follower: LogFollower | None = None
        if self._wanted != "never":
            client = Client(cluster_connection(task.options), retry_for=5.0)
            self._follower = LogFollower(client, request.keys, request.node, request.order.deployment, self._take)

    def __enter__(self) -> None:
        if self._wanted == "always":
            threading.Thread(target=self._follow, daemon=True).start()

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        if self._follower:
            with suppress(ConsulError):  # the log is never a reason to fail
                self._follower.rest(self._task.consul)
            self._flush()

    def of_failure(self) -> dict:
        """The end of the output for the result, shown where it is wanted and has not been."""
        if self._wanted == "failed":
            self._show(self._lines[-SHOWN:])
        text = "\n".join(self._lines)[-OUTPUT_LIMIT:]
        return {"stdout": text} if text else {}

    def _follow(self) -> None:
        while self._follower and not self._ended.is_set():
            with suppress(ConsulError):
                self._follower.follow(self._ended)
            self._ended.wait(1.0)

    def _take(self, text: str) -> None:
        lines = (self._partial + text).split("\n")
        self._partial = lines.pop()
        self._keep(lines)

    def _flush(self) -> None:
        if self._partial:
            self._keep([self._partial])
            self._partial = ""

    def _keep(self, lines: list[str]) -> None:
        self._lines = [*self._lines, *lines][-5000:]
        if self._wanted == "always":
            self._show(lines)

    def _show(self, lines: list[str]) -> None:
        if lines:
            self._task.show("\n".join(f"{self._name} | {printable(line)}" for line in lines))


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
