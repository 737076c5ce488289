# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance of a service on a node, or of the node (a private helper of this collection).

A PUT that answered 200 proves nothing about the catalog: usually it shows in 6 ms, but it took 17 s while the leader
was dead, and after a failed sync only another PUT helps. So each change returns when the catalog shows it, and is sent
again each second until then. Consul keeps the *first* reason of a maintenance that is enabled twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer, Watching
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import AskAgain, Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    NODE_MAINTENANCE,
    SERVICE_MAINTENANCE,
    Instance,
    parse_check,
    parse_instances,
    require_registered,
    service_query,
    with_tags,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.node_health import OnNode, read_node
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, DeadlineExceeded, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_name

SHOWN_WITHIN = 60.0
"""Seconds the catalog has to show a change: a lost leader costs up to 17 s at Consul's default timing."""
RESEND_AFTER = 1.0
"""Seconds after which a change that the catalog does not show is sent again (a no-op that makes the agent sync)."""

_OURS = re.compile(r"deploy:(?P<deployment>\S+) (?P<service>\S+)")


@dataclass(frozen=True)
class DeploymentReason:
    """The reason of a maintenance that a deployment has set: proof of whose it is."""

    deployment: str
    service: str

    def __str__(self) -> str:
        return f"deploy:{self.deployment} {self.service}"


def parse_reason(reason: str | None) -> DeploymentReason | None:
    """The deployment named by a maintenance reason, None for anybody else's."""
    found = _OURS.fullmatch(reason or "")
    return DeploymentReason(found["deployment"], found["service"]) if found else None


def set_by_deployment_of(service: str) -> Callable[[str], bool]:
    """Whether a reason is that of any deployment of the service; with its lock held, all others were interrupted."""

    def ours(reason: str) -> bool:
        parsed = parse_reason(reason)
        return parsed is not None and parsed.service == service

    return ours


@dataclass(frozen=True)
class Target:
    """What is put into maintenance on a node: all instances of a service there, one of them, or the whole node."""

    node: str
    service: str | None = None
    service_id: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_name(self.node, "node")

    @property
    def node_wide(self) -> bool:
        return self.service is None and self.service_id is None

    @property
    def name(self) -> str:
        if self.node_wide:
            return f"the node {self.node}"
        return f"{self.service_id or self.service} on {self.node}"

    def query(self) -> tuple[str, list[tuple[str, object]]]:
        if self.service is not None:
            return service_query(self.service, self.node)
        return f"/v1/health/node/{self.node}", []

    def reasons(self, data: Any) -> dict[str, str | None]:
        """Service ID (empty for the node) -> reason of its maintenance, None where it is in none."""
        if self.service is not None:
            return {
                one.service_id: one.reason(node_wide=False)
                for one in self._instances(data)
                if self.service_id in (None, one.service_id)
            }
        checks = [parse_check(check) for check in data or ()]
        if self.node_wide:
            return {"": next((check.notes for check in checks if check.id == NODE_MAINTENANCE), None)}
        wanted = f"{SERVICE_MAINTENANCE}{self.service_id}"
        return {str(self.service_id): next((check.notes for check in checks if check.id == wanted), None)}

    def node_reason(self, data: Any) -> str | None:
        """The reason of the *node's* maintenance, which an instance shares."""
        if self.service is not None:
            return next((one.reason(node_wide=True) for one in self._instances(data)), None)
        return next((check.get("Notes") or "" for check in data or () if check["CheckID"] == NODE_MAINTENANCE), None)

    def read(self, cluster: Client) -> Answer:
        """What the catalog says of it now."""
        return cluster.get(*self.query())

    def look(self, cluster: Client) -> Any:
        """The same data by reads that do not grow with the service."""
        if self.service is not None:
            return read_node(cluster, self.service, self.node).data
        return self.read(cluster).data

    def followed(self, cluster: Client, known: Any) -> Watching:
        """What waits for its changes.

        :param known: what the catalog said of it just now.
        """
        return OnNode(cluster, self.service, self.node, known or ()) if self.service is not None else cluster

    def is_out(self, data: Any) -> bool:
        """Whether any of it is in maintenance, whoever has set that."""
        return any(reason is not None for reason in [*self.reasons(data).values(), self.node_reason(data)])

    def is_there(self, data: Any) -> bool:
        """Whether the catalog knows it."""
        return bool(data) and bool(self.reasons(data))

    def require(self, data: Any) -> None:
        if self.service is not None:
            require_registered(self._instances(data), self.service, self.node)
            if not self.reasons(data):
                raise HitlessError(f"No instance of {self.service} on {self.node} has the ID {self.service_id}.")
        elif not data:
            raise HitlessError(f"Consul knows no node {self.node}, or the token may not read it.")

    def _instances(self, data: Any) -> list[Instance]:
        return with_tags(parse_instances(data), self.tags)


