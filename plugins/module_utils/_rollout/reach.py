# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose Consul agent answers on a host, before anything is changed there (a private helper of this collection)."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, HostLost


@dataclass(frozen=True)
class Reached:
    """What a host's own agent says of itself.

    :param node: its node, ``datacenter`` where that is; empty where it does not tell.
    :param lost: why the host cannot be reached, empty where it can.
    :param problem: what is wrong with a host that can be reached, as a sentence; empty where nothing is.
    """

    node: str = ""
    datacenter: str = ""
    lost: str = ""
    problem: str = ""


def reach(agent: Client, host: str, expected: str, datacenter: str = "") -> Reached:
    """Ask the agent of a host who it is.

    :param host: its name, for messages.
    :param expected: the node it is said to be; empty where nobody says.
    :param datacenter: that of the rollout; empty where it is the default one of the cluster, see
        ``_fleet.require_datacenter``.
    """
    try:
        config = agent.get("/v1/agent/self").data["Config"]
    except HostLost as error:
        return Reached(expected, lost=str(error))
    except ConsulError as error:
        # A token that may not read the agent is fine where somebody else names the node.
        return Reached(expected, problem="" if error.status == 403 and expected else f"{host}: {error}")
    except HitlessError as error:
        return Reached(expected, problem=f"{host}: {error}")
    found = Reached(str(config["NodeName"]), str(config.get("Datacenter") or ""))
    if datacenter and found.datacenter and found.datacenter != datacenter.lower():
        return Reached(expected, problem=elsewhere([host], found.datacenter, datacenter))
    if expected and found.node != expected:
        return Reached(
            expected,
            problem=f"The agent asked on {host} is that of the node {found.node}, and the host is said to be the node "
            f"{expected}: set hitless_consul_agent_url (or consul_node) of this host right.",
        )
    return found


def elsewhere(hosts: list[str], found: str, wanted: str) -> str:
    """The sentence for agents of another datacenter than the rollout's: a node of the same name may be there too."""
    return (
        f"The Consul agent asked on {', '.join(hosts)} belongs to the datacenter {found}, and the rollout is of "
        f"{wanted}; nothing was changed. Set hitless_consul_agent_url right; where two inventory sources have nodes of "
        "the same names, their variables are mixed: use one of them at a time, or hostnames that differ."
    )
