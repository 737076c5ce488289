# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments as Consul keeps them: read, started, ended, pruned (a private helper of this collection).

Each write is one transaction behind a ``check-session`` on the service's lock, so that a run that lost its lock changes
nothing any more. Only the record counts: whoever ends a deployment, be it its own run or a later one, sees the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    TXN_LIMIT,
    json_object,
    kv_check_session,
    kv_delete,
    kv_read,
    kv_set,
    kv_text,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.lock import Held, Holder
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    FAILED,
    INTERRUPTED,
    RUNNING,
    Outcome,
    PlannedHost,
    Record,
    outcomes_of,
    parse_timestamp,
    settle,
    summary_of,
    timestamp,
    verdict,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import GOOD, PENDING
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import NodeVersion, read_versions
from ansible_collections.hitless.consul.plugins.module_utils._views import report

KEEP = 20
"""Deployments of a service that are kept."""
MESSAGE_LIMIT = 500
"""Characters of the message in a host's status."""


@dataclass(frozen=True)
class Deployment:
    """A deployment with all that is known of its hosts, as of one moment.

    :param outcomes: host -> outcome, for the hosts that have one.
    :param batch: the last batch that was begun, 0 for none.
    :param stop: why no further batch was begun; empty where nothing has stopped it.
    """

    record: Record
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    batch: int = 0
    stop: str = ""
    lock: Held | None = None
    is_new: bool = False
    """Whether this is more than Consul holds, see :func:`conclude`."""

    @property
    def is_alive(self) -> bool:
        """Whether a living run holds the lock for it."""
        held = self.lock is not None and self.lock.alive and self.lock.holder.deployment == self.record.id
        return held and self.record.state == RUNNING

    @property
    def is_unsettled(self) -> bool:
        """Whether nobody has written yet what became of its hosts."""
        return self.record.state == RUNNING or (self.record.state == INTERRUPTED and not self.record.summary)

    @property
    def state(self) -> str:
        """The record's state, and interrupted where it says running without a living lock."""
        return INTERRUPTED if self.record.state == RUNNING and not self.is_alive else self.record.state

    def has_begun(self, planned: PlannedHost) -> bool:
        """Whether the batch of a host has begun; never where the plan leaves it alone."""
        return planned.batch is not None and planned.batch <= self.batch

    @property
    def failed_hosts(self) -> list[str]:
        """Hosts that are not ok, current or skipped, in the plan's order."""
        return [host for host, outcome in self.results.items() if outcome not in GOOD]

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
    keys: Keys, node: str, deployment: str, state: str, message: str = "", *, unsure: bool = False
) -> dict[str, Any]:
    """The transaction operation that says which step of a deployment a node is at.

    :param unsure: an earlier deployment left open which version runs there, and this one has not changed that yet.
    """
    status: dict[str, Any] = {"deployment": deployment, "state": state, "at": timestamp()}
    status["message"] = message[:MESSAGE_LIMIT]
    if unsure:
        status["unsure"] = True
    return kv_set(keys.status(node), json.dumps(status, separators=(",", ":")))


def outcome_ops(keys: Keys, deployment: str, outcome: Outcome, *, unsure: bool = False) -> list[dict[str, Any]]:
    """The transaction operations that end a host's turn: its outcome, and the same as its node's status.

    :param unsure: see :func:`status_op`.

    To be sent behind a ``check-session``, with the version where that changed:
    ``record_version(..., session=session, extra_ops=outcome_ops(...))``.
    """
    return [
        kv_set(keys.outcome(deployment, outcome.node), outcome.to_json()),
        status_op(keys, outcome.node, deployment, outcome.outcome, outcome.error, unsure=unsure),
    ]


def progress_op(keys: Keys, deployment: str, batch: int, stop: str = "") -> dict[str, Any]:
    """The transaction operation that says which batch was the last that was begun, and why no other follows.

    It tells a host that was lost in its turn from one that never got it, where the host left no trace of its own.

    :param batch: 1 for the first, 0 for none: its hosts are let go right after.
    """
    progress = {"batch": batch, "at": timestamp(), "stop": stop}
    return kv_set(keys.progress(deployment), json.dumps(progress, separators=(",", ":")))


