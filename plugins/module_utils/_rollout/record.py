# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recorded of a deployment: its plan, its state, its verdict (a private helper of this collection).

Pure: plain data in and out. store.py reads and writes it; how each host ended is in outcome.py. Its hosts are in keys
of their own, see plan_chunks.py.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import VALUE_LIMIT, json_object
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import Kind, kind_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan_chunks import chunks_of, joined
from ansible_collections.hitless.consul.plugins.module_utils._rollout.probed import Probed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
    GOOD,
    LOST,
    PENDING,
    SKIPPED,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import seconds_between
from ansible_collections.hitless.consul.plugins.module_utils._rollout.waves import Waves

RUNNING, SUCCESSFUL, FAILED, CANCELLED, INTERRUPTED = "running", "successful", "failed", "cancelled", "interrupted"
PAUSED = "paused"
"""Its run has ended, and the deployment has not: another run goes on with it."""
ENDED = (SUCCESSFUL, FAILED, CANCELLED, INTERRUPTED)
TRANSITIONS: dict[str, tuple[str, ...]] = {
    RUNNING: (*ENDED, PAUSED),
    PAUSED: (RUNNING, CANCELLED),
    **dict.fromkeys(ENDED, ()),
}
"""State of a record -> the states it may become. What has ended stays as it ended."""

TO_CHANGE, OTHER_OWNER, UNREACHABLE, CHANGED_SINCE = "to_change", "other_owner", "unreachable", "changed_since"
LEFT_OUT = (OTHER_OWNER, UNREACHABLE, CHANGED_SINCE)
"""States in the plan of hosts that should be changed, and are left alone."""
_OUTCOME_OF_PLAN = {CURRENT: CURRENT, **dict.fromkeys(LEFT_OUT, SKIPPED)}
"""State of a host in the plan -> its outcome where it gets no turn."""

JOINED_LIMIT = 100
"""Nodes kept that have joined."""
WHY_LIMIT = 300
"""Characters kept of a host's reason in the plan."""

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
    "waves_by",
)
"""Options kept in a record. No command, URL or hook is among them: those can hold a secret."""


