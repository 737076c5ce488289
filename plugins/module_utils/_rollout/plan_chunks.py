# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a plan as the values of several keys, for a fleet of any size (a private helper of this collection).

Pure. A plan is written once, before the record of its deployment, and never changed: how a host ends has its own key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import VALUE_LIMIT, json_object
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError

_FRAME = '{"hosts":{},"uncovered":[]}'


def chunks_of(hosts: Mapping[str, Mapping[str, Any]], uncovered: Sequence[str], limit: int = VALUE_LIMIT) -> list[str]:
    """The values of the keys of a plan, each of at most ``limit`` bytes; in the order of the hosts.

    :param hosts: host -> what is kept of it; ``uncovered``: nodes that are none of the hosts.
    :raises HitlessError: one entry alone is larger.
    """
    chunks: list[tuple[list[str], list[str]]] = []
    room = 0
    entries = [(True, f"{json.dumps(name)}:{_compact(host)}") for name, host in hosts.items()]
    entries += [(False, json.dumps(node)) for node in uncovered]
    for is_host, text in entries:
        size = len(text) + 1  # with its comma
        if size > limit - len(_FRAME):
            raise HitlessError(f"{text[:60]}... takes {size} bytes in the plan, more than a key may hold ({limit}).")
        if size > room:
            chunks.append(([], []))
            room = limit - len(_FRAME)
        chunks[-1][0 if is_host else 1].append(text)
        room -= size
    return [f'{{"hosts":{{{",".join(named)}}},"uncovered":[{",".join(nodes)}]}}' for named, nodes in chunks]


def joined(chunks: Iterable[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Hosts and uncovered nodes, from the values of all keys of a plan in their order.

    :raises ValueError: one of them is no such value.
    """
    hosts: dict[str, Any] = {}
    uncovered: list[str] = []
    for text in chunks:
        data = json_object(text)
        if data is None or not isinstance(data.get("hosts"), dict) or not isinstance(data.get("uncovered"), list):
            raise ValueError("no part of a plan")
        hosts.update(data["hosts"])
        uncovered += map(str, data["uncovered"])
    return hosts, tuple(uncovered)


def _compact(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"))
