# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step of a rollout takes from the run it belongs to (a private helper of this collection). Pure.

The role could pass each option as a template, and did. But a task runs in a process of its own, which compiles each
template anew: 25 options took longer than the step itself. So the step reads them where Prepare and Plan left them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError

IN_ROLLOUT_SPEC: dict[str, dict[str, Any]] = {
    "in_rollout": {"type": "bool", "default": False},
    "service": {"type": "str"},
    "deployment": {"type": "str"},
}
"""Options of the steps that can take the others from the run; documented in ``hitless.consul.in_rollout``."""


def unless_in_rollout(*more: str) -> dict[str, Any]:
    """The constraint that makes service, deployment and these options required where no run gives them."""
    return {"required_if": [("in_rollout", False, ("service", "deployment", *more))]}


def step_options(variables: Callable[[str], Mapping[str, Any]], host: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """All that the run says of a host's (or coordinator's) step, by the names of the steps' options.

    :param variables: a host's variables, unresolved; localhost's hold what the run has prepared.
    :param host: whose step it is.
    :param own: the task's variables.
    :raises HitlessError: there is no run.
    """
    run = variables("localhost")
    try:
        read, plan, lock = run["_rollout_options"], run["_rollout_plan"], run["_rollout_lock"]
    except KeyError:
        raise HitlessError(
            "in_rollout is true, and this task is not a step of a rollout.", hint="Give service and deployment instead."
        ) from None
    options = read["options"]
    found = {
        **options,
        "deployment": read["id"],
        "session": lock["session"],
        "scope": options["maintenance"],
        "deadline": options["deploy_timeout"],
        "success_codes": options["deploy_success_codes"],
        **(_head(variables, read, plan, host) if host in plan["coordinators"] else _turn(plan, host, own, options)),
    }
    return {name: value for name, value in found.items() if value is not None}


def _head(
    variables: Callable[[str], Mapping[str, Any]], read: Mapping[str, Any], plan: Mapping[str, Any], coordinator: str
) -> dict[str, Any]:
    """The head of a batch."""
    index = plan["coordinators"].index(coordinator)
    before = variables(plan["coordinators"][index - 1]) if index else {}
    return {
        "leads": True,
        # With its first host's first write, where nothing is done to a host before that.
        "announce": read["steps"][0] != "take_out",
        "batch": index + 1,
        "nodes": [plan["hosts"][host]["node"] for host in plan["batches"][index]],
        "stopped": before.get("_rollout_gate", {}).get("stop", ""),
        "min_healthy": plan["health"]["minimum"],
    }


def _turn(plan: Mapping[str, Any], host: str, own: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A host's turn: its deployment, or (where the role says that the outcome will be rolled_back) its rollback."""
    planned = plan["hosts"][host]
    outcome, rescued = own.get("_rollout_outcome", "ok"), own.get("_rollout_rescued") or {}
    taken_out = own.get("_rollout_taken_out") or {}
    back = outcome == "rolled_back"
    reason = "rollback" if back else options["direction"]
    return {
        "leads": False,
        "node": planned["node"],
        "host": host,
        "batch": planned["batch"],
        "reason": reason,
        "attempt": "rollback" if back else "deploy",
        "outcome": outcome,
        "version": planned["rollback_to"] if back else planned["to"],
        "previous_version": (planned["to"] if back else planned["from"]) or "",
        "previous": planned["from"] or None,
        "target_version": planned["to"],
        # After a rollback by hand a second one must not go back to the bad version.
        "forget_previous": reason == "rollback" and not back,
        "left": own.get("_rollout_out"),
        "started": taken_out.get("started"),
        "earlier_steps": taken_out.get("steps"),
        "error": rescued.get("error", "") if back else "",
        "output": rescued.get("output", "") if back else "",
    }
