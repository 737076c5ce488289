# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A request to a machine's own deploy agent, from writing it to its end (a private helper of this collection).

The request stands in the node's key ``new``, what became of it in ``status`` beside it. Both sides change ``status`` by
compare-and-set, so that of "accepted" and "withdrawn", and of "done" and "abandoned", exactly one happens. The other
side is roles/deploy_agent/files; docs/agent-mode.md tells the states.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import AskAgain, Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import SERF_HEALTH
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    json_object,
    kv_check_session,
    kv_delete,
    kv_set,
    kv_set_if,
    kv_text,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import RESTART
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_version

REQUESTED, WAITING, DONE, FAILED = "requested", "waiting", "done", "failed"
WITHDRAWN, ABANDONED = "withdrawn", "abandoned"
EVENT = "hitless-deploy"
"""Name of the Consul event that may wake an agent sooner."""
EVENT_LIMIT = 99
"""Bytes of an event's payload that Consul surely carries."""
SLACK = 240.0
"""Seconds beyond the limits of its own steps that an agent gets: the catalog has 60 s to show each change, and a new
leader takes up to 17 s."""
LOOK_EVERY = 15.0
"""Seconds after which it is asked whether the machine is still there."""


@dataclass(frozen=True)
class Assignment:
    """What a machine is asked to do; never how: its own configuration says which command that is.

    It carries all values: the machine has no defaults of its own, which would differ from those of the rollout one day.

    :param version: None for whatever runs there.
    :param reason: deploy, rollback, restart or recover.
    :param remember: what becomes the node's ``previous``; None: as it is, empty: deleted.
    :param scope: what goes into maintenance, as in host.py.
    """

    deployment: str
    version: str | None
    reason: str
    previous: str
    remember: str | None
    scope: tuple[str, ...]
    tags: tuple[str, ...]
    drain_time: float
    deploy_timeout: float
    healthy_deadline: float
    min_healthy_time: float
    check_interval: float
    accept_warning: bool
    health_url: str
    health_match: str

    @property
    def longest(self) -> float:
        """Seconds after which an agent that has accepted it must have ended it."""
        # Verification, and then the same deadline again back in rotation.
        verification = 2 * self.healthy_deadline + max(self.min_healthy_time, 2 * self.check_interval)
        return self.drain_time + self.deploy_timeout + verification + SLACK


@dataclass(frozen=True)
class Status:
    """What the agent says of a request; ``index`` for compare-and-set.

    :param touched: the deployment may have changed the machine.
    :param other_owner: a maintenance set by someone else was in the way.
    :param answer: what ``health_match`` matched in the application's answer.
    """

    request: str = ""
    state: str = ""
    message: str = ""
    steps: tuple[Mapping[str, str], ...] = ()
    touched: bool = False
    other_owner: bool = False
    answer: str = ""
    index: int = 0

    @classmethod
    def parse(cls, text: str, index: int) -> Status:
        data = json_object(text)
        if data is None:
            return cls(index=index)
        steps = data.get("steps")
        return cls(
            request=str(data.get("request") or ""),
            state=str(data.get("state") or ""),
            message=str(data.get("message") or ""),
            steps=tuple(step for step in steps if isinstance(step, dict)) if isinstance(steps, list) else (),
            touched=bool(data.get("touched")),
            other_owner=bool(data.get("other_owner")),
            answer=str(data.get("answer") or ""),
            index=index,
        )

    @property
    def is_open(self) -> bool:
        """Nobody has accepted it yet."""
        return self.state in (REQUESTED, WAITING)

    @property
    def has_ended(self) -> bool:
        return self.state in (DONE, FAILED)


