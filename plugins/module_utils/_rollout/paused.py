# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A paused deployment is a claim: a run goes on with it, waits, or takes over (a private helper of this collection).

No process and no lock stand for it, only its record. It goes on under its own id and by its own plan, whoever starts
the next run and from where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    in_transactions,
    kv_check_index,
    kv_check_session,
    kv_delete,
    kv_set,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import control, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.change_windows import closed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import (
    ALIKE,
    GOES_ON,
    PAUSE,
    STAGE,
    Control,
    Order,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import auto_promotion, unhealthy_nodes
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History, read_history
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import Plan, coordinator_name, named
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import CONFLICT, read_progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    CANCELLED,
    PAUSED,
    RUNNING,
    TO_CHANGE,
    planned_outcome,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run, answer_request
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
    DEFERRED,
    OK,
    SKIPPED,
    TO_COME,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import parse_timestamp, timestamp
from ansible_collections.hitless.consul.plugins.module_utils._views.paused import goes_on

BEGIN, GO_ON, WAIT, TAKE_OVER = "begin", "go_on", "wait", "take_over"
"""What a run does: begins a deployment of its own; goes on with the one that is paused; ends, since that has still to
wait; cancels it, and begins one of its own."""


@dataclass(frozen=True)
class Claim:
    """What stands before a run that begins.

    :param does: see :data:`BEGIN`.
    :param found: the deployment that is paused; None where none is.
    :param control: the keys of control.
    :param why: it has to wait, or goes on, in words.
    :param order: by which it goes on; None where nobody had to say so.
    """

    does: str = BEGIN
    found: store.Deployment | None = None
    control: Control = field(default_factory=Control)
    why: str = ""
    order: Order | None = None

    @property
    def id(self) -> str:
        """Of the deployment that the run goes on with; empty for one of its own."""
        return self.found.record.id if self.found and self.does in (GO_ON, WAIT) else ""

    @property
    def goes_on(self) -> store.Deployment | None:
        """The deployment that the run goes on with."""
        return self.found if self.does == GO_ON else None

    @property
    def used_up(self) -> int:
        """Index of the key of control where it is to be emptied, see ``halting.clear_order``; -1 where it is not."""
        said = self.control.order
        waits_for_its_gate = self.does == GO_ON and self.order is None and said is not None
        return -1 if waits_for_its_gate or (said is None and self.control.index) else self.control.index

    @property
    def leftover(self) -> int:
        """Index of the order that is there and was for an earlier deployment."""
        return self.control.order.index if self.control.order else 0


def look(task: Task, run: Run, history: History) -> Claim:
    """What stands before a run, and what it does therefore.

    :raises HitlessError: rollouts are frozen, or outside of rollout_windows; another version is paused.
    """
    newest = next(iter(history.listed), None)
    found = history.with_hosts(newest.record.id) if newest and newest.record.state == PAUSED else None
    if found is None:
        return _alone(run, _read_control(task, run))
    record, options = found.record, run.options
    if (record.version, record.direction) != (options["version"], options["direction"]):
        return _other(run, found)
    cannot = _cannot_go_on(run, found)
    if cannot and not options["supersede"]:
        raise HitlessError(f"{cannot}; nothing was changed.", hint=_TAKE_OVER)
    return _alone(run, found.control, found) if cannot else _same(task, run, found)


def _read_control(task: Task, run: Run) -> Control:
    """What operators want.

    What a token may not read Consul leaves out of a transaction's answer without a word, and so a freeze of all would
    not be heard. A check of its index never holds, and tells by its reason whether the token has the right to read it.

    :raises HitlessError: the token may not read the freeze of all services.
    """
    keys = run.keys(task)
    found = {item["Key"]: item for item in task.consul.txn(control.reads(keys))}
    if run.options["direction"] != "rollback" and keys.freeze_all not in found:
        try:
            task.consul.txn([kv_check_index(keys.freeze_all, 0)])
        except ConsulError as error:
            if error.status != CONFLICT:
                raise
            if "Permission denied" in str(error):
                raise HitlessError(
                    f"The token may not read {keys.freeze_all}, so that a freeze of all services would not be heard; "
                    "nothing was changed.",
                    hint=f'Add to its policy: key "{keys.freeze_all}" {{ policy = "read" }}.',
                ) from None
    return Control.of(keys, "", found)


def _alone(run: Run, seen: Control, taken_over: store.Deployment | None = None) -> Claim:
    """It begins a deployment of its own, unless that is frozen or closed."""
    leftover = replace(seen, order=None)  # it was for an earlier deployment
    halt = leftover.halt(run.options["direction"], closed(run.options["windows"]))
    if halt:
        does = run.kind.done if run.kind.keeps_version else "rolled out"
        raise HitlessError(f"{run.service} is not {does} now: {halt.why}; nothing was changed.", hint=_LIFT)
    return Claim(TAKE_OVER if taken_over else BEGIN, taken_over, seen)


_LIFT = "A rollback is not kept from beginning."
_TAKE_OVER = "Go on with it as it was started, or take over with -e rollout_supersede=true, which cancels it."


def _other(run: Run, found: store.Deployment) -> Claim:
    record, options = found.record, run.options
    if options["supersede"] or options["direction"] == "rollback":
        return _alone(run, found.control, found)
    other = "other version" if record.direction == options["direction"] else run.kind.noun
    to = f"{record.direction} of {record.service} {record.version or ''}".rstrip()
    raise HitlessError(
        f"The {to} ({record.id}, by {record.holder}) is paused, since {found.control.noted.why}. It stands before any "
        f"{other}; nothing was changed.",
        hint=_TAKE_OVER,
        details={"paused": record.id},
    )


def _cannot_go_on(run: Run, found: store.Deployment) -> str:
    record = found.record
    missing = [name for name in _open(found) if name not in run.hosts]
    if missing:
        return f"{record.id} is paused, and {named(missing)} of it are not among the hosts of this run (rollout_hosts)"
    if bool(record.windows) != run.is_window:
        kinds = ("a window", "batches")
        was, now = kinds if record.windows else kinds[::-1]
        return f"{record.id} is paused and takes its hosts in {was}, and this run would take them in {now}"
    return ""


def _open(found: store.Deployment) -> list[str]:
    """The hosts whose turn is still to come."""
    results = found.results
    return [name for name, planned in found.record.hosts.items() if planned.batch and results[name] in TO_COME]


def _same(task: Task, run: Run, found: store.Deployment) -> Claim:
    """It goes on where it was told so, or where what it waits for is over."""
    noted, order = found.control.noted, found.control.pending
    # What a watcher could not tell is asked anew.
    halt = replace(found.control, findings=()).halt(run.options["direction"], closed(run.options["windows"]))
    if halt and not halt.pauses:
        return Claim(GO_ON, found, found.control, halt.why)  # which its first gate hears
    order = order if order and order.word in GOES_ON else None
    if order is None and noted.kind == STAGE:
        order = _auto(task, run, found)
    if noted.kind in (STAGE, PAUSE, ALIKE) and order is None:
        return Claim(WAIT, found, found.control, f"{noted.why}. {goes_on(found.record, noted.kind)}")
    if noted.kind == ALIKE and not _is_served(task, run):
        why = f"no instance of {run.service} is healthy yet; once one is, the same start goes on with it"
        return Claim(WAIT, found, found.control, f"{why}. It was paused because {noted.why}.")
    if halt:
        return Claim(WAIT, found, found.control, f"{halt.why}. {goes_on(found.record, halt.kind)}")
    why = f"{order.word} by {order.told}" if order else "what it waited for is over"
    return Claim(GO_ON, found, found.control, why, order)


def _is_served(task: Task, run: Run) -> bool:
    """Whether any instance gets traffic."""
    instances, _answer = read_instances(task.consul, run.service, tags=run.options["tags"])
    return any(one.in_rotation for one in instances)


def _auto(task: Task, run: Run, found: store.Deployment) -> Order | None:
    """The promotion that nobody has to say (rollout_auto_promote), where what was changed is healthy."""
    since = parse_timestamp(found.record.finished)
    seconds = run.options["auto_promote"]
    if not seconds or since is None or (datetime.now(timezone.utc) - since).total_seconds() < seconds:
        return None
    changed = {one.node for one in found.outcomes.values() if one.outcome == OK}
    return None if changed & unhealthy_nodes(task.consul, run.service) else auto_promotion()


# -- going on -----------------------------------------------------------------------------------------------------


def would_go_on(task: Task, run: Run) -> store.Deployment | None:
    """In check mode: the deployment whose plan is to be shown; what would keep the run from it is told."""
    try:
        claim = look(task, run, read_history(task.consul, run.keys(task)))
    except HitlessError as error:
        task.warn(f"It would not begin. {error}")
        return None
    if claim.does == WAIT:
        task.warn(f"It would not go on: {claim.id} is paused, since {claim.why}")
    return claim.found if claim.does in (WAIT, GO_ON) else None


def waits(task: Task, run: Run, claim: Claim) -> Run:
    """The run where it has nothing to do but to say so: no host has a turn, and it ends well."""
    task.show(f"{run.service}: {claim.id} is paused, since {claim.why}")
    answer_request(task, run, PAUSED, deployment=claim.id, reason=claim.why)
    nothing: Mapping[str, Any] = {"coordinators": [], "windows": [], "batches": [], "hosts": {}, "nothing_to_do": True}
    return replace(run, id=claim.id, plan=nothing, order=[], serial=[1], recorded=False)


def continued(plan: Plan, found: store.Deployment) -> Plan:
    """The plan of the deployment that goes on: its own stages, with the hosts whose turn is still to come.

    :param plan: as it would be for a deployment that begins now, by which each host is looked at anew.
    """
    record, to_come = found.record, set(_open(found))
    batches = [
        [name for name in batch if name in to_come and plan.hosts[name].state == TO_CHANGE] for batch in record.batches
    ]
    numbers = {name: number for number, batch in enumerate(batches, 1) for name in batch}

    def placed(name: str) -> dict[str, Any]:
        number = numbers.get(name)
        if number is None or record.windows:
            return {"batch": number, "coordinator": None}
        return {"batch": number, "coordinator": coordinator_name(plan.service, number, len(batches))}

    hosts = {name: replace(host, **placed(name)) for name, host in plan.hosts.items()}
    first = min(numbers.values(), default=len(batches))
    later = [name for name, host in plan.hosts.items() if name not in record.hosts and host.state == TO_CHANGE]
    group = "stage" if record.windows else "batch"
    count = f"{len(numbers)} host{'' if len(numbers) == 1 else 's'} to come"
    where = f"at {group} {first} of {len(batches)}, {count}" if numbers else "where all but its last bake is done"
    return replace(
        plan,
        hosts=hosts,
        batches=batches,
        windows=record.windows,
        waves=record.waves.going_on(plan.waves),
        description=f"{plan.service}: goes on with {record.id} {where}; "
        f"at least {plan.minimum} of {plan.registered} stay healthy",
        warnings=[*plan.warnings, *([f"Not in its plan, and left as they are: {named(later)}."] if later else [])],
    )


def go_on(task: Task, run: Run, claim: Claim) -> None:
    """Write that the deployment runs again, by this run.

    Hosts that its plan leaves alone though they were to change get their outcome now.

    :raises LockLost: the lock is not ours.
    """
    found = claim.found
    if found is None:
        return
    keys, record = run.keys(task), found.record
    progress = read_progress(task.consul, keys, record.id)
    noted = progress.control.noted
    stage = min((record.hosts[name].batch or 1 for name in _open(found)), default=1) - 1
    again = noted.going_on(claim.order, promoted=stage if claim.order and noted.kind == STAGE else 0)
    running = replace(
        record.become(RUNNING),
        description="",
        finished=None,
        summary={},
        holder=run.operator,
        origin=run.origin,
        message=run.options["message"] or record.message,
    )
    operations = [
        *(kv_set(keys.outcome(record.id, one.node), one.to_json()) for one in _left_alone(found, run.plan)),
        kv_delete(keys.in_flight(record.id), recurse=True),
        kv_delete(keys.findings(record.id), recurse=True),
        replace(progress, stop="", at=timestamp()).op(keys, record.id),
        again.op(keys, record.id),
        kv_set(keys.record(record.id), running.to_json()),
    ]
    for part in in_transactions(kv_check_session(keys.lock, run.session), operations):
        task.consul.txn(part)


def _left_alone(found: store.Deployment, plan: Mapping[str, Any]) -> Sequence[Outcome]:
    """The hosts that were to change, and that by now have the version, or cannot be worked on.

    One that was deferred stays so, in maintenance, where it cannot be worked on.
    """
    left = {name: plan["hosts"][name] for name in _open(found) if not plan["hosts"][name]["batch"]}
    left = {name: one for name, one in left.items() if one["state"] == CURRENT or found.results[name] != DEFERRED}
    return [
        planned_outcome(
            found.record.hosts[name], CURRENT if one["state"] == CURRENT else SKIPPED, str(one["why"] or "")
        )
        for name, one in left.items()
    ]


def cancel(task: Task, run: Run, claim: Claim) -> None:
    """Write that this run has taken over from the deployment; raises :class:`LockLost`."""
    if claim.found is None:
        return
    keys, record = run.keys(task), claim.found.record
    why = f"{record.description} Taken over by {run.id} of {run.operator}."
    cancelled = record.become(CANCELLED, description=why)
    task.consul.txn([kv_check_session(keys.lock, run.session), kv_set(keys.record(record.id), cancelled.to_json())])
    task.warn(f"{record.id} was paused, and is cancelled: this run takes over.")
