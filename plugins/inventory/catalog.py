# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory source ``hitless.consul.catalog``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: catalog
short_description: Hosts and groups from Consul's catalog
version_added: 0.1.0
author:
  - Hitless contributors (@hitless)
description:
  - Makes a host of every node in Consul's catalog, with its services, their health and metadata as variables, and
    groups by service and datacenter.
  - The number of requests to Consul depends on the number of services, never on the number of nodes.
  - The name of the file ends in C(.consul.yml) or C(.consul.yaml), or is C(consul.yml) or C(consul.yaml).
  - "Host variables: C(consul_node), C(consul_datacenter), C(consul_address) (of the node), C(consul_node_meta) (a
    dictionary), C(consul_services) (name to list of dictionaries with id, address, port, tags, meta and status) and
    C(consul_status) (passing, warning, critical or maintenance; the worst of the node's and the instances')."
  - What comes from Consul is data, never a template.
options:
  plugin:
    description: Marks the file as one for this plugin.
    type: str
    required: true
    choices: [hitless.consul.catalog]
  services:
    description:
      - Names of services. Hosts are the nodes with an instance of one of them, and C(consul_services) holds these.
      - All services, and nodes without any, where not given.
      - A named service without a matching instance is an error unless O(allow_empty) is set.
    type: list
    elements: str
    default: []
  filter:
    description:
      - Expression in Consul's filter language over the fields of C(/v1/health/service), evaluated by Consul for each
        instance. C(Node.Meta.rack == "r1" and Service.Meta.version != "1.0") for instance.
      - Nodes without a matching instance are left out.
    type: str
    default: ''
  node_meta:
    description: Node metadata that a node must have, all of it.
    type: dict
    default: {}
  tags:
    description: Service tags that an instance must have, all of them and exactly so. Other instances are left out.
    type: list
    elements: str
    default: []
  statuses:
    description: Hosts with which C(consul_status) to take.
    type: list
    elements: str
    choices: [passing, warning, critical, maintenance]
    default: [passing, warning, critical, maintenance]
  dead_nodes:
    description:
      - Whether to take nodes that Consul holds for dead (their C(serfHealth) check is critical). They are V(critical),
        whatever else is known of them.
    type: bool
    default: true
  hostnames:
    description:
      - What to name hosts by, the first that is there and safe as a name (letters, digits and C(._-), or an IP
        address).
      - V(node), V(node_address), V(service_address) (the first instance's), V(tagged:<name>) (an address of the node
        such as V(tagged:lan) or V(tagged:wan)), V(meta:<key>) (node metadata).
      - Two nodes with one name are an error, also where another source has the one from another datacenter.
    type: list
    elements: str
    default: [node]
  connect_with:
    description:
      - What to set C(ansible_host) to, the first that is there and is an address or a host's name. Sources are those of
        O(hostnames).
      - An empty list leaves C(ansible_host) alone, so that Ansible connects to the host's name.
    type: list
    elements: str
    default: [node_address]
  unusable_nodes:
    description:
      - What to do about a node that has no safe name, or no address of O(connect_with).
      - V(fail) refuses the whole inventory and names the node, V(skip) leaves it out with a warning.
    type: str
    choices: [fail, skip]
    default: fail
  allow_empty:
    description:
      - Accept an inventory without hosts, and named services without instances. Otherwise they are an error, because
        Consul answers a token without rights just so.
    type: bool
    default: false
  service_prefix:
    description:
      - Prefix of the groups by service. In all group names characters other than letters, digits and C(_) become C(_);
        two names that become one are an error.
    type: str
    default: service_
  datacenter_prefix:
    description: Prefix of the groups by datacenter.
    type: str
    default: dc_
  group_by_status:
    description: Make groups by C(consul_status).
    type: bool
    default: false
  status_prefix:
    description: Prefix of the groups by status.
    type: str
    default: status_
  group_by_tags:
    description: Make groups by service tag.
    type: bool
    default: false
  tag_prefix:
    description: Prefix of the groups by service tag.
    type: str
    default: tag_
  group_by_meta:
    description: Node metadata keys whose values make groups, C(meta_<key>_<value>).
    type: list
    elements: str
    default: []
  meta_prefix:
    description: Prefix of the groups by node metadata.
    type: str
    default: meta_
