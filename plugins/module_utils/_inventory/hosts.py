# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nodes become hosts, and their names, addresses and variables (a private helper of the inventory)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._inventory.catalog import Fleet, Node, Selection

SOURCES = ("node", "node_address", "service_address", "tagged:<name>", "meta:<key>")
"""Where a host's name and the address to connect to can come from."""

_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_RESERVED_HOSTS = ("all", "ungrouped", "localhost", "127.0.0.1", "::1")
"""Names with a meaning of their own in Ansible: a node called localhost would get the controller's tasks."""


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


def require_one_datacenter(
    hosts: Iterable[tuple[str, str | None, Node]], known: Callable[[str], object], source: str
) -> None:
    """Refuse a host that another source has from another datacenter: the later variables would win, one by one.

    :param known: host name -> ``consul_datacenter`` as an earlier source set it, None where none did.
    :param source: this one, for the message.
    """
    mixed = [(name, str(known(name)), node["datacenter"]) for name, _address, node in hosts if known(name) is not None]
    mixed = [(name, there, here) for name, there, here in mixed if there != here]
    if mixed:
        name, there, here = mixed[0]
        more = f" (and {len(mixed) - 1} more)" if len(mixed) > 1 else ""
        raise HitlessError(
            f"The host {name}{more} is a node of the datacenter {here} in {source}, and of {there} in another "
            "inventory source: its variables would be a mixture of both.",
            hint="Use one source at a time, or hostnames that differ (meta:<key>, node_address).",
        )


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
