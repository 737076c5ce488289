# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads Consul's catalog as a fleet of nodes (a private helper of the inventory).

The number of requests depends on the number of services, never on the number of nodes. What is read is plain data
(:class:`Fleet`), fit for a cache; hosts.py and groups.py are pure functions of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypedDict

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    aggregate,
    is_dead,
    worst,
)

_PARALLEL = 8
"""Reads at once: a further gain is small, and Consul limits the connections of one client (200 by default)."""


class Instance(TypedDict):
    """One registered instance of a service; ``address`` is the node's where the service has none of its own."""

    id: str
    address: str
    port: int
    tags: list[str]
    meta: dict[str, str]
    status: str


class Node(TypedDict):
    """One node, with those of its instances that were asked for. ``dead``: its serfHealth is critical."""

    name: str
    datacenter: str
    address: str
    tagged_addresses: dict[str, str]
    meta: dict[str, str]
    dead: bool
    status: str
    services: dict[str, list[Instance]]


class Fleet(TypedDict):
    """What Consul answered: ``missing`` are the named services without a matching instance, ``filtered`` tells that
    Consul kept entries back because of ACLs (known from Consul 1.11 on)."""

    nodes: list[Node]
    missing: list[str]
    filtered: bool


@dataclass(frozen=True)
class Selection:
    """What to ask Consul for.

    :param services: names; empty for all services and for nodes without any.
    :param filter: an expression over ``/v1/health/service``, such as ``Service.Meta.tier == "front"``.
    :param node_meta: node metadata that must be so.
    :param tags: service tags that an instance must all have.
    """

    services: tuple[str, ...] = ()
    filter: str = ""
    node_meta: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def by_instance(self) -> bool:
        """Whether nodes are chosen by an instance that they have, so that a node without one is not meant."""
        return bool(self.services or self.filter or self.tags)

    def describe(self) -> str:
        """For messages: ``service web, tags prod``."""
        parts = [
            f"service {', '.join(self.services)}" if self.services else "",
            f"tags {', '.join(self.tags)}" if self.tags else "",
            f"node meta {', '.join(f'{key}={value}' for key, value in self.node_meta)}" if self.node_meta else "",
            f"filter {self.filter}" if self.filter else "",
        ]
        return ", ".join(part for part in parts if part)


def read_fleet(client: Client, selection: Selection) -> Fleet:
    """Ask Consul: one request for each service; without named services also for their list and the nodes, and, where
    nodes run no service, two for the state of those.

    Reads are stale ones: any server answers, a leader is not needed.

    :raises ConsulError: Consul refused, the filter for instance.
    """
    common: list[tuple[str, object]] = [("stale", "")]
    common += [("node-meta", f"{key}:{value}") for key, value in selection.node_meta]
    filtered = False

    def ask(path: str, *more: tuple[str, object]) -> Any:
        nonlocal filtered
        answer: Answer = client.get(path, [*common, *more])
        filtered = filtered or answer.filtered
        return answer.data or []

    wanted: list[tuple[str, object]] = [("tag", tag) for tag in selection.tags]
    if selection.filter:
        wanted.append(("filter", selection.filter))
    names = selection.services or tuple(sorted(ask("/v1/catalog/services") or {}))
    answers = _each(lambda name: ask(f"/v1/health/service/{name}", *wanted), names)
    nodes: dict[str, Node] = {}
    missing = []
    for name, entries in zip(names, answers, strict=True):
        # Consul compares names without regard to case, so that it gives the instances of Web for web as well.
        found = [
            _add_instance(nodes, entry)
            for entry in entries
            if entry["Service"]["Service"] == name and _has_tags(entry, selection.tags)
        ]
        if not found and selection.services:
            missing.append(_spelled(name, entries))
    if not selection.by_instance:
        bare = [item for item in ask("/v1/catalog/nodes") if item["Node"] not in nodes]
        of_nodes = ("filter", 'ServiceID == ""')
        states = (
            [*ask("/v1/health/state/critical", of_nodes), *ask("/v1/health/state/warning", of_nodes)] if bare else []
        )
        _add_bare_nodes(nodes, bare, states)
    return Fleet(nodes=[nodes[name] for name in sorted(nodes)], missing=missing, filtered=filtered)


def _spelled(name: str, entries: Iterable[Mapping[str, Any]]) -> str:
    """A service that is not there, and how Consul spells it where it has another spelling."""
    others = sorted({entry["Service"]["Service"] for entry in entries} - {name})
    return f"{name} (it is spelled {' or '.join(others)} there)" if others else name


def _each(call: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
    if len(names) < 2:
        return [call(name) for name in names]
    with ThreadPoolExecutor(min(_PARALLEL, len(names))) as pool:
        return list(pool.map(call, names))


def _has_tags(entry: Mapping[str, Any], tags: Iterable[str]) -> bool:
    """Consul compares tags without regard to case; a tag selects exactly here, as it does in a filter."""
    return set(tags) <= set(entry["Service"].get("Tags") or [])


def _add_instance(nodes: dict[str, Node], entry: Mapping[str, Any]) -> Node:
    # Newer versions leave empty fields out of their answers, a port of 0 for instance.
    service, checks = entry["Service"], _pairs(entry.get("Checks") or ())
    name = entry["Node"]["Node"]
    node = nodes.get(name) or nodes.setdefault(name, _node(entry["Node"]))
    node["dead"] = node["dead"] or is_dead(checks)
    instance = Instance(
        id=service["ID"],
        address=service.get("Address") or node["address"],
        port=service.get("Port") or 0,
        tags=list(service.get("Tags") or []),
        meta=dict(service.get("Meta") or {}),
        status=aggregate(checks),
    )
    node["services"].setdefault(service["Service"], []).append(instance)
    node["status"] = worst((node["status"], instance["status"]), dead=node["dead"])
    return node


def _add_bare_nodes(
    nodes: dict[str, Node], bare: Iterable[Mapping[str, Any]], states: Iterable[Mapping[str, Any]]
) -> None:
    checks: dict[str, list[Mapping[str, Any]]] = {}
    for check in states:
        checks.setdefault(check["Node"], []).append(check)
    for item in bare:
        own = _pairs(checks.get(item["Node"], ()))
        nodes[item["Node"]] = {**_node(item), "dead": is_dead(own), "status": aggregate(own)}


def _node(item: Mapping[str, Any]) -> Node:
    return Node(
        name=item["Node"],
        datacenter=item.get("Datacenter") or "",
        address=item.get("Address") or "",
        tagged_addresses=dict(item.get("TaggedAddresses") or {}),
        meta=dict(item.get("Meta") or {}),
        dead=False,
        status="passing",
        services={},
    )


def _pairs(checks: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(check["CheckID"], check["Status"]) for check in checks]