def targets_of(node: str, service: str, scope: Sequence[str], tags: tuple[str, ...] = ()) -> list[Target]:
    """What goes into maintenance for a service's deployment on a node.

    :param scope: ``["node"]``, ``["service"]``, or the services, its own among them (rollout_maintenance).
    :param tags: that an instance of the service itself must have.
    """
    if scope == ["node"]:
        return [Target(node)]
    services = [service] if scope == ["service"] else scope
    if service not in services:
        raise HitlessError(
            f"{service} is not among the services that go into maintenance ({', '.join(services)}).",
            hint="Add it to rollout_maintenance.",
        )
    return [Target(node, one, tags=tags if one == service else ()) for one in services]


@dataclass(frozen=True)
class Change:
    """What a change of maintenance did, and the catalog's data that showed it.

    :param shown_at: when the catalog showed it, on the monotonic clock.
    :param index: of the answer that showed it, for a blocking read of what happens from then on.
    """

    target: Target
    before: dict[str, str | None]
    after: dict[str, str | None]
    shown_at: float
    shown: Any
    index: int = 0

    @property
    def changed(self) -> bool:
        return self.after != self.before


def enable(
    cluster: Client,
    agent: Client,
    target: Target,
    reason: str,
    ours: Callable[[str], bool],
    *,
    within: float = SHOWN_WITHIN,
    check_mode: bool = False,
    first: Answer | None = None,
) -> Change:
    """Put the target into maintenance; returns when the catalog shows it for each of its instances.

    :param ours: whether a reason found there is one that may be taken as ours.
    :param first: what the catalog said just now, see :meth:`Target.read`.
    :raises HitlessError: there is a maintenance set by someone else (``details["other_owner"]``), or
        it was not shown in time.
    """
    answer = first or target.read(cluster)
    target.require(answer.data)
    before = target.reasons(answer.data)
    _refuse_other_owner(target, before, target.node_reason(answer.data), ours)
    if check_mode:
        after: dict[str, str | None] = {name: found or reason for name, found in before.items()}
        return Change(target, before, after, time.monotonic(), answer.data)
    change = _apply(cluster, agent, target, answer, reason, within)
    # Somebody may have been quicker than our request: the agent kept theirs.
    _refuse_other_owner(target, change.after, None, ours)
    return change


def enable_all(
    cluster: Client,
    agent: Client,
    targets: Sequence[Target],
    reason: str,
    ours: Callable[[str], bool],
    found: Sequence[Answer] = (),
) -> list[Change]:
    """:func:`enable` for each of them, one after the other.

    :param found: what the catalog says of each, where that was read just now.
    """
    return [
        enable(cluster, agent, target, reason, ours, first=found[number] if found else None)
        for number, target in enumerate(targets)
    ]


def disable(
    cluster: Client,
    agent: Client,
    target: Target,
    ours: Callable[[str], bool],
    *,
    within: float = SHOWN_WITHIN,
    check_mode: bool = False,
    first: Answer | None = None,
) -> Change:
    """End our maintenance of the target; returns when the catalog no longer shows it.

    One set by someone else is never ended, also one that is set in the moment when ours ends.

    :raises HitlessError: there is a maintenance set by someone else (``details["other_owner"]``), or
        ours was not gone in time.
    """
    answer = first or target.read(cluster)
    target.require(answer.data)
    before = target.reasons(answer.data)
    _refuse_other_owner(target, before, None, ours)
    if check_mode:
        after: dict[str, str | None] = dict.fromkeys(before)
        return Change(target, before, after, time.monotonic(), answer.data)
    change = _apply(cluster, agent, target, answer, None, within, ours)
    _refuse_other_owner(target, change.after, None, ours)
    return change


