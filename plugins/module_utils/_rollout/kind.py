# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of deployments: rollout, rollback, restart, reboot (a private helper of this collection). Pure.

They take the same steps. A restart and a reboot change no version: each host keeps what it has, nothing is recorded
as its version, and there is nothing to roll back to.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

DEPLOY, ROLLBACK, RESTART, REBOOT = "deploy", "rollback", "restart", "reboot"


@dataclass(frozen=True)
class Kind:
    """One kind of deployment, by its direction, and the words for it.

    :param title: a sentence begins with it; ``noun``: what a host's command is for; ``doing``: what it does.
    :param done: of a host that came out well; ``already``: of one that was left alone, since it has it.
    :param playbook: that begins it.
    :param limit: the option that bounds what is done on a host, in seconds.
    :param keeps_version: whether each host keeps its version.
    """

    direction: str
    title: str
    noun: str
    doing: str
    done: str
    already: str
    playbook: str
    limit: str = "deploy_timeout"
    keeps_version: bool = False


KINDS: Mapping[str, Kind] = {
    one.direction: one
    for one in (
        Kind(DEPLOY, "Deployment", "deployment", "deploying", "changed", "already there", "rollout"),
        Kind(ROLLBACK, "Rollback", "deployment", "deploying", "went back", "already there", "rollback"),
        Kind(
            RESTART,
            "Restart",
            "restart",
            "restarting",
            "restarted",
            "already restarted",
            "restart",
            keeps_version=True,
        ),
        Kind(
            REBOOT,
            "Reboot",
            "reboot",
            "rebooting",
            "rebooted",
            "already rebooted",
            "reboot",
            "reboot_deadline",
            keeps_version=True,
        ),
    )
}


def kind_of(direction: object) -> Kind:
    """A kind by its direction; a rollout where nobody knows that, as in a record of somebody else's."""
    return KINDS.get(str(direction), KINDS[DEPLOY])


def restart_command(service: str) -> str:
    """What restarts a service where rollout_restart_command does not say so."""
    return f"systemctl restart {shlex.quote(service)}"
