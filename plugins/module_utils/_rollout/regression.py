# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that a deployment has changed, and that are no longer healthy (a private helper of this collection).

The catalog shows one bad result for as long as the check takes to run again: that is no verdict. A host has regressed
once its health URL has answered badly throughout rollout_watch_grace, or once its check must have had a further result
and still fails. Meanwhile no further host begins, since whoever is at the gate is who finds out.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    SERF_HEALTH,
    Check,
    Instance,
    read_instances,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    kv_check_session,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._rollout.alike import LOOK_EVERY, Ask, others_fail
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import by_node
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import ended_ops
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import LOST, OK, REGRESSED
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import outcome_ops, read_outcomes
from ansible_collections.hitless.consul.plugins.module_utils._rollout.telling import Telling
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp


@dataclass(frozen=True)
class Symptom:
    """What the catalog shows of a node that gets no traffic, though nobody has put it into maintenance.

    :param told: its failing checks, or that it is no longer registered.
    :param outcome: what it comes to where that is confirmed: regressed, or lost with its Consul agent.
    :param delay: seconds after which the checks have had a further result; 0 where there is none to wait for.
    """

    told: str
    outcome: str = REGRESSED
    delay: float = 0.0


@dataclass(frozen=True)
class Found:
    """What came of a look.

    :param regressed: the hosts that were found, each with what it came to.
    :param alike: why nothing was made of them: all other instances fail as well, those of the old version too.
    """

    regressed: Sequence[Outcome] = ()
    alike: str = ""


def symptoms_of(
    instances: Iterable[Instance],
    *,
    check_interval: float,
    registered: Container[str] | None = None,
    nodes: Iterable[str] = (),
) -> dict[str, Symptom]:
    """Node -> what is wrong there, for those that get no traffic and are in nobody's maintenance.

    :param check_interval: seconds between two results, where Consul does not tell.
    :param registered: the nodes with an instance, where all were read; ``nodes`` without one are found by that.
    """
    found = {}
    for node, there in by_node(instances).items():
        bad = [one for one in there if not one.in_rotation]
        if not bad or any(one.maintenance for one in bad):
            continue
        failing = {check.id: check for one in bad for check in one.failing(accept_warning=True)}
        found[node] = _symptom(list(failing.values()), check_interval)
    if registered is not None:
        missing = (node for node in nodes if node not in registered)
        found.update({node: Symptom("it is no longer registered") for node in missing})
    return found


def _symptom(failing: Sequence[Check], check_interval: float) -> Symptom:
    told = "; ".join(check.told() for check in failing)
    if any(check.id == SERF_HEALTH for check in failing):
        return Symptom(told, LOST)
    return Symptom(told, delay=max((check.delay(check_interval) for check in failing), default=0.0))


def look_back(
    task: Task,
    run: Run,
    ask: Ask,
    instances: Sequence[Instance],
    in_flight: Container[str] = (),
    registered: Container[str] | None = None,
) -> Found | None:
    """Find the hosts that this deployment has changed and that are no longer healthy, and record them.

    It takes as long as it takes to be sure. None where there was nothing to be sure of, and so nothing took any time.

    :param instances: of the service, at least those that get no traffic.
    :param in_flight: nodes whose turn has begun and not ended.
    :param registered: the nodes with an instance, where all were read.
    """
    shown = symptoms_of(instances, check_interval=run.options["check_interval"])
    if registered is None and all(node in in_flight for node in shown):
        return None  # as at nearly each gate: the plan, which has all hosts, is not looked through for that
    # Those that it changed before a pause, or that the one which it resumes has changed, get no turn any more.
    planned = {one.node: one for one in run.planned}
    symptoms = _look(run, instances, planned, registered)
    suspects = _changed(task, run, planned, [node for node in symptoms if node not in in_flight])
    if not suspects:
        return None
    planned = {node: replace(planned[node], to_version=ended.to_version) for node, ended in suspects.items()}
    for node in suspects:
        _telling(task, run, planned[node]).tell(f"no longer healthy: {symptoms[node].told}")
    confirmed = _confirm(task, run, ask, planned)
    if not confirmed:
        return Found()
    alike = _all_fail_alike(task, run, ask, confirmed)
    if alike:
        return Found(alike=alike)
    return Found([_record(task, run, planned[node], suspects[node], symptom) for node, symptom in confirmed.items()])


