# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's reboot over its connection, until its Consul agent is back (a private helper of this collection).

As ansible.builtin.reboot does, an id of the boot before and after tells that it has rebooted: a machine that still
answers may only be about to go down. What it cannot know is waited for as well: the machine's Consul agent, and by it
the service, whose checks begin as critical there and so pass only once they have run since the boot. The catalog may
show what was before for a while.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import is_maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, HostLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.command import call_command, wait_for_command
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._views.text import plain

ASK_WITHIN = 20.0
"""Seconds that one question may take: a connection to a machine that goes down hangs."""
ASK_EVERY = 1.0
"""Seconds between two questions."""
COMMAND_WITHIN = 30.0
"""Seconds that the command which sends the machine down may take."""
KILLED = 128
"""An exit code from here on, or a negative one, is that of a command which the reboot itself has ended."""


def own_boot_id() -> str:
    """That of the machine that Ansible runs on, as rollout_boot_id_command has it by default; empty without one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


class Reboot:
    """That of one host.

    :param deployment: whose it is, for a command that waits for its end.
    :param boot_id_command: rollout_boot_id_command.
    """

    def __init__(self, task: Task, run: Run, planned: PlannedHost, deployment: str, boot_id_command: str) -> None:
        self._task = task
        self._run = run
        self._planned = planned
        self._deployment = deployment
        self._boot_id_command = boot_id_command
        self._before = ""
        self._until = 0.0

    def begin(self, command: str) -> dict[str, Any]:
        """Send the machine down -> the task's result.

        :param command: rollout_reboot_command.
        :raises HitlessError: it could not be begun, so that the host is as it was (``details["untouched"]``).
        """
        try:
            self._before = self._boot_id()
        except HostLost:
            raise
        except HitlessError as error:
            raise HitlessError(str(error), details={"untouched": True}) from None
        if self._before == own_boot_id():
            raise HitlessError(
                f"{self._planned.host} is the machine that Ansible runs on (it has the same id of its boot), and is "
                "not rebooted.",
                details={"untouched": True},
            )
        self._until = time.monotonic() + self._run.options["reboot_deadline"]
        answer: dict[str, Any] = {"rc": None, "output": "", "error": ""}
        try:
            wait_for_command(self._task, self._run, self._planned, self._deployment)
            answer = call_command(
                self._task, self._run, self._planned, self._deployment, command, {}, longest=COMMAND_WITHIN
            )
        except HitlessError:  # of the connection as well: it was quicker than its answer
            pass
        if answer["error"]:
            raise HitlessError(f"The reboot command did not run: {answer['error']}.", details={"untouched": True})
        code, output = answer["rc"] or 0, str(answer["output"])
        if 0 < code < KILLED:
            said = f": {plain(output)[-200:]}" if output.strip() else ""
            raise HitlessError(
                f"The reboot command exited with {code}{said}.", details={"untouched": True, "stdout": output}
            )
        return {"changed": True, "rc": answer["rc"], "stdout": output}

    def wait_until_back(self) -> None:
        """Return when the machine has rebooted, and its Consul agent shows the service passing.

        :raises HostLost: it did not come back within rollout_reboot_deadline.
        :raises HitlessError: it did not reboot, or its agent or the service is not back.
        """
        longest = self._run.options["reboot_deadline"]
        while True:
            try:
                found = self._boot_id()
            except HitlessError as error:
                lost: HitlessError | None = error
            else:
                if found != self._before:
                    break
                lost = None
            if time.monotonic() >= self._until:
                if lost is None:
                    raise HitlessError(f"It has not rebooted within {longest:g} s (rollout_reboot_deadline).")
                raise HostLost(f"It has not come back within {longest:g} s (rollout_reboot_deadline): {lost}")
            time.sleep(ASK_EVERY)
            self._task.host.reset()
        self._wait_for_agent()

    def _boot_id(self) -> str:
        """:raises HitlessError: the command fails there; :class:`HostLost` where the host does not answer."""
        request: dict[str, Any] = {
            "command": self._boot_id_command,
            "environment": {},
            "timeout": ASK_WITHIN / 2,
            "lock": f"boot.{self._planned.node}",
            "owner": "",
            "wait": ASK_WITHIN / 2,
            "keep": 1024,
        }
        answer = self._task.host.call("command", request, within=ASK_WITHIN)
        output = str(answer["output"]).strip()
        if answer["rc"] != 0 or not output:
            why = answer["error"] or plain(output) or "it printed nothing"
            raise HitlessError(f"rollout_boot_id_command gave no id of the boot on {self._planned.host}: {why}.")
        return output

    def _wait_for_agent(self) -> None:
        """By the host's own agent, which has nothing to say of the time before the boot."""
        what = "its Consul agent does not answer"
        healthy_by = time.monotonic() + self._run.options["healthy_deadline"]
        while True:
            try:
                failing = self._failing()
                if not failing:
                    return
                what = "; ".join(failing[:3])
                until = max(self._until, healthy_by)
            except (ConsulError, HostLost) as error:
                what, until = str(error), self._until
            if time.monotonic() >= until:
                raise HitlessError(f"It has rebooted, and {self._run.service} is not back on it: {what}")
            time.sleep(ASK_EVERY)

    def _failing(self) -> list[str]:
        """What its agent says against the service there; empty where all is well."""
        service, tags = self._run.service, set(self._run.options["tags"])
        accepted = ("passing", "warning") if self._run.options["accept_warning"] else ("passing",)
        agent = self._task.agent.retrying(0.0)
        services = (agent.get("/v1/agent/services").data or {}).values()
        mine = {one["ID"] for one in services if one["Service"] == service and tags <= set(one.get("Tags") or ())}
        if not mine:
            return [f"no instance of {service} is registered with its Consul agent."]
        checks = (agent.get("/v1/agent/checks").data or {}).values()
        return [
            f"its check {one.get('Name') or one['CheckID']} is {one['Status']}: {plain(one.get('Output') or '-')[:200]}"
            for one in checks
            if one.get("ServiceID") in mine and one["Status"] not in accepted and not is_maintenance(one["CheckID"])
        ]
