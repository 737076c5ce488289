# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recorded of a deployment: its plan, its state, its verdict (a private helper of this collection).

Pure: plain data in and out. store.py reads and writes it; how each host ended is in outcome.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import json_object
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
    GOOD,
    LOST,
    PENDING,
    SKIPPED,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import seconds_between

RUNNING, SUCCESSFUL, FAILED, CANCELLED, INTERRUPTED = "running", "successful", "failed", "cancelled", "interrupted"
ENDED = (SUCCESSFUL, FAILED, CANCELLED, INTERRUPTED)
TRANSITIONS: dict[str, tuple[str, ...]] = {RUNNING: ENDED, **dict.fromkeys(ENDED, ())}
"""State of a record -> the states it may become. What has ended stays as it ended."""

TO_CHANGE, OTHER_OWNER, UNREACHABLE = "to_change", "other_owner", "unreachable"
_OUTCOME_OF_PLAN = {CURRENT: CURRENT, OTHER_OWNER: SKIPPED, UNREACHABLE: SKIPPED}
"""State of a host in the plan -> its outcome where it gets no turn."""

WHY_LIMIT = 300
"""Characters kept of a host's reason in the plan."""
RECORD_LIMIT = 300_000
"""Bytes of a record: Consul takes 512 KiB for a whole transaction, in which a value is a third longer (base64)."""

SETTINGS = (
    "accept_warning",
    "batch_size",
    "check_interval",
    "deploy_timeout",
    "drain_time",
    "failure_budget",
    "healthy_deadline",
    "maintenance",
    "min_healthy",
    "min_healthy_time",
    "mode",
    "progress_deadline",
    "rollback",
    "skip_current",
    "strict",
    "tags",
    "unreachable",
    "unverified",
)
"""Options kept in a record. No command, URL or hook is among them: those can hold a secret."""


@dataclass(frozen=True)
class PlannedHost:
    """A host as the plan has it.

    :param state: to_change, current, other_owner or unreachable.
    :param batch: 1 for the first; None where it gets no turn.
    :param why: why it is left alone.
    :param outcome: noted at the end for a host that wrote none itself (lost, pending).
    :param unsure: another version than the recorded one may run there, since an earlier deployment left that open.
    """

    host: str
    node: str
    state: str = TO_CHANGE
    batch: int | None = None
    from_version: str | None = None
    to_version: str | None = None
    rollback_to: str | None = None
    why: str | None = None
    outcome: str | None = None
    unsure: bool = False