@dataclass(frozen=True)
class PlannedHost:
    """A host as the plan has it.

    :param state: to_change, current, other_owner, unreachable or changed_since.
    :param batch: 1 for the first; None where it gets no turn.
    :param why: why it is left alone.
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
    unsure: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Without what says nothing: it is kept ten thousand times."""
        values = {
            "node": self.node if self.node != self.host else None,
            "state": self.state,
            "batch": self.batch,
            "from": self.from_version,
            "to": self.to_version,
            "rollback_to": self.rollback_to,
            "why": (self.why or "")[:WHY_LIMIT] or None,
            "unsure": self.unsure or None,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Brief:
    """One deployment without its hosts: what its record's key holds, and what lists show.

    :param version: None for a rollback of each host to its own previous version, and where each keeps its own.
    :param direction: ``deploy``, ``rollback``, ``restart`` or ``reboot``, see kind.py.
    :param state: see :data:`TRANSITIONS`.
    :param description: how it stands, for a person.
    :param message: what the one who started it said about it.
    :param holder: who runs it; ``origin``: from where.
    :param failure_budget: hosts that did not come out well (:data:`states.SPENDING`) that it tolerates.
    :param options: those of :data:`SETTINGS`.
    :param summary: outcome -> number of hosts, once it has ended and what became of each is written.
    :param chunks: keys that its plan is in.
    :param windows: how many hosts of each stage may be in flight at once; empty where hosts go in batches.
    :param waves: each with the stages, or batches, that it has; none where it has none.
    :param resumes: the deployment to the same version that it goes on with, which did not reach all of its hosts;
        ``undoes``: the one that a rollback undoes. Empty where there is none.
    :param is_automatic: whether the run of that one began it, since it had failed.
    :param probed: what its probe has counted; empty without one.
    :param joined: node -> version there, or empty: what registered while it ran, and does not run its version.
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
    failure_budget: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, int] = field(default_factory=dict)
    chunks: int = 0
    windows: tuple[int, ...] = ()
    waves: Waves = field(default_factory=Waves)
    resumes: str = ""
    undoes: str = ""
    is_automatic: bool = False
    probed: Probed = field(default_factory=Probed)
    joined: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        return seconds_between(self.started, self.finished)

    @property
    def by_agents(self) -> bool:
        """Whether the machines' own agents deploy, and write logs."""
        return self.options.get("mode") == "agent"

    @property
    def kind(self) -> Kind:
        """A rollout, a rollback, a restart or a reboot."""
        return kind_of(self.direction)

    @property
    def is_unsettled(self) -> bool:
        """Whether nobody has written yet what became of its hosts."""
        return self.state == RUNNING or (self.state == INTERRUPTED and not self.summary)

    def brief_dict(self) -> dict[str, Any]:
        """Its own fields, as they stand in its key and in results."""
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
            "resumes": self.resumes,
            "undoes": self.undoes,
            "automatic": self.is_automatic,
            **({"probe": self.probed.as_dict()} if self.probed else {}),
            "joined": dict(self.joined),
        }

    @classmethod
    def from_json(cls, text: str, deployment: str, service: str) -> Brief:
        """What a key holds; one that cannot be read is shown as failed, so that it hides no other."""
        unreadable = Brief(deployment, service, None, state=FAILED, description="Its record in Consul cannot be read.")
        data = json_object(text)
        if data is None or data.get("state") not in (*TRANSITIONS,):
            return unreadable
        try:
            return Brief(
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
                resumes=str(data.get("resumes") or ""),
                undoes=str(data.get("undoes") or ""),
                is_automatic=bool(data.get("automatic")),
                probed=Probed.of(data.get("probe")),
                joined=dict(data.get("joined") or {}),
                chunks=int((data.get("plan") or {}).get("chunks") or 0),
                windows=tuple(int(one) for one in (data.get("plan") or {}).get("windows") or ()),
                waves=Waves.of((data.get("plan") or {}).get("waves")),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return unreadable


@dataclass(frozen=True)
class Record(Brief):
    """One deployment with its hosts, in the order of their turns.

    :param uncovered: nodes that ran the service and were none of its hosts.
    """

    hosts: Mapping[str, PlannedHost] = field(default_factory=dict)
    uncovered: tuple[str, ...] = ()

    @property
    def batches(self) -> list[list[str]]:
        """The hosts of each batch, in order."""
        batches: dict[int, list[str]] = {}
        for name, host in self.hosts.items():
            if host.batch is not None:
                batches.setdefault(host.batch, []).append(name)
        return [batches[number] for number in sorted(batches)]

    def become(self, state: str, **changes: Any) -> Record:
        """The record in another state.

        :raises HitlessError: for a change that :data:`TRANSITIONS` does not have.
        """
        if state not in TRANSITIONS[self.state]:
            raise HitlessError(f"The deployment {self.id} of {self.service} is {self.state} and cannot become {state}.")
        return replace(self, state=state, **changes)

    def as_dict(self) -> dict[str, Any]:
        """For results."""
        plan = {"batches": self.batches, "windows": list(self.windows), "hosts": self._host_dicts()}
        plan |= {"uncovered": list(self.uncovered), "waves": self.waves.as_list()}
        return {**self.brief_dict(), "plan": plan}

    def to_json(self) -> str:
        """The value of its key, which holds of its plan how large that is.

        :raises HitlessError: it is too large, as with a message of that size.
        """
        plan: dict[str, Any] = {"hosts": len(self.hosts), "batches": len(self.batches), "chunks": self.chunks}
        plan |= {"windows": list(self.windows), **({"waves": self.waves.as_list()} if self.waves.each else {})}
        text = json.dumps({**self.brief_dict(), "plan": plan}, separators=(",", ":"))
        if len(text) > VALUE_LIMIT:
            raise HitlessError(
                f"The record of {self.id} takes {len(text)} bytes, more than a key may hold ({VALUE_LIMIT}).",
                hint="Shorten the message (rollout_message).",
            )
        return text

    def plan_values(self) -> list[str]:
        """The values of the keys of its plan; raises :class:`HitlessError` where one host takes more than a key."""
        return chunks_of(self._host_dicts(), self.uncovered)

    @classmethod
    def from_values(cls, text: str, chunks: Sequence[str], deployment: str, service: str) -> Record:
        """What its keys hold; one whose plan cannot be read is shown as failed, see :meth:`from_json`.

        :param chunks: the values of all keys of its plan.
        """
        brief = cls.from_json(text, deployment, service)
        about = {one.name: getattr(brief, one.name) for one in fields(Brief)}
        try:
            if len(chunks) != brief.chunks:
                raise ValueError(f"{len(chunks)} of {brief.chunks} parts")
            hosts, uncovered = joined(chunks)
            return cls(**about, hosts=planned_hosts(hosts), uncovered=uncovered)
        except (AttributeError, TypeError, ValueError):
            told = {"state": FAILED, "description": "Its plan in Consul cannot be read."}
            return cls(**{**about, **told})

    def _host_dicts(self) -> dict[str, dict[str, Any]]:
        return {name: host.as_dict() for name, host in self.hosts.items()}


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
            unsure=bool(data.get("unsure")),
        )
        for name, data in hosts.items()
    }