@dataclass
class Request:
    """One request to one node.

    :param session: of the deployment's lock: the agent accepts the request only while it holds that.
    """

    client: Client
    keys: Keys
    node: str
    assignment: Assignment
    session: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    _unsure: bool = field(default=False, init=False)

    def submit(self) -> None:
        """Write it, in one transaction that fails once the lock is lost (:class:`LockLost`)."""
        # Handed on in each status until something is deployed: what an earlier deployment left open stays so.
        self._unsure = not read_version(self.client, self.keys, self.node).version_is_trusted
        asked = {
            "request": self.id,
            "service": self.keys.service,
            "session": self.session,
            "at": timestamp(),
            "unsure": self._unsure,
            **asdict(self.assignment),
        }
        self._change(kv_set(self.keys.status(self.node), self._status(REQUESTED)), asked)

    def fire_event(self) -> None:
        """A hint that something is asked of the node; nothing depends on it, so that no error of it counts."""
        params: list[tuple[str, object]] = [("node", f"^{re.escape(self.node)}$")]
        try:
            self.client.put(f"/v1/event/fire/{EVENT}", params, self.keys.service[:EVENT_LIMIT], repeatable=False)
        except ConsulError:
            return

    def follow(self, accept_deadline: float, on_status: Callable[[Status], None] = lambda status: None) -> Status:
        """Wait for the end of it, by blocking reads -> its last status: done or failed, withdrawn or abandoned.

        :param accept_deadline: seconds in which somebody has to accept it, and that a machine may be failed in Consul
            (serfHealth critical).
        :param on_status: called with each new status.
        :raises LockLost: another run has asked this machine for something else.
        """
        follower = _Follower(self, accept_deadline, on_status)
        key = self.keys.status(self.node)
        path = f"/v1/kv/{key}"
        params: list[tuple[str, object]] = [("consistent", "")]
        # Each wait has an end of its own, see decide: this one only bounds what cannot happen.
        longest = self.assignment.longest + 2 * self.assignment.deploy_timeout
        forever = time.monotonic() + longest + accept_deadline + 3600
        return self.client.watch(path, params, follower.decide, forever, every=LOOK_EVERY)

    def end(self, seen: Status, state: str, message: str) -> bool:
        """Withdraw or abandon it, unless its status has changed since: then the agent was quicker."""
        ended = self._status(state, message, seen.steps, touched=seen.touched)
        try:
            self._change(kv_set_if(self.keys.status(self.node), ended, seen.index), None)
        except LockLost:
            raise
        except ConsulError as error:
            if error.status != 409:
                raise
            # The first answer may have been lost.
            there = self.client.key(self.keys.status(self.node), consistent=True)
            return there is not None and there.value == ended
        return True

    def has_failed_in_consul(self) -> bool:
        """Whether Consul's gossip holds the node for dead."""
        answer = self.client.get(f"/v1/health/node/{self.node}")
        return all(check["Status"] != "passing" for check in answer.data or () if check["CheckID"] == SERF_HEALTH)

    def _status(self, state: str, message: str = "", steps: tuple[Mapping[str, str], ...] = (), **more: object) -> str:
        value = {
            "deployment": self.assignment.deployment,
            "request": self.id,
            "state": state,
            "at": timestamp(),
            "message": message,
            "steps": [*steps, {"state": state, "at": timestamp()}],
            **({"unsure": self._unsure} if self._unsure or self.assignment.reason == RESTART else {}),
            **more,
        }
        return json.dumps(value, separators=(",", ":"))

    def _change(self, status: dict[str, Any], asked: Mapping[str, Any] | None) -> None:
        key = self.keys.new(self.node)
        new = kv_delete(key) if asked is None else kv_set(key, json.dumps(asked, separators=(",", ":")))
        fence = [kv_check_session(self.keys.lock, self.session)] if self.session else []
        self.client.txn([*fence, status, new])


