# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments as Consul keeps them (a private helper of this collection).

Each write is one transaction behind a ``check-session`` on the service's lock, so that a run that lost its lock changes
nothing any more. A deployment is its record: its plan is written before that, in keys of its own, so that none is seen
whose plan is incomplete. ending.py finds how a deployment ended, pruning.py deletes old ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Held, Holder
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    TXN_LIMIT,
    in_transactions,
    json_object,
    kv_check_session,
    kv_read,
    kv_set,
    kv_text,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import Control, Controlled
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import reads as control_reads
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress, reads
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    INTERRUPTED,
    RUNNING,
    Brief,
    PlannedHost,
    Record,
    outcomes_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import GOOD, PENDING
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_versions

MESSAGE_LIMIT = 500
"""Characters of the message in a host's status."""


@dataclass(frozen=True)
class Listed:
    """A deployment without its hosts, and the lock as it was then."""

    record: Brief
    lock: Held | None = None

    @property
    def is_alive(self) -> bool:
        """Whether a living run holds the lock for it."""
        held = self.lock is not None and self.lock.alive and self.lock.holder.deployment == self.record.id
        return held and self.record.state == RUNNING

    @property
    def state(self) -> str:
        """The record's state, and interrupted where it says running without a living lock."""
        return INTERRUPTED if self.record.state == RUNNING and not self.is_alive else self.record.state


@dataclass(frozen=True)
class Deployment(Listed):
    """A deployment with all that is known of its hosts, as of one moment.

    :param outcomes: host -> outcome, for the hosts that have one.
    :param batch: the last batch that was begun, 0 for none.
    :param stop: why no further batch was begun; empty where nothing has stopped it.
    """

    record: Record
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    batch: int = 0
    stop: str = ""
    in_flight: Mapping[str, int] = field(default_factory=dict)
    """See ``progress.Progress``."""
    control: Control = field(default_factory=Control)
    latest: str = ""
    analysis: str = ""
    """What a comparison by the load balancers' counters has come to, for a person; empty where there is none."""
    unwritten: Sequence[Outcome] | None = None
    """Its end as nobody has written it yet, see ``ending.conclude``: the outcomes that are missing; None where Consul
    holds all of this."""

    @cached_property
    def _planned(self) -> Mapping[str, PlannedHost]:
        return {one.node: one for one in self.record.hosts.values()}

    def planned_on(self, node: str) -> PlannedHost | None:
        """The host that its plan has on a node."""
        return self._planned.get(node)

    def has_begun(self, planned: PlannedHost) -> bool:
        """Whether the turn of a host, or its batch, has begun; never where the plan leaves it alone."""
        if self.record.windows:
            return planned.node in self.in_flight or (planned.batch is not None and planned.host in self.outcomes)
        return planned.batch is not None and planned.batch <= self.batch

    @property
    def failed_hosts(self) -> list[str]:
        """Hosts that did not come out well, in the plan's order; one that was not begun has no problem of its own."""
        return [host for host, outcome in self.results.items() if outcome not in (*GOOD, PENDING)]

    @property
    def results(self) -> dict[str, str]:
        """Host -> outcome, pending where there is none."""
        return {host: self.outcomes[host].outcome if host in self.outcomes else PENDING for host in self.record.hosts}

    def as_dict(self) -> dict[str, Any]:
        """For results: the record, with its state as readers see it and the outcome of each host."""
        return {
            **self.record.as_dict(),
            "state": self.state,
            "seconds": self.record.seconds,
            "batch": self.batch,
            "hosts": {host: outcome.as_dict() for host, outcome in self.outcomes.items()},
            "control": [dict(one) for one in self.control.noted.uses],
            "analysis": self.analysis,
        }


@dataclass(frozen=True)
class UnderWay:
    """What a deployment is doing: ``description`` of its record, host -> step that it is at."""

    description: str = ""
    steps: Mapping[str, str] = field(default_factory=dict)


def lock_dict(held: Held | None) -> dict[str, Any] | None:
    """The lock for results; None where no living run holds it."""
    return {"session": held.session, **asdict(held.holder)} if held is not None and held.alive else None


# -- operations for transactions of others ------------------------------------------------------------------------


def status_op(
    keys: Keys, node: str, deployment: str, state: str, message: str = "", *, unsure: bool | None = None
) -> dict[str, Any]:
    """The transaction operation that says which step of a deployment a node is at.

    :param unsure: whether another version than the recorded one may run there, since an earlier deployment left that
        open and this one has not changed it; None where the state tells.
    """
    status: dict[str, Any] = {"deployment": deployment, "state": state, "at": timestamp()}
    status["message"] = message[:MESSAGE_LIMIT]
    if unsure is not None:
        status["unsure"] = unsure
    return kv_set(keys.status(node), json.dumps(status, separators=(",", ":")))


