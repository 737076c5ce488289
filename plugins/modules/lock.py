#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a service's deployments."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock
short_description: Take or release the deployment lock of a service
version_added: 0.1.0
description:
  - Takes the lock that lets one deployment of a service run at a time, or releases it.
  - A Consul session holds it. A small program beside the run keeps that session alive for as long as the run or one of
    its workers lives, also when the main process is killed; then it marks the deployment's record C(interrupted) and
    releases the lock. Where it dies as well, the lock is free within twice O(ttl).
  - A lock of somebody else is never released and never taken over.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: The service.
    type: str
    required: true
  state:
    description:
      - V(present) takes the lock, and does nothing where this run has it already for the same O(deployment).
      - V(absent) releases it where it is of O(session), of O(deployment), or of this run.
    type: str
    choices: [present, absent]
    default: present
  deployment:
    description: Id of the deployment, shown to others; the program that keeps the lock watches over its record.
    type: str
    default: ""
  note:
    description: What it is for, shown to others.
    type: str
    default: ""
  holder:
    description:
      - Who has it, shown to others.
      - Default is C(user@host) of the controller, in a job of AWX who started which job.
    type: str
  wait:
    description: Seconds to wait while somebody else has it. With V(0) the task fails at once and names them.
    type: float
    default: 0
  ttl:
    description:
      - Seconds that the lock outlives the program that keeps it, at least; up to twice as long.
      - V(10) to V(86400).
    type: int
    default: 15
  keep:
    description:
      - Whether to start the program that keeps the lock until the run ends.
      - Without it the lock is lost after O(ttl) unless something else renews the session.
      - As a module, for C(async), there is no run to watch, so that only V(false) works there.
    type: bool
    default: true
  progress_deadline:
    description:
      - Seconds without a new outcome of any host of the O(deployment) after which the lock is kept no longer; V(0) for
        no such deadline.
    type: float
    default: 0
  session:
    description:
      - With O(state=absent), the session that holds the lock.
      - Default is the one of O(deployment), or else of this run.
    type: str
extends_documentation_fragment:
  - hitless.consul.cluster
  - hitless.consul.keys
  - hitless.consul.attributes
  - hitless.consul.attributes.diff
"""

EXAMPLES = r"""
- name: One database migration of web at a time, whoever starts it
  hitless.consul.lock:
    service: web
    note: database migration
    wait: 600
  run_once: true
  delegate_to: localhost

- name: Release it early (the end of the run does so too)
  hitless.consul.lock:
    service: web
    state: absent
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
session:
  description: The session that holds the lock, or held it; empty in check mode, and where there is none.
  returned: success
  type: str
  sample: 6ee2d5bd-5ad1-2f0a-8f7c-8d9ef7b0cb1d
holder:
  description: Who has the lock, or had it. Also returned where it was refused.
  returned: success, or refused
  type: dict
  sample:
    deployment: 20261123T142233Z-1.4.2-7f3a
    holder: anna@deploy1
    since: "2026-11-23T14:22:33Z"
    message: web 1.4.2
    origin: deploy1:/srv/web
waited:
  description: Seconds it took until the lock was free.
  returned: O(state=present)
  type: float
  sample: 0.0
