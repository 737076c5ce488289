# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dead run left behind: records, and maintenance provably ours (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import NODE_MAINTENANCE
from ansible_collections.hitless.consul.plugins.module_utils._consul.lock import Held, read_lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import parse_reason
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import HOST_FAILED, LOST
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import (
    Deployment,
    find_dead,
    lock_dict,
    read,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import (
    CLEARED,
    DRAINING,
    NodeVersion,
    read_versions,
)


@dataclass(frozen=True)
class Left:
    """A maintenance that a deployment of the service has set and that is still there.

    :param host: as the deployment's plan calls it; the node's name where there is no plan any more.
    :param service: what is in maintenance; empty, as ``service_id``, where it is the node.
    :param deployment: that set it, ``reason`` as it stands.
    :param outcome: of the host in that deployment, None where it has none.
    :param step: the last one recorded there by that deployment, None where there is none.
    :param from_version: what ran there before, ``to_version`` what was to run; None where the record does not tell.
    :param advice: ``clear`` (end the maintenance: nothing was deployed), ``bring_back`` (prove it healthy, then end the
        maintenance) or ``leave`` (it is known to be broken).
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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Remains:
    """What there is to recover of a service.

    :param lock: as it stands; alive while a run holds it.
    :param dead: deployments that claim to run and do not.
    :param left: maintenance of deployments of the service.
    """

    lock: Held | None
    dead: Sequence[Deployment]
    left: Sequence[Left]

    def as_dict(self) -> dict[str, Any]:
        return {
            "lock": lock_dict(self.lock),
            "dead": [one.as_dict() for one in self.dead],
            "maintenance": [one.as_dict() for one in self.left],
        }


def find_remains(client: Client, keys: Keys) -> Remains:
    """What dead runs left behind of a service; the requests do not depend on the number of nodes."""
    lock = read_lock(client, keys)
    dead = find_dead(client, keys)
    checks = _maintenance_of(client, keys.service)
    known = {one.record.id: one for one in dead}
    for deployment in {reason for _check, reason in checks} - set(known):
        found = read(client, keys, deployment)
        if found is not None:
            known[deployment] = found
    versions = read_versions(client, keys, {check["Node"] for check, _reason in checks})
    left = [_left(check, deployment, known.get(deployment), versions[check["Node"]]) for check, deployment in checks]
    return Remains(lock, dead, sorted(left, key=lambda one: (one.node, one.service_id)))


def advice(outcome: str | None, step: str | None) -> tuple[str, str]:
    """What to do with a host that is still in our maintenance, and why."""
    if outcome == HOST_FAILED:
        return "leave", "its deployment failed and so did the rollback: deploy a version that works"
    if step in (DRAINING, CLEARED):
        return "clear", "its turn was cut off before anything was deployed"
    if outcome in (None, LOST):
        return "bring_back", "its turn was cut off: which version it runs is not known"
    return "bring_back", f"it ended as {outcome}, and the maintenance stayed"


def _maintenance_of(client: Client, service: str) -> list[tuple[dict[str, Any], str]]:
    """The checks of maintenance that deployments of the service have set anywhere, each with the deployment's id."""
    dc = client.connection.datacenter
    params: list[tuple[str, object]] = [("filter", 'Notes matches "^deploy:"'), *([("dc", dc)] if dc else [])]
    found = []
    for check in client.get("/v1/health/state/critical", params).data or ():
        reason = parse_reason(check.get("Notes"))
        is_maintenance = check["CheckID"] == NODE_MAINTENANCE or check["CheckID"].startswith("_service_maintenance:")
        if reason is not None and reason.service == service and is_maintenance:
            found.append((check, reason.deployment))
    return found


def _left(check: Mapping[str, Any], deployment: str, known: Deployment | None, there: NodeVersion) -> Left:
    node = check["Node"]
    planned = next((one for one in known.record.hosts.values() if one.node == node), None) if known else None
    ended = known.outcomes.get(planned.host) if known and planned else None
    status = there.status or {}
    step = status.get("state") if status.get("deployment") == deployment else None
    outcome = ended.outcome if ended else None
    what, why = advice(outcome, step)
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
    )