def outcome_ops(keys: Keys, deployment: str, outcome: Outcome, *, unsure: bool | None = None) -> list[dict[str, Any]]:
    """The transaction operations that end a host's turn: its outcome, and the same as its node's status.

    :param unsure: see :func:`status_op`.

    To be sent behind a ``check-session``, with the version where that changed:
    ``record_version(..., session=session, extra_ops=outcome_ops(...))``.
    """
    return [
        kv_set(keys.outcome(deployment, outcome.node), outcome.to_json()),
        status_op(keys, outcome.node, deployment, outcome.outcome, outcome.error, unsure=unsure),
    ]


def create(client: Client, keys: Keys, record: Record, session: str, registered: int = 0, leftover: int = 0) -> None:
    """Write a deployment that begins: its plan, and its record last. What is left without a record, pruning deletes.

    :param registered: instances of the service that have just been counted, where hosts go in a window.
    :param leftover: index of an order in the key of control that was for an earlier deployment.
    :raises LockLost: the session does not hold the service's lock.
    :raises HitlessError: a value would be too large; nothing was written.
    """
    plan = record.plan_values()
    operations = [kv_set(keys.plan_chunk(record.id, number), value) for number, value in enumerate(plan, 1)]
    if record.windows:
        operations.append(Progress().counted_now(registered).op(keys, record.id))
    if leftover:
        operations.append(Controlled(used=leftover).op(keys, record.id))
    operations.append(kv_set(keys.record(record.id), replace(record, chunks=len(plan)).to_json()))
    for part in in_transactions(kv_check_session(keys.lock, session), operations):
        client.txn(part)


# -- reading ------------------------------------------------------------------------------------------------------


def read(client: Client, keys: Keys, deployment: str) -> Deployment | None:
    """A deployment with outcomes and lock, as of one moment, in one request; None where there is none.

    Not all that is below its prefix: its log is there as well, and large.
    """
    operations = [
        kv_read(keys.record(deployment)),
        kv_read(keys.plan(deployment)),
        *reads(keys, deployment),
        kv_read(keys.analysis(deployment)),
        kv_read(keys.outcomes(deployment)),
        kv_read(keys.lock),
    ]
    values = {item["Key"]: item for item in client.txn(operations)}
    record = _record_of(keys, deployment, values)
    if record is None:
        return None
    prefix = keys.outcomes(deployment)
    written = {
        key.removeprefix(prefix): Outcome.from_json(kv_text(item), key.removeprefix(prefix))
        for key, item in values.items()
        if key.startswith(prefix)
    }
    outcomes = outcomes_of(record, written)
    progress = Progress.of(keys, deployment, values)
    compared = values.get(keys.analysis(deployment))
    return Deployment(
        record,
        _lock_of(values.get(keys.lock)),
        outcomes=outcomes,
        batch=last_batch(progress.batch, outcomes),
        stop=progress.stop,
        in_flight=progress.in_flight,
        control=progress.control,
        latest=progress.latest,
        analysis=str((json_object(kv_text(compared)) or {}).get("told") or "") if compared else "",
    )


def read_record(client: Client, keys: Keys, deployment: str) -> Record | None:
    """A deployment with its plan, and without what became of it; None where there is none."""
    items = client.txn([kv_read(keys.record(deployment)), kv_read(keys.plan(deployment))])
    return _record_of(keys, deployment, {item["Key"]: item for item in items})


def refresh(client: Client, keys: Keys, found: Deployment) -> Deployment:
    """A deployment as it is now, by what is new of it; all of it once it has ended.

    Its plan never changes, and a host ends once: of ten thousand hosts a few have ended since the last look.
    """
    deployment, prefix = found.record.id, keys.outcomes(found.record.id)
    known = {one.node for one in found.outcomes.values()}
    names = (key.removeprefix(prefix) for key in client.key_names(prefix))
    ended = {
        planned.host: replace(Outcome.from_json(pair.value, node), host=planned.host)
        for node in names
        if node not in known and (planned := found.planned_on(node)) and (pair := client.key(f"{prefix}{node}"))
    }
    operations = [kv_read(keys.record(deployment)), *reads(keys, deployment), kv_read(keys.lock)]
    values = {item["Key"]: item for item in client.txn(operations)}
    record, lock = values.get(keys.record(deployment)), _lock_of(values.get(keys.lock))
    brief = Brief.from_json(kv_text(record) if record else "", deployment, keys.service)
    if not Listed(brief, lock).is_alive:
        return require(client, keys, deployment)
    outcomes = {**found.outcomes, **ended}
    progress = Progress.of(keys, deployment, values)
    batch = last_batch(progress.batch, outcomes)
    seen = {name: getattr(progress, name) for name in ("stop", "in_flight", "control", "latest")}
    return replace(found, lock=lock, outcomes=outcomes, batch=batch, **seen)


def require(client: Client, keys: Keys, deployment: str) -> Deployment:
    """:func:`read`, or an error where there is no such deployment."""
    found = read(client, keys, deployment)
    if found is None:
        raise HitlessError(
            f"Consul knows no deployment {deployment} of {keys.service} (or the token may not read "
            f"{keys.record(deployment)})."
        )
    return found