extends_documentation_fragment:
  - hitless.consul._cluster
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - O(url), O(token), O(datacenter) and O(filter) may be templates.
  - Tasks of this collection take the address, datacenter and certificates from here where neither their options, nor
    variables, nor the environment give an address, and all sources of this plugin agree. They never take the token.
  - Host and group variables do not exist yet when an inventory is read. Of the variables C(hitless_consul_<option>)
    only extra variables count here.
  - Ansible goes on with no hosts where an inventory cannot be read. Set C(any_unparsed_is_failed = true) in the section
    C([inventory]) of ansible.cfg, so that it stops.
  - An option that is not known is refused.
  - Reads may be answered by any Consul server (stale reads). With O(cache) the status of
    a host is as old as the cache.
"""

EXAMPLES = r"""
# inventory.consul.yml - all nodes, found through the agent on this machine or CONSUL_HTTP_ADDR
plugin: hitless.consul.catalog

---
# web.consul.yml - the servers of two services in one environment, by their fully qualified names
plugin: hitless.consul.catalog
url: https://consul.example.com:8501
token: "{{ lookup('ansible.builtin.file', '~/.consul-token') }}"
ca_path: /etc/ssl/certs/consul-ca.pem
services: [web, api]
tags: [prod]
hostnames: ["meta:fqdn", node]
connect_with: ["tagged:lan", node_address]

---
# racks.consul.yml - groups by rack and status, dead machines left out, answers kept for five minutes
plugin: hitless.consul.catalog
services: [web]
filter: Service.Meta.tier == "front"
dead_nodes: false
group_by_status: true
group_by_meta: [rack]
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ansible-inventory
cache_timeout: 300

---
# own.consul.yml - groups and variables by expressions
plugin: hitless.consul.catalog
services: [web]
compose:
  web_port: consul_services.web[0].port
groups:
  canaries: consul_node_meta.canary | default('no') == 'yes'
keyed_groups:
  - key: consul_node_meta.os
    prefix: os