class _Follower:
    """Decides, at each look at the status, whether the wait is over."""

    def __init__(self, request: Request, accept_deadline: float, on_status: Callable[[Status], None]) -> None:
        self._request = request
        self._accept_deadline = accept_deadline
        self._on_status = on_status
        started = time.monotonic()
        self._open_until = started + accept_deadline
        self._wait_until = started + accept_deadline + request.assignment.deploy_timeout + SLACK
        self._end_by = 0.0
        self._unseen_since = 0.0
        self._look_at = 0.0
        self._last = Status()

    def decide(self, data: Any) -> Status | None:
        request = self._request
        status = Status.parse(kv_text(data[0]), data[0]["ModifyIndex"]) if data else Status()
        if status.request != request.id:
            raise LockLost(
                f"Somebody else has asked {request.node} for something since "
                f"(key {request.keys.status(request.node)}); it is left as it is.",
                asked=f"GET /v1/kv/{request.keys.status(request.node)}",
            )
        if status != self._last:
            self._last = status
            self._on_status(status)
        if status.has_ended or status.state in (WITHDRAWN, ABANDONED):
            return status
        return self._open(status) if status.is_open else self._under_way(status)

    def _open(self, status: Status) -> Status | None:
        until = self._wait_until if status.state == WAITING else self._open_until
        now = time.monotonic()
        if now < until:
            raise AskAgain(min(until - now, LOOK_EVERY))
        return self._over(status, WITHDRAWN, "nobody has accepted it in time")

    def _under_way(self, status: Status) -> Status | None:
        now = time.monotonic()
        self._end_by = self._end_by or now + self._request.assignment.longest
        if now >= self._end_by:
            return self._over(status, ABANDONED, f"it did not end within {self._request.assignment.longest:g} s")
        if now >= self._look_at:
            # Not at the first sight: its agent has just answered.
            unseen = self._look_at > 0 and self._request.has_failed_in_consul()
            self._unseen_since = (self._unseen_since or now) if unseen else 0.0
            self._look_at = now + min(LOOK_EVERY, self._accept_deadline or LOOK_EVERY)
        if self._unseen_since and now - self._unseen_since >= self._accept_deadline:
            where = f"at the step {status.state}"
            return self._over(status, ABANDONED, f"the machine failed in Consul (serfHealth critical), {where}")
        raise AskAgain(max(0.01, min(self._end_by, self._look_at) - now))

    def _over(self, status: Status, state: str, message: str) -> Status | None:
        if not self._request.end(status, state, message):
            raise AskAgain(0.01)  # the agent was quicker: look again
        steps = (*status.steps, {"state": state, "at": timestamp()})
        return replace(status, state=state, message=message, steps=steps)


class LogFollower:
    """What a machine prints, as it comes: each key of its log is read once, by blocking reads.

    :param show: called with whole pieces of text, by one thread at a time.
    """

    def __init__(self, client: Client, keys: Keys, node: str, deployment: str, show: Callable[[str], None]) -> None:
        self._client = client
        self._prefix = keys.agent_log(node, deployment)
        self._show = show
        self._taking = threading.Lock()
        names = client.key_names(self._prefix)
        self._number = max((int(name.rpartition("/")[2]) for name in names if name[-6:].isdigit()), default=0)

    def follow(self, ended: threading.Event) -> None:
        """Piece by piece until ``ended``; a read that is under way then shows nothing any more."""
        index = 0
        while not ended.is_set():
            wanted = self._number + 1
            answer = self._read(self._client, wanted, index)
            with self._taking:
                if ended.is_set():
                    return
                self._take(answer, wanted)
            index = 0 if answer.data else max(answer.index, 1)

    def rest(self, client: Client) -> None:
        """What is there and has not been shown; another client than that of :meth:`follow` reads it."""
        with self._taking:
            while self._take(self._read(client, self._number + 1, 0), self._number + 1):
                pass

    def _read(self, client: Client, number: int, index: int) -> Answer:
        return client.get(f"/v1/kv/{self._prefix}{number:06d}", wait=60.0, index=index)

    def _take(self, answer: Answer, number: int) -> bool:
        if answer.data:
            self._number = number
            self._show(kv_text(answer.data[0]))
        return bool(answer.data)


def not_accepted(node: str, service: str, accept_deadline: float) -> HitlessError:
    """The error for a request that nobody accepted."""
    return HitlessError(
        f"{node} did not accept its request within {accept_deadline:g} s (rollout_accept_deadline), so that it is "
        "withdrawn: the machine will not deploy it when it comes back.",
        hint=f"Is the machine up, and its deploy agent running (systemctl status hitless-deploy-{service})?",
        details={"lost": True},
    )