# -- reading ------------------------------------------------------------------------------------------------------


def read(client: Client, keys: Keys, deployment: str) -> Deployment | None:
    """A deployment with outcomes and lock, as of one moment, in one request; None where there is none."""
    operations = [
        kv_read(keys.record(deployment)),
        kv_read(keys.progress(deployment)),
        kv_read(keys.outcomes(deployment)),
        kv_read(keys.lock),
    ]
    values = {item["Key"]: item for item in client.txn(operations)}
    record = values.get(keys.record(deployment))
    if record is None:
        return None
    prefix = keys.outcomes(deployment)
    written = {
        key.removeprefix(prefix): Outcome.from_json(kv_text(item), key.removeprefix(prefix))
        for key, item in values.items()
        if key.startswith(prefix)
    }
    parsed = Record.from_json(kv_text(record), deployment, keys.service)
    outcomes = outcomes_of(parsed, written)
    begun, stop = _progress_of(values.get(keys.progress(deployment)))
    return Deployment(
        parsed,
        outcomes=outcomes,
        batch=_last_batch(begun, outcomes),
        stop=stop,
        lock=_lock_of(values.get(keys.lock)),
    )


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


def list_ids(client: Client, keys: Keys) -> list[str]:
    """The ids of the deployments of a service, the newest first."""
    prefix = keys.deployments
    names = {name.removeprefix(prefix).rstrip("/") for name in client.key_names(prefix, "/")}
    return sorted(names - {""}, reverse=True)


def list_recent(client: Client, keys: Keys, limit: int = KEEP) -> list[Deployment]:
    """The newest deployments of a service, without their hosts' own outcomes, in two requests for up to 63."""
    return read_records(client, keys, list_ids(client, keys)[:limit])


def read_records(client: Client, keys: Keys, ids: Sequence[str]) -> list[Deployment]:
    """The records of these deployments that exist, in their order, each with the lock as it was then."""
    found: list[Deployment] = []
    step = TXN_LIMIT - 1
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        items = client.txn([kv_read(keys.lock), *(kv_read(keys.record(one)) for one in part)])
        values = {item["Key"]: item for item in items}
        lock = _lock_of(values.get(keys.lock))
        for one in part:
            item = values.get(keys.record(one))
            if item is not None:
                record = Record.from_json(kv_text(item), one, keys.service)
                found.append(Deployment(record, outcomes_of(record, {}), lock=lock))
    return found


# -- writing ------------------------------------------------------------------------------------------------------


def start(client: Client, keys: Keys, record: Record, session: str) -> None:
    """Write the record of a deployment that begins.

    :raises LockLost: the session does not hold the service's lock.
    """
    _write(client, keys, record, session)


def conclude(client: Client, keys: Keys, deployment: str, *, state: str | None = None) -> Deployment:
    """How a deployment ended: each host with an outcome, the verdict, a sentence. Writes nothing: see :func:`end`.

    Only what Consul holds counts, so that its own run, its keeper's successor and a recovery come to the same. A host
    without an outcome is lost where its turn had begun, else pending. What has ended already stays as it is.

    :param state: instead of the verdict (cancelled, interrupted).
    """
    found = require(client, keys, deployment)
    return found if found.record.state != RUNNING else _concluded(client, keys, found, state)


def unread(keys: Keys, deployment: str, error: HitlessError) -> dict[str, Any]:
    """What can be told of a deployment whose end cannot be read: the result of one that can, with an empty table.

    Whoever watches gets a verdict in any case; the record is settled by the run's keeper, or by the next run.
    """
    sentence = (
        f"How {deployment} ended could not be read, and was not recorded: {error} What was done to each host stands "
        f"above, and in {keys.outcomes(deployment)} once Consul answers. Then run hitless.consul.recover."
    )
    return {
        "id": deployment,
        "result": FAILED,
        "verdict": sentence,
        "table": "",
        "hosts": {},
        "errors": {},
        "failed_hosts": [],
        "unrecorded": "",
    }