"""

import difflib
import gc
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.hitless.consul.plugins.module_utils._consul.address import note_source
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    CLUSTER_SPEC,
    VARIABLE_PREFIX,
    cluster_connection,
    connection_options,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.transport import MISSING_LIBRARY, library_missing
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._inventory.catalog import Fleet, Selection, read_fleet
from ansible_collections.hitless.consul.plugins.module_utils._inventory.groups import Grouping, build_groups
from ansible_collections.hitless.consul.plugins.module_utils._inventory.hosts import (
    check_sources,
    choose,
    host_variables,
    name_hosts,
    refuse_empty,
    require_one_datacenter,
)
from ansible_collections.hitless.consul.plugins.plugin_utils._ansible_internals import extra_vars_of
from ansible_collections.hitless.consul.plugins.plugin_utils._inventory import Constructed, without_templates

_RETRY_FOR = 20.0
"""Seconds: any server answers stale reads, so that there is no leader to wait for."""
_TEMPLATED = ("url", "token", "datacenter", "filter")
_VARIABLES = (
    *("consul_node", "consul_datacenter", "consul_address", "consul_node_meta", "consul_services", "consul_status"),
    "ansible_host",
)


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]
    NAME = "hitless.consul.catalog"

    def verify_file(self, path: str) -> bool:
        name = os.path.basename(path)
        ours = name in ("consul.yml", "consul.yaml") or name.endswith((".consul.yml", ".consul.yaml"))
        return ours and bool(super().verify_file(path))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        options: dict[str, Any] = {}
        try:
            self._refuse_unknown(self._read_config_data(path))
            if MISSING_LIBRARY:
                raise HitlessError(library_missing())
            options = self._connection_options()
            connection = cluster_connection(options)
            selection = self._selection()
            with _without_garbage_collection():
                fleet = self._fleet(connection, selection, path, cache=cache)
                self._populate(fleet, connection, selection, path)
        except (HitlessError, AnsibleError) as error:
            # Ansible goes on without these hosts: a rollout that misses them says why.
            note_source(path, options, str(error))
            if isinstance(error, HitlessError):
                raise AnsibleParserError(str(error)) from None
            raise
        note_source(path, options)

    # -- options ----------------------------------------------------------------------------------------------

    def _refuse_unknown(self, config: dict[str, Any]) -> None:
        """Ansible ignores them: ``service: web`` would be the whole fleet."""
        for name in config:
            if name not in self._options:
                near = difflib.get_close_matches(str(name), self._options, 1)
                raise AnsibleParserError(
                    f"{name} is no option of {self.NAME}" + (f"; did you mean {near[0]}?" if near else ".")
                )

    def _templated(self, value: Any) -> Any:
        """A connection option may be a template; Ansible leaves that to the plugin."""
        return self.templar.template(value) if isinstance(value, str) else value

    def _connection_options(self) -> dict[str, Any]:
        options = {
            name: self._templated(self.get_option(name)) if name in _TEMPLATED else self.get_option(name)
            for name in CLUSTER_SPEC
        }
        # Those of a host's own agent may name variables of hosts, of which there are none yet.
        told = extra_vars_of(self)
        given = {f"{VARIABLE_PREFIX}{name}" for name in CLUSTER_SPEC} & told.keys()
        extra = {name: self._templated(told[name]) for name in given}
        return connection_options(options, extra, os.environ)

    def _selection(self) -> Selection:
        for option in ("hostnames", "connect_with"):
            check_sources(option, self._texts(option))
        return Selection(
            services=tuple(dict.fromkeys(self._texts("services"))),
            filter=str(self._templated(self.get_option("filter")) or ""),
            node_meta=tuple((str(key), _text(value)) for key, value in (self.get_option("node_meta") or {}).items()),
            tags=tuple(self._texts("tags")),
        )

    def _texts(self, option: str) -> list[str]:
        return [_text(value) for value in self.get_option(option) or []]

    def _grouping(self) -> Grouping:
        return Grouping(
            service=self.get_option("service_prefix"),
            datacenter=self.get_option("datacenter_prefix"),
            status=self.get_option("status_prefix") if self.get_option("group_by_status") else None,
            tag=self.get_option("tag_prefix") if self.get_option("group_by_tags") else None,
            meta=self.get_option("meta_prefix"),
            meta_keys=tuple(self._texts("group_by_meta")),
        )

    # -- data -------------------------------------------------------------------------------------------------

    def _fleet(self, connection: Connection, selection: Selection, path: str, *, cache: bool) -> Fleet:
        """From the cache where it may be, else from Consul. What is cached is Consul's answer, before any template."""
        key = f"{self.get_cache_key(path)}_{_fingerprint(connection, selection)}"
        cached = bool(self.get_option("cache"))
        if cached and cache:
            try:
                fleet: Fleet = json.loads(self._cache[key])
            except KeyError:
                pass
            else:
                self.display.vv(f"{self.NAME}: {len(fleet['nodes'])} nodes from the cache")
                return fleet
        client = Client(connection, retry_for=_RETRY_FOR)
        fleet = read_fleet(client, selection)
        self.display.vv(f"{self.NAME}: {len(fleet['nodes'])} nodes, {client.requests} requests to {connection.base}")
        if cached:
            # As text: Ansible's own encoding of the structure takes far longer.
            self._cache[key] = json.dumps(fleet)
        return fleet

    def _populate(self, fleet: Fleet, connection: Connection, selection: Selection, path: str) -> None:
        statuses, dead_nodes = self._texts("statuses"), self.get_option("dead_nodes")
        nodes = choose(fleet, statuses, dead_nodes=dead_nodes)
        if not self.get_option("allow_empty"):
            where = connection.base + (f", datacenter {connection.datacenter}," if connection.datacenter else "")
            refuse_empty(fleet, nodes, selection, where, token=bool(connection.token))
        if fleet["filtered"]:
            self.display.warning("Consul kept entries back that the ACL token may not read: hosts may be missing.")
        skip = self.display.warning if self.get_option("unusable_nodes") == "skip" else None
        hosts = name_hosts(nodes, self._texts("hostnames"), self._texts("connect_with"), skip)
        require_one_datacenter(hosts, self._known_datacenter, os.path.basename(path))
        groups = build_groups(((host, node) for host, _address, node in hosts), self._grouping(), selection.services)
        for host, address, node in hosts:
            self.inventory.add_host(host)
            self.inventory.hosts[host].vars.update(without_templates(host_variables(node, address)))
        self._add_groups(groups)
        constructed = Constructed(self, _VARIABLES)
        for host, _address, _node in hosts:
            constructed.apply(host)

    def _known_datacenter(self, name: str) -> object:
        """As an earlier source has it."""
        host = self.inventory.hosts.get(name)
        return host.vars.get("consul_datacenter") if host else None

    def _add_groups(self, groups: dict[str, list[str]]) -> None:
        for group, members in groups.items():
            self.inventory.add_group(group)
            for host in members:
                self.inventory.add_host(host, group)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Python looks for garbage after so many new objects. Here are a great many of them, and all are kept: looking
    takes a fifth of the time and finds nothing."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _text(value: Any) -> str:
    """YAML's ``true`` and ``1`` where Consul knows but text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fingerprint(connection: Connection, selection: Selection) -> str:
    """What an answer depends on, the token included: what one token may read is not for the next."""
    parts = [connection.base, connection.datacenter, connection.token, *vars(selection).values()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
