# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a deployment ended, by what Consul holds of it (a private helper of this collection).

Only the record counts: whoever ends a deployment, be it its own run or a later one, sees the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import in_transactions, kv_check_session, kv_set
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import STOP, UNDONE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome, budget_spent, summary_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.probed import Probed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    FAILED,
    INTERRUPTED,
    PAUSED,
    RUNNING,
    settle,
    verdict,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import LOST
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import (
    Deployment,
    find_interrupted,
    last_batch,
    require,
    steps_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import parse_timestamp, timestamp
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import NodeVersion, read_versions
from ansible_collections.hitless.consul.plugins.module_utils._views import report
from ansible_collections.hitless.consul.plugins.module_utils._views.paused import goes_on


def conclude(
    client: Client, keys: Keys, deployment: str, *, state: str | None = None, probed: Mapping[str, Any] | None = None
) -> Deployment:
    """How a deployment ended: each host with an outcome, the verdict, a sentence. Writes nothing.

    Only what Consul holds counts, so that its own run, its keeper's successor and a recovery come to the same. A host
    without an outcome is lost where its turn had begun, else pending. What has ended already stays as it is.

    :param state: instead of the verdict (cancelled, interrupted).
    :param probed: what the probe of its run has counted.
    """
    found = require(client, keys, deployment)
    if found.record.state != RUNNING:
        return found
    account = found.record.probed.and_then(Probed.of(probed))
    return _concluded(client, keys, replace(found, record=replace(found.record, probed=account)), state)


def unread(keys: Keys, deployment: str, error: HitlessError) -> dict[str, Any]:
    """What can be told of a deployment whose end cannot be read: the result of one that can, with empty tables.

    Whoever watches gets a verdict in any case; the record is settled by the run's keeper, or by the next run.
    """
    sentence = (
        f"How {deployment} ended could not be read, and was not recorded: {error} What was done to each host stands "
        f"above, and in {keys.outcomes(deployment)} once Consul answers. Then run hitless.consul.recover."
    )
    return {
        "id": deployment,
        "version": None,
        "result": FAILED,
        "verdict": sentence,
        "table": "",
        "hosts": {},
        "errors": {},
        "failed_hosts": [],
        "stopped_by": "",
        "unrecorded": "",
        "rollback": "",
    }


def settled(
    client: Client, keys: Keys, found: Deployment, versions: Mapping[str, NodeVersion] | None = None
) -> Deployment:
    """A deployment as it will stand once somebody has settled it, so that what readers see does not change then.

    Writes nothing. One that runs, or that is settled already, is returned as it is.

    :param versions: what is recorded of nodes, where the caller has read it.
    """
    if found.is_alive or not found.record.is_unsettled:
        return found
    return _concluded(client, keys, found, INTERRUPTED, versions)


def write_end(client: Client, keys: Keys, ended: Deployment, session: str) -> None:
    """Write how a deployment ended: the outcomes of lost hosts, and its record last.

    :param ended: of :func:`conclude` or :func:`settled`.
    :raises LockLost: the session does not hold the service's lock.
    """
    lost = [kv_set(keys.outcome(ended.record.id, one.node), one.to_json()) for one in ended.unwritten or ()]
    record = kv_set(keys.record(ended.record.id), ended.record.to_json())
    for part in in_transactions(kv_check_session(keys.lock, session), [*lost, record]):
        client.txn(part)


def mark_interrupted(client: Client, keys: Keys, session: str) -> list[Deployment]:
    """Write ``interrupted`` on each record that claims to run while we hold the lock; returns those.

    A deployment that the lock itself names is ours and stays.
    """
    ended = [settled(client, keys, found) for found in find_interrupted(client, keys)]
    for one in ended:
        write_end(client, keys, one, session)
    return ended


def _state(found: Deployment, outcomes: Mapping[str, Outcome]) -> str:
    """How a deployment whose run ends stands: paused where it is to go on later, and nothing worse has stopped it.

    So it is also where only its last bake is still to come to an end.
    """
    noted = found.control.noted
    within = budget_spent(outcomes.values()) <= found.record.failure_budget
    if found.stop and noted.is_waiting and within:
        return PAUSED
    # Also where every host was changed before somebody said so.
    return FAILED if noted.kind in (STOP, *UNDONE) else verdict(one.outcome for one in outcomes.values())


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
    outcomes = settle(
        record,
        found.outcomes,
        begun=found.batch,
        touched={*touched, *found.in_flight},
        why="the run was interrupted during its turn"
        if interrupted
        else "lost after its turn had begun, it wrote no outcome",
    )
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
        replace(record, **changes)
        if record.state == INTERRUPTED
        else record.become(state or _state(found, outcomes), **changes)
    )
    ended = replace(ended, description=report.verdict_sentence(ended, outcomes, found.stop))
    if ended.state == PAUSED:
        ended = replace(ended, description=f"{ended.description} {goes_on(ended, found.control.noted.kind)}")
    lost = [one for name, one in outcomes.items() if name not in found.outcomes and one.outcome == LOST]
    return replace(
        found, record=ended, outcomes=outcomes, batch=last_batch(found.batch, outcomes), unwritten=tuple(lost)
    )
