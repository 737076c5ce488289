# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's turn by the machine's own deploy agent, as the controller takes part in it (a private helper).

agent_protocol.py has the request itself; docs/agent-mode.md tells the whole.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import states
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_protocol import (
    DONE,
    FAILED,
    WITHDRAWN,
    Assignment,
    LogFollower,
    Request,
    Status,
    not_accepted,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_version
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import OUTPUT_LIMIT
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import status_op
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import FORGET
from ansible_collections.hitless.consul.plugins.module_utils._views.text import of_host

SHOWN = 200
"""Lines shown of the log of a deployment that failed."""


def deploy_by_agent(host: HostDeployment, health_url: str, health_match: str) -> dict[str, Any]:
    """Ask the machine's agent for the host's turn, or its rollback, and follow it to its end.

    :raises HitlessError: it did not end well; the host's turn says how far it came.
    """
    keeps = host.run.kind.keeps_version
    version = None if keeps else checked_version(host.version)
    back = host.turn.rolling_back
    kept = None if back or keeps else host.planned.from_version or None
    assignment = _assignment(
        host,
        health_url,
        host.match_of(health_match),
        version=version,
        reason=host.why,
        previous=host.replaced_version,
        # An automatic rollback leaves "previous" as it was before the deployment, as does the same version again.
        remember=FORGET if host.why == "rollback" and not back else None if kept == version else kept,
    )
    _follow(host, assignment)
    return {"changed": True, **host.end_well(version_is_recorded=True)}


def recover_by_agent(host: HostDeployment, health_url: str, health_match: str) -> str:
    """Ask the machine's agent to verify what is there and to return it to rotation -> what ``health_match`` matched.

    Which version the machine runs is not recorded: the next rollout deploys it anew, unless somebody knows better and
    records that, see M(hitless.consul.version).
    """
    assignment = _assignment(host, health_url, health_match, version=None, reason="recover", previous="", remember=None)
    status = _follow(host, assignment)
    why = "recovered; which version it runs is not recorded"
    recorded = status_op(host.keys, host.node, host.turn.deployment, states.RETURNING, why)
    host.task.consul.txn([host.fence(), recorded])
    return status.answer


def _assignment(
    host: HostDeployment,
    health_url: str,
    health_match: str,
    *,
    version: str | None,
    reason: str,
    previous: str,
    remember: str | None,
) -> Assignment:
    options = host.run.options
    return Assignment(
        deployment=host.turn.deployment,
        version=version,
        reason=reason,
        previous=previous,
        remember=remember,
        scope=tuple(host.scope),
        tags=host.tags,
        drain_time=options["drain_time"],
        deploy_timeout=options["deploy_timeout"],
        healthy_deadline=options["healthy_deadline"],
        min_healthy_time=options["min_healthy_time"],
        check_interval=options["check_interval"],
        accept_warning=options["accept_warning"],
        health_url=health_url,
        health_match=health_match,
    )


def _follow(host: HostDeployment, assignment: Assignment) -> Status:
    """Send the request and wait for its end; raises :class:`HitlessError` unless it is done."""
    options = host.run.options
    request = Request(host.task.consul, host.keys, host.node, assignment, host.run.session)
    began = timestamp()
    log = _Log(host.task, request, options["show_log"], host.planned.host)
    request.submit()
    if options["agent_event"]:
        request.fire_event()
    with log:
        status = request.follow(options["accept_deadline"], _Steps(host).tell)
    touched = status.touched or status.state not in (FAILED, WITHDRAWN)
    phase = states.RETURNING if status.state == DONE else states.DEPLOYING if touched else host.turn.phase
    steps = [*host.turn.steps, *(dict(step) for step in status.steps)]
    host.turn = replace(host.turn, phase=phase, steps=steps, started=host.turn.started or began)
    if status.state == DONE:
        return status
    printed = log.of_failure()
    if status.state == WITHDRAWN:
        error = not_accepted(request.node, request.keys.service, options["accept_deadline"])
        error.details.update(printed)
        raise error
    if status.state == FAILED:
        raise HitlessError(status.message, details={**printed, "other_owner": status.other_owner})
    raise HitlessError(
        f"The request to {request.node} is abandoned: {status.message}.",
        details={**printed, "lost": True},
    )


class _Steps:
    """Says what the machine is at, once for each step."""

    def __init__(self, host: HostDeployment) -> None:
        self._host = host
        self._told = ""

    def tell(self, status: Status) -> None:
        if status.state != self._told and status.state not in (DONE, FAILED, WITHDRAWN):
            self._told = status.state
            version = self._host.version_told if status.state in (states.DEPLOYING, states.VERIFYING) else ""
            doing = self._host.run.kind.doing if status.state == states.DEPLOYING else status.state
            self._host.telling.tell(f"{doing}{version}")


class _Log:
    """Shows what the machine prints while the task waits: in a thread of its own, which nothing waits for long.

    :param wanted: always, failed or never.
    """

    def __init__(self, task: Task, request: Request, wanted: str, name: str) -> None:
        self._task = task
        self._wanted = wanted
        self._name = name
        self._lines: list[str] = []
        self._partial = ""
        self._ended = threading.Event()
        self._follower: LogFollower | None = None
        if self._wanted != "never":
            client = self._task.consul.retrying(5.0)
            self._follower = LogFollower(client, request.keys, request.node, request.assignment.deployment, self._take)

    def __enter__(self) -> None:
        if self._wanted == "always":
            threading.Thread(target=self._follow, daemon=True).start()

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        if self._follower:
            with suppress(ConsulError):  # the log is never a reason to fail
                self._follower.rest(self._task.consul)
            self._flush()

    def of_failure(self) -> dict[str, object]:
        """The end of the output for the result, shown where it is wanted and has not been."""
        if self._wanted == "failed":
            self._show(self._lines[-SHOWN:])
        text = "\n".join(self._lines)[-OUTPUT_LIMIT:]
        return {"stdout": text} if text else {}

    def _follow(self) -> None:
        while self._follower and not self._ended.is_set():
            with suppress(ConsulError):
                self._follower.follow(self._ended)
            self._ended.wait(1.0)

    def _take(self, text: str) -> None:
        lines = (self._partial + text).split("\n")
        self._partial = lines.pop()
        self._keep(lines)

    def _flush(self) -> None:
        if self._partial:
            self._keep([self._partial])
            self._partial = ""

    def _keep(self, lines: Sequence[str]) -> None:
        self._lines = [*self._lines, *lines][-5000:]
        if self._wanted == "always":
            self._show(lines)

    def _show(self, lines: Sequence[str]) -> None:
        if lines:
            self._task.show("\n".join(of_host(self._name, lines)))