def lift(agent: Client, node: str, reason: str) -> None:
    """End all maintenance that an agent has for exactly this reason, also where the catalog has never shown it.

    For a host on which nothing was deployed: its agent may be unable to sync, or belong to another cluster than is
    asked, and would take the host out of rotation later. An earlier deployment's maintenance has another reason, and
    stays: what that one left there may be broken.
    """
    checks = [parse_check(check) for check in (agent.get("/v1/agent/checks").data or {}).values()]
    for check in checks:
        if check.is_maintenance and check.notes == reason:
            send(agent, Target(node), check.id.removeprefix(SERVICE_MAINTENANCE).removeprefix(NODE_MAINTENANCE), None)


def _refuse_other_owner(
    target: Target, reasons: dict[str, str | None], node_reason: str | None, ours: Callable[[str], bool]
) -> None:
    found = [*reasons.values(), None if target.node_wide else node_reason]
    others = [reason for reason in found if reason is not None and not ours(reason)]
    if others:
        raise HitlessError(
            f"{target.name} is in maintenance set by someone else (reason: {others[0] or 'none given'}); "
            "leaving it unchanged.",
            details={"other_owner": True, "reason": others[0]},
        )


def _apply(
    cluster: Client,
    agent: Client,
    target: Target,
    answer: Answer,
    reason: str | None,
    within: float,
    ours: Callable[[str], bool] = lambda reason: True,
) -> Change:
    """Send the change for each instance that is not so yet, and again while the catalog does not show it.

    :param ours: whose maintenance may be ended.
    """
    before = target.reasons(answer.data)
    started = time.monotonic()
    sent_at = float("-inf")
    sending = 0.0  # the longest of the requests to the agent

    def missing(data: Any) -> list[str]:
        reasons = target.reasons(data).items()
        if reason is None:
            return [name for name, found in reasons if found is not None and ours(found)]
        return [name for name, found in reasons if found is None]

    def change(data: Any) -> Change | None:
        now_there = target.reasons(data)
        done = now_there and not missing(data)
        return Change(target, before, now_there, time.monotonic(), data) if done else None

    def decide(data: Any) -> Change | None:
        nonlocal sent_at, sending
        shown = change(data)
        if shown:
            return shown
        if time.monotonic() - sent_at >= RESEND_AFTER:
            began = time.monotonic()
            for name in missing(data):
                send(agent, target, name, reason)
            sent_at = time.monotonic()
            sending = max(sending, sent_at - began)
        raise AskAgain(RESEND_AFTER)

    path, params = target.query()
    try:
        follow = target.followed(cluster, answer.data)
        shown, answer = follow.watch_with_answer(path, params, decide, started + within, first=answer)
        return replace(shown, index=answer.index)
    except DeadlineExceeded:
        # The agent may have taken so long to answer that nobody has looked since.
        late = change(target.read(cluster).data)
        if late:
            return late
        state = "in" if reason is not None else "without"
        raise HitlessError(
            f"The catalog did not show {target.name} {state} maintenance within {within:g} s, although its agent took "
            f"the change, which took {sending:.0f} s.",
            hint="Look at the agent's log: it cannot sync with the servers, or its token lost the right to.",
        ) from None


def send(agent: Client, target: Target, service_id: str, reason: str | None) -> None:
    """One PUT to the agent. Needs service:write on the service's name (node:write for the node)."""
    params: list[tuple[str, object]] = [("enable", "true" if reason is not None else "false")]
    if reason is not None:
        params.append(("reason", reason))
    path = f"/v1/agent/service/maintenance/{service_id}" if service_id else "/v1/agent/maintenance"
    answer = agent.put(path, params)
    if answer.status == 404:
        raise ConsulError(
            f"The agent {agent.connection.url} of {target.node} does not know the service ID {service_id!r}.",
            asked=f"PUT {path}",
            status=404,
            hint="It is registered with another agent, or hitless_consul_agent_url is another host's agent.",
        )
