# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What undoing a deployment means for each host (a private helper of this collection).

Pure: a function of what deployments have recorded, and of what is recorded of the nodes now.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History, is_changed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import SUCCESSFUL, Brief
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import LOST, OK, SPENDING, UNTOUCHED
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment, Listed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import NodeVersion

_BROKE = tuple(outcome for outcome in SPENDING if outcome not in (UNTOUCHED, LOST))
"""Outcomes that say that the version did not work on a host, and not that the host or its drain did not."""


@dataclass(frozen=True)
class Back:
    """A host that goes back.

    :param given: the version that the deployment gave it; ``target`` the one that it goes back to.
    :param in_rotation: whether it ended well there, and so may be serving; else it is out of rotation.
    :param note: why it does not go to the version that it had before; empty where it does.
    """

    host: str
    node: str
    given: str | None
    target: str
    in_rotation: bool
    note: str = ""


@dataclass(frozen=True)
class Undo:
    """What undoing a deployment comes to.

    :param deployment: its id.
    :param back: the hosts that go back, in the order in which they should: those that are out of rotation first, then
        the newest changed.
    :param stays: node -> why it is left alone though the deployment had changed it: something else did so since.
    :param stuck: node -> why there is no version that it could go back to.
    :param hosts: node -> host, of all that the deployment had changed.
    """

    deployment: str
    back: Sequence[Back] = ()
    stays: Mapping[str, str] = field(default_factory=dict)
    stuck: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)


def undo(
    history: History,
    deployment: Deployment,
    versions: Mapping[str, NodeVersion],
    *,
    out: Container[str] = (),
    previous_version: str | None = None,
) -> Undo:
    """What undoing it means for each host that it changed, and that those changed which it resumed.

    :param deployment: with its outcomes as they are now; it may be running still, and hosts whose turns have not ended
        are left out.
    :param versions: node -> what is recorded there now; nodes that are missing are left out.
    :param out: nodes that are in maintenance set by a deployment of the service.
    :param previous_version: where a host goes back to, for which no deployment has recorded what it ran before.
    """
    chain = _chain(history, deployment)
    ids = {one.record.id for one in chain}
    ids |= {one.record.id for one in history.listed if one.record.undoes in ids}
    changes = _changes(chain)
    # Where it is taken away anywhere, it is no target either: a host may have been on its version before.
    is_new = any(each[0].to_version != each[-1].from_version for each in changes.values())
    undone = deployment.record if is_new else None
    back: list[tuple[Outcome, Back]] = []
    stays: dict[str, str] = {}
    stuck: dict[str, str] = {}
    for node, each in changes.items():
        if node not in versions:
            continue
        newest, before = each[0], each[-1].from_version
        in_rotation = newest.outcome == OK and node not in out
        target, failed = previous_version, ""
        if before:
            target, failed = _target(history, undone, chain[-1].record.id, node, before)
        since = _changed_since(versions[node], newest, (before, target), ids)
        if since is None and node not in out:
            continue
        if since:
            stays[node] = since
        elif target is None:
            had = f"{before}, which it had before, failed in {failed}, and none that it had before that is recorded"
            stuck[node] = had if failed else "which version it had before is not recorded"
        else:
            note = f"{before}, which it had before, failed in {failed}" if failed else ""
            back.append((newest, Back(newest.host, node, newest.to_version, target, in_rotation, note)))
    back.sort(key=lambda pair: pair[0].finished or "", reverse=True)
    back.sort(key=lambda pair: pair[1].in_rotation)
    hosts = {node: each[0].host for node, each in changes.items()}
    return Undo(deployment.record.id, [one for _outcome, one in back], stays, stuck, hosts)


def failed_in(history: History, version: str, node: str) -> str:
    """The id of the deployment that says that a version does not work; empty where none does.

    The newest one that tells anything counts: a rollback by hand that took it away; one of that version that was
    successful, or spent more than its failure budget; or what became of this very node.
    """
    for one in history.listed:
        record = one.record
        if record.direction == "rollback":
            if version in history.taken_away_by(record.id):
                return record.id
        elif record.version == version:
            spent = sum(record.summary.get(outcome, 0) for outcome in SPENDING)
            broke = any(record.summary.get(outcome) for outcome in _BROKE)
            if broke and spent > record.failure_budget:
                return record.id
            ended = _outcome_on(history.with_hosts(record.id), node) if broke else None
            if ended and ended.outcome in _BROKE:
                return record.id
            if ended and ended.outcome == OK:
                return ""
            if record.state == SUCCESSFUL and OK in record.summary:
                return ""
    return ""


def _chain(history: History, deployment: Deployment) -> list[Deployment]:
    """It, and those that it resumed, newest first."""
    chain = [deployment]
    # Ids sort by time: what stands there and is not older would never end.
    while "" < chain[-1].record.resumes < chain[-1].record.id:
        resumed = history.with_hosts(chain[-1].record.resumes)
        if resumed is None:
            break
        chain.append(resumed)
    return chain


def _changes(chain: Sequence[Deployment]) -> dict[str, list[Outcome]]:
    """Node -> its outcomes in the deployments that changed it, the newest first; the last nodes of each come first."""
    found: dict[str, list[Outcome]] = {}
    for one in chain:
        for planned in reversed(list(one.record.hosts.values())):
            ended = one.outcomes.get(planned.host)
            if ended is not None and is_changed(ended.outcome):
                found.setdefault(planned.node, []).append(ended)
    return found


def _changed_since(now: NodeVersion, newest: Outcome, before: tuple[str | None, ...], ours: set[str]) -> str | None:
    """Why a host no longer runs what it was given: empty where it does, None where it runs what it had before.

    :param newest: what the deployment came to there.
    :param ours: the ids of the deployment, of those that it resumed, and of the rollbacks that undo them.
    """
    by = str((now.status or {}).get("deployment") or "")
    by = "" if by in ours else by
    if not now.version_is_trusted:
        return f"{by} has begun to change it since" if by else ""
    if now.version in before or (now.version is None and newest.outcome != OK):
        return None
    if now.version == newest.to_version:
        return ""
    runs = now.version or "no version"
    return f"{by} has changed it again since, to {runs}" if by else f"{runs} was recorded there since"


def _target(history: History, undone: Brief | None, oldest: str, node: str, before: str) -> tuple[str | None, str]:
    """The version to go back to, None where there is none; and which deployment says that ``before`` is not one.

    Where that failed, it is the one that the host had before that, and so on.

    :param undone: the deployment whose version is not one either.
    :param oldest: the id of the first deployment that is undone.
    """
    version: str | None = before
    failed = ""
    rest: Sequence[Listed] = history.older_than(oldest)
    while version is not None:
        why = undone.id if undone and version == undone.version else failed_in(history, version, node)
        if not why:
            break
        failed = failed or why
        version, rest = _had_before(history, rest, node, version)
    return version, failed


def _had_before(
    history: History, older: Sequence[Listed], node: str, version: str
) -> tuple[str | None, Sequence[Listed]]:
    """What the newest of these deployments that gave a node that version replaced there, and the ones before it."""
    for number, one in enumerate(older, 1):
        may_have = one.record.version in (version, None) and not one.record.kind.keeps_version
        ended = _outcome_on(history.with_hosts(one.record.id), node) if may_have else None
        if ended and is_changed(ended.outcome) and ended.to_version == version:
            return ended.from_version, older[number:]
    return None, ()


def _outcome_on(deployment: Deployment | None, node: str) -> Outcome | None:
    planned = deployment.planned_on(node) if deployment else None
    return deployment.outcomes.get(planned.host) if deployment and planned else None
