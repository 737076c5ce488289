# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that agent mode cannot follow (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import comparison_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import Kind
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_sources import Values
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS, PREFIX, UNSET

NEEDS_CONNECTION = (
    "deploy_tasks",
    "deploy_role",
    "deploy_success_codes",
    "become",
    "gather_facts",
    "prepare_tasks",
    "smoke_tasks",
)
"""Options that only the mode push can follow."""
DRAINED_BY_CONTROLLER = ("drain_tasks", "restore_tasks")
"""Likewise: each machine drains itself."""


def refuse_connections(values: Values, options: Mapping[str, Any], kind: Kind) -> None:
    """Agent mode logs in nowhere: what would need that is refused, and never left out silently.

    :raises HitlessError: one sentence.
    """
    command = "restart_command" if kind.keeps_version else "deploy_command"
    with_command = values.hosts_with(command)
    if with_command:
        raise HitlessError(
            f"{PREFIX}{command} is set for {with_command[0]}, and in agent mode a machine's own configuration "
            f"says what its {kind.noun} is.",
            hint="Set deploy_agent_services of the role deploy_agent there, and empty the option for this mode: "
            f"-e {PREFIX}{command}=",
        )
    needs_connection = [
        name for name in NEEDS_CONNECTION if options[name] not in UNSET and options[name] != DEFAULTS[name]
    ]
    if needs_connection:
        named = " and ".join(PREFIX + name for name in needs_connection)
        raise HitlessError(
            f"{named} cannot be used with rollout_mode agent, which logs in on no host.",
            hint="Let the deployment command of the machine do it, or remove the option.",
        )
    only_drained = [] if comparison_of(options) else ["load_balancers"]
    drained = [name for name in (*only_drained, *DRAINED_BY_CONTROLLER) if options[name]]
    if drained:
        raise HitlessError(
            f"{' and '.join(PREFIX + name for name in drained)} cannot be used with rollout_mode agent: there each "
            "machine drains itself.",
            hint="Remove it, and let rollout_drain_time be long enough.",
        )
