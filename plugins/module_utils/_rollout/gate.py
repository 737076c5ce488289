# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision at the head of each batch (a private helper of this collection).

The first half is pure: plain data in and out. The second reads what it needs from Consul, and writes what was decided.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import AskAgain, Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    Instance,
    parse_instances,
    service_query,
    with_tags,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_check_session
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import DeadlineExceeded, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import warnings_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import outlast, pauses_after, record_stop
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_variables import hosts_told
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome, budget_spent
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress, read_progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    Record,
    planned_hosts,
    planned_outcome,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import LOST
from ansible_collections.hitless.consul.plugins.module_utils._rollout.telling import Telling
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import parse_timestamp


@dataclass(frozen=True)
class Head:
    """How many instances may get traffic as a batch, or a host in a window, begins, and would without its own.

    :param warning: checks of its own that warn, in words: it could not be verified after its deployment.
    """

    registered: int
    healthy: int
    healthy_without: int
    warning: tuple[str, ...] = ()

    @property
    def takes(self) -> int:
        """Instances that it takes out of rotation."""
        return self.healthy - self.healthy_without


@dataclass(frozen=True)
class Bound:
    """A minimum that holds as a batch, or a host, begins: of all instances, or of those in its wave.

    :param wave: its name; empty for all instances.
    """

    head: Head
    minimum: int
    wave: str = ""


def bounds_of(run: Run, instances: Sequence[Instance], nodes: Sequence[str]) -> list[Bound]:
    """Those of a batch: of all instances, and of each wave that it takes hosts from.

    :param instances: of the service, all of them; ``nodes``: of the batch.
    """
    wave_of, accept = run.plan.get("wave_of") or {}, run.accepts_warning
    found = [Bound(head_of(instances, nodes, accept_warning=accept), run.plan["health"]["minimum"])]
    for wave in run.planned_waves.each:
        mine = [node for node in nodes if wave_of.get(node) == wave.name]
        there = [one for one in instances if wave_of.get(one.node) == wave.name] if mine else []
        if mine:
            found.append(Bound(head_of(there, mine, accept_warning=accept), wave.minimum, wave.name))
    return found


def head_of(instances: Iterable[Instance], nodes: Iterable[str], *, accept_warning: bool) -> Head:
    """Counts instances that may get traffic, all, and those that are not on the batch's nodes."""
    mine, found = set(nodes), list(instances)
    serving = [one for one in found if one.in_rotation]
    warning = warnings_of((one for one in serving if one.node in mine), accept_warning=accept_warning)
    return Head(len(found), len(serving), sum(one.node not in mine for one in serving), tuple(warning))


def may_begin(head: Head, min_healthy: int) -> bool:
    """Our own action never takes the service below the minimum; taking out what is broken takes nothing away."""
    enough = head.healthy_without >= min_healthy or head.healthy_without == head.healthy
    return enough and not head.warning


def lost_before(record: Record, outcomes: Sequence[Outcome], batch: int) -> list[str]:
    """Hosts planned in an earlier batch that have no outcome: their turn began, and nobody came back from it.

    Only the record counts, not facts, so that the last play and a later run see the same.
    """
    written = {one.node for one in outcomes}
    return [
        planned.host
        for planned in record.hosts.values()
        if planned.batch is not None and planned.batch < batch and planned.node not in written
    ]


def budget_stop(outcomes: Sequence[Outcome], failure_budget: int) -> str:
    """Why the deployment stops, empty where the failure budget still holds."""
    return spent_stop([one.told for one in outcomes if budget_spent([one])], failure_budget)


def spent_stop(hosts: Sequence[str], failure_budget: int) -> str:
    """The same where it is known which hosts have spent it, see ``Outcome.told``."""
    return (
        f"the failure budget of {failure_budget} is spent ({', '.join(hosts)})" if len(hosts) > failure_budget else ""
    )


def progress_stop(seconds_since_progress: float, progress_deadline: float) -> str:
    """Why the deployment stops, empty where some host has finished recently enough."""
    if seconds_since_progress <= progress_deadline:
        return ""
    return (
        f"no host has finished for {seconds_since_progress:.0f} s, more than rollout_progress_deadline "
        f"({progress_deadline:g} s)"
    )


def healthy_stop(head: Head, min_healthy: int, waited: float, wave: str = "") -> str:
    """Why the deployment stops where too few instances are healthy, or some could not be verified."""
    if head.warning:
        return (
            f"a check of what comes next still warns after {waited:.0f} s ({head.warning[0]}), so that no deployment "
            "could be verified by it (repair it, or set rollout_accept_warning: true)"
        )
    which, there = (f" of wave {wave}", " there") if wave else ("", "")
    return (
        f"only {head.healthy} of {head.registered} instances{which} are healthy after {waited:.0f} s, and going on "
        f"would leave {head.healthy_without}, fewer than the minimum of {min_healthy}{there} (rollout_min_healthy)"
    )


