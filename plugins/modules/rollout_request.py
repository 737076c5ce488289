#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that is asked for by writing a key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_request
short_description: Claim and answer a rollout that is asked for by writing a key
version_added: 0.1.0
description:
  - Somebody writes C(deploy/<service>/request), a version or a JSON object such as
    C({"version":"1.4.2","message":"ticket 17"}). This module claims the request for one run, and writes what becomes of
    it into the same key.
  - Each change is a compare-and-set, so that of several runs one gets the request, and that the answer to an old
    request never overwrites a new one.
  - Who writes the key is trusted less than who runs the rollout. Beside the version a request may set the options of
    O(allow), and nothing else. A request that cannot be followed is answered with V(refused) and the reason, and the
    task fails.
  - The playbook C(hitless.consul.request) is made of it.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: The service.
    type: str
    required: true
  state:
    description:
      - V(claimed) takes the request, where there is a new one. Where a request says V(running) and the run of its
        deployment has died, it is answered instead.
      - V(running) says which O(deployment) follows it.
      - V(ended) says how that ended, by O(result) and O(reason).
      - V(recovered) says that a recovery was tried after a deployment that did not end well.
    type: str
    choices: [claimed, running, ended, recovered]
    required: true
  allow:
    description:
      - Options of a rollout that the request may set, without C(rollout_).
      - C(batch_size), C(drain_time), C(failure_budget), C(healthy_deadline), C(message), C(min_healthy),
        C(min_healthy_time), C(skip_current), C(strict), C(tags) and C(unreachable) can be allowed.
    type: list
    elements: str
    default: [batch_size, message]
  claim:
    description: What the task that claimed the request has returned. Required with V(running) and V(ended).
    type: str
  deployment:
    description: Id of the deployment (O(state=running)).
    type: str
  result:
    description: How it ended (O(state=ended)). V(refused) stands for a run that never began.
    type: str
    choices: [successful, failed, cancelled, interrupted, refused]
  reason:
    description: The same as a sentence (O(state=ended)).
    type: str
    default: ""
  left:
    description: Hosts that are still in maintenance (O(state=recovered)).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - hitless.consul.cluster
  - hitless.consul.keys
  - hitless.consul.attributes
attributes:
  diff_mode:
    description: The request is returned whole; there is no difference to show.
    support: none
  idempotent:
    description: What is claimed or answered already stays as it is.
    support: full
seealso:
  - module: hitless.consul.rollout_options
  - module: hitless.consul.deployment
"""

EXAMPLES = r"""
- name: Take what is asked for
  hitless.consul.rollout_request:
    service: web
    state: claimed
    allow: [message]
  register: web_request

- name: Say how it ended
  hitless.consul.rollout_request:
    service: web
    state: ended
    claim: "{{ web_request.claim }}"
    result: refused
    reason: Not during the sale.
  when: web_request.claimed
"""

RETURN = r"""
claimed:
  description: Whether this task has taken a request.
  returned: state=claimed
  type: bool
  sample: true
claim:
  description: The word that proves it; empty in check mode.
  returned: where it has
  type: str
  sample: 9f86d081884c7d65
options:
  description: What the request asks for, as options of a rollout.
  returned: where it has
  type: dict
  sample: {rollout_version: 1.4.2, rollout_message: ticket 17}
state:
  description: The state of the request now; empty where there is none.
  returned: always
  type: str
  sample: claimed
text:
  description: The same in words.
  returned: always
  type: str
  sample: "web: version 1.4.2 is asked for, and claimed."
unrecorded:
  description: Why the answer could not be written.
  returned: where that happened
  type: str
  sample: No answer from Consul ...