def _look(
    run: Run, instances: Sequence[Instance], planned: Mapping[str, PlannedHost], registered: Container[str] | None
) -> dict[str, Symptom]:
    """The symptoms of its hosts."""
    interval = run.options["check_interval"]
    found = symptoms_of(instances, check_interval=interval, registered=registered, nodes=planned)
    return {node: symptom for node, symptom in found.items() if node in planned}


def _changed(task: Task, run: Run, planned: Mapping[str, PlannedHost], nodes: Sequence[str]) -> dict[str, Outcome]:
    """Node -> outcome, for those of them that the deployment has changed and left healthy, or one that it resumes."""
    client, keys = task.consul, run.keys(task)
    found = read_outcomes(client, keys, run.id, nodes)
    for earlier in run.resumed:
        missing = [node for node in nodes if planned[node].batch is None and node not in found]
        there = read_outcomes(client, keys, earlier, missing)
        found.update({node: replace(ended, batch=None) for node, ended in there.items()})
    return {node: ended for node, ended in found.items() if ended.outcome == OK}


def _confirm(task: Task, run: Run, ask: Ask, suspects: Mapping[str, PlannedHost]) -> dict[str, Symptom]:
    """Those that are bad, and no flap; all are decided on its return."""
    grace, since = run.options["watch_grace"], time.monotonic()
    open_, confirmed = dict(suspects), {}
    bad_since: dict[str, float] = {}
    while open_:
        instances, _answer = read_instances(task.consul, run.service, tags=run.options["tags"])
        symptoms = _look(run, instances, suspects, {one.node for one in instances})
        for node, planned in list(open_.items()):
            symptom = symptoms.get(node)
            if symptom is None:
                _telling(task, run, planned).tell("healthy again, or in maintenance")
                del open_[node]
                continue
            now, wrong = time.monotonic(), None if symptom.outcome == LOST else ask(planned)
            if wrong:
                bad_since.setdefault(node, now)
            elif wrong is not None:
                bad_since.pop(node, None)
            is_sure = now - since >= (symptom.delay or grace)
            if is_sure or now - bad_since.get(node, now) >= grace > 0:
                confirmed[node] = replace(
                    symptom, told=f"{symptom.told}; its health URL: {wrong}" if wrong else symptom.told
                )
                del open_[node]
        if open_:
            time.sleep(LOOK_EVERY)
    return confirmed


def _all_fail_alike(task: Task, run: Run, ask: Ask, confirmed: Mapping[str, Symptom]) -> str:
    """Why it is not the new version; empty where it may be."""
    others = 0 if all(symptom.outcome == LOST for symptom in confirmed.values()) else others_fail(task, run, ask)
    if not others:
        return ""
    what = "; ".join(f"{node}: {symptom.told}" for node, symptom in list(confirmed.items())[:3])
    return (
        f"{run.service} fails on what was changed and on each of the {others} other instances alike, so that the "
        f"{'restart' if run.kind.keeps_version else 'new version'} is not the reason ({what})"
    )


def _record(task: Task, run: Run, planned: PlannedHost, ended: Outcome, symptom: Symptom) -> Outcome:
    """Write what the host has come to; whoever finds it too writes the same.

    :raises LockLost: the lock is no longer ours.
    """
    keys, at = run.keys(task), timestamp()
    if symptom.outcome == LOST:
        error = f"Its Consul agent is lost since it was changed: {symptom.told}."
    else:
        on = "after it" if run.kind.keeps_version else f"on {planned.to_version}"
        error = f"It was healthy {on}, and is no longer: {symptom.told}."
    step = {"state": symptom.outcome, "at": at}
    found = replace(ended, outcome=symptom.outcome, error=error, finished=at, steps=(*ended.steps, step))
    fence = kv_check_session(keys.lock, run.session)
    ended_so = outcome_ops(keys, run.id, found, unsure=run.is_unsure(planned, symptom.outcome))
    task.consul.txn([fence, *ended_so, *ended_ops(keys, run.id, found)])
    _telling(task, run, planned).tell(f"{symptom.outcome}: {symptom.told}")
    return found


def _telling(task: Task, run: Run, planned: PlannedHost) -> Telling:
    return Telling(task.show, planned.host, *run.place_of(planned.host))