# -- at the head of a batch ---------------------------------------------------------------------------------------

LOOK_EVERY = 1.0
"""Seconds between two looks at the progress while a gate waits for healthy instances: a stop has to be heard."""
_LOST = "it could not be reached any more during its turn"
_FIRST_WRITES = ("drain", "drain_by_hook")
"""Steps whose first write to a host says that its batch is begun."""


def open_gate(task: Task, run: Run, coordinator: str) -> dict[str, Any]:
    """Whether a batch may begin: its head, see :func:`_head`. It never fails: a coordinator that fails would end the
    playbook.

    Hosts of earlier batches without an outcome are recorded as lost. For enough healthy instances it waits.
    """
    batch = run.coordinators.index(coordinator) + 1
    try:
        stop = _decide(task, run, batch)
    except HitlessError as error:
        stop = str(error)
    if stop:
        return _stopped(task, run, batch, stop)
    tell_wave(task, run, batch)
    return _head(run, batch)


def tell_wave(task: Task, run: Run, stage: int) -> None:
    """Say that a wave begins, where it does so with this stage, or batch."""
    waves = run.planned_waves
    wave = waves.at(stage)
    if wave and waves.begins_with(stage):
        hosts = sum(len(one) for one in run.plan["batches"][stage - 1 : stage - 1 + wave.stages])
        Telling(task.show, run.service).tell(f"{waves.told(stage)}: {hosts} host{'' if hosts == 1 else 's'}")


def open_stage(task: Task, run: Run, host: str) -> dict[str, Any]:
    """The same of a host's stage, where hosts take their turns in a window: each has a gate of its own.

    Where the stage before has to be promoted, it waits for that here.
    """
    stage = run.host(host).batch or 1
    stop = ""
    if pauses_after(run, stage - 1):
        try:
            progress = read_progress(task.consul, run.keys(task), run.id)
            stop = outlast(task, run, f"stage {stage}", progress, stage=stage - 1)[1]
        except HitlessError as error:
            stop = str(error)
    if not stop and run.planned_waves.begins_with(stage) and not _has_stopped(task, run):
        tell_wave(task, run, stage)
    return {
        "proceed": not stop,
        "window": run.plan["windows"][stage - 1],
    }


def _has_stopped(task: Task, run: Run) -> bool:
    """Whether each host of a stage finds for itself that it may not begin."""
    try:
        return bool(read_progress(task.consul, run.keys(task), run.id).stop)
    except HitlessError:
        return False


def begin_batch(task: Task, run: Run, coordinator: str) -> dict[str, Any]:
    """Say that a batch is begun, whose hook has run."""
    batch = run.coordinators.index(coordinator) + 1
    keys = run.keys(task)
    task.consul.txn([kv_check_session(keys.lock, run.session), Progress(batch=batch).op(keys, run.id)])
    return _head(run, batch)


def read_batch(task: Task, run: Run, coordinator: str) -> dict[str, Any]:
    """The head of a batch with how its hosts ended, for the hook after it; one that told nothing is lost."""
    batch = run.coordinators.index(coordinator) + 1
    found = store.require(task.consul, run.keys(task), run.id)
    planned = [found.record.hosts[name] for name in run.plan["batches"][batch - 1]]
    outcomes = {one.host: found.outcomes.get(one.host) or planned_outcome(one, LOST, _LOST) for one in planned}
    return {**_head(run, batch), "told": {**run.told, "hosts": hosts_told(planned, outcomes)}}


def stop_before(task: Task, run: Run, coordinator: str, why: str) -> dict[str, Any]:
    """Stop the rollout before a batch, or before the first where it is no coordinator that asks."""
    batch = run.coordinators.index(coordinator) + 1 if coordinator in run.coordinators else 1
    return _stopped(task, run, batch, why)


def _head(run: Run, batch: int, stop: str = "") -> dict[str, Any]:
    """What the tasks of a batch take from their run: small, since Ansible resolves all of it for each of them."""
    names = run.plan["batches"][batch - 1] if run.plan["batches"] else []
    options = run.options
    wanted = ("direction", "become", "deploy_timeout", *(name for name in options if name.endswith("_tasks")))
    planned = planned_hosts({name: run.plan["hosts"][name] for name in names})
    told = {"told": {**run.told, "hosts": hosts_told(planned.values(), {})}} if options["before_batch_tasks"] else {}
    return {
        **told,
        "proceed": not stop,
        "stop": stop,
        "id": run.id,
        "coordinator": run.coordinators[batch - 1] if run.coordinators else "",
        "hosts": {name: {key: run.plan["hosts"][name][key] for key in ("from", "to", "rollback_to")} for name in names},
        "service": run.service,
        "steps": list(run.steps),
        "rollback_steps": list(run.rollback_steps),
        "deploy_role": options["deploy_role"],
        **{name: options[name] for name in wanted},
    }


