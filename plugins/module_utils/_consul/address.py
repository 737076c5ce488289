# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Consul a run asks where the task itself does not say: one address (a private helper of this collection).

An inventory source says it in a file that no task reads, and hosts in variables that localhost does not have. The first
is noted here: Ansible reads inventories in the process that later forks the workers of all tasks, so that these inherit
what is noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TAKEN = ("url", "datacenter", "ca_path", "client_cert", "client_key")
"""What tasks take over from an inventory source. Not its token: it may be meant for reading the catalog alone, and a
cluster's token goes to the agents of hosts; nor that it checks no certificate."""


@dataclass(frozen=True)
class Source:
    """An inventory source of the plugin hitless.consul.catalog.

    :param options: its connection options that are set.
    :param problem: why it could not be read; empty where it could.
    """

    path: str
    options: Mapping[str, Any]
    problem: str = ""


_sources: dict[str, Source] = {}


def note_source(path: str, options: Mapping[str, Any], problem: str = "") -> None:
    """Keep how an inventory source asks Consul, and whether that went well."""
    _sources[path] = Source(path, {name: options[name] for name in TAKEN if options.get(name)}, problem)


def sources_unread() -> list[str]:
    """The inventory sources that could not be read, each with the reason."""
    return [f"{source.path}: {source.problem}" for source in _sources.values() if source.problem]


def of_inventory() -> Mapping[str, Any]:
    """The connection options of the inventory sources, where they agree in the address; else nothing."""
    found = [source.options for source in _sources_with_url()]
    return found[0] if found and all(options == found[0] for options in found) else {}


def _sources_with_url() -> list[Source]:
    """The sources that say an address; where some could be read only these, since the others gave no host."""
    found = [source for source in _sources.values() if source.options.get("url")]
    return [source for source in found if not source.problem] or found


def origin(given: Mapping[str, Any], of_hosts: Mapping[str, Any], environment: Mapping[str, str], differ: str) -> str:
    """Where the address comes from, one sentence for an error of it.

    :param given: variables ``hitless_consul_<option>`` of localhost; ``of_hosts``: those taken from the hosts.
    :param differ: why none was taken from the hosts, as a sentence; empty where they have none.
    """
    if given.get("hitless_consul_url"):
        return "That address is hitless_consul_url as localhost has it."
    if of_hosts.get("hitless_consul_url"):
        return "That address is hitless_consul_url as the hosts have it."
    if environment.get("CONSUL_HTTP_ADDR"):
        return "That address is CONSUL_HTTP_ADDR."
    if of_inventory():
        return f"That address is url of the inventory source {_sources_with_url()[0].path}."
    several = [f"{_shown(source.options)} ({source.path})" for source in _sources_with_url()]
    found = [differ] if differ else []
    found += [f"The inventory sources differ: {', '.join(several)}."] if several else []
    return " ".join(
        ["That address is the default: neither hitless_consul_url nor CONSUL_HTTP_ADDR is set for localhost.", *found]
    )


def _shown(options: Mapping[str, Any]) -> str:
    return ", datacenter ".join(str(options[name]) for name in ("url", "datacenter") if options.get(name))
