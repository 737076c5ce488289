#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment
short_description: Record how a deployment begins, how it ends, and what a dead one left behind
version_added: 0.1.0
description:
  - Keeps the record of a deployment in Consul's KV store, where whoever asks later, be it a person or another run, sees
    what was planned and what came of it.
  - V(started) writes C(interrupted) on the records of dead runs of the service, then the record of this one.
  - V(finished) gives each host an outcome, finds the verdict, shows the table, writes the record, and deletes all but
    the 20 newest deployments of the service. It does not fail because hosts did.
  - V(recovered) finds what dead runs left behind and writes C(interrupted) on their records. The maintenance that is
    provably theirs is returned, and is for M(hitless.consul.bring_back) to end.
  - Each write is fenced by the lock; a run that has lost it changes nothing.
author:
  - Hitless contributors (@hitless)
options:
  state:
    description: What to record.
    type: str
    choices: [started, finished, recovered]
    required: true
  service:
    description: The service.
    type: str
    required: true
  id:
    description: Id of the deployment. Required with O(state=finished); O(state=started) makes one where none is given.
    type: str
  session:
    description:
      - Session that holds the lock of the service's deployments, as M(hitless.consul.lock) returns it. Required but in
        check mode.
    type: str
  version:
    description:
      - What is deployed, as a string (O(state=started)).
      - Leave out for a rollback of each host to its own previous version.
    type: raw
  direction:
    description: Whether a version is deployed, or rolled back by hand (O(state=started)).
    type: str
    choices: [deploy, rollback]
    default: deploy
  plan:
    description:
      - The plan as M(hitless.consul.plan) returns it (O(state=started)); C(batches) is a list of lists of hosts,
        C(hosts) a dictionary of hosts with C(node), C(state), C(from), C(to), C(rollback_to) and C(why).
    type: dict
    default: {}
  options:
    description:
      - The options of the rollout (O(state=started)). Only plain settings are kept; commands, URLs and hooks are not,
        since they can hold a secret.
    type: dict
    default: {}
  failure_budget:
    description: Hosts rolled back, failed or lost that the deployment tolerates (O(state=started)).
    type: int
    default: 0
  note:
    description: What to say about it to those who read the record (O(state=started)).
    type: str
    default: ""
  holder:
    description: Who runs it (O(state=started)). Default is C(user@host), or what AWX says of its job.
    type: str
  origin:
    description:
      - From where (O(state=started)).
      - Default is the controller's name and working directory, in a job of AWX the job's address.
    type: str
  reason:
    description: Why the run stopped before its end (O(state=finished)).
    type: str
    default: ""
  lost:
    description: Hosts known to be lost (O(state=finished)), besides those that the record proves to be.
    type: list
    elements: str
    default: []
  batches_begun:
    description:
      - How many batches were let go (O(state=finished)), where the run knows it. The hosts of a batch that was stopped
        before it was touched are pending, and not lost.
      - Default is the last batch whose gate opened.
    type: int
  cancelled:
    description: The deployment was cancelled on purpose (O(state=finished)).
    type: bool
    default: false
  keep:
    description:
      - How many deployments of the service stay in Consul (O(state=finished)). Older ones are deleted, with their logs,
        but never one that runs, nor the last one of a version that runs on one of its hosts or that a rollback would go
        to.
    type: int
    default: 20
  quiet:
    description: Do not show the table.
    type: bool
    default: false
extends_documentation_fragment:
  - hitless.consul.cluster
  - hitless.consul.keys
  - hitless.consul.attributes
attributes:
  diff_mode:
    description: The record is returned whole; there is no difference to show.
    support: none
  idempotent:
    description: What has ended stays as it ended.
    support: full
seealso:
  - module: hitless.consul.deployment_info
"""

EXAMPLES = r"""
- name: Record the deployment
  hitless.consul.deployment:
    state: started
    service: web
    version: "1.4.2"
    session: "{{ web_lock.session }}"
    plan: "{{ web_plan }}"
  register: web_deployment