def _stopped(task: Task, run: Run, batch: int, why: str) -> dict[str, Any]:
    """The head of a batch that may not begin."""
    record_stop(task, run, f"batch {batch}", why, begun=batch - 1)
    return _head(run, batch, why)


def wait_for_change(
    client: Client, query: tuple[str, Sequence[tuple[str, object]]], answer: Answer, until: float
) -> None:
    """Return when the catalog answers something else, or then.

    :param query: path and parameters, see ``health.service_query``.
    :param answer: what it has answered; ``until``: on the monotonic clock.
    """
    with suppress(DeadlineExceeded):
        client.watch(*query, lambda data: data != answer.data or None, until, first=answer)


def _decide(task: Task, run: Run, batch: int) -> str:
    """Why the batch may not begin, empty where it may."""
    keys, client, options = run.keys(task), task.consul, run.options
    found = store.require(client, keys, run.id)
    if found.lock is None or found.lock.session != run.session:
        holder = f"; {found.lock.holder} has it now" if found.lock is not None and found.lock.alive else ""
        return f"the lock of {run.service} is no longer held by this run{holder}"
    if found.stop:
        return found.stop
    if found.batch < batch - 1:
        return f"batch {found.batch + 1} was not begun"
    outcomes = [one for name, one in found.outcomes.items() if found.record.hosts[name].batch is not None]
    for name in lost_before(found.record, outcomes, batch):
        planned = found.record.hosts[name]
        outcomes.append(planned_outcome(planned, LOST, _LOST))
        ended = store.outcome_ops(keys, run.id, outcomes[-1], unsure=run.is_unsure(planned, LOST))
        client.txn([kv_check_session(keys.lock, run.session), *ended])
    finished = [parse_timestamp(one.finished) for one in outcomes] + [parse_timestamp(found.record.started)]
    finished.append(parse_timestamp(found.latest))
    latest = max((at for at in finished if at), default=datetime.now(timezone.utc))
    idle = (datetime.now(timezone.utc) - latest).total_seconds()
    stop = budget_stop(outcomes, options["failure_budget"]) or progress_stop(idle, options["progress_deadline"])
    nodes = [found.record.hosts[name].node for name in run.plan["batches"][batch - 1]]
    stop = stop or _outlast(task, run, batch) or _wait_for_minimum(task, run, nodes, batch)
    if not stop and run.steps[0] not in _FIRST_WRITES and not options["before_batch_tasks"]:
        client.txn([kv_check_session(keys.lock, run.session), Progress(batch=batch).op(keys, run.id)])
    return stop


def _outlast(task: Task, run: Run, batch: int) -> str:
    """Waits while the deployment is paused; why the batch may not begin."""
    progress = read_progress(task.consul, run.keys(task), run.id)
    stage = batch - 1 if pauses_after(run, batch - 1) else 0
    return outlast(task, run, f"batch {batch}", progress, stage=stage, begun=batch - 1)[1]


def _wait_for_minimum(task: Task, run: Run, nodes: Sequence[str], batch: int) -> str:
    """Waits until enough instances are healthy without this batch; the reason to stop where that takes too long.

    Meanwhile an operator is heard.
    """
    options = run.options
    bounds: list[Bound] = []
    looked = time.monotonic()

    def enough(data: Any) -> str | None:
        nonlocal bounds, looked
        instances = with_tags(parse_instances(data), options["tags"])
        bounds = [one for one in bounds_of(run, instances, nodes) if not may_begin(one.head, one.minimum)]
        if not bounds:
            return ""
        if time.monotonic() - looked >= LOOK_EVERY:
            looked = time.monotonic()
            stop = _outlast(task, run, batch)
            if stop:
                return stop
        raise AskAgain(LOOK_EVERY)

    path, query = service_query(run.service)
    started = time.monotonic()
    try:
        return task.consul.watch(path, query, enough, started + options["healthy_deadline"])
    except DeadlineExceeded:
        short = bounds[0] if bounds else Bound(Head(0, 0, 0), run.plan["health"]["minimum"])
        return healthy_stop(short.head, short.minimum, time.monotonic() - started, short.wave)