@dataclass(frozen=True)
class Record:
    """One deployment.

    :param version: None for a rollback of each host to its own previous version.
    :param direction: ``deploy`` or ``rollback``.
    :param state: see :data:`TRANSITIONS`.
    :param description: how it stands, for a person.
    :param message: what the one who started it said about it.
    :param holder: who runs it; ``origin``: from where.
    :param batches: the hosts of each, in order.
    :param uncovered: nodes that ran the service and were none of its hosts.
    :param failure_budget: hosts that did not come out well (:data:`states.SPENDING`) that it tolerates.
    :param options: those of :data:`SETTINGS`.
    :param summary: outcome -> number of hosts, once it has ended.
    """

    id: str
    service: str
    version: str | None
    direction: str = "deploy"
    state: str = RUNNING
    description: str = ""
    message: str = ""
    holder: str = ""
    origin: str = ""
    started: str | None = None
    finished: str | None = None
    batches: tuple[tuple[str, ...], ...] = ()
    hosts: Mapping[str, PlannedHost] = field(default_factory=dict)
    uncovered: tuple[str, ...] = ()
    failure_budget: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        return seconds_between(self.started, self.finished)

    @property
    def by_agents(self) -> bool:
        """Whether the machines' own agents deploy, and write logs."""
        return self.options.get("mode") == "agent"

    def become(self, state: str, **changes: Any) -> Record:
        """The record in another state.

        :raises HitlessError: for a change that :data:`TRANSITIONS` does not have.
        """
        if state not in TRANSITIONS[self.state]:
            raise HitlessError(f"The deployment {self.id} of {self.service} is {self.state} and cannot become {state}.")
        return replace(self, state=state, **changes)

    def as_dict(self) -> dict[str, Any]:
        """As it stands in its key and in results."""
        return {
            "id": self.id,
            "service": self.service,
            "version": self.version,
            "direction": self.direction,
            "state": self.state,
            "description": self.description,
            "message": self.message,
            "holder": self.holder,
            "origin": self.origin,
            "started": self.started,
            "finished": self.finished,
            "failure_budget": self.failure_budget,
            "summary": dict(self.summary),
            "options": dict(self.options),
            "plan": {
                "batches": [list(batch) for batch in self.batches],
                "hosts": {name: self._host_dict(host) for name, host in self.hosts.items()},
                "uncovered": list(self.uncovered),
            },
        }

    def _host_dict(self, host: PlannedHost) -> dict[str, Any]:
        """A host without what says nothing: a value of Consul has to hold a thousand of them."""
        values = {
            "node": host.node if host.node != host.host else None,
            "state": host.state,
            "batch": host.batch,
            "from": host.from_version,
            "to": host.to_version,
            "rollback_to": host.rollback_to,
            "why": (host.why or "")[:WHY_LIMIT] or None,
            "outcome": host.outcome,
            "unsure": host.unsure or None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def to_json(self) -> str:
        """The value of its key; raises :class:`HitlessError` where that is more than Consul takes."""
        text = json.dumps(self.as_dict(), separators=(",", ":"))
        if len(text) > RECORD_LIMIT:
            raise HitlessError(
                f"The plan of {len(self.hosts)} hosts takes {len(text)} bytes, more than fits into a value of Consul.",
                hint="Roll the service over in parts (rollout_hosts).",
            )
        return text

    @classmethod
    def from_json(cls, text: str, deployment: str, service: str) -> Record:
        """What a key holds; one that cannot be read is shown as failed, so that it hides no other."""
        unreadable = cls(deployment, service, None, state=FAILED, description="Its record in Consul cannot be read.")
        data = json_object(text)
        if data is None or data.get("state") not in (RUNNING, *ENDED):
            return unreadable
        try:
            return cls._from_dict(data, deployment, service)
        except (AttributeError, TypeError, ValueError):
            return unreadable

    @classmethod
    def _from_dict(cls, data: dict[str, Any], deployment: str, service: str) -> Record:
        plan = data.get("plan") or {}
        return cls(
            id=deployment,
            service=service,
            version=data.get("version"),
            direction=str(data.get("direction") or "deploy"),
            state=data["state"],
            description=str(data.get("description") or ""),
            message=str(data.get("message") or ""),
            holder=str(data.get("holder") or ""),
            origin=str(data.get("origin") or ""),
            started=data.get("started"),
            finished=data.get("finished"),
            failure_budget=int(data.get("failure_budget") or 0),
            summary=data.get("summary") or {},
            options=data.get("options") or {},
            batches=tuple(tuple(batch) for batch in plan.get("batches") or ()),
            hosts=planned_hosts(plan.get("hosts") or {}),
            uncovered=tuple(str(node) for node in plan.get("uncovered") or ()),
        )


def planned_hosts(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, PlannedHost]:
    """The hosts of a plan, from the plan's own dictionaries or a record's."""
    return {
        name: PlannedHost(
            host=name,
            node=str(data.get("node") or name),
            state=str(data.get("state") or TO_CHANGE),
            batch=data.get("batch"),
            from_version=data.get("from"),
            to_version=data.get("to"),
            rollback_to=data.get("rollback_to"),
            why=data.get("why"),
            outcome=data.get("outcome"),
            unsure=bool(data.get("unsure")),
        )
        for name, data in hosts.items()
    }


def plan_of(plan: Mapping[str, Any]) -> tuple[tuple[tuple[str, ...], ...], dict[str, PlannedHost]]:
    """Batches and hosts of a plan; each host knows its batch, and they are in the order of their turns."""
    batches = tuple(tuple(str(host) for host in batch) for batch in plan.get("batches") or ())
    hosts = planned_hosts(plan.get("hosts") or {})
    turn = {host: number for number, batch in enumerate(batches, 1) for host in batch}
    unknown = [host for host in turn if host not in hosts]
    if unknown:
        raise HitlessError(f"The plan's batches name hosts that are not among its hosts: {', '.join(unknown[:5])}.")
    order = [*turn, *(host for host in hosts if host not in turn)]
    return batches, {host: replace(hosts[host], batch=turn.get(host)) for host in order}


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that belong into a record, with or without ``rollout_`` in front of their names."""
    plain = {name.removeprefix("rollout_"): value for name, value in options.items()}
    return {name: plain[name] for name in SETTINGS if plain.get(name) is not None}


def outcomes_of(record: Record, written: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Host -> outcome, for each planned host that has one: its own, that noted at the end, or what the plan says.

    :param written: node -> outcome, as its key holds it.
    """
    found: dict[str, Outcome] = {}
    for name, planned in record.hosts.items():
        outcome = planned.outcome or _OUTCOME_OF_PLAN.get(planned.state)
        if planned.node in written:
            found[name] = replace(written[planned.node], host=name)
        elif outcome:
            found[name] = planned_outcome(planned, outcome, planned.why or "")
    return found


def planned_outcome(planned: PlannedHost, outcome: str, why: str = "") -> Outcome:
    """The outcome of a host that wrote none itself."""
    return Outcome(
        planned.host, planned.node, outcome, planned.from_version, planned.to_version, planned.batch, error=why
    )


def settle(
    record: Record,
    outcomes: Mapping[str, Outcome],
    *,
    begun: int,
    touched: Iterable[str],
    why: str,
) -> Record:
    """The record with an outcome for each planned host that has none.

    :param begun: the last batch that was begun, 0 for none.
    :param touched: nodes on which a step of this deployment was recorded.
    :param why: what to say of a host whose turn had begun and that has no outcome.
    """
    touched = set(touched)
    last = max([begun, *(one.batch or 0 for one in outcomes.values() if one.outcome != PENDING)])

    def noted(planned: PlannedHost) -> PlannedHost:
        if planned.host in outcomes:
            return planned
        if planned.node in touched or (planned.batch is not None and planned.batch <= last):
            return replace(planned, outcome=LOST, why=why)
        return replace(planned, outcome=PENDING)

    return replace(record, hosts={name: noted(planned) for name, planned in record.hosts.items()})


def verdict(outcomes: Iterable[str]) -> str:
    """successful where every host is ok, current or skipped; else failed, also within the failure budget."""
    return SUCCESSFUL if all(outcome in GOOD for outcome in outcomes) else FAILED
