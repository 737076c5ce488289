# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's whole turn in one go: gate, drain, deploy, verify, return, and back (a private helper of this collection).

It is taken where no task of the user's lies between the steps. Its task never fails and is never unreachable, whatever
becomes of the host: Ansible would end the playbook with a stage whose hosts have all failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError, failed_result
from ansible_collections.hitless.consul.plugins.module_utils._rollout import states, window
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_turn import deploy_by_agent
from ansible_collections.hitless.consul.plugins.module_utils._rollout.alike import Ask, cannot_ask
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment, TakenOut
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import REBOOT
from ansible_collections.hitless.consul.plugins.module_utils._views.text import of_host

SHOWN = 20
"""Lines shown of what a deployment printed that failed."""
STEP_NAMES: Mapping[str, str] = {
    states.PENDING: "Drain",
    states.DRAINING: "Drain",
    states.DEPLOYING: "Deploy",
    states.VERIFYING: "Verify",
    states.RETURNING: "Return to rotation",
}


@dataclass(frozen=True)
class Way:
    """How a version is deployed and verified on a host: the user's options, resolved for that version.

    :param command: that deploys it, restarts the service or reboots the machine.
    """

    command: str
    health_url: str
    health_match: str
    boot_id_command: str = ""


class WholeTurn:
    """One host's; see :meth:`take`.

    :param way_of: resolves the user's options as they are for the version that the host goes to now.
    :param ask: asks the health URL of another host, which was changed before.
    """

    def __init__(self, host: HostDeployment, way_of: Callable[[HostDeployment], Way], ask: Ask = cannot_ask) -> None:
        self._host = host
        self._way_of = way_of
        self._ask = ask
        self._out: TakenOut | None = None
        self._shown = ""

    def take(self) -> dict[str, Any]:
        """The host's turn, and its rollback where it fails -> whether it has begun, and why not, or why it failed."""
        host = self._host
        try:
            # Before anything is touched: a template that cannot be resolved must not cost a host its rotation.
            way = self._way_of(host)
            why = window.admit(host, self._begin, self._ask)
            if why:
                return {"changed": False, "begun": False, "why": why}
            self._steps(way)
        except Exception as error:
            self._fail(error)
            if host.turn.decision == states.ROLL_BACK:
                self._roll_back()
        return {"changed": True, "begun": True, "why": host.turn.error}

    def _begin(self, operations: Sequence[dict[str, Any]], seen: Answer) -> None:
        """The first write of its turn, in one transaction with the operations.

        :param seen: what the catalog says of the service on the node.
        """
        host = self._host
        if host.run.by_agents:
            host.task.consul.txn([host.fence(), *operations])
        else:
            self._out = host.take_out(operations, seen)

    def _steps(self, way: Way) -> None:
        host = self._host
        if host.run.by_agents:
            deploy_by_agent(host, way.health_url, way.health_match)
            return
        out = self._out or host.take_out()
        self._out = None
        with host.watched():
            host.wait_until_drained(out.shown_at, at_once=out.by_this)
            if host.run.kind.direction == REBOOT:
                host.reboot(way.command, way.boot_id_command)
            else:
                host.deploy(way.command)
            seen = host.verify(way.health_url, way.health_match)[1]
        host.return_to_rotation(seen)

    def _roll_back(self) -> None:
        try:
            self._steps(self._way_of(self._host))
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Decide how to handle the failure, and do it; the task itself goes on."""
        turn = self._host.turn
        try:
            kind = self._host.run.kind
            is_own = kind.keeps_version and turn.phase == states.DEPLOYING
            self._host.on_failure(failed_result(error), kind.title if is_own else STEP_NAMES[turn.phase])
        except HitlessError as further:
            self._host.task.warn(f"{self._host.planned.host}: {further}")
        if not self._host.run.by_agents:  # whose log is shown as it comes
            self._show_output()

    def _show_output(self) -> None:
        """The end of what the deployment printed, where it failed: the task itself does not."""
        output = self._host.turn.output
        lines = of_host(self._host.planned.host, output.splitlines()[-SHOWN:])
        if lines and output != self._shown:
            self._host.task.show("\n".join(lines))
        self._shown = output
