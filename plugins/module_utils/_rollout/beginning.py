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
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulUnavailable, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, fleet, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import read_history
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import new_deployment_id
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
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run, answer_request, take_lock
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
    """Take the lock, plan, and record the deployment; in check mode only plan. What fails here has changed nothing."""
    if task.check_mode:
        return replace(run, plan=_plan(task, run, hosts, forks))
    keys = run.keys(task)
    run = take_lock(task, run, controller)
    try:
        plan = _plan(task, run, hosts, forks)
        record = record_of(replace(run, plan=plan))
        for one in ending.mark_interrupted(task.consul, keys, run.session):
            task.warn(one.record.description)
        if record.direction == "deploy":
            record = replace(record, resumes=read_history(task.consul, keys).resumed_by(record.version))
        store.create(task.consul, keys, record, run.session, plan["health"]["registered"])
    except BaseException:
        lock.release(task.consul, keys, run.session)
        raise
    answer_request(task, run, RUNNING, deployment=run.id)
    return replace(run, plan=plan, order=plan["order"], serial=plan["serial"], recorded=True)


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
        uncovered=tuple(run.plan.get("uncovered") or ()),
        failure_budget=run.options["failure_budget"],
        options=settings_of(run.options),
        undoes=str(run.plan.get("undoes") or ""),
    )


# -- the plan -----------------------------------------------------------------------------------------------------


def _plan(task: Task, run: Run, hosts: Sequence[fleet.WantedHost], forks: int) -> dict[str, Any]:
    plan, notes = read_plan(task, run, hosts, forks)
    for note in notes:
        task.warn(note)
    planned = plan.as_dict()
    # In check mode it is what the run is for.
    group = "stage" if plan.windows else "batch"
    table = f"{report.plan_table(planned['hosts'], group=group)}\n\n" if task.check_mode else ""
    waits = _least_seconds(run, plan)
    takes = f"It takes {duration(waits)} at least, by its own waits alone. " if waits else ""
    task.show(f"{table}{plan.description}\n{takes}Consul is asked at {task.consul.connection.base}.")
    return planned


def _least_seconds(run: Run, plan: Plan) -> float:
    """What the waits of all turns come to: the drain, and the time for which checks have to stay well."""
    options = run.options
    turn = options["drain_min_time" if options["load_balancers"] else "drain_time"] + options["min_healthy_time"]
    windows = plan.windows or [len(batch) for batch in plan.batches]
    turns = sum(-(-len(batch) // window) for batch, window in zip(plan.batches, windows, strict=True))
    return float(turns * turn)
