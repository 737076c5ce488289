# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of Consul's KV store: what a read shows, and the operations of a transaction (a private helper). Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, LockLost

TXN_LIMIT = 64
"""Operations Consul takes in one transaction."""
TXN_BYTES = 448 * 1024
"""Bytes of the body of a transaction. Consul takes 512 KiB (limits.txn_max_req_len); the rest is for what frames it."""
VALUE_LIMIT = 256 * 1024
"""Bytes of a value. Alone Consul takes 512 KiB, but within a transaction base64 makes it a third longer, and all of the
transaction is one entry of the servers' log, which they send to each other in the time of a heartbeat."""


@dataclass(frozen=True)
class KVPair:
    """A key as it stands: text value, the index for compare-and-set, the session that holds it."""

    key: str
    value: str
    index: int
    session: str | None = None

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> KVPair:
        """A key as reads and transactions return it."""
        return cls(item["Key"], kv_text(item), item["ModifyIndex"], item.get("Session"))


def json_object(text: str) -> dict[str, Any] | None:
    """The value of a key that should hold a JSON object; None for any other, since anybody may have written it."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def kv_set(key: str, value: str) -> dict[str, Any]:
    """The transaction operation that sets a key."""
    return {"Verb": "set", "Key": key, "Value": base64.b64encode(value.encode()).decode()}


def kv_set_if(key: str, value: str, index: int) -> dict[str, Any]:
    """The transaction operation that sets a key while it is as read at ``index`` (0: while there is none)."""
    return {**kv_set(key, value), "Verb": "cas", "Index": index}


def kv_delete(key: str, *, recurse: bool = False) -> dict[str, Any]:
    """The transaction operation that deletes a key, or all below a prefix; there being none is no error."""
    return {"Verb": "delete-tree" if recurse else "delete", "Key": key}


def kv_read(prefix: str) -> dict[str, Any]:
    """The transaction operation that reads all keys with a prefix; none is no error (it is one for ``get``)."""
    return {"Verb": "get-tree", "Key": prefix}


def kv_check_session(key: str, session: str) -> dict[str, Any]:
    """The transaction operation that holds only while ``session`` has locked ``key``: the fence."""
    return {"Verb": "check-session", "Key": key, "Session": session}


def kv_check_absent(key: str) -> dict[str, Any]:
    """The transaction operation that holds only while there is no such key."""
    return {"Verb": "check-not-exists", "Key": key}


def kv_check_index(key: str, index: int) -> dict[str, Any]:
    """The transaction operation that holds only while the key is there as it was at that index; it takes the right to
    read the key, where ``check-not-exists`` takes the right to write it.
    """
    return {"Verb": "check-index", "Key": key, "Index": index}


def in_transactions(fence: Mapping[str, Any], operations: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The operations in their order, in as few transactions as Consul's limits allow, each behind the fence."""
    part: list[dict[str, Any]] = []
    frame = size = _bytes_of(fence)
    for operation in operations:
        more = _bytes_of(operation)
        if part and (len(part) == TXN_LIMIT - 1 or size + more > TXN_BYTES):
            yield [dict(fence), *part]
            part, size = [], frame
        part.append(operation)
        size += more
    if part:
        yield [dict(fence), *part]


def _bytes_of(operation: Mapping[str, Any]) -> int:
    """In the body, about: names and quotes beside the values, which are ASCII."""
    return 64 + sum(len(str(value)) for value in operation.values())


def kv_text(item: Mapping[str, Any]) -> str:
    """The text of a value as transactions and reads return it."""
    return base64.b64decode(item.get("Value") or "").decode("utf-8", "replace")


def refused_txn(operations: Sequence[Mapping[str, Any]], data: Mapping[str, Any] | None) -> ConsulError:
    """The error for a transaction that was rolled back: :class:`LockLost` where a ``check-session`` did not hold.

    :param data: Consul's answer, ``{"Errors": [{"OpIndex": ..., "What": ...}]}``.
    """
    errors = [(error.get("OpIndex", 0), str(error.get("What", ""))) for error in (data or {}).get("Errors") or []]
    known = [(operations[at], what) for at, what in errors if at < len(operations)]
    for operation, what in known:
        if operation["Verb"] == "check-session":
            return LockLost(
                f"The lock {operation['Key']} is no longer held by this run: {what}", asked="PUT /v1/txn", status=409
            )
    keys = ", ".join(sorted({operation["Key"] for operation, what in known if "Permission denied" in what}))
    return ConsulError(
        f"Consul refused a transaction: {'; '.join(what for _at, what in errors)}",
        asked="PUT /v1/txn",
        status=409,
        hint=f"The policy of the token (CONSUL_HTTP_TOKEN) has to allow writing {keys}." if keys else "",
    )
