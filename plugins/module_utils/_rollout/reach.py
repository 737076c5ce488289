# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host and its own Consul agent can be reached (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task, agent_node
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, HostLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import WantedHost

RETRY_FOR = 3.0
"""Seconds an agent that does not answer is tried: nothing has begun that would need patience."""


def reach(task: Task, *, by_agents: bool = False) -> dict[str, str]:
    """One call through the host's connection to its own agent -> ``node``, ``why`` it is out of reach, and ``problem``.

    It never fails for a host that cannot be reached: the plan decides.

    :param by_agents: connects to nothing, since the machine's own deploy agent does the work; the plan finds by
        Consul's own health of the node whether it is there.
    """
    expected = str(task.options.get("node") or task.node_hint or "")
    if by_agents:
        return _answer(task, expected)
    try:
        task.agent.retry_for = RETRY_FOR
        told = agent_node(task.agent)
    except HostLost as error:
        return _answer(task, expected, why=str(error))
    except ConsulError as error:
        # A token that may not read the agent is fine where somebody else names the node.
        return _answer(task, expected, "" if error.status == 403 and expected else f"{task.host.name}: {error}")
    except HitlessError as error:
        return _answer(task, expected, f"{task.host.name}: {error}")
    if expected and told != expected:
        return _answer(
            task,
            expected,
            f"The agent asked on {task.host.name} is that of the node {told}, and the host is said to be the node "
            f"{expected}: set hitless_consul_agent_url (or consul_node) of this host right.",
        )
    return _answer(task, told)


def _answer(task: Task, node: str, problem: str = "", why: str = "") -> dict[str, str]:
    return {"node": node or task.host.name, "why": why, "problem": problem}


def wanted_hosts(reached: Mapping[str, Mapping[str, Any]], target: str | None) -> list[WantedHost]:
    """The hosts as the plan takes them.

    :param reached: host -> what :func:`reach` found.
    :param target: the version that they are to get; None for each one's previous one.
    :raises HitlessError: something is wrong with hosts that can be reached.
    """
    problems = []
    for host, found in reached.items():
        if "node" not in found:
            problems.append(f"{host}: {found.get('msg') or 'it was not asked'}.")
        elif found["problem"]:
            problems.append(found["problem"])
    if problems:
        raise HitlessError(f"Nothing was changed. {' '.join(problems)}")
    return [
        WantedHost(host, found["node"], target, unreachable=found["why"] or None) for host, found in reached.items()
    ]
