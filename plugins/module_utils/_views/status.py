# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, what is running now and how the last deployments ended (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance, read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.lock import read_lock
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import NAME, Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import INTERRUPTED
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import (
    Deployment,
    list_recent,
    lock_dict,
    read,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import (
    NodeVersion,
    meta_version,
    read_versions,
)

IN_ROTATION = "in rotation"
_ORDER = ("maintenance", "critical", "warning", IN_ROTATION)


def services_deployed(client: Client, prefix: str) -> list[str]:
    """The services that have keys below the prefix of deployments."""
    names = (name.removeprefix(f"{prefix}/").rstrip("/") for name in client.key_names(f"{prefix}/", "/"))
    return sorted(name for name in names if NAME.fullmatch(name))


def overview(client: Client, keys: Keys, limit: int) -> dict[str, Any]:
    """One service, in a handful of requests.

    :param limit: of the last deployments.
    :raises HitlessError: nothing is known of it.
    """
    instances, _answer = read_instances(client, keys.service)
    lock = read_lock(client, keys)
    recent = list_recent(client, keys, limit)
    if not instances and not recent:
        raise HitlessError(
            f"Consul knows no instance and no deployment of {keys.service}, or the token may not read them.",
            hint="Is the name right?",
        )
    by_node: dict[str, list[Instance]] = {}
    for instance in instances:
        by_node.setdefault(instance.node, []).append(instance)
    versions = read_versions(client, keys, [node for node in by_node if NAME.fullmatch(node) and ".." not in node])
    return {
        "service": keys.service,
        "nodes": {node: node_dict(by_node[node], versions.get(node)) for node in sorted(by_node)},
        "running": _running(client, keys, recent),
        "lock": lock_dict(lock),
        "deployments": [brief(one) for one in recent],
    }


def node_dict(instances: Sequence[Instance], recorded: NodeVersion | None) -> dict[str, Any]:
    """What runs on one node, and whether it gets traffic; the worst of several instances counts."""
    there = recorded or NodeVersion(instances[0].node)
    worst = min(instances, key=lambda one: _ORDER.index(_health(one)))
    health = _health(worst)
    maintenance = worst.maintenance
    failing = [check.told() for check in worst.failing(accept_warning=False)]
    reason = (maintenance.notes or "no reason given") if maintenance else "; ".join(failing)
    return {
        "version": there.version,
        "previous": there.previous,
        "meta_version": meta_version(instances),
        "status": there.status,
        "health": health,
        "reason": reason,
        "instances": len(instances),
    }


def brief(deployment: Deployment) -> dict[str, Any]:
    """A deployment as a line of a list."""
    record = deployment.record
    interrupted = deployment.state == INTERRUPTED and not record.description
    return {
        "id": record.id,
        "version": record.version,
        "direction": record.direction,
        "state": deployment.state,
        "description": "the run was interrupted; hitless.consul.recover, or the next one, clears up"
        if interrupted
        else record.description,
        "message": record.message,
        "holder": record.holder,
        "origin": record.origin,
        "started": record.started,
        "finished": record.finished,
        "seconds": record.seconds,
        "summary": dict(record.summary),
    }


def _running(client: Client, keys: Keys, recent: Sequence[Deployment]) -> dict[str, Any] | None:
    alive = next((one for one in recent if one.is_alive), None)
    now = read(client, keys, alive.record.id) if alive else None
    if now is None or not now.is_alive:
        return None
    return {**brief(now), "batch": now.batch, "batches": len(now.record.batches), "results": now.results}


def _health(instance: Instance) -> str:
    return IN_ROTATION if instance.status == "passing" else instance.status