- name: Record how it ended
  hitless.consul.deployment:
    state: finished
    service: web
    id: "{{ web_deployment.id }}"
    session: "{{ web_lock.session }}"

- name: See what a dead run left behind
  hitless.consul.deployment:
    state: recovered
    service: web
  check_mode: true
  register: web_remains
"""

RETURN = r"""
id:
  description: Id of the deployment.
  returned: started, finished
  type: str
  sample: 20261123T142233Z-1.4.2-7f3a
record:
  description: The record as it stands.
  returned: started, finished
  type: dict
  sample: {id: 20261123T142233Z-1.4.2-7f3a, service: web, version: 1.4.2, state: running}
interrupted:
  description: Ids of dead deployments whose records now say so.
  returned: started, recovered
  type: list
  elements: str
  sample: []
result:
  description: How the deployment ended.
  returned: finished
  type: str
  sample: failed
verdict:
  description: The same as a sentence.
  returned: finished
  type: str
  sample: "Deployment of web 1.4.3 failed after 1 m 12 s: 1 rolled back (web-1), 1 never reached (web-2)."
table:
  description: The hosts with from, to, outcome, seconds and why, as shown.
  returned: finished
  type: str
  sample: "host  from   to     outcome  seconds  why"
hosts:
  description: Host to outcome.
  returned: finished
  type: dict
  sample: {web-1: rolled_back, web-2: pending}
errors:
  description: Host to what went wrong there, for those with an error.
  returned: finished
  type: dict
  sample: {web-1: "Deploy: The deployment command exited with 3."}
red:
  description: Hosts that are not ok, current or left out.
  returned: finished
  type: list
  elements: str
  sample: [web-1]
pruned:
  description: Ids of old deployments that were deleted.
  returned: finished
  type: list
  elements: str
  sample: []
lock_lost:
  description: Whether the lock was no longer ours, so that the end could not be recorded.
  returned: finished
  type: bool
  sample: false
dead:
  description: The deployments that claimed to run and did not, with their hosts.
  returned: recovered
  type: list
  elements: dict
  sample: []
maintenance:
  description:
    - What is still in the maintenance of a dead deployment of the service.
    - C(service_id) is empty for a whole node; C(outcome), C(step) and the versions are null where none is recorded;
      C(advice) is V(clear) where nothing was deployed, V(bring_back) where the host has to prove itself, V(leave) where
      it is known to be broken.
  returned: recovered
  type: list
  elements: dict
  sample:
    - host: web1
      node: web-1
      service: web
      service_id: web
      deployment: 20261123T142233Z-1.4.2-7f3a
      reason: deploy:20261123T142233Z-1.4.2-7f3a web
      outcome: null
      step: deploying
      from_version: 1.4.1
      to_version: 1.4.2
      advice: bring_back
      why: "its turn was cut off: which version it runs is not known"
lock:
  description: Who holds the lock, null where nobody does.
  returned: recovered
  type: dict
  sample: null
text:
  description: What was found, in words.
  returned: recovered
  type: str
  sample: "web: nothing to recover."
