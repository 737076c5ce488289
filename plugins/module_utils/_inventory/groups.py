# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups of hosts, by what Consul tells of their nodes (a private helper of the inventory)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._inventory.catalog import Node

_NOT_IN_GROUP_NAMES = re.compile(r"[^A-Za-z0-9_]")


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
