# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads Consul's catalog as a fleet of hosts (a private helper of the inventory).

The number of requests depends on the number of services, never on the number of nodes. What is read is plain data
(:class:`Fleet`), fit for a cache; names, variables and groups are pure functions of it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypedDict

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Answer, Client
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError

STATUSES = ("passing", "warning", "critical", "maintenance")
"""From best to worst: Consul's own order when it aggregates checks (api/health.go, AggregatedStatus)."""
SOURCES = ("node", "node_address", "service_address", "tagged:<name>", "meta:<key>")
"""Where a host's name and the address to connect to can come from."""
_PARALLEL = 8
"""Reads at once: a further gain is small, and Consul limits the connections of one client (200 by default)."""

_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_RESERVED_HOSTS = ("all", "ungrouped", "localhost", "127.0.0.1", "::1")
"""Names with a meaning of their own in Ansible: a node called localhost would get the controller's tasks."""
_NOT_IN_GROUP_NAMES = re.compile(r"[^A-Za-z0-9_]")


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


@dataclass(frozen=True)
class Grouping:
    """Which groups to make, by their prefixes; None for none of that kind.

    :param meta_keys: node metadata keys that get a group for each of their values.
    """

    service: str = "service_"
    datacenter: str = "dc_"
    status: str | None = None
    tag: str | None = None
    meta: str = "meta_"
    meta_keys: tuple[str, ...] = ()


# -- reading --------------------------------------------------------------------------------------------------


def read_fleet(client: Client, selection: Selection) -> Fleet:
    """Ask Consul: one request for each service; without named services also for their list and the nodes, and, where
    nodes run no service, two for the state of those.

    Reads are stale ones: any server answers, a leader is not needed.

    :raises ConsulError: Consul refused, the filter for instance.
    """
    common: list[tuple[str, object]] = [("stale", "")]
    if client.connection.datacenter:
        common.append(("dc", client.connection.datacenter))
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
        found = [_add_instance(nodes, entry) for entry in entries if _has_tags(entry, selection.tags)]
        if not found and selection.services:
            missing.append(str(name))
    if not selection.by_instance:
        bare = [item for item in ask("/v1/catalog/nodes") if item["Node"] not in nodes]
        of_nodes = ("filter", 'ServiceID == ""')
        states = (
            [*ask("/v1/health/state/critical", of_nodes), *ask("/v1/health/state/warning", of_nodes)] if bare else []
        )
        _add_bare_nodes(nodes, bare, states)
    return Fleet(nodes=[nodes[name] for name in sorted(nodes)], missing=missing, filtered=filtered)


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
    service, checks = entry["Service"], entry["Checks"] or []
    name = entry["Node"]["Node"]
    node = nodes.get(name) or nodes.setdefault(name, _node(entry["Node"]))
    node["dead"] = node["dead"] or _dead(checks)
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
        own = checks.get(item["Node"], [])
        nodes[item["Node"]] = {**_node(item), "dead": _dead(own), "status": aggregate(own)}


def _node(item: Mapping[str, Any]) -> Node:
    return Node(
        name=item["Node"],
        datacenter=item["Datacenter"],
        address=item["Address"],
        tagged_addresses=dict(item.get("TaggedAddresses") or {}),
        meta=dict(item.get("Meta") or {}),
        dead=False,
        status="passing",
        services={},
    )


def aggregate(checks: Iterable[Mapping[str, Any]]) -> str:
    """The status of an instance or a node from its checks.

    Maintenance is a critical check with a name of its own (agent/structs, ServiceMaintPrefix and NodeMaint). A dead
    machine is critical, though it may be in maintenance: nothing can be done on it.
    """
    bad = [check for check in checks if check["Status"] != "passing"]
    return worst((_status(check) for check in bad), dead=_dead(bad)) if bad else "passing"


def worst(statuses: Iterable[str], *, dead: bool = False) -> str:
    """The worst of the statuses, passing where there are none."""
    return "critical" if dead else STATUSES[max((STATUSES.index(status) for status in statuses), default=0)]


def _status(check: Mapping[str, Any]) -> str:
    name = check["CheckID"]
    if name == "_node_maintenance" or name.startswith("_service_maintenance:"):
        return "maintenance"
    return check["Status"] if check["Status"] in STATUSES else "critical"