def end(client: Client, keys: Keys, concluded: Deployment, session: str) -> None:
    """Write what :func:`conclude` found.

    :raises LockLost: the session does not hold the service's lock.
    """
    _write(client, keys, concluded.record, session)


def prune(client: Client, keys: Keys, session: str, keep: int = KEEP) -> list[str]:
    """Delete all but the newest deployments, with what machines have sent of them; returns the ids deleted.

    Never one that runs, nor the last one of a version that runs on one of its hosts, or that a rollback would go to.

    :raises LockLost: the session does not hold the service's lock.
    """
    ids = list_ids(client, keys)
    old = ids[keep:]
    if not old:
        return []
    found = {one.record.id: one for one in read_records(client, keys, old)}
    needed = _still_needed(client, keys, ids, list(found.values()))
    old = [one for one in old if one not in needed]
    # The record goes last: should this end halfway, the next one still knows which machines have logs.
    logs = [
        keys.agent_log(host.node, one)
        for one in old
        if one in found and found[one].record.by_agents
        for host in found[one].record.hosts.values()
        if host.batch is not None
    ]
    fence = kv_check_session(keys.lock, session)
    trees = [*logs, *(keys.deployment(one) for one in old)]
    for start_at in range(0, len(trees), TXN_LIMIT - 1):
        part = trees[start_at : start_at + TXN_LIMIT - 1]
        client.txn([fence, *(kv_delete(tree, recurse=True) for tree in part)])
    return old


def _still_needed(client: Client, keys: Keys, ids: Sequence[str], old: Sequence[Deployment]) -> set[str]:
    """Of old deployments those that must stay.

    :param ids: of all deployments, the newest first.
    """
    running = {one.record.id for one in old if one.lock and one.lock.holder.deployment == one.record.id}
    running |= {one.record.id for one in old if one.record.state == RUNNING}
    newest: dict[str, str] = {}
    for one in ids:
        newest.setdefault(_version_part(one), one)
    last = [one.record for one in old if newest[_version_part(one.record.id)] == one.record.id and one.record.version]
    there = read_versions(client, keys, {host.node for record in last for host in record.hosts.values()})

    def is_target(record: Record) -> bool:
        nodes = (there[host.node] for host in record.hosts.values())
        return any(record.version in (node.version, node.previous) for node in nodes)

    return running | {record.id for record in last if is_target(record)}


def _version_part(deployment: str) -> str:
    """What an id tells of its version, see ``keys.new_deployment_id``."""
    return deployment.partition("-")[2].rpartition("-")[0]


def find_interrupted(client: Client, keys: Keys) -> list[Deployment]:
    """The deployments that claim to run and that no living run holds the lock for, with their hosts.

    However many there are: rollout_keep_deployments may keep more than are listed by default.
    """
    kept = read_records(client, keys, list_ids(client, keys))
    ids = [one.record.id for one in kept if one.is_unsettled and not one.is_alive]
    return [found for one in ids if (found := read(client, keys, one)) is not None]


def settled(
    client: Client, keys: Keys, found: Deployment, versions: Mapping[str, NodeVersion] | None = None
) -> Deployment:
    """A deployment as it will stand once somebody has settled it, so that what readers see does not change then.

    Writes nothing. One that runs, or that is settled already, is returned as it is.

    :param versions: what is recorded of nodes, where the caller has read it.
    """
    if found.is_alive or not found.is_unsettled:
        return found
    return _concluded(client, keys, found, INTERRUPTED, versions)


