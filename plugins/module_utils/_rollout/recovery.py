# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an interrupted deployment left behind: its record, and maintenance provably ours (a private helper)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import is_maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Held
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_delete
from ansible_collections.hitless.consul.plugins.module_utils._consul.lock import read_lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import parse_reason
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, states, store, trigger
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_turn import recover_by_agent
from ansible_collections.hitless.consul.plugins.module_utils._rollout.command import wait_for_command
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run, take_lock
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import (
    Deployment,
    find_interrupted,
    lock_dict,
    read,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import (
    NodeVersion,
    read_versions,
    record_version,
)
from ansible_collections.hitless.consul.plugins.module_utils._views import report

END, VERIFY, LEAVE = "end_maintenance", "verify", "leave"


@dataclass(frozen=True)
class Left:
    """A maintenance that a deployment of the service has set and that is still there.

    :param host: as the deployment's plan calls it; the node's name where there is no plan any more.
    :param service: what is in maintenance; empty, as ``service_id``, where it is the node.
    :param deployment: that set it, ``reason`` as it stands.
    :param outcome: of the host in that deployment, None where it has none.
    :param step: the last one recorded there by that deployment, None where there is none.
    :param from_version: what ran there before, ``to_version`` what was to run; None where the record does not tell.
    :param unsure: another version than the recorded one may run there.
    :param advice: :data:`END` its maintenance, since nothing was deployed; :data:`VERIFY` it first; or :data:`LEAVE`
        it, since it is known to be broken.
    """

    host: str
    node: str
    service: str
    service_id: str
    deployment: str
    reason: str
    outcome: str | None
    step: str | None
    from_version: str | None
    to_version: str | None
    advice: str
    why: str
    unsure: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Remains:
    """What there is to recover of a service.

    :param lock: as it stands; alive while a run holds it.
    :param interrupted: deployments that claim to run and do not.
    :param left: maintenance of deployments of the service.
    """

    lock: Held | None
    interrupted: Sequence[Deployment]
    left: Sequence[Left]

    def as_dict(self) -> dict[str, Any]:
        return {
            "lock": lock_dict(self.lock),
            "interrupted": [one.as_dict() for one in self.interrupted],
            "maintenance": [one.as_dict() for one in self.left],
        }


def find_remains(client: Client, keys: Keys) -> Remains:
    """What deployments of a service left behind; the requests do not depend on the number of nodes."""
    lock = read_lock(client, keys)
    interrupted = find_interrupted(client, keys)
    checks = _maintenance_of(client, keys.service)
    known = {one.record.id: one for one in interrupted}
    for deployment in {reason for _check, reason in checks} - set(known):
        found = read(client, keys, deployment)
        if found is not None:
            known[deployment] = found
    versions = read_versions(client, keys, {check["Node"] for check, _reason in checks})
    left = [_left(check, deployment, known.get(deployment), versions[check["Node"]]) for check, deployment in checks]
    return Remains(lock, interrupted, sorted(left, key=lambda one: (one.node, one.service_id)))


def advice(outcome: str | None, step: str | None) -> tuple[str, str]:
    """What to do with a host that is still in our maintenance, and why."""
    if outcome == states.FAILED:
        return LEAVE, "its deployment failed, and it was not rolled back"
    if outcome == states.UNTOUCHED:
        return END, "it was put back, and the maintenance stayed"
    if step in (states.DRAINING, states.UNTOUCHED):
        return END, "its turn was cut off before anything was deployed"
    if outcome in (None, states.LOST):
        return VERIFY, "its turn was cut off: which version it runs is not known"
    return VERIFY, f"it ended as {outcome}, and the maintenance stayed"


def _maintenance_of(client: Client, service: str) -> list[tuple[dict[str, Any], str]]:
    """The checks of maintenance that deployments of the service have set anywhere, each with the deployment's id."""
    found = []
    for check in client.get("/v1/health/state/critical", [("filter", 'Notes matches "^deploy:"')]).data or ():
        reason = parse_reason(check.get("Notes"))
        if reason is not None and reason.service == service and is_maintenance(check["CheckID"]):
            found.append((check, reason.deployment))
    return found


def _left(check: Mapping[str, Any], deployment: str, known: Deployment | None, there: NodeVersion) -> Left:
    node = check["Node"]
    planned = known.planned_on(node) if known else None
    ended = known.outcomes.get(planned.host) if known and planned else None
    status = there.status or {}
    step = status.get("state") if status.get("deployment") == deployment else None
    outcome = ended.outcome if ended else None
    what, why = advice(outcome, step)
    if what == LEAVE and ended is not None and ended.error:
        why = ended.error
    return Left(
        host=planned.host if planned else node,
        node=node,
        service=check.get("ServiceName") or "",
        service_id=check.get("ServiceID") or "",
        deployment=deployment,
        reason=check["Notes"],
        outcome=outcome,
        step=step,
        from_version=planned.from_version if planned else None,
        to_version=planned.to_version if planned else None,
        advice=what,
        why=why,
        unsure=not there.version_is_trusted,
    )


# -- the steps of a recovery --------------------------------------------------------------------------------------


def begin(task: Task, run: Run, controller: Controller, inventory: Iterable[str]) -> Run:
    """Take the lock, and find what interrupted runs left behind; in check mode it is only told.

    :param inventory: names of all hosts that Ansible knows.
    """
    if not task.check_mode:
        run = take_lock(task, run, controller, deployment="")
    keys = run.keys(task)
    remains = find_remains(task.consul, keys)
    if remains.lock is not None and remains.lock.alive and remains.lock.session != run.session:
        under_way = store.read_under_way(task.consul, keys, remains.lock.holder.deployment)
        text = report.held(keys.service, str(remains.lock.holder), under_way.description, under_way.steps)
    else:
        found = remains.as_dict()
        text = report.remains(keys.service, found["interrupted"], found["maintenance"])
    task.show(text)
    if task.check_mode:
        return run
    ending.mark_interrupted(task.consul, keys, run.session)
    left = [one.as_dict() for one in remains.left]
    wanted = {one["host"] for one in left if one["advice"] != LEAVE}
    known = set(inventory)
    return replace(run, leftovers=left, order=sorted(wanted & known), unknown=sorted(wanted - known))


def left_of(run: Run, host: str) -> Left:
    """What was left of a host."""
    found = next((one for one in run.leftovers if one["host"] == host), None)
    if found is None:
        raise HitlessError(f"Nothing was left of {host}.")
    return Left(**{one.name: found[one.name] for one in fields(Left)})


def host_of(task: Task, run: Run, left: Left, turn: Mapping[str, Any] | None = None) -> HostDeployment:
    """The host in the deployment that left it."""
    planned = PlannedHost(
        left.host, left.node, from_version=left.from_version, to_version=left.to_version, unsure=left.unsure
    )
    scope = [left.service] if left.service else ["node"]
    return HostDeployment(task, run, planned, Turn.of(turn, left.deployment), scope)


def verify(
    host: HostDeployment, left: Left, for_version: Callable[[str, str, str, str], str]
) -> tuple[str, str | None] | None:
    """Verify a host whose version is not known; what was only drained is as it was before.

    A deployment command that still runs there ends first. Either version will do; which one it is, its answer tells
    where rollout_health_match has the version in it.

    :param for_version: (variable, version, previous version, reason) -> the variable as it is then.
    :returns: the version that answered, and the one before it where that changes; None where it is not known.
    """
    if left.advice == END and not host.run.by_agents:
        host.turn = replace(host.turn, phase=states.DRAINING)
        return None
    new, old = left.to_version or "", left.from_version or ""
    health_url = for_version("rollout_health_url", new, old, "deploy")
    match_new = for_version("rollout_health_match", new, old, "deploy")
    match_old = for_version("rollout_health_match", old or new, new, "rollback")
    either = f"(?:{match_new})|(?:{match_old})" if match_new else ""
    if host.run.by_agents:
        answer = recover_by_agent(host, health_url, either)
    else:
        wait_for_command(host.task, host.run, host.planned, host.turn.deployment)
        host.turn = replace(host.turn, phase=states.DEPLOYING)
        answer = host.verify(health_url, either)[0]["health_answer"]
    is_new, is_old = bool(re.search(match_new, answer)), bool(re.search(match_old, answer))
    if new and new == old and not left.unsure:
        return old, None  # as after a restart
    is_clear = new and old and match_new != match_old and is_new != is_old
    return ((new, old) if is_new else (old, None)) if is_clear else None


def return_to_rotation(host: HostDeployment, version: Sequence[str | None] | None) -> bool:
    """End the maintenance of a host that is verified, or that nothing was deployed to -> whether that changed.

    :param version: what :func:`verify` found.
    """
    changed = True
    if not host.run.by_agents:
        host.note(states.UNTOUCHED if host.turn.phase == states.DRAINING else states.RETURNING)
        changed = host.end_maintenance()
    if version and version[0]:
        # Now it is known, whatever step its status tells.
        settled = [kv_delete(host.keys.status(host.node))]
        record_version(
            host.task.consul,
            host.keys,
            host.node,
            version[0],
            previous=version[1],
            session=host.run.session,
            extra_ops=settled,
        )
    return changed


def finish(task: Task, run: Run, errors: Mapping[str, str]) -> None:
    """Tell the request that a recovery was tried, release the lock, and name what is left to do by hand.

    :param errors: host -> why it is not back.
    :raises HitlessError: there is something left.
    """
    keys = run.keys(task)
    broken = [one["host"] for one in run.leftovers if one["advice"] == LEAVE]
    reasons = [*errors.values(), *(one["why"] for one in run.leftovers if one["advice"] == LEAVE)]
    stay = list(dict.fromkeys([*errors, *broken]))
    left = list(dict.fromkeys([*stay, *run.unknown]))
    state = trigger.recovered(task.consul, keys, left)
    if state:
        task.show(f"{keys.service}: its request is {state}, and a recovery was tried.")
    lock.release(task.consul, keys, run.session)
    if left:
        unknown = f"Not in the inventory: {', '.join(run.unknown)}. Recover with an inventory that has them."
        again = "Run the rollout again with a version that works, or, where that was not why, with the recorded one."
        sentences = [
            f"Still in maintenance: {', '.join(left)}.",
            *map(states.sentence, reasons),
            unknown if run.unknown else "",
            again if stay else "",
        ]
        raise HitlessError(" ".join(one for one in sentences if one))