def _dead(checks: Iterable[Mapping[str, Any]]) -> bool:
    return any(check["Status"] == "critical" and check["CheckID"] == "serfHealth" for check in checks)


# -- what of it becomes a host --------------------------------------------------------------------------------


def choose(fleet: Fleet, statuses: Iterable[str], *, dead_nodes: bool) -> list[Node]:
    """The nodes of those statuses; dead ones only where they are wanted."""
    wanted = set(statuses)
    return [node for node in fleet["nodes"] if node["status"] in wanted and (dead_nodes or not node["dead"])]


def refuse_empty(fleet: Fleet, chosen: Sequence[Node], selection: Selection, where: str, *, token: bool) -> None:
    """An empty answer is not "none": a token without rights gets one too, and so do readers at a leader's change.

    :param where: the address and datacenter asked, for the message.
    :param token: whether a token was sent.
    :raises HitlessError: nothing was found, or nothing for one of the named services.
    """
    if chosen and not fleet["missing"]:
        return
    allow = "Set allow_empty: true to accept it."
    if not fleet["nodes"] or fleet["missing"]:
        asked = selection.describe()
        if fleet["missing"] and fleet["nodes"]:
            what = f"no instance of {', '.join(fleet['missing'])}" + (f" (asked for {asked})" if asked else "")
        else:
            what = f"no node with {asked}" if asked else "no node"
        known = "it did keep entries back for lack of rights" if fleet["filtered"] else "Consul then answers just so"
        raise HitlessError(
            f"Consul at {where} knows {what}, or {'the ACL token' if token else 'a request without an ACL token'} may "
            f"not read it ({known}).",
            hint=f"Check the names, and that the token allows node:read and service:read. {allow}",
        )
    raise HitlessError(
        f"None of the {len(fleet['nodes'])} nodes that Consul at {where} knows has a status that statuses and "
        "dead_nodes ask for.",
        hint=allow,
    )


def check_sources(option: str, sources: Iterable[str]) -> None:
    """:raises HitlessError: an entry of a preference list is none of :data:`SOURCES`."""
    for source in sources:
        kind, colon, rest = source.partition(":")
        known = rest and kind in ("tagged", "meta") if colon else source in SOURCES
        if not known:
            raise HitlessError(f"{option} holds {source!r}, which is none of {', '.join(SOURCES)}.")


def _candidates(node: Node, sources: Iterable[str]) -> list[str]:
    first = next((instances[0]["address"] for instances in node["services"].values() if instances), "")
    simple = {"node": node["name"], "node_address": node["address"], "service_address": first}
    found = []
    for source in sources:
        kind, _colon, rest = source.partition(":")
        table = {"tagged": node["tagged_addresses"], "meta": node["meta"]}.get(kind)
        found.append(simple[source] if table is None else table.get(rest, ""))
    return [candidate for candidate in found if candidate]


def _is_address(text: str) -> bool:
    """A host's name or an IP address; the IPv4 ones look like names."""
    if _HOST_NAME.fullmatch(text):
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def host_name(node: Node, sources: Iterable[str]) -> str:
    """The first of the sources that is safe as a host's name.

    Safe: letters, digits, ``_.-``, or an IP address; no template, no host pattern, nothing ssh takes for an option.

    :raises HitlessError: there is none.
    """
    candidates = _candidates(node, sources)
    for candidate in candidates:
        if _is_address(candidate) and candidate not in _RESERVED_HOSTS:
            return candidate
    raise HitlessError(
        f"Node {node['name']!r} has no name that is safe in an inventory: hostnames gives "
        f"{', '.join(map(repr, candidates)) or 'nothing'}; safe are letters, digits and ._-, and not "
        f"{', '.join(_RESERVED_HOSTS[:3])}.",
        hint="Rename the node, add another source to hostnames (meta:<key> for instance), or set unusable_nodes: skip.",
    )


