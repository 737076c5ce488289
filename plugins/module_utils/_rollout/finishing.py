# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run ends: the verdict, its last lines, its lock (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance, read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import FAILURE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet_rollback import joined, not_well
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_variables import about, hosts_told, why_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.joiners import with_joiners
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import budget_spent
from ansible_collections.hitless.consul.plugins.module_utils._rollout.pruning import prune
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    FAILED,
    INTERRUPTED,
    PAUSED,
    SUCCESSFUL,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run, answer_request
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import SKIPPED, sentence
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import seconds_between
from ansible_collections.hitless.consul.plugins.module_utils._views import report
from ansible_collections.hitless.consul.plugins.module_utils._views.standing import standing


def finish(task: Task, run: Run) -> dict[str, Any]:
    """How the deployment ended, by what Consul holds of it; recorded, shown, and answered to its request.

    Whoever watches gets a verdict in any case: what Consul does not take is said in it.
    """
    keys = run.keys(task)
    try:
        ended = found = ending.conclude(task.consul, keys, run.id, probed=run.probed)
        failed = found.failed_hosts
        if run.undoes:
            first = ending.conclude(task.consul, keys, run.undoes, state=INTERRUPTED)
            failed, found = not_well(first, ended.results), joined(first, ended)
    except HitlessError as error:
        return _with_told(run, ending.unread(keys, run.id, error), {**run.told, "hosts": {}})
    instances = _instances(task, run)
    if instances and not run.undoes:
        ended = found = _with_joiners(task, run, ended, instances)
    stands = "" if instances is None else _standing(found, instances, undone=bool(run.undoes))
    # Where all is well one line says so.
    between = " " if found.record.state == SUCCESSFUL else "\n"
    task.show(f"{report.ended(found.record, found.outcomes)}{between}{stands}".rstrip())
    is_paused = found.record.state == PAUSED
    is_spent = budget_spent(found.outcomes.values()) > found.record.failure_budget
    result = {
        "id": found.record.id,
        "version": found.record.version,
        "result": FAILED if run.undoes else found.record.state,
        "verdict": found.record.description,
        "table": report.hosts_table(found.record, found.outcomes),
        "hosts": found.results,
        "errors": report.reasons(found.record, found.outcomes),
        "failed_hosts": [] if is_paused else failed,
        "stopped_by": "" if is_paused or is_spent else found.stop,
        "unrecorded": "",
        "rollback": ended.record.id if run.undoes else "",
    }
    is_new = ended.unwritten is not None
    if is_new:
        try:
            ending.write_end(task.consul, keys, ended, run.session)
        except ConsulError as error:
            result["unrecorded"] = f"The end could not be recorded. {error}"
    if is_new and not result["unrecorded"]:
        try:
            prune(task.consul, keys, run.session, run.options["keep_deployments"])
        except HitlessError as error:  # the next one will try again
            task.warn(f"Old deployments of {run.service} could not be deleted: {error}")
    try:
        answer_request(task, run, str(result["result"]), reason=found.record.description)
    except HitlessError as error:
        task.warn(f"The request that this deployment follows could not be answered: {error}")
    return _with_told(run, result, _told(run, found, ended, result, stands))


def _with_told(run: Run, result: dict[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The result with what the hooks at the end are told, where there are some; see ``hook_variables``."""
    if "release" not in run.parts:
        return result
    same = {name: result[name] for name in ("result", "verdict", "failed_hosts", "table")}
    same["verdict"] = " ".join(one for one in (result["verdict"], result["unrecorded"]) if one)
    more = {"why": "", "rollback": None, "undoes": "", "seconds": None, "standing": "", **told.get("result", {})}
    return {**result, "told": {**told, "result": {**same, **more}}}


def _told(
    run: Run, found: store.Deployment, ended: store.Deployment, result: Mapping[str, Any], stands: str
) -> dict[str, Any]:
    """What they are told of a deployment, which is the one that was started also where it has been rolled back.

    :param ended: the one that ends now: itself, or its rollback.
    """
    record, back = found.record, ended.record
    told = about(record.id, run.service, record.version, record.direction, run.operator, record.message)
    undone = {"id": back.id, "result": back.state, "verdict": back.description, "failed_hosts": ended.failed_hosts}
    return {
        **told,
        "hosts": hosts_told(record.hosts.values(), found.outcomes),
        "result": {
            "why": why_of(result["failed_hosts"], result["errors"], found.stop),
            "rollback": undone if run.undoes else None,
            "undoes": record.undoes,
            "seconds": seconds_between(record.started, back.finished),
            "standing": stands,
        },
    }


def _instances(task: Task, run: Run) -> list[Instance] | None:
    """As the catalog shows them now; None where it cannot be read: what hosts have come to has to do then."""
    try:
        return read_instances(task.consul, run.service, None, run.options["tags"])[0]
    except ConsulError as error:
        task.warn(f"How {run.service} stands now could not be read: {error}")
        return None


def _with_joiners(task: Task, run: Run, ended: store.Deployment, instances: Sequence[Instance]) -> store.Deployment:
    try:
        return with_joiners(task.consul, run.keys(task), ended, instances)
    except HitlessError as error:
        task.warn(f"What has joined {run.service} meanwhile could not be read: {error}")
        return ended


def _standing(found: store.Deployment, instances: Sequence[Instance], *, undone: bool) -> str:
    """The last lines: what is."""
    failing = {one.node: told_of(one) for one in instances if not one.in_rotation}
    in_rotation = {one.node for one in instances} - failing.keys()
    found_bad = found.control.noted.kind == FAILURE
    return standing(found.record, found.outcomes, in_rotation, failing, undone=undone, found_bad=found_bad)


def told_of(one: Instance) -> str:
    """Its failing checks, in words."""
    return "; ".join(check.told() for check in one.failing(accept_warning=True))


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
        result["verdict"] if result["result"] not in (SUCCESSFUL, PAUSED) else "",
        result["unrecorded"],
        *map(sentence, hook_errors),
        f"Skipped: {', '.join(skipped)} (rollout_strict)." if run.options["strict"] and skipped else "",
    ]
    why = " ".join(one for one in whys if one)
    failed = list(result["failed_hosts"])
    if why and (not failed or result["stopped_by"] or result["unrecorded"] or hook_errors):
        failed.append("localhost")
    return {**result, "why": why, "failed_hosts": failed, "service": run.service}
