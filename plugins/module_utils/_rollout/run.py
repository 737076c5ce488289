# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run: one rollout or recovery, from its options to its result (a private helper of this collection).

It is made once, by :func:`prepare`, and grows twice: :func:`begin` adds lock, plan and record, ``recovery.begin`` what
interrupted runs left behind. Each step of the playbooks takes what it needs from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Holder, under_way
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, ConsulUnavailable, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, fleet, store, trigger
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import read_history
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys, new_deployment_id
from ansible_collections.hitless.consul.plugins.module_utils._rollout.operator import operator_of, origin_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_reader import TURN, read_options
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_sources import OptionSources
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import budget_spent
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import Plan
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan_reader import read_plan
from ansible_collections.hitless.consul.plugins.module_utils._rollout.pruning import prune
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    RUNNING,
    SUCCESSFUL,
    PlannedHost,
    Record,
    hosts_of,
    planned_hosts,
    settings_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import SKIPPED, sentence
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._views import report
from ansible_collections.hitless.consul.plugins.module_utils._views.standing import standing
from ansible_collections.hitless.consul.plugins.module_utils._views.text import duration


@dataclass(frozen=True)
class Run:
    """One run of the playbooks.

    :param options: of the rollout, by name without the prefix.
    :param hosts: those of rollout_hosts, in the inventory's order.
    :param hooks: the user's files and roles, see ``option_reader.Hook``.
    :param steps: of each host, in order; ``rollback_steps`` those of its rollback.
    :param health_urls: the hosts with a health URL.
    :param address: what localhost takes from its hosts to ask Consul, see ``option_sources.Address``.
    :param first_tasks: name and action of the tasks of the deployment before which none has touched a host.
    :param operator: who runs it; ``origin``: from where.
    :param claim: of the request that it follows, empty where it follows none.
    :param session: that holds the lock; empty in check mode.
    :param plan: as ``plan.Plan.as_dict`` gives it; empty before.
    :param order: the hosts of the rolling play, each batch led by its coordinator; ``serial``: the size of each batch.
    :param recorded: whether the deployment has a record.
    :param leftovers: maintenance that interrupted runs left, see ``recovery.Left``; ``unknown``: hosts of it that are
        not in the inventory.
    """

    id: str
    options: Mapping[str, Any]
    hosts: Sequence[str] = ()
    hooks: Sequence[Mapping[str, str]] = ()
    steps: Sequence[str] = ()
    rollback_steps: Sequence[str] = ()
    health_urls: Sequence[str] = ()
    address: Mapping[str, Any] = field(default_factory=dict)
    first_tasks: Sequence[Mapping[str, str]] = ()
    operator: str = ""
    origin: str = ""
    claim: str = ""
    session: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    order: Sequence[str] = ()
    serial: Sequence[int] = (1,)  # a play's serial must not be empty
    recorded: bool = False
    leftovers: Sequence[Mapping[str, Any]] = ()
    unknown: Sequence[str] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Run:
        """From what :meth:`as_dict` gave."""
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name in data})

    def as_dict(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def service(self) -> str:
        return str(self.options["service"])

    @property
    def by_agents(self) -> bool:
        """Whether the machines' own agents take the steps of their hosts."""
        return bool(self.options.get("mode") == "agent")

    @property
    def drains_by_hook(self) -> bool:
        """Whether the user's tasks drain and restore at a load balancer that does not follow Consul."""
        return bool(self.options.get("drain_tasks"))

    @property
    def is_window(self) -> bool:
        """Whether hosts take their turns in a sliding window, each as one task, instead of in batches."""
        return list(self.steps) == [TURN]

    @property
    def coordinators(self) -> Sequence[str]:
        return self.plan.get("coordinators") or ()

    def keys(self, task: Task) -> Keys:
        return task.keys(self.service)

    def place_of(self, name: str) -> tuple[int, int]:
        """A host's place among those that change, 1 for the first, and how many there are; 0 where it is none."""
        planned = (self.plan.get("hosts") or {}).get(name) or {}
        return int(planned.get("place") or 0), int(self.plan.get("places") or 0)

    def host(self, name: str) -> PlannedHost:
        """A host as it is planned."""
        hosts = self.plan.get("hosts") or {}
        if name not in hosts:
            raise HitlessError(f"{name} is not a host of this rollout.")
        return planned_hosts({name: hosts[name]})[name]


# -- the steps ----------------------------------------------------------------------------------------------------


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


def take_lock(task: Task, run: Run, controller: Controller, *, deployment: str | None = None) -> Run:
    """The run with the session that holds the lock of its service, which is kept until the run ends.

    :param deployment: what the lock names; the run's own where not given.
    """
    name = run.id if deployment is None else deployment
    message = str(run.options["message"] if name else "recover")
    session = lock.take(
        task.consul,
        run.keys(task),
        Holder.now(name, run.operator, message, run.origin),
        controller,
        wait=run.options["lock_wait"],
        progress_deadline=run.options["progress_deadline"] if name else 0,
        show=task.show,
    )
    return replace(run, session=session)


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


def finish(task: Task, run: Run) -> dict[str, Any]:
    """How the deployment ended, by what Consul holds of it; recorded, shown, and answered to its request.

    Whoever watches gets a verdict in any case: what Consul does not take is said in it.
    """
    keys = run.keys(task)
    try:
        found = ending.conclude(task.consul, keys, run.id)
    except ConsulError as error:
        return ending.unread(keys, run.id, error)
    task.show(report.ended(found.record, found.outcomes))
    _show_standing(task, run, found)
    result = {
        "id": run.id,
        "result": found.record.state,
        "verdict": found.record.description,
        "table": report.hosts_table(found.record, found.outcomes),
        "hosts": found.results,
        "errors": report.reasons(found.record, found.outcomes),
        "failed_hosts": found.failed_hosts,
        "stopped_by": "" if budget_spent(found.outcomes.values()) > found.record.failure_budget else found.stop,
        "unrecorded": "",
    }
    is_new = found.unwritten is not None
    if is_new:
        try:
            ending.write_end(task.consul, keys, found, run.session)
        except ConsulError as error:
            result["unrecorded"] = f"The end could not be recorded. {error}"
    if is_new and not result["unrecorded"]:
        try:
            prune(task.consul, keys, run.session, run.options["keep_deployments"])
        except HitlessError as error:  # the next one will try again
            task.warn(f"Old deployments of {run.service} could not be deleted: {error}")
    try:
        answer_request(task, run, found.record.state, reason=found.record.description)
    except HitlessError as error:
        task.warn(f"The request that this deployment follows could not be answered: {error}")
    return result


def _show_standing(task: Task, run: Run, found: store.Deployment) -> None:
    """The last lines: what is. Where the catalog cannot be read, what stands above has to do."""
    try:
        instances, _answer = read_instances(task.consul, run.service, None, run.options["tags"])
    except ConsulError as error:
        task.warn(f"How {run.service} stands now could not be read: {error}")
        return
    out = {one.node for one in instances if not one.in_rotation}
    task.show(standing(found.record, found.outcomes, {one.node for one in instances} - out))


def release(task: Task, run: Run, result: Mapping[str, Any], hook_errors: Sequence[str]) -> dict[str, Any]:
    """Release the lock -> the result with ``why`` the run fails, and the hosts that are shown as failed.

    localhost is one of them where something failed that is no host's.

    :param result: of :func:`finish`; ``stopped_by`` is why it stopped, where that is not what became of its hosts.
    """
    try:
        lock.release(task.consul, run.keys(task), run.session)
    except HitlessError as error:  # its keeper does it with the end of the run
        task.warn(f"The lock of {run.service} could not be released: {error}")
    skipped = [host for host, outcome in result["hosts"].items() if outcome == SKIPPED]
    whys = [
        result["verdict"] if result["result"] != SUCCESSFUL else "",
        result["unrecorded"],
        *map(sentence, hook_errors),
        f"Skipped: {', '.join(skipped)} (rollout_strict)." if run.options["strict"] and skipped else "",
    ]
    why = " ".join(one for one in whys if one)
    failed = list(result["failed_hosts"])
    if why and (not failed or result["stopped_by"] or result["unrecorded"] or hook_errors):
        failed.append("localhost")
    return {**result, "why": why, "failed_hosts": failed, "service": run.service, "version": run.options["version"]}


def answer_request(task: Task, run: Run, state: str, **more: Any) -> None:
    """Tell the request that this run follows what became of it, where there is one."""
    if run.claim and not task.check_mode:
        trigger.tell(task, run.keys(task), run.claim, state, **more)


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
