# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose Consul agent answers on a host, before anything is changed there (a private helper of this collection)."""

from __future__ import annotations

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task, agent_identity
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, HostLost

RETRY_FOR = 3.0
"""Seconds an agent that does not answer is tried: nothing has begun that would need patience."""


def reach(task: Task) -> dict[str, str]:
    """One call through the host's connection to its own agent.

    It never fails for a host that cannot be reached: the plan decides.

    :returns: its ``node`` and ``datacenter``, ``why`` the host is out of reach, and the ``problem`` of one that is not;
        each empty where there is nothing to tell.
    """
    host, expected = task.host.name, str(task.options.get("node") or task.node_hint or "")
    wanted = str(task.options.get("datacenter") or "")
    try:
        node, datacenter = agent_identity(task.agent.retrying(RETRY_FOR))
    except HostLost as error:
        task.warn(f"{host} cannot be reached: {error}")
        return _answer(task, expected, why=str(error))
    except ConsulError as error:
        # A token that may not read the agent is fine where somebody else names the node.
        return _answer(task, expected, "" if error.status == 403 and expected else f"{host}: {error}")
    except HitlessError as error:
        return _answer(task, expected, f"{host}: {error}")
    if wanted and datacenter and datacenter != wanted.lower():
        return _answer(task, expected, elsewhere([host], datacenter, wanted))
    if expected and node != expected:
        return _answer(
            task,
            expected,
            f"The agent asked on {host} is that of the node {node}, and the host is said to be the node "
            f"{expected}: set hitless_consul_agent_url (or consul_node) of this host right.",
        )
    return {**_answer(task, node), "datacenter": datacenter}


def reboots_controller(host: str) -> str:
    """The sentence for a reboot over a local connection."""
    return f"{host} has a local connection: its reboot would be that of the machine that Ansible runs on."


def known(host: str, node: str) -> dict[str, str]:
    """The same of a host that is connected to for nothing, since the machine's own deploy agent does the work.

    The plan finds by Consul's own health of the node whether it is there.

    :param node: that its variables name; the host's name where they name none.
    """
    return {"node": node or host, "why": "", "problem": "", "datacenter": ""}


def _answer(task: Task, node: str, problem: str = "", why: str = "") -> dict[str, str]:
    return {**known(task.host.name, node), "problem": problem, "why": why}


def elsewhere(hosts: list[str], found: str, wanted: str) -> str:
    """The sentence for agents of another datacenter than the rollout's: a node of the same name may be there too."""
    return (
        f"The Consul agent asked on {', '.join(hosts)} belongs to the datacenter {found}, and the rollout is of "
        f"{wanted}; nothing was changed. Set hitless_consul_agent_url right; where two inventory sources have nodes of "
        "the same names, their variables are mixed: use one of them at a time, or hostnames that differ."
    )