"""

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store as deployments
from ansible_collections.hitless.consul.plugins.module_utils._rollout.identity import whence, who
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import (
    Keys,
    checked_version,
    new_deployment_id,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    CANCELLED,
    Record,
    plan_of,
    settings_of,
    timestamp,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.recovery import find_remains
from ansible_collections.hitless.consul.plugins.module_utils._views import report

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "state": {"type": "str", "choices": ["started", "finished", "recovered"], "required": True},
    "service": {"type": "str", "required": True},
    "id": {"type": "str"},
    "session": {"type": "str"},
    "version": {"type": "raw"},
    "direction": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
    "plan": {"type": "dict", "default": {}},
    "options": {"type": "dict", "default": {}},
    "failure_budget": {"type": "int", "default": 0},
    "note": {"type": "str", "default": ""},
    "holder": {"type": "str"},
    "origin": {"type": "str"},
    "reason": {"type": "str", "default": ""},
    "lost": {"type": "list", "elements": "str", "default": []},
    "batches_begun": {"type": "int"},
    "cancelled": {"type": "bool", "default": False},
    "keep": {"type": "int", "default": deployments.KEEP},
    "quiet": {"type": "bool", "default": False},
}
CONSTRAINTS = {"required_if": [("state", "finished", ["id"])]}


def perform(task: Task) -> dict:
    keys = task.keys(task.params["service"])
    if not task.check_mode and not task.params["session"]:
        raise HitlessError(
            f"The record of a deployment of {keys.service} is written only by who holds its lock: session is missing.",
            hint="Take the lock with hitless.consul.lock and give its session.",
        )
    return {"started": started, "finished": finished, "recovered": recovered}[task.params["state"]](task, keys)


def started(task: Task, keys: Keys) -> dict:
    params = task.params
    version = None if params["version"] is None else checked_version(params["version"])
    if version is None and params["direction"] == "deploy":
        raise HitlessError(f"version is missing: which version of {keys.service} is deployed?")
    batches, hosts = plan_of(params["plan"])
    record = Record(
        id=params["id"] or new_deployment_id(version or params["direction"]),
        service=keys.service,
        version=version,
        direction=params["direction"],
        message=params["note"],
        holder=params["holder"] or who(task.variables),
        origin=params["origin"] or whence(task.variables),
        started=timestamp(),
        batches=batches,
        hosts=hosts,
        failure_budget=params["failure_budget"],
        options=settings_of(params["options"]),
    )
    record.to_json()
    interrupted = []
    if not task.check_mode:
        interrupted = deployments.interrupt_dead(task.consul, keys, params["session"])
        deployments.start(task.consul, keys, record, params["session"])
    for one in interrupted:
        task.warn(one.record.description)
    return {
        "changed": True,
        "id": record.id,
        "record": record.as_dict(),
        "interrupted": [one.record.id for one in interrupted],
    }


def finished(task: Task, keys: Keys) -> dict:
    params = task.params
    found = deployments.conclude(
        task.consul,
        keys,
        params["id"],
        reason=params["reason"],
        state=CANCELLED if params["cancelled"] else None,
        lost=params["lost"],
        batches_begun=params["batches_begun"],
    )
    table = report.hosts_table(found.record, found.outcomes)
    if not params["quiet"]:
        task.show(report.ended(found.record, found.outcomes))
    result = {
        "changed": found.is_new,
        "id": found.record.id,
        "record": found.record.as_dict(),
        "result": found.record.state,
        "verdict": found.record.description,
        "table": table,
        "hosts": found.results,
        "errors": {name: one.error for name, one in found.outcomes.items() if one.error},
        "red": found.red,
        "pruned": [],
        "lock_lost": False,
    }
    if task.check_mode or not found.is_new:
        return result
    try:
        deployments.end(task.consul, keys, found, params["session"])
    except LockLost as error:
        return {**result, "failed": True, "lock_lost": True, "msg": f"The end could not be recorded. {error}"}
    try:
        result["pruned"] = deployments.prune(task.consul, keys, params["session"], params["keep"])
    except HitlessError as error:  # the next one will try again
        task.warn(f"Old deployments of {keys.service} could not be deleted: {error}")
    return result


def recovered(task: Task, keys: Keys) -> dict:
    params = task.params
    remains = find_remains(task.consul, keys)
    result = {"changed": bool(remains.dead), "interrupted": [], **remains.as_dict()}
    if remains.lock is not None and remains.lock.alive and remains.lock.session != params["session"]:
        under_way = deployments.read_under_way(task.consul, keys, remains.lock.holder.deployment)
        text = report.held(keys.service, str(remains.lock.holder), under_way.description, under_way.steps)
        if not task.check_mode:
            raise HitlessError(text, details={"lock": result["lock"]})
        result["changed"] = False
    else:
        text = report.remains(keys.service, result["dead"], result["maintenance"])
        if not task.check_mode:
            ended = deployments.interrupt_dead(task.consul, keys, params["session"])
            result["interrupted"] = [one.record.id for one in ended]
    if not params["quiet"]:
        task.show(text)
    return {**result, "text": text}


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
