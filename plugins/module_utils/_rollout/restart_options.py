# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options of a rollout mean to a restart, and to a reboot (a private helper of this collection)."""

from __future__ import annotations

from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import REBOOT, Kind
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_sources import Values
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import BY_NAME, DEFAULTS


def keep_versions(values: Values, options: dict[str, Any], kind: Kind) -> None:
    """Nothing is deployed, and there is nothing to roll back to: what says how is left aside.

    Smoke, drain and restore tasks, and those on the controller, run as in a rollout.

    :raises HitlessError: something else is asked for; nothing has been changed then.
    """
    if options["version"] and values.is_given(BY_NAME["version"]):
        raise HitlessError(
            f"rollout_version is set ({options['version']}), and a {kind.noun} changes no version.",
            hint="Remove it, or run the playbook hitless.consul.rollout.",
        )
    if kind.direction == REBOOT and options["mode"] == "agent":
        raise HitlessError(
            "A reboot is made over the hosts' connections, and rollout_mode is agent.",
            hint="Where the hosts can be logged in to: -e rollout_mode=push.",
        )
    options |= dict.fromkeys(("version", "deploy_tasks", "deploy_role", "prepare_tasks"))
    options["rollback"] = "none"
    options["deploy_success_codes"] = DEFAULTS["deploy_success_codes"]