def mark_interrupted(client: Client, keys: Keys, session: str) -> list[Deployment]:
    """Write ``interrupted`` on each record that claims to run while we hold the lock; returns those.

    A deployment that the lock itself names is ours and stays.
    """
    ended: list[Deployment] = []
    for found in find_interrupted(client, keys):
        concluded = settled(client, keys, found)
        cut_off = [one for name, one in concluded.outcomes.items() if name not in found.outcomes and one.steps]
        for start_at in range(0, len(cut_off), TXN_LIMIT - 1):
            part = cut_off[start_at : start_at + TXN_LIMIT - 1]
            written = (kv_set(keys.outcome(found.record.id, one.node), one.to_json()) for one in part)
            client.txn([kv_check_session(keys.lock, session), *written])
        _write(client, keys, concluded.record, session)
        ended.append(concluded)
    return ended


# -- inside -------------------------------------------------------------------------------------------------------


def _concluded(
    client: Client,
    keys: Keys,
    found: Deployment,
    state: str | None,
    versions: Mapping[str, NodeVersion] | None = None,
) -> Deployment:
    """A running deployment -> the same at its end."""
    record = found.record
    missing = [host.node for name, host in record.hosts.items() if name not in found.outcomes]
    known = {node: (versions or {})[node] for node in missing if node in (versions or {})}
    known.update(read_versions(client, keys, [node for node in missing if node not in known]))
    statuses = {node: one.status for node, one in known.items() if one.status}
    touched = {node: status for node, status in statuses.items() if status.get("deployment") == record.id}
    interrupted = state == INTERRUPTED
    noted = settle(
        record,
        found.outcomes,
        begun=found.batch,
        touched=touched,
        why="the run was interrupted during its turn"
        if interrupted
        else "lost after its turn had begun, it wrote no outcome",
    )
    written = {one.node: one for one in found.outcomes.values()}
    outcomes = outcomes_of(noted, written)
    for name, one in outcomes.items():
        if name not in found.outcomes and one.node in touched:
            # The next run overwrites the status, which is all that a host cut off in its turn has left.
            outcomes[name] = replace(
                one, started=steps_of(touched[one.node])[0].get("at"), steps=steps_of(touched[one.node])
            )
    results = [one.outcome for one in outcomes.values()]
    finished = timestamp()
    if interrupted:
        # As its keeper has seen it. Where that was gone as well, the last trace tells how long it went on.
        ends = [one.finished for one in outcomes.values()] + [status.get("at") for status in touched.values()]
        seen = [at for at in ends if parse_timestamp(at)]
        finished = record.finished or max((str(at) for at in seen), default=record.started) or finished
    changes: dict[str, Any] = {"finished": finished, "summary": summary_of(results)}
    # The keeper has written interrupted already, and left the hosts to those who can read what became of them.
    ended = (
        replace(noted, **changes) if record.state == INTERRUPTED else noted.become(state or verdict(results), **changes)
    )
    ended = replace(ended, description=report.verdict_sentence(ended, outcomes, found.stop))
    return replace(found, record=ended, outcomes=outcomes, batch=_last_batch(found.batch, outcomes), is_new=True)


def _write(client: Client, keys: Keys, record: Record, session: str) -> None:
    client.txn([kv_check_session(keys.lock, session), kv_set(keys.record(record.id), record.to_json())])


def _lock_of(item: Mapping[str, Any] | None) -> Held | None:
    if item is None:
        return None
    session = item.get("Session") or ""
    return Held(Holder.parse(kv_text(dict(item))), session, bool(session))


def _last_batch(begun: int, outcomes: Mapping[str, Outcome]) -> int:
    """The last batch that was begun: the first write to a host of it may be its outcome."""
    return max([begun, *(one.batch or 0 for one in outcomes.values() if one.outcome != PENDING)])


def _progress_of(item: Mapping[str, Any] | None) -> tuple[int, str]:
    """The last batch that was begun, and why no other follows."""
    data = json_object(kv_text(dict(item))) if item is not None else None
    batch = (data or {}).get("batch")
    return (batch if isinstance(batch, int) else 0), str((data or {}).get("stop") or "")