def connect_address(node: Node, sources: Sequence[str]) -> str | None:
    """The first of the sources that is an address or a host's name; None where the list is empty.

    :raises HitlessError: the list is not empty, and none of it is.
    """
    if not sources:
        return None
    candidates = _candidates(node, sources)
    for candidate in candidates:
        if _is_address(candidate):
            return candidate
    raise HitlessError(
        f"Node {node['name']!r} has no usable address: connect_with gives "
        f"{', '.join(map(repr, candidates)) or 'nothing'}.",
        hint="Add another source to connect_with, node_address for instance, or set unusable_nodes: skip.",
    )


def name_hosts(
    nodes: Iterable[Node], hostnames: Sequence[str], connect_with: Sequence[str], skip: Callable[[str], None] | None
) -> list[tuple[str, str | None, Node]]:
    """(host name, address to connect to, node) of each node.

    :param skip: is told why a node is left out; None: an unusable node is an error.
    :raises HitlessError: two nodes with one name, whatever ``skip`` is.
    """
    hosts: list[tuple[str, str | None, Node]] = []
    named: dict[str, str] = {}
    for node in nodes:
        try:
            name, address = host_name(node, hostnames), connect_address(node, connect_with)
        except HitlessError as error:
            if skip is None:
                raise
            skip(str(error))
            continue
        if name in named:
            raise HitlessError(
                f"The nodes {named[name]!r} and {node['name']!r} would both be the host {name}.",
                hint="Give hostnames a source that tells them apart.",
            )
        named[name] = node["name"]
        hosts.append((name, address, node))
    return hosts


def host_variables(node: Node, address: str | None = None) -> dict[str, Any]:
    """The variables of a host; ``ansible_host`` only with an address."""
    variables: dict[str, Any] = {
        "consul_node": node["name"],
        "consul_datacenter": node["datacenter"],
        "consul_address": node["address"],
        "consul_node_meta": node["meta"],
        "consul_services": node["services"],
        "consul_status": node["status"],
    }
    if address is not None:
        variables["ansible_host"] = address
    return variables


def group_name(text: str) -> str:
    """A valid group name: anything but letters, digits and ``_`` becomes ``_``, and no digit comes first."""
    name = _NOT_IN_GROUP_NAMES.sub("_", text)
    return f"_{name}" if name[:1].isdigit() else name


class _Groups:
    """Collects groups, and refuses a name that two different things would share."""

    def __init__(self) -> None:
        self.members: dict[str, list[str]] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._origin: dict[str, tuple[str, str]] = {}

    def of(self, kind: str, prefix: str, value: str) -> list[str]:
        """The hosts of the group that stands for ``value``."""
        name = self._names.get((kind, value))
        if name is None:
            name = group_name(prefix + value)
            other = self._origin.setdefault(name, (kind, value))
            if other != (kind, value) or name in ("", "all", "ungrouped"):
                clash = f"{other[0]} {other[1]!r}" if other != (kind, value) else "a group of Ansible's own"
                raise HitlessError(
                    f"The group {name!r} would stand for {kind} {value!r} as well as for {clash}.",
                    hint="Set services to those you need, or another prefix (service_prefix, tag_prefix, ...).",
                )
            self._names[kind, value] = name
            self.members[name] = []
        return self.members[name]


def build_groups(
    hosts: Iterable[tuple[str, Node]], grouping: Grouping, services: Iterable[str] = ()
) -> dict[str, list[str]]:
    """Group name -> host names.

    :param services: names whose groups exist though no host is in them.
    :raises HitlessError: two different things would be one group: hosts of both would be taken for hosts of each.
    """
    groups = _Groups()
    for service in services:
        groups.of("service", grouping.service, service)
    for host, node in hosts:
        groups.of("datacenter", grouping.datacenter, node["datacenter"]).append(host)
        for service in node["services"]:
            groups.of("service", grouping.service, service).append(host)
        if grouping.status is not None:
            groups.of("status", grouping.status, node["status"]).append(host)
        if grouping.tag is not None:
            for tag in _tags(node):
                groups.of("tag", grouping.tag, tag).append(host)
        for key in grouping.meta_keys:
            if node["meta"].get(key):
                groups.of(f"node meta {key}", f"{grouping.meta}{key}_", node["meta"][key]).append(host)
    return groups.members


def _tags(node: Node) -> list[str]:
    return sorted(
        {tag for instances in node["services"].values() for instance in instances for tag in instance["tags"]}
    )