"""

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout import trigger as requests
from ansible_collections.hitless.consul.plugins.module_utils._rollout.identity import whence, who
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["claimed", "running", "ended", "recovered"], "required": True},
    "allow": {"type": "list", "elements": "str", "default": ["batch_size", "message"]},
    "claim": {"type": "str"},
    "deployment": {"type": "str"},
    "result": {"type": "str", "choices": ["successful", "failed", "cancelled", "interrupted", "refused"]},
    "reason": {"type": "str", "default": ""},
    "left": {"type": "list", "elements": "str", "default": []},
}
CONSTRAINTS = {
    "required_if": [("state", "running", ["claim", "deployment"]), ("state", "ended", ["claim", "result"])],
}


def perform(task: Task) -> dict:
    keys = task.keys(task.params["service"])
    steps = {"claimed": claimed, "running": running, "ended": ended, "recovered": recovered}
    result = steps[task.params["state"]](task, keys)
    task.show(result["text"])
    return result


def claimed(task: Task, keys: Keys) -> dict:
    requests.check_allowed(task.params["allow"])
    found = requests.find(task.consul, keys)
    if found.state == requests.RUNNING and not task.check_mode:
        settled = requests.settle(task.consul, keys, found)
        if settled:
            text = f"{keys.service}: the run that followed its request has ended as {settled}."
            return {"changed": True, "claimed": False, "state": settled, "text": text}
    if found.state != requests.REQUESTED:
        said = f"its request is {found.state} already" if found.state else f"nothing is asked for in {keys.request}"
        return {"changed": False, "claimed": False, "state": found.state, "text": f"{keys.service}: {said}."}
    by, origin = who(task.variables), whence(task.variables)
    try:
        wish = requests.read_wish(found.pair.value, task.params["allow"])
    except HitlessError as error:
        if not task.check_mode and not requests.refuse(task.consul, keys, found, str(error), by, origin):
            return faster(keys)
        raise HitlessError(
            f"The request in {keys.request} is refused. {error}", details={"claimed": False, "state": requests.REFUSED}
        ) from None
    word: str | None = ""
    if not task.check_mode:
        word = requests.claim(task.consul, keys, found, wish, by, origin)
        if word is None:
            return faster(keys)
    options = {"message": f"asked for in {keys.request}", **wish.options, "version": wish.version}
    return {
        "changed": True,
        "claimed": True,
        "claim": word,
        "options": {f"rollout_{name}": value for name, value in options.items()},
        "state": requests.CLAIMED,
        "text": f"{keys.service}: version {wish.version} is asked for, and claimed.",
    }


def faster(keys: Keys) -> dict:
    text = f"{keys.service}: somebody else has claimed the request, or replaced it."
    return {"changed": False, "claimed": False, "state": requests.CLAIMED, "text": text}


def running(task: Task, keys: Keys) -> dict:
    return reported(task, keys, requests.RUNNING, deployment=task.params["deployment"])


def ended(task: Task, keys: Keys) -> dict:
    return reported(task, keys, task.params["result"], reason=task.params["reason"])


def reported(task: Task, keys: Keys, state: str, **more: object) -> dict:
    """What cannot be written is told, and never a reason to stop a rollout or to keep it from its end."""
    result = {"changed": True, "state": state, "text": f"{keys.service}: its request is {state}."}
    if task.check_mode:
        return result
    try:
        written = requests.report(task.consul, keys, task.params["claim"], state=state, **more)
    except ConsulError as error:
        task.warn(f"The request in {keys.request} still says less than {state}: {error}")
        return {**result, "changed": False, "unrecorded": str(error)}
    if not written:
        text = f"{keys.service}: its request was replaced meanwhile, and stays as it is."
        return {"changed": False, "state": state, "text": text}
    return result


def recovered(task: Task, keys: Keys) -> dict:
    state = None
    if not task.check_mode:
        state = requests.recovered(task.consul, keys, task.params["left"])
    said = f"its request is {state}, and a recovery was tried" if state else "no request needed a recovery"
    return {"changed": state is not None, "state": state or "", "text": f"{keys.service}: {said}."}


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
