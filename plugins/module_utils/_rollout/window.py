# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of a window: whether one more host may begin its turn (a private helper of this collection).

Any number of workers may stand at it at once. Each decides by what it has read, and where room is scarce it begins by
compare-and-set: where another one began meanwhile, it decides anew. What it reads does not grow with the fleet: the
progress, and what looking.py tells of the instances.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.alike import Ask, cannot_ask
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import ALIKE, Halt
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import warnings_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.gate import (
    LOOK_EVERY,
    Bound,
    Head,
    healthy_stop,
    may_begin,
    progress_stop,
    spent_stop,
    wait_for_change,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import outlast, record_stop
from ansible_collections.hitless.consul.plugins.module_utils._rollout.looking import Look, look
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import (
    CONFLICT,
    Progress,
    begun_op,
    read_progress,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.recorded_host import RecordedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.regression import look_back
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import parse_timestamp

WITNESSES = 2
"""Hosts that go back one after the other, and fail, while no instance works, before no further one does."""


def room_for(node: str, instances: Sequence[Instance], progress: Progress, *, accept_warning: bool) -> Head:
    """How many instances get traffic, and would without the host.

    An instance on a node in flight counts as out until its turn has ended, whatever the catalog shows.

    :param instances: at least those that get no traffic, and the node's own.
    """
    out: dict[str, int] = {}
    for one in instances:
        out[one.node] = out.get(one.node, 0) + (not one.in_rotation)
    for other, takes in progress.in_flight.items():
        out[other] = max(takes, out.get(other, 0))
    mine = [one for one in instances if one.node == node]
    takes = sum(one.in_rotation for one in mine)
    healthy = progress.registered - sum(out.values())
    warning = warnings_of((one for one in mine if one.in_rotation), accept_warning=accept_warning)
    return Head(progress.registered, healthy, healthy - takes, tuple(warning))


def bounds_for(host: RecordedHost, instances: Sequence[Instance], progress: Progress) -> list[Bound]:
    """The minimum of all instances, and that of the host's wave. Parameters as :func:`room_for`."""
    plan, accept = host.run.plan, host.run.accepts_warning
    head = room_for(host.node, instances, progress, accept_warning=accept)
    found = [Bound(head, plan["health"]["minimum"])]
    wave_of = plan.get("wave_of") or {}
    wave = host.run.planned_waves.named(wave_of.get(host.node))
    if wave:
        there = [one for one in instances if wave_of.get(one.node) == wave.name]
        flying = {node: takes for node, takes in progress.in_flight.items() if wave_of.get(node) == wave.name}
        # Those that are not read here are served, and counted every now and then, as all are.
        known = replace(progress, registered=progress.in_waves.get(wave.name, wave.registered), in_flight=flying)
        head = room_for(host.node, there, known, accept_warning=accept)
        found.append(Bound(head, wave.minimum, wave.name))
    return found


def admit(
    host: RecordedHost, begin: Callable[[Sequence[dict[str, Any]], Answer], object], ask: Ask = cannot_ask
) -> str:
    """Begin the host's turn once it may -> why it may not; empty where it has begun.

    It waits for enough healthy instances (rollout_healthy_deadline).

    Where all that may be in flight could begin now, nothing has to be agreed on. Else it begins by compare-and-set.

    :param begin: begins it in one transaction, with the operations that it is given, and by what the catalog says of
        the node's own instances; called again where another worker has begun a host meanwhile.
    :param ask: asks the health URL of a host that was changed.
    """
    client, options = host.task.consul, host.run.options
    conflicts, parent = 0, os.getppid()
    started = time.monotonic()
    until = started + options["healthy_deadline"]
    while True:
        progress = read_progress(client, host.keys, host.run.id)
        if host.node in progress.in_flight:  # written by a request whose answer was lost
            return ""
        began = time.monotonic()
        progress, why = _outlast(host, progress, parent)
        if why:
            return why
        until += time.monotonic() - began  # a pause is no time in which others could have become healthy
        try:
            seen = look(host, progress)
        except LockLost as error:
            return str(error)
        if seen is None:
            continue  # another worker has begun a host, or counted, meanwhile
        progress = seen.progress
        bounds = bounds_for(host, seen.instances, progress)
        why = _none_works(host, bounds, progress)
        if why:
            return why
        began = time.monotonic()
        if _regressed(host, ask, seen) or _waits_for_one(host, bounds, seen):
            until += time.monotonic() - began  # nor is this
            continue
        short = next((one for one in bounds if not may_begin(one.head, one.minimum)), None)
        if short is None:
            begun = _begun(host, begin, bounds, seen)
            if begun is not None:
                return begun
            # As in a network: who has met others waits a random while, and longer each time.
            conflicts += 1
            time.sleep(random.uniform(0, min(0.5, 0.01 * 2**conflicts)))
            continue
        if _returns(host, progress, short):
            until = time.monotonic() + options["healthy_deadline"]
        if time.monotonic() >= until:
            waited = time.monotonic() - started
            return _stopped(host, healthy_stop(short.head, short.minimum, waited, short.wave))
        wait_for_change(client, seen.query, seen.answer, min(until, time.monotonic() + LOOK_EVERY))


def _begun(
    host: RecordedHost,
    begin: Callable[[Sequence[dict[str, Any]], Answer], object],
    bounds: Sequence[Bound],
    seen: Look,
) -> str | None:
    """Begin the turn: empty where it has begun, else why not; None where another worker has begun a host meanwhile."""
    try:
        begin(_first_writes(host, bounds, seen.progress), seen.own)
    except LockLost as error:
        return str(error)
    except ConsulError as error:
        if error.status != CONFLICT:
            raise
        return None
    return ""


def _first_writes(host: RecordedHost, bounds: Sequence[Bound], progress: Progress) -> list[dict[str, Any]]:
    """The operations by which a turn begins; by compare-and-set where the others might leave too few."""
    operations = [begun_op(host.keys, host.run.id, host.node, bounds[0].head.takes)]
    others = _others(host, progress)
    is_scarce = not all(may_begin(one.head, one.minimum + others) for one in bounds)
    if is_scarce or _goes_back_blindly(host, bounds):
        operations.append(progress.one_more().op_if_unchanged(host.keys, host.run.id))
    return operations


def _goes_back_blindly(host: RecordedHost, bounds: Sequence[Bound]) -> bool:
    """Whether no instance works, so that one host at a time goes back until one does: it may be no version's fault.

    A host that fails stays in maintenance. The others are served again as soon as what all of them miss is there.
    """
    return host.run.options["direction"] == "rollback" and bounds[0].head.healthy <= 0


def _none_works(host: RecordedHost, bounds: Sequence[Bound], progress: Progress) -> str:
    """Why no further host goes back, where those that did work on their old version neither; else empty."""
    if not _goes_back_blindly(host, bounds) or len(progress.spent) < WITNESSES:
        return ""
    spent = ", ".join(progress.spent)
    return _stopped(host, f"no instance of {host.run.service} works, on its old version neither ({spent})")


def _waits_for_one(host: RecordedHost, bounds: Sequence[Bound], seen: Look) -> bool:
    """Whether it has waited for the one that goes back first."""
    if not _goes_back_blindly(host, bounds) or not seen.progress.in_flight:
        return False
    wait_for_change(host.task.consul, seen.query, seen.answer, time.monotonic() + LOOK_EVERY)
    return True


def _returns(host: RecordedHost, progress: Progress, short: Bound) -> bool:
    """Whether a wave lacks no more than what is in flight there, which comes back by deadlines of its own.

    Where hosts of several waves are in flight, as in a rollback, a worker may stand here for that.
    """
    wave_of = host.run.plan.get("wave_of") or {}
    flying = sum(takes for node, takes in progress.in_flight.items() if wave_of.get(node) == short.wave)
    return bool(short.wave) and not short.head.warning and short.head.healthy_without + flying >= short.minimum


def _regressed(host: RecordedHost, ask: Ask, seen: Look) -> bool:
    """Whether something that was changed had turned bad, so that what was read before is of no use any more."""
    if host.run.options["direction"] == "rollback":
        return False
    flying = {*seen.progress.in_flight, host.node}
    found = look_back(host.task, host.run, ask, seen.instances, flying, seen.registered)
    if found and found.alike:
        record_stop(host.task, host.run, host.planned.host, found.alike, halt=Halt(ALIKE, found.alike))
    return found is not None


def _outlast(host: RecordedHost, progress: Progress, parent: int) -> tuple[Progress, str]:
    """Wait while it is paused -> the progress then, and why no further host begins, empty where one may.

    :param parent: the process of the controller.
    """
    if os.getppid() != parent:
        # It was killed: the lock is kept for as long as one of its workers is there.
        return progress, "its run was interrupted"
    if progress.stop:
        return progress, progress.stop
    why = _stop(host, progress)
    if why:
        return progress, _stopped(host, why)
    return outlast(host.task, host.run, host.planned.host, progress)


def _stop(host: RecordedHost, progress: Progress) -> str:
    """Why no further host begins, empty where one may."""
    options = host.run.options
    latest = parse_timestamp(progress.latest)
    idle = (datetime.now(timezone.utc) - latest).total_seconds() if latest else 0.0
    spent = spent_stop(progress.spent, options["failure_budget"])
    return spent or progress_stop(idle, options["progress_deadline"])


def _stopped(host: RecordedHost, why: str) -> str:
    record_stop(host.task, host.run, host.planned.host, why)
    return why


def _others(host: RecordedHost, progress: Progress) -> int:
    """Instances that the other workers of the window may be about to take out."""
    plan = host.run.plan
    window = int(plan["windows"][(host.planned.batch or 1) - 1])
    return max(0, window - 1 - len(progress.in_flight)) * max(1, int(plan.get("largest") or 0))
