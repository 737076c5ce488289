# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's deployment command on a host (a private helper of this collection).

One at a time runs there, behind a lock file on the host, so that a command outlives its controller without harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_watch import MaintenanceWatch
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_name
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run

KEEP_OUTPUT = 16384
"""Bytes of a command's output that come back; its end says why it failed.

A result larger than a pipe holds (64 KiB) would keep the worker of a killed controller from ending, and keep its lock
with it."""


def run_command(
    task: Task,
    run: Run,
    planned: PlannedHost,
    deployment: str,
    command: str,
    environment: Mapping[str, str],
    watch: MaintenanceWatch,
) -> dict[str, Any]:
    """Run a command line with a time limit (rollout_deploy_timeout) -> the task's result, with its output.

    :param deployment: whose the command is, for those who wait for its end.
    :param environment: ``DEPLOY_VERSION`` and so on, beside what the user has there.
    :param watch: keeps the host in maintenance: an application that registers itself would drop it.
    :raises HitlessError: it did not succeed; ``details`` hold its output.
    """
    options, what = run.options, f"The {run.kind.noun} command"
    answer = call_command(task, run, planned, deployment, command, environment)
    for note in watch.note(planned.host, f"ended while the {run.kind.noun} command ran"):
        task.warn(note)
    result = {
        "changed": True,
        "rc": answer["rc"],
        "stdout": answer["output"],
        "stdout_lines": answer["output"].splitlines(),
        "seconds": round(answer["seconds"], 3),
    }
    if answer["error"]:
        problem = f"did not run: {answer['error']}."
    elif answer["timed_out"]:
        problem = f"was ended after {options['deploy_timeout']:g} s (rollout_deploy_timeout)."
    elif answer["rc"] not in options["deploy_success_codes"]:
        problem = f"exited with {answer['rc']}."
    else:
        return result
    raise HitlessError(f"{what} {problem}", details=result)


def wait_for_command(task: Task, run: Run, planned: PlannedHost, deployment: str) -> None:
    """Wait for the end of a deployment command that may still run there.

    :raises HitlessError: it still runs after rollout_deploy_timeout.
    """
    answer = call_command(task, run, planned, deployment, "true", {})
    if answer["error"]:
        raise HitlessError(f"{planned.host}: {answer['error']}.")


def call_command(
    task: Task,
    run: Run,
    planned: PlannedHost,
    deployment: str,
    command: str,
    environment: Mapping[str, str],
    *,
    longest: float = 0.0,
) -> dict[str, Any]:
    """The answer of ``programs/command.py``.

    :param longest: seconds that the command may take, and that an earlier one is waited for; rollout_deploy_timeout
        where not given.
    """
    longest = longest or run.options["deploy_timeout"]
    request = {
        "command": command,
        "environment": dict(environment),
        "timeout": longest,
        # By node, too: several of them may share a machine, as they do in a lab.
        "lock": f"{run.service}.{checked_name(planned.node, 'node')}",
        "owner": f"deployment {deployment}",
        "wait": longest,
        "keep": KEEP_OUTPUT,
    }
    # A connection that hangs: the command's own limit is on the host, and it may have waited for another one first.
    answer = task.host.call("command", request, as_user=True, within=longest * 2 + 60)
    if answer["waited_for"]:
        who = answer["waited_for"]
        task.warn(f"{planned.host}: waited {answer['waited']:.0f} s for an earlier command to end ({who}).")
    return answer
