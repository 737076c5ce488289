# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version runs on a node, and which ran there before (a private helper of this collection).

The controller cannot ask a program which version it is; so a deployment records it once the host is in rotation, in the
same transaction as the host's outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    TXN_LIMIT,
    json_object,
    kv_check_session,
    kv_delete,
    kv_read,
    kv_set,
    kv_set_if,
    kv_text,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import (
    Keys,
    checked_version,
    usable_version,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import version_is_trusted

FORGET = ""
"""As ``previous``: delete what is recorded."""


@dataclass(frozen=True)
class NodeVersion:
    """What the keys say of a service on one node.

    :param version: what runs there, None where nothing is recorded.
    :param previous: what ran before, None where nothing is recorded.
    :param status: the last deployment's step there: deployment, state, at, message; empty where there is none.
    :param index: of the version key, for compare-and-set; 0 where there is none.
    """

    node: str
    version: str | None = None
    previous: str | None = None
    status: dict[str, Any] | None = None
    index: int = 0

    @property
    def version_is_trusted(self) -> bool:
        """Whether what is recorded runs there: since then no deployment was cut off or failed on the node.

        One that ended before it touched the node, as its deploy agent tells, leaves that as it was; so does a restart,
        whose status says itself how it is.
        """
        status = self.status or {}
        if "unsure" in status:
            return not status["unsure"]
        untouched = status.get("state") == "failed" and status.get("touched") is False
        return untouched or version_is_trusted(status.get("state"))


def read_versions(client: Client, keys: Keys, nodes: Iterable[str]) -> dict[str, NodeVersion]:
    """Node -> what is recorded there, for each of the nodes; one request for 64 of them."""
    wanted = {keys.node(node): node for node in nodes}
    prefixes = list(wanted)
    found: dict[str, dict[str, tuple[str, int]]] = {node: {} for node in wanted.values()}
    for start in range(0, len(prefixes), TXN_LIMIT):
        for item in client.txn([kv_read(prefix) for prefix in prefixes[start : start + TXN_LIMIT]]):
            prefix, _slash, name = item["Key"].rpartition("/")
            if f"{prefix}/" in wanted:
                found[wanted[f"{prefix}/"]][name] = (kv_text(item), item["ModifyIndex"])
    return {node: _node_version(node, values) for node, values in found.items()}


def read_version(client: Client, keys: Keys, node: str) -> NodeVersion:
    """What is recorded of one node, in one request."""
    return read_versions(client, keys, [node])[node]


def meta_version(instances: Iterable[Instance], key: str = "version") -> str | None:
    """The version that the instances of one node tell in their service's meta; None where they tell none or differ."""
    versions = {instance.meta.get(key) for instance in instances}
    return versions.pop() if len(versions) == 1 else None


def previous_after(before: NodeVersion, version: str) -> str | None:
    """The previous version once ``version`` runs there: kept where that was the version already."""
    running = usable_version(before.version)
    return usable_version(before.previous) if running in (None, version) else running


def version_ops(
    keys: Keys, node: str, version: str, previous: str | None, *, expect: NodeVersion | None = None
) -> list[dict[str, Any]]:
    """The transaction operations that record a version.

    :param previous: the version that ran before; where it is ``version`` itself, or None, what is recorded is kept;
        :data:`FORGET` deletes it (after a rollback by hand: it would be the bad version).
    :param expect: as read before; the operations fail where the version key has changed since.
    """
    checked_version(version)
    key = keys.version(node)
    operations = [kv_set(key, version) if expect is None else kv_set_if(key, version, expect.index)]
    if previous == FORGET:
        operations.append(kv_delete(keys.previous(node)))
    elif previous is not None and previous != version:
        operations.append(kv_set(keys.previous(node), checked_version(previous, "previous")))
    return operations


def record_version(
    client: Client,
    keys: Keys,
    node: str,
    version: str,
    *,
    previous: str | None = None,
    session: str | None = None,
    expect: NodeVersion | None = None,
    extra_ops: Sequence[dict[str, Any]] = (),
) -> None:
    """Record what runs on a node, in one transaction with ``extra_ops`` (the host's outcome and status).

    :param previous: see :func:`version_ops`.
    :param session: the session that must hold the service's lock: the fence.
    :param expect: compare-and-set, see :func:`version_ops`.
    :raises LockLost: the session no longer holds the lock.
    :raises HitlessError: the version changed since ``expect`` was read; ``details`` say what is there.
    """
    fence = [kv_check_session(keys.lock, session)] if session else []
    wanted = version_ops(keys, node, version, previous, expect=expect)
    try:
        client.txn([*fence, *wanted, *extra_ops])
    except LockLost:
        raise
    except ConsulError as error:
        if error.status != 409 or expect is None:
            raise
        there = read_version(client, keys, node)
        # The first answer may have been lost and the request sent again: then it is our own write that is there.
        if there.version != version or there.index == expect.index:
            raise changed_meanwhile(keys, there, expect.version) from None


def forget_version(
    client: Client, keys: Keys, node: str, *, session: str | None = None, expect: NodeVersion | None = None
) -> None:
    """Delete what is recorded of a node that no longer runs the service; arguments as :func:`record_version`."""
    operations = [kv_delete(key) for key in (keys.version(node), keys.previous(node), keys.status(node))]
    if session:
        operations.insert(0, kv_check_session(keys.lock, session))
    if expect is not None and expect.index:
        operations.insert(0, {"Verb": "check-index", "Key": keys.version(node), "Index": expect.index})
    try:
        client.txn(operations)
    except LockLost:
        raise
    except ConsulError as error:
        if error.status != 409 or expect is None:
            raise
        there = read_version(client, keys, node)
        if there.version is not None:
            raise changed_meanwhile(keys, there, expect.version) from None


def changed_meanwhile(keys: Keys, there: NodeVersion, expected: str | None) -> HitlessError:
    """The error of a compare-and-set that found something else."""
    return HitlessError(
        f"{keys.version(there.node)} is {there.version or 'not set'}, and not {expected or 'unset'} as expected; "
        "it is left as it is.",
        details={"version": there.version, "previous": there.previous},
    )


def _node_version(node: str, values: dict[str, tuple[str, int]]) -> NodeVersion:
    version, index = values.get("version", ("", 0))
    return NodeVersion(
        node,
        version=version.strip() or None,
        previous=values.get("previous", ("", 0))[0].strip() or None,
        status=_status(values["status"][0]) if "status" in values else None,
        index=index,
    )


def _status(text: str) -> dict[str, Any] | None:
    """A status as its key holds it, for which a machine may have put anything there; None for no status at all."""
    data = json_object(text)
    if data is None:
        return None
    texts = {name: str(data[name] or "") for name in ("deployment", "state", "at", "message") if name in data}
    steps = data.get("steps")
    valid_steps = {"steps": [one for one in steps if isinstance(one, Mapping)]} if isinstance(steps, list) else {}
    return {name: one for name, one in data.items() if name != "steps"} | texts | valid_steps
