# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of Ansible's command line leaves out parts of a playbook (a private helper of this collection). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CommandLine:
    """How Ansible was started, as far as it leaves something out.

    :param limit: of --limit; ``tags``: other than all.
    """

    limit: str | None = None
    tags: Sequence[str] = ()
    skip_tags: Sequence[str] = ()
    start_at_task: str | None = None
    step: bool = False


def refusal(started: CommandLine) -> str:
    """Why a playbook of this collection cannot run so, in one message; empty where it runs whole.

    An empty limit leaves nothing out: ansible-rulebook gives one.
    """
    if started.limit:
        return (
            f"--limit ({started.limit}) cannot be used with this playbook: it would leave out the plays that guard the "
            "run. Run it whole again (AWX: relaunch on all hosts, not on the failed ones; in a rulebook write "
            'hosts: ""): a rollout resumes, and leaves hosts alone that have the version already. To leave hosts out, '
            "set rollout_hosts."
        )
    parts = {
        "--tags": ", ".join(started.tags),
        "--skip-tags": ", ".join(started.skip_tags),
        "--start-at-task": started.start_at_task or "",
    }
    given = [f"{option} ({value})" for option, value in parts.items() if value] + ["--step"] * started.step
    if not given:
        return ""
    return (
        f"{' and '.join(given)} cannot be used with this playbook: Ansible would leave out parts of it and still "
        "succeed. Run it whole."
    )
