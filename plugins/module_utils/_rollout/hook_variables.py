# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables that the user's hooks get (a private helper of this collection). Pure.

docs/deploy-hooks.md has the same for a person; the tasks of the role hand them on by these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import PENDING

_EACH = ("deploy_id", "deploy_service", "deploy_version", "deploy_reason")
OF_HOST = (*_EACH, "deploy_previous_version")
"""What runs for a host gets these, a command or a health URL in templates as well."""
OF_RUN = (*_EACH, "deploy_operator", "deploy_message", "deploy_hosts")
"""What runs once, or once a batch."""
AT_END = (*OF_RUN, "deploy_result")
"""What is told how a deployment ended."""
RESERVED = (*OF_HOST, *(name for name in AT_END if name not in _EACH))
"""All of them: a variable of the user by such a name would beat ours, in the rollback too."""
_BY_OPTION = {
    **dict.fromkeys(("start_tasks", "before_batch_tasks", "after_batch_tasks"), OF_RUN),
    **dict.fromkeys(("on_failure_tasks", "finish_tasks"), AT_END),
}


def given_by(option: str) -> tuple[str, ...]:
    """The variables that the hook of an option gets."""
    return _BY_OPTION.get(option, OF_HOST)


def about(
    deployment: str, service: str, version: str | None, direction: str, operator: str, message: str
) -> dict[str, Any]:
    """What the hooks that run once, or once a batch, are told of their deployment.

    :param version: None for a rollback of each host to its own.
    """
    return {
        "id": deployment,
        "service": service,
        "version": version,
        "reason": direction,
        "operator": operator,
        "message": message,
    }


def hosts_told(planned: Iterable[PlannedHost], outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    """Host -> ``from``, ``to``, ``outcome`` and ``why``, in the order of the turns.

    :param outcomes: host -> outcome; one that has none yet is pending.
    """
    return {one.host: _host_told(one, outcomes.get(one.host)) for one in planned}


def _host_told(planned: PlannedHost, ended: Outcome | None) -> dict[str, Any]:
    return {
        "from": (ended.from_version if ended else None) or planned.from_version,
        "to": (ended.to_version if ended else None) or planned.to_version,
        "outcome": ended.outcome if ended else PENDING,
        "why": (ended.error if ended else "") or planned.why or "",
    }


def why_of(failed: Iterable[str], errors: Mapping[str, str], stop: str) -> str:
    """Why a deployment did not go well, for a message of one line; empty where it did.

    :param failed: the hosts that did not come out well; ``errors``: host -> its reason.
    :param stop: why no further host began.
    """
    return next((f"{host}: {errors[host]}" for host in failed if errors.get(host)), stop)
