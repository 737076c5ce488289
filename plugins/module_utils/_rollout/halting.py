# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run halts, or waits, for an operator, a freeze or the end of a stage (a private helper of this collection).

control.py says what holds; here a run waits at a gate for as long as it may (rollout_pause_wait), and writes what it
has come to.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import parse_instances, service_query
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_check_session
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, DeadlineExceeded, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.change_windows import closed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import (
    CLOSED,
    FAILURE,
    FREEZE,
    GOES_ON,
    PROMOTE,
    STAGE,
    Halt,
    Order,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import (
    Progress,
    change_progress,
    note_control,
    read_progress,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import EACH, EACH_WAVE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import OK
from ansible_collections.hitless.consul.plugins.module_utils._rollout.telling import Telling
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp

LOOK_EVERY = 5.0
"""Seconds between two looks at what no watch on the key of control tells: freezes, the clock, the health."""
HEALTH_EVERY = 1.0
"""Seconds between two looks at the health of what was changed (rollout_auto_promote)."""
AUTO = "rollout_auto_promote"
"""Who promotes a stage by itself, as its use of control is noted."""


def outlast(
    task: Task, run: Run, before: str, progress: Progress, *, stage: int = 0, begun: int = 0
) -> tuple[Progress, str]:
    """Wait while the deployment is paused -> its progress then, and why no further host begins; empty where one may.

    Where nothing halts it no request is made.

    :param before: what does not begin, for a person; ``begun`` is the last batch that can have begun.
    :param progress: as it was read just now.
    :param stage: that has ended and has to be promoted; 0 for none.
    """
    wait = run.options["pause_wait"]
    healthy = _Healthy(task, run) if stage and run.options["auto_promote"] else None
    # A moment longer: it is healthy for that time from the first look on.
    until = time.monotonic() + max(wait, run.options["auto_promote"] + 2 * HEALTH_EVERY if healthy else 0)
    parent = os.getppid()
    while True:
        if progress.stop:
            return progress, progress.stop
        if os.getppid() != parent:
            # The controller was killed: the lock is kept for as long as one of its workers is there.
            return progress, "its run was interrupted"
        if stage:
            progress = _promoted(task, run, progress, stage, healthy)
        halt = halt_of(run, progress, stage)
        if halt is None:
            return _resumed(task, run, progress), ""
        if not halt.pauses or time.monotonic() >= until:
            record_stop(task, run, before, halt.why, begun, halt)
            return progress, halt.why
        progress = _noted(task, run, progress, halt)
        _wait_for_order(task, run, progress, min(until, time.monotonic() + (HEALTH_EVERY if healthy else LOOK_EVERY)))
        progress = read_progress(task.consul, run.keys(task), run.id)


def pauses_after(run: Run, stage: int) -> bool:
    """Whether a stage has to be promoted before the next begins (rollout_pause_after); a rollback pauses nowhere."""
    wanted = run.options["pause_after"]
    if not stage or run.options["direction"] == "rollback":
        return False
    if wanted == EACH_WAVE:
        return run.planned_waves.ends_with(stage)
    return bool(wanted == EACH or stage in wanted)


def halt_of(run: Run, progress: Progress, stage: int = 0) -> Halt | None:
    """Why no further host begins now; None where one may. Arguments as :func:`outlast`."""
    control = progress.control
    halt = control.halt(run.options["direction"], closed(run.options["windows"]))
    if stage > control.noted.promoted and (halt is None or halt.kind in (FREEZE, CLOSED)):
        stages, wave = len(run.plan["batches"]), run.planned_waves.told(stage)
        which = f"stage {stage} of {stages}{f' ({wave})' if wave else ''}"
        return Halt(STAGE, f"{which} has ended, and has to be promoted before the next begins")
    return halt


def record_stop(task: Task, run: Run, before: str, why: str, begun: int = 0, halt: Halt | None = None) -> None:
    """Write why no more begins, where the end of the run, and others, read it; a reason that is there stays.

    :param before: what does not begin, for a person.
    :param begun: the last batch that can have begun.
    :param halt: where it is no failure.
    """
    keys, is_new = run.keys(task), False

    def stopped(found: Progress) -> Progress:
        nonlocal is_new
        is_new = not found.stop
        if found.stop:
            return found
        ended = replace(found, stop=why, batch=min(found.batch, begun))
        return note_control(ended, lambda noted: noted.heard(halt.order).halted(halt.kind, why)) if halt else ended

    try:
        change_progress(task.consul, keys, run.id, stopped, _fence(task, run))
        if is_new and halt and halt.is_found:
            Telling(task.show, run.service).tell(f"{'stops' if halt.kind == FAILURE else 'pauses'}: {why}")
    except HitlessError as error:
        task.warn(f"{run.service} stops before {before}: {why}. That could not be recorded: {error}")


def clear_order(client: Client, keys: Keys, index: int) -> None:
    """Empty the key of control, unless it has changed since: the same word by hand would be no change otherwise.

    It is there then, as who listens to it needs: a watch on a key that is missing returns at each change of any other.

    :param index: of the key as it was read, 0 where there is none, and less for nothing to clear.
    """
    if index >= 0:
        with suppress(ConsulError):  # a word that is used up means nothing, also where it is still there
            client.set_key(keys.control, "", cas=index)


def auto_promotion() -> Order:
    """The order that nobody says: a stage has been healthy for rollout_auto_promote."""
    return Order(PROMOTE, by=AUTO, at=timestamp())


def unhealthy_nodes(client: Client, service: str) -> set[str]:
    """The nodes with an instance that does not pass."""
    bad = service_query(service, also='Checks.Status == "critical" or Checks.Status == "warning"')
    return {one.node for one in parse_instances(client.get(*bad).data)}


# -- inside -------------------------------------------------------------------------------------------------------


def _fence(task: Task, run: Run) -> dict[str, Any]:
    return kv_check_session(run.keys(task).lock, run.session)


def _noted(task: Task, run: Run, progress: Progress, halt: Halt) -> Progress:
    """Others see that it waits, and who uses control is noted; written where it is new."""

    def noted(found: Progress) -> Progress:
        if found.stop:
            return found
        return note_control(found, lambda one: one.heard(halt.order).halted(halt.kind, halt.why))

    if progress.control.noted == progress.control.noted.heard(halt.order).halted(halt.kind, halt.why):
        return progress
    task.show(f"{run.service} is paused: {halt.why}.")
    return change_progress(task.consul, run.keys(task), run.id, noted, _fence(task, run))


def _resumed(task: Task, run: Run, progress: Progress) -> Progress:
    """It waits no longer, by the order that ended that; the time that it has waited is none without progress."""
    if not progress.control.noted.is_waiting:
        return progress

    def resumed(found: Progress) -> Progress:
        return note_control(found, lambda one: one.going_on(_order(found)), at=timestamp())

    clear = _order(progress)
    progress = change_progress(task.consul, run.keys(task), run.id, resumed, _fence(task, run))
    clear_order(task.consul, run.keys(task), clear.index if clear else -1)
    return progress


def _order(progress: Progress) -> Order | None:
    pending = progress.control.pending
    return pending if pending and pending.word in GOES_ON else None


def _promoted(task: Task, run: Run, progress: Progress, stage: int, healthy: _Healthy | None) -> Progress:
    """With the stage promoted where somebody has said so, or where it has been healthy for so long."""
    if progress.control.noted.promoted >= stage:
        return progress
    order = _order(progress)
    if progress.control.pending is None and healthy and healthy.seconds >= run.options["auto_promote"]:
        order = auto_promotion()
    if order is None:
        return progress

    def promoted(found: Progress) -> Progress:
        return note_control(found, lambda one: one.going_on(order, promoted=stage), at=timestamp())

    progress = change_progress(task.consul, run.keys(task), run.id, promoted, _fence(task, run))
    clear_order(task.consul, run.keys(task), order.index or -1)
    return progress


def _wait_for_order(task: Task, run: Run, progress: Progress, until: float) -> None:
    """Return when somebody says a word, or then."""
    key = run.keys(task).control

    def changed(data: Any) -> bool | None:
        return True if (data[0]["ModifyIndex"] if data else 0) != progress.control.index else None

    with suppress(DeadlineExceeded):
        task.consul.watch(f"/v1/kv/{key}", [], changed, until)


class _Healthy:
    """For how long all that the deployment has changed has been healthy."""

    def __init__(self, task: Task, run: Run) -> None:
        found = store.require(task.consul, run.keys(task), run.id)
        self._task, self._run = task, run
        self._nodes = {one.node for one in found.outcomes.values() if one.outcome == OK}
        self._since = 0.0

    @property
    def seconds(self) -> float:
        try:
            bad = bool(self._nodes & unhealthy_nodes(self._task.consul, self._run.service))
        except ConsulError:
            bad = True
        self._since = 0.0 if bad else self._since or time.monotonic()
        return time.monotonic() - self._since if self._since else 0.0
