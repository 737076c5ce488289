# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which deployments of a service are kept, and the deletion of the rest (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    in_transactions,
    kv_check_absent,
    kv_check_session,
    kv_delete,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import RUNNING, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import (
    Listed,
    list_ids,
    read_record,
    read_records,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_versions


def prune(client: Client, keys: Keys, session: str, keep: int) -> list[str]:
    """Delete all but the newest deployments, with what machines have sent of them; returns the ids deleted.

    Never one that runs, nor the last one of a version that runs on one of its hosts, or that ran there before, nor one
    that a rollback by hand would look at.
    What has no record is no deployment: its run ended while it wrote its plan.

    :raises LockLost: the session does not hold the service's lock.
    :raises ConsulError: a record was not shown, and is there.
    """
    ids = list_ids(client, keys)
    found = {one.record.id: one for one in read_records(client, keys, ids)}
    kept = list(found)
    undone = History(list(found.values()), lambda _id: None).needed()
    old = [one for one in kept[keep:] if one not in undone]
    if old:
        needed = _still_needed(client, keys, kept, [found[one] for one in old])
        old = [one for one in old if one not in needed]
    # The record goes last: should this end halfway, the next one still knows which machines have logs.
    trees = [log for one in old if found[one].record.by_agents for log in _agent_logs(client, keys, one)]
    trees += [keys.deployment(one) for one in old]
    fence = kv_check_session(keys.lock, session)
    for part in in_transactions(fence, (kv_delete(tree, recurse=True) for tree in trees)):
        client.txn(part)
    unfinished = [one for one in ids if one not in found]
    for one in unfinished:
        # Looked at again in the same transaction: an empty answer is no proof that there is nothing.
        client.txn([fence, kv_check_absent(keys.record(one)), kv_delete(keys.deployment(one), recurse=True)])
    return [*old, *unfinished]


def _agent_logs(client: Client, keys: Keys, deployment: str) -> list[str]:
    """Where the machines of a deployment have sent their logs to."""
    record = read_record(client, keys, deployment)
    hosts = record.hosts.values() if record is not None else ()
    return [keys.agent_log(host.node, deployment) for host in hosts if host.batch is not None]


def _still_needed(client: Client, keys: Keys, ids: Sequence[str], old: Sequence[Listed]) -> set[str]:
    """Of old deployments those that must stay.

    :param ids: of all deployments, the newest first.
    """
    running = {one.record.id for one in old if one.lock and one.lock.holder.deployment == one.record.id}
    running |= {one.record.id for one in old if one.record.state == RUNNING}
    newest: dict[str, str] = {}
    for one in ids:
        newest.setdefault(_version_part(one), one)
    versioned = [one.record.id for one in old if one.record.version]
    wanted = [one for one in versioned if newest[_version_part(one)] == one]
    last = [record for one in wanted if (record := read_record(client, keys, one)) is not None]
    there = read_versions(client, keys, {host.node for record in last for host in record.hosts.values()})

    def is_target(record: Record) -> bool:
        nodes = (there[host.node] for host in record.hosts.values())
        return any(record.version in (node.version, node.previous) for node in nodes)

    return running | {record.id for record in last if is_target(record)}


def _version_part(deployment: str) -> str:
    """What an id tells of its version, see ``keys.new_deployment_id``."""
    return deployment.partition("-")[2].rpartition("-")[0]
