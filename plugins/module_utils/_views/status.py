# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, what is running now and how the last deployments ended (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance, read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import parse_reason
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import PAUSE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.ending import settled
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import by_node
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import NAME, Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import kind_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import INTERRUPTED, PAUSED
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import FAILED, LOST
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import (
    Deployment,
    Listed,
    list_recent,
    lock_dict,
    read,
    read_standing,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import (
    NodeVersion,
    meta_version,
    read_versions,
)
from ansible_collections.hitless.consul.plugins.module_utils._views.paused import goes_on

IN_ROTATION = "in rotation"
_NAMED = 10
"""Deployments that are read whole, beside their number that is listed: those that run, or left something behind."""
_ORDER = ("maintenance", "critical", "warning", IN_ROTATION)


def services_deployed(client: Client, prefix: str) -> list[str]:
    """The services that have keys below the prefix of deployments."""
    # Without a slash at its end it is a key, as that of the freeze of all services.
    names = (name.removeprefix(f"{prefix}/") for name in client.key_names(f"{prefix}/", "/"))
    return sorted(name[:-1] for name in names if name.endswith("/") and NAME.fullmatch(name[:-1]))


def overview(client: Client, keys: Keys, limit: int) -> dict[str, Any]:
    """One service, in a handful of requests.

    :param limit: of the last deployments.
    :raises HitlessError: nothing is known of it.
    """
    instances, _answer = read_instances(client, keys.service)
    lock, seen = read_standing(client, keys)
    recent = list_recent(client, keys, limit)
    if not instances and not recent:
        raise HitlessError(
            f"Consul knows no instance and no deployment of {keys.service}, or the token may not read them.",
            hint="Is the name right?",
        )
    nodes = by_node(instances)
    versions = read_versions(client, keys, [node for node in nodes if NAME.fullmatch(node) and ".." not in node])
    shown = {one.record.id for one in recent if one.is_alive or one.record.is_unsettled or one.state == PAUSED}
    wanted = {*shown, *_named(keys.service, nodes, versions)}
    whole = {one: _whole(client, keys, one, versions) for one in sorted(wanted, reverse=True)[:_NAMED]}
    known = {name: one for name, one in whole.items() if one is not None}
    return {
        "service": keys.service,
        "nodes": {node: node_dict(keys.service, nodes[node], versions.get(node), known) for node in sorted(nodes)},
        "running": _running(known.values(), versions),
        "paused": next((_paused(one) for one in known.values() if _is_waiting(one)), None),
        "frozen": [asdict(one) for one in seen.freezes if not one.is_over(datetime.now(timezone.utc))],
        "lock": lock_dict(lock),
        "deployments": [brief(known.get(one.record.id, one)) for one in recent],
    }


def _named(service: str, nodes: Mapping[str, Sequence[Instance]], versions: Mapping[str, NodeVersion]) -> set[str]:
    """The deployments that the nodes name: those that keep one in maintenance, or left its version unknown."""
    reasons = (parse_reason(one.maintenance.notes) for its in nodes.values() for one in its if one.maintenance)
    named = {reason.deployment for reason in reasons if reason is not None and reason.service == service}
    unsure = (one.status or {} for one in versions.values() if not one.version_is_trusted)
    named |= {str(status.get("deployment")) for status in unsure}
    return {one for one in named if NAME.fullmatch(one) and ".." not in one}


def _whole(client: Client, keys: Keys, deployment: str, versions: Mapping[str, NodeVersion]) -> Deployment | None:
    """A deployment with its hosts; one whose run was interrupted as its record will say it."""
    found = read(client, keys, deployment)
    return None if found is None else settled(client, keys, found, versions)


def node_dict(
    service: str,
    instances: Sequence[Instance],
    recorded: NodeVersion | None,
    known: Mapping[str, Deployment],
) -> dict[str, Any]:
    """What runs on one node, and whether it gets traffic; the worst of several instances counts.

    :param known: the deployments that nodes name, by id.
    """
    there = recorded or NodeVersion(instances[0].node)
    worst = min(instances, key=lambda one: _ORDER.index(_health(one)))
    maintenance = worst.maintenance if worst.status == "maintenance" else None
    failing = [check.told() for check in worst.failing(accept_warning=False, but_maintenance=True)]
    reason = (maintenance.notes or "no reason given") if maintenance else "; ".join(failing)
    return {
        "version": there.version,
        "previous": there.previous,
        "version_is_trusted": there.version_is_trusted,
        "version_told": version_told(there, known),
        "meta_version": meta_version(instances),
        "status": there.status,
        "health": _health(worst),
        "reason": reason,
        "why": (why_in_maintenance(service, there, maintenance.notes, known) if maintenance else "") or reason,
        "instances": len(instances),
    }


def version_told(there: NodeVersion, known: Mapping[str, Deployment]) -> str:
    """What is known of the version that runs on a node, in words; empty where nothing is recorded.

    A deployment that has begun there and has not recorded its end leaves it unknown.
    """
    if there.version_is_trusted:
        return there.version or ""
    status = there.status or {}
    deployment = known.get(str(status.get("deployment")))
    planned = deployment.planned_on(there.node) if deployment else None
    to = (planned.to_version if planned else None) or "another version"
    recorded = f"{there.version} recorded" if there.version else "none recorded"
    if deployment is not None and deployment.is_alive and status.get("state") not in (FAILED, LOST):
        return f"{recorded}, going to {to} now"
    how = {FAILED: "failed", LOST: "lost"}.get(str(status.get("state")), "cut off")
    return f"{recorded}, {how} while going to {to}"


def why_in_maintenance(service: str, there: NodeVersion, notes: str, known: Mapping[str, Deployment]) -> str:
    """Why a node is in a maintenance of ours, and what to do about it; empty for anybody else's maintenance."""
    reason = parse_reason(notes)
    if reason is None or reason.service != service:
        return ""
    status = there.status or {}
    running = next((one for one in known.values() if one.is_alive), None)
    if running is not None and running.record.id in (reason.deployment, status.get("deployment")):
        step = status.get("state") if status.get("deployment") == running.record.id else None
        being = running.record.kind.done if running.record.kind.keeps_version else "deployed"
        return f"being {being} by {running.record.id}" + (f" ({step})" if step else "")
    deployment = known.get(reason.deployment)
    planned = deployment.planned_on(there.node) if deployment else None
    outcome = deployment.outcomes.get(planned.host) if deployment and planned else None
    if outcome is not None and outcome.outcome == FAILED:
        kind = deployment.record.kind if deployment else kind_of("")
        then = "See to it, and run that again." if kind.keeps_version else "Deploy a version that works."
        return f"{outcome.error or f'its {kind.noun} failed.'} {then}"
    how = "the interrupted" if deployment is None or deployment.state == INTERRUPTED else "the"
    what = deployment.record.kind if deployment else kind_of("")
    again = f"run the {what.playbook} again, or hitless.consul.recover"
    return f"left by {how} {what.noun} {reason.deployment}: {again}"


def brief(deployment: Listed) -> dict[str, Any]:
    """A deployment as a line of a list."""
    record = deployment.record
    return {
        "id": record.id,
        "version": record.version,
        "direction": record.direction,
        "state": deployment.state,
        "description": record.description,
        "message": record.message,
        "holder": record.holder,
        "origin": record.origin,
        "started": record.started,
        "finished": record.finished,
        "seconds": record.seconds,
        "summary": dict(record.summary),
    }


def _running(known: Iterable[Deployment], versions: Mapping[str, NodeVersion]) -> dict[str, Any] | None:
    now = next((one for one in known if one.is_alive), None)
    if now is None:
        return None
    statuses = {
        name: (versions.get(planned.node) or NodeVersion("")).status for name, planned in now.record.hosts.items()
    }
    return {
        **brief(now),
        "batch": now.batch,
        "batches": len(now.record.batches),
        "stages": len(now.record.windows),
        "wave": now.record.waves.told(max(now.batch, 1)),
        "results": now.results,
        "analysis": now.analysis,
        "under_way": {
            name: str(status.get("state"))
            for name, status in statuses.items()
            if status and status.get("deployment") == now.record.id and name not in now.outcomes
        },
    }


def _is_waiting(one: Deployment) -> bool:
    return one.control.noted.is_waiting and (one.is_alive or one.state == PAUSED)


def _paused(one: Deployment) -> dict[str, Any]:
    """A deployment that waits: for what, and the commands that go on."""
    noted, pending = one.control.noted, one.control.pending
    return {
        "id": one.record.id,
        "kind": noted.kind,
        "why": noted.why,
        "said": f"{pending.word} by {pending.told}" if pending and pending.word not in (PAUSE, noted.kind) else "",
        "in_place": one.is_alive,
        "goes_on": goes_on(one.record, noted.kind, in_place=one.is_alive),
    }


def _health(instance: Instance) -> str:
    return IN_ROTATION if instance.status == "passing" else instance.status
