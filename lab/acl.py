# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab with default-deny ACLs: a token for each agent, and one for each other who asks Consul."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .agents import Http
from .errors import ConsulError
from .nodes import Server
from .site import Site
from .waiting import wait_until

READS = 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }'


def bootstrap(site: Site, servers: Sequence[Server], vms: Sequence[str]) -> None:
    """Begin with ACLs on running servers, and make the tokens of all machines; the settings keep them."""
    first = servers[0]
    first.wait_agent()
    tokens = site.settings.tokens

    def begun() -> bool:
        try:
            tokens["management"] = first.agent.call("PUT", "acl/bootstrap")["SecretID"]
        except ConsulError:  # no leader yet, or the ACL system is not ready
            return False
        return True

    wait_until("the ACL system is ready", begun, log=first.agent_log)
    for server in servers:
        server.wait_agent()
        node_token(site, server.name)
        server.agent.call("PUT", "agent/token/agent", {"Token": server.token})
    node_token(site, "lb")
    node_token(site, "controller")
    # HAProxy asks without a token: the agent of the load balancer's machine answers by this one.
    tokens["dns"] = create_token(site, READS, "dns")
    for name in vms:
        vm_tokens(site, name)


def node_token(site: Site, name: str, more: str = "") -> None:
    """The token of a node's agent; `more` rules than every agent needs."""
    rules = f'node "{name}" {{ policy = "write" }} agent "{name}" {{ policy = "write" }} {READS} {more}'
    site.settings.tokens[name] = create_token(site, rules, f"agent-{name}")


def vm_tokens(site: Site, name: str) -> None:
    """The tokens of a VM: its agent's, which registers the service, and its deploy agent's."""
    service = site.settings.service
    node_token(site, name, f'service "{service}" {{ policy = "write" }}')
    if site.settings.agent:
        site.settings.tokens[f"deploy-{name}"] = create_token(
            site, deploy_agent_policy(name, service), f"deploy-{name}"
        )


def deploy_agent_policy(node: str, service: str) -> str:
    """What docs/agent-mode.md gives the token of a machine's deploy agent, and no more."""
    return (
        f'key_prefix "nodes/{node}/" {{ policy = "write" }} key "deploy/{service}/lock" {{ policy = "read" }} '
        f'key "deploy/{service}/control" {{ policy = "read" }} '
        f'service "{service}" {{ policy = "write" }} node "{node}" {{ policy = "read" }}'
    )


def create_token(site: Site, rules: str, description: str) -> str:
    """A new token with one policy of these rules (HCL); its secret."""
    # A server, which knows the token at once.
    server: Http = site.agent(site.servers[0])
    name = f"{description}-{os.urandom(4).hex()}"
    policy = server.call("PUT", "acl/policy", {"Name": name, "Rules": rules})
    token = server.call("PUT", "acl/token", {"Description": description, "Policies": [{"ID": policy["ID"]}]})
    return str(token["SecretID"])