def read_under_way(client: Client, keys: Keys, deployment: str) -> UnderWay:
    """What a deployment that holds the lock is doing; nothing where there is no such deployment."""
    found = read(client, keys, deployment) if deployment else None
    if found is None:
        return UnderWay()
    waiting = {host.node: name for name, host in found.record.hosts.items() if name not in found.outcomes}
    there = read_versions(client, keys, waiting)
    latest = {
        waiting[node]: steps_of(one.status)[-1]
        for node, one in there.items()
        if one.status and one.status.get("deployment") == deployment
    }
    steps = {name: f"{step['state']} since {step['at']}" for name, step in latest.items()}
    return UnderWay(found.record.description, steps)


def read_steps(client: Client, keys: Keys, found: Deployment) -> dict[str, list[Mapping[str, str]]]:
    """Host -> {state, at} of each of its steps, of those that have ended and of those whose turn it is."""
    steps: dict[str, list[Mapping[str, str]]] = {name: list(one.steps) for name, one in found.outcomes.items()}
    hosts = {
        planned.node: name
        for name, planned in found.record.hosts.items()
        if name not in found.outcomes and found.has_begun(planned)
    }
    for node, there in read_versions(client, keys, hosts).items():
        status = there.status or {}
        if status.get("deployment") == found.record.id:
            steps[hosts[node]] = list(steps_of(status))
    return steps


def steps_of(status: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    """The steps {state, at} that a host's status tells: all of them in agent mode, else the one that it is at."""
    return tuple({"state": str(one.get("state")), "at": str(one.get("at"))} for one in status.get("steps") or [status])


def read_standing(client: Client, keys: Keys) -> tuple[Held | None, Control]:
    """Who has the lock, or had it when they were interrupted, and what operators want, of one moment."""
    values = {item["Key"]: item for item in client.txn([kv_read(keys.lock), *control_reads(keys)])}
    return _lock_of(values.get(keys.lock)), Control.of(keys, "", values)


def list_ids(client: Client, keys: Keys) -> list[str]:
    """The ids that deployments of a service have keys below, the newest first.

    Not each has a record: a run may have ended while it wrote its plan.
    """
    prefix = keys.deployments
    names = {name.removeprefix(prefix).rstrip("/") for name in client.key_names(prefix, "/")}
    return sorted(names - {""}, reverse=True)


def list_recent(client: Client, keys: Keys, limit: int) -> list[Listed]:
    """The newest deployments of a service, in two requests for up to 63."""
    ids = list_ids(client, keys)
    found: list[Listed] = []
    while ids and len(found) < limit:
        missing = limit - len(found)
        part, ids = ids[:missing], ids[missing:]
        found += read_records(client, keys, part)
    return found


def read_records(client: Client, keys: Keys, ids: Sequence[str]) -> list[Listed]:
    """Those of these deployments that exist, in their order: their records alone, which are small."""
    found: list[Listed] = []
    step = TXN_LIMIT - 1
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        items = client.txn([kv_read(keys.lock), *(kv_read(keys.record(one)) for one in part)])
        values = {item["Key"]: item for item in items}
        lock = _lock_of(values.get(keys.lock))
        for one in part:
            item = values.get(keys.record(one))
            if item is not None:
                found.append(Listed(Brief.from_json(kv_text(item), one, keys.service), lock))
    return found


def find_interrupted(client: Client, keys: Keys) -> list[Deployment]:
    """The deployments that claim to run and that no living run holds the lock for, with their hosts.

    However many there are: rollout_keep_deployments may keep more than are listed by default.
    """
    kept = read_records(client, keys, list_ids(client, keys))
    ids = [one.record.id for one in kept if one.record.is_unsettled and not one.is_alive]
    return [found for one in ids if (found := read(client, keys, one)) is not None]


def _record_of(keys: Keys, deployment: str, values: Mapping[str, Mapping[str, Any]]) -> Record | None:
    """The record with its plan, of keys that were read together; None where there is none."""
    item = values.get(keys.record(deployment))
    if item is None:
        return None
    prefix = keys.plan(deployment)
    plan = [kv_text(values[key]) for key in sorted(values) if key.startswith(prefix)]
    return Record.from_values(kv_text(item), plan, deployment, keys.service)


def _lock_of(item: Mapping[str, Any] | None) -> Held | None:
    if item is None:
        return None
    session = item.get("Session") or ""
    return Held(Holder.parse(kv_text(dict(item))), session, bool(session))


def read_outcomes(client: Client, keys: Keys, deployment: str, nodes: Sequence[str]) -> dict[str, Outcome]:
    """Node -> outcome in a deployment, for those of them that have one."""
    found: dict[str, Outcome] = {}
    for start in range(0, len(nodes), TXN_LIMIT):
        wanted = {keys.outcome(deployment, node): node for node in nodes[start : start + TXN_LIMIT]}
        for item in client.txn([kv_read(key) for key in wanted]):
            node = wanted.get(item["Key"])  # a prefix finds web10 for web1
            if node:
                found[node] = Outcome.from_json(kv_text(item), node)
    return found


def last_batch(begun: int, outcomes: Mapping[str, Outcome]) -> int:
    """The last batch that was begun: the first write to a host of it may be its outcome."""
    return max([begun, *(one.batch or 0 for one in outcomes.values() if one.outcome != PENDING)])