def hosts_of(plan: Mapping[str, Any]) -> dict[str, PlannedHost]:
    """The hosts of a plan in the order of their turns; each knows its batch."""
    hosts = planned_hosts(plan.get("hosts") or {})
    turn = {str(host): number for number, batch in enumerate(plan.get("batches") or (), 1) for host in batch}
    unknown = [host for host in turn if host not in hosts]
    if unknown:
        raise HitlessError(f"The plan's batches name hosts that are not among its hosts: {', '.join(unknown[:5])}.")
    order = [*turn, *(host for host in hosts if host not in turn)]
    return {host: replace(hosts[host], batch=turn.get(host)) for host in order}


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that belong into a record, with or without ``rollout_`` in front of their names."""
    plain = {name.removeprefix("rollout_"): value for name, value in options.items()}
    return {name: plain[name] for name in SETTINGS if plain.get(name) is not None}


def outcomes_of(record: Record, written: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Host -> outcome, for each planned host that has one: its own, or what the plan says.

    Once a deployment has ended, those that are lost have written one, so that all others are pending.

    :param written: node -> outcome, as its key holds it.
    """
    found: dict[str, Outcome] = {}
    for name, planned in record.hosts.items():
        outcome = _OUTCOME_OF_PLAN.get(planned.state) or (PENDING if record.summary else "")
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
    touched: Container[str],
    why: str,
) -> dict[str, Outcome]:
    """Host -> outcome, of all planned hosts: each that has none is lost or pending.

    :param begun: the last batch that was begun, 0 for none; in a window each host is begun by itself.
    :param touched: nodes on which a step of this deployment was recorded, or that are in flight.
    :param why: what to say of a host whose turn had begun and that has no outcome.
    """
    last = (
        0 if record.windows else max([begun, *(one.batch or 0 for one in outcomes.values() if one.outcome != PENDING)])
    )

    def noted(planned: PlannedHost) -> Outcome:
        if planned.node in touched or (planned.batch is not None and planned.batch <= last):
            return planned_outcome(planned, LOST, why)
        return planned_outcome(planned, PENDING)

    return {name: outcomes.get(name) or noted(planned) for name, planned in record.hosts.items()}


def verdict(outcomes: Iterable[str]) -> str:
    """successful where every host is ok, current or skipped; else failed, also within the failure budget."""
    return SUCCESSFUL if all(outcome in GOOD for outcome in outcomes) else FAILED
