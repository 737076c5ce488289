# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run begins: its options, its lock, its plan, its record (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import under_way
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, ConsulUnavailable, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, fleet, paused, probing, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.bake import bake_seconds
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import clear_order
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History, read_history
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import new_deployment_id
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import ROLLBACK
from ansible_collections.hitless.consul.plugins.module_utils._rollout.operator import operator_of, origin_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_reader import read_options
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_sources import OptionSources
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import Plan
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan_reader import read_plan
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    RUNNING,
    Record,
    hosts_of,
    settings_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import (
    Run,
    answer_request,
    holder_of,
    take_lock,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._views import report
from ansible_collections.hitless.consul.plugins.module_utils._views.text import duration


def prepare(task: Task, sources: OptionSources, claim: str, *, deploys: bool = True) -> Run:
    """The run as its options ask for it; nothing is changed yet.

    :param deploys: false for a recovery, which needs neither a version nor a way to deploy it.
    """
    read = read_options(sources, deploys=deploys)
    for warning in read.warnings:
        task.warn(warning)
    return Run(
        id=new_deployment_id(read.options["version"] or read.options["direction"]),
        **read.as_dict(),
        operator=operator_of(task.variables),
        origin=origin_of(task.variables),
        claim=claim,
    )


def require_consul(task: Task, run: Run, origin: str) -> None:
    """Before any host is logged in to: whether Consul answers, and whether a rollout is under way.

    :param origin: where the address comes from, as a sentence.
    :raises HitlessError: there is no answer.
    """
    keys = run.keys(task)
    try:
        held = lock.read_lock(task.consul, keys)
    except ConsulUnavailable as error:
        raise HitlessError(str(error), hint=origin) from None
    if held is not None and held.alive and task.check_mode:
        task.warn(under_way(keys, held))


def begin(task: Task, run: Run, hosts: Sequence[fleet.WantedHost], controller: Controller, forks: int) -> Run:
    """Take the lock, plan, and record the deployment; in check mode only plan. What fails here has changed nothing.

    Where a deployment is paused the run goes on with it, or has nothing to do, or takes over.
    """
    probing.require_answer(run)
    if task.check_mode:
        return replace(run, plan=plan_run(task, run, hosts, forks, paused.would_go_on(task, run)))
    keys = run.keys(task)
    run = take_lock(task, run, controller)
    claim = paused.Claim()
    try:
        history = read_history(task.consul, keys)
        unfinished = history.unfinished_rollback(run.options["version"])
        if not unfinished:
            claim = paused.look(task, run, history)
        if claim.does == paused.WAIT:
            lock.release(task.consul, keys, run.session)
            return paused.waits(task, run, claim)
        if claim.does == paused.GO_ON:
            task.show(f"{run.service}: goes on with {claim.id}: {claim.why}.")
            run = replace(run, id=claim.id)
            lock.hand_on(task.consul, keys, run.session, holder_of(run))
        if unfinished:
            task.show(f"{run.service}: the rollback of {unfinished} was interrupted. It is ended first.")
            run = run.undoing(unfinished)
            lock.hand_on(task.consul, keys, run.session, holder_of(run))
            hosts = [replace(one, target=None) for one in hosts]
        run = replace(run, plan=plan_run(task, run, hosts, forks, claim.goes_on))
        for one in ending.mark_interrupted(task.consul, keys, run.session):
            task.warn(one.record.description)
        if not run.plan["nothing_to_do"]:
            run = probing.start(task, run, controller)
        if claim.goes_on:
            paused.go_on(task, run, claim)
            run = begun(replace(run, resumed=history.chain(claim.id)[1:]))
        else:
            paused.cancel(task, run, claim)
            resumes = _resumed(run, history)
            run = replace(run, resumed=history.chain(resumes))
            run = record_run(task, run, replace(record_of(run), resumes=resumes), claim.leftover)
        clear_order(task.consul, keys, claim.used_up)
    except BaseException:
        probing.end(run)
        lock.release(task.consul, keys, run.session)
        raise
    answer_request(task, run, RUNNING, deployment=run.id)
    return run


def _resumed(run: Run, history: History) -> str:
    """The id of the deployment that this one goes on with; empty where it begins afresh."""
    begins_afresh = run.kind.keeps_version and not run.options["skip_current"]
    if run.options["direction"] == ROLLBACK or begins_afresh:
        return ""
    return history.resumed_by(run.options["version"], run.kind.direction)


def undo_failed(task: Task, run: Run, failed: store.Deployment, hosts: Sequence[fleet.WantedHost], forks: int) -> Run:
    """The run as it undoes its deployment, which has failed; as it was where there is nothing to undo.

    The rollback is recorded before the end of what it undoes: one that was interrupted in between is found by that.

    :param failed: as it ends, which is written here.
    """
    back = run.undoing(run.id)
    back = replace(back, plan=plan_run(task, back, [replace(one, target=None) for one in hosts], forks))
    if back.plan["nothing_to_do"]:
        return run
    # What was said to the deployment, an abort for instance, is not said to its rollback.
    said = failed.control.order.index if failed.control.order else 0
    return hand_over(task, failed, back, record_of(back), said)


def hand_over(task: Task, ended: store.Deployment, after: Run, record: Record, said: int = 0) -> Run:
    """Record a further deployment of a run, which gets the lock, and then the end of the one before -> its run.

    :param ended: the one before, as it ends.
    :param said: index of the order that was said to that, and not to this one; 0 for none.
    """
    keys = after.keys(task)
    after = record_run(task, after, record, said)
    clear_order(task.consul, keys, said or -1)
    lock.hand_on(task.consul, keys, after.session, holder_of(after))
    try:
        ending.write_end(task.consul, keys, ended, after.session)
    except ConsulError as error:
        task.warn(f"The end of {ended.record.id} could not be recorded, which the next run will do: {error}")
    return after


def record_run(task: Task, run: Run, record: Record, leftover: int = 0) -> Run:
    """Record a deployment -> its run, whose hosts may begin.

    :param leftover: see ``store.create``.
    """
    store.create(task.consul, run.keys(task), record, run.session, run.plan["health"]["registered"], leftover)
    return begun(run)


def begun(run: Run) -> Run:
    """The run of a deployment that is recorded."""
    return replace(run, order=run.plan["order"], serial=run.plan["serial"], recorded=True)


def record_of(run: Run) -> Record:
    """The record of a deployment that begins now."""
    return Record(
        id=run.id,
        service=run.service,
        version=run.options["version"],
        direction=run.options["direction"],
        message=run.options["message"],
        holder=run.operator,
        origin=run.origin,
        started=timestamp(),
        hosts=hosts_of(run.plan),
        windows=tuple(run.plan.get("windows") or ()),
        waves=run.planned_waves,
        uncovered=tuple(run.plan.get("uncovered") or ()),
        failure_budget=run.options["failure_budget"],
        options=settings_of(run.options),
        undoes=run.undoes or str(run.plan.get("undoes") or ""),
        is_automatic=bool(run.undoes),
    )


# -- the plan -----------------------------------------------------------------------------------------------------


def plan_run(
    task: Task,
    run: Run,
    hosts: Sequence[fleet.WantedHost],
    forks: int,
    goes_on: store.Deployment | None = None,
) -> dict[str, Any]:
    """The plan by what Consul says now, shown; see ``plan.Plan.as_dict``.

    :param goes_on: a paused deployment that the run goes on with.
    """
    plan, notes = read_plan(task, run, hosts, forks, goes_on)
    for note in notes:
        task.warn(note)
    planned = {**plan.as_dict(), "forks": forks}
    # In check mode it is what the run is for.
    group = "stage" if plan.windows else "batch"
    shown = report.plan_table(planned["hosts"], group=group, wave_of=planned["wave_of"]) if task.check_mode else ""
    table = f"{shown}\n\n" if shown else ""
    waits = _least_seconds(run, plan)
    takes = f"; takes {duration(waits)} or more" if waits else ""
    task.show(f"{table}{plan.description}{takes} (Consul at {task.consul.connection.base})")
    return planned


def _least_seconds(run: Run, plan: Plan) -> float:
    """What all waits come to: in each turn the drain and the time for which checks have to stay well, and the bakes."""
    options = run.options
    observed = options["load_balancers"] and not run.by_agents
    turn = options["drain_min_time" if observed else "drain_time"] + options["min_healthy_time"]
    windows = plan.windows or [max(1, len(batch)) for batch in plan.batches]
    turns = sum(-(-len(batch) // window) for batch, window in zip(plan.batches, windows, strict=True))
    if not plan.batches or options["direction"] == "rollback":
        return float(turns * turn)
    planned = replace(run, plan={"batches": plan.batches, "waves": plan.waves.as_list()})
    return float(turns * turn) + sum(bake_seconds(planned, ended) for ended in range(len(plan.batches)))