"""

import time
from dataclasses import asdict, dataclass

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout.identity import whence, who
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "deployment": {"type": "str", "default": ""},
    "note": {"type": "str", "default": ""},
    "holder": {"type": "str"},
    "wait": {"type": "float", "default": 0},
    "ttl": {"type": "int", "default": 15},
    "keep": {"type": "bool", "default": True},
    "progress_deadline": {"type": "float", "default": 0},
    "session": {"type": "str"},
}


@dataclass(frozen=True)
class Run:
    """The run of Ansible that the task belongs to.

    :param name: a word no other run has.
    :param pipe: read end of the pipe that ends with the run.
    :param controller: process id of its main process.
    :param results: read end of the pipe into which its workers write their results.
    """

    name: str
    pipe: int
    controller: int
    results: int | None = None


@dataclass
class LockTask(Task):
    """A task as the action makes it; a module knows of no run."""

    run: Run | None = None


def perform(task: Task) -> dict:
    run = task.run if isinstance(task, LockTask) else None
    keys = task.keys(task.params["service"])
    if task.params["deployment"]:
        keys.deployment(task.params["deployment"])  # refuses what cannot stand in a key
    return _absent(task, keys, run) if task.params["state"] == "absent" else _present(task, keys, run)


def _present(task: Task, keys: Keys, run: Run | None) -> dict:
    params = task.params
    _check(params, run)
    held = lock.read_lock(task.consul, keys)
    if held and not held.alive:
        held = None
    if held and run and held.holder.deployment == params["deployment"]:
        session = lock.session_of(task.consul, keys, run=run.name)
        if session:
            return {"changed": False, "session": session, "holder": asdict(held.holder), "waited": 0.0}
    holder = lock.Holder.now(
        params["deployment"], params["holder"] or who(task.variables), params["note"], whence(task.variables)
    )
    diff = {"before": asdict(held.holder) if held else {}, "after": asdict(holder)}
    result = {"changed": True, "session": "", "holder": asdict(holder), "waited": 0.0, "diff": diff}
    if not task.check_mode:
        return {**result, **_take(task, keys, holder, run)}
    if held and not params["wait"]:
        raise lock.refusal(keys, held.holder)
    if held:
        task.warn(f"It would wait for the deployment lock of {keys.service}, which is held by {held.holder}.")
    return result


def _check(params: dict, run: Run | None) -> None:
    if not 10 <= params["ttl"] <= 86400:
        raise HitlessError(f"ttl must be 10 to 86400 seconds, not {params['ttl']}: Consul allows no other.")
    if params["wait"] < 0 or params["progress_deadline"] < 0:
        raise HitlessError("wait and progress_deadline must not be negative.")
    if params["keep"] and run is None:
        raise HitlessError(
            "As a module (for async) the lock cannot be kept, since there is no run to watch.",
            hint="Set keep: false and renew the session yourself, or leave async out.",
        )


def _take(task: Task, keys: Keys, holder: lock.Holder, run: Run | None) -> dict:
    params = task.params

    def tell(held: lock.Held) -> None:
        task.show(
            f"Waiting up to {params['wait']:g} s for the deployment lock of {keys.service}, held by {held.holder}"
        )

    started = time.monotonic()
    name = run.name if run else ""
    session = lock.acquire(task.consul, keys, holder, wait=params["wait"], ttl=params["ttl"], run=name, on_wait=tell)
    waited = round(time.monotonic() - started, 3)
    if params["keep"] and run:
        try:
            lock.start_keeper(
                task.consul.connection,
                keys,
                holder,
                session,
                pipe=run.pipe,
                results=run.results,
                controller=run.controller,
                ttl=params["ttl"],
                progress_deadline=params["progress_deadline"],
            )
        except BaseException:
            lock.release(task.consul, keys, session)
            raise
    return {"session": session, "waited": waited}


def _absent(task: Task, keys: Keys, run: Run | None) -> dict:
    params = task.params
    if not (params["session"] or params["deployment"] or run):
        raise HitlessError("As a module (for async) releasing the lock needs session or deployment.")
    held = lock.read_lock(task.consul, keys)
    session = params["session"] or lock.session_of(
        task.consul, keys, run=run.name if run else "", deployment=params["deployment"]
    )
    holder = asdict(held.holder) if held else {}
    ours = bool(held and session and held.session == session)
    if session and not task.check_mode:
        ours = lock.release(task.consul, keys, session)
    diff = {"before": holder, "after": {} if ours else holder}
    return {"changed": ours, "session": session or "", "holder": holder, "diff": diff}


def main() -> None:
    run_module(ARGUMENT_SPEC, perform)


if __name__ == "__main__":
    main()
