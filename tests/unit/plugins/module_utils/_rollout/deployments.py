"""Deployments of a service as they are kept, made by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import PENDING
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import NodeVersion

Ended = tuple[str, "str | None", "str | None"]
"""Outcome, from and to version."""


def node_of(host: str) -> str:
    return f"node-{host}"


def deployment(identity: str, version: str | None, hosts: dict[str, Ended], **about: Any) -> Deployment:
    """One that has ended; its hosts ended one after the other, in their order.

    :param hosts: host -> how it ended.
    """
    planned = {
        name: PlannedHost(name, node_of(name), batch=1, from_version=before, to_version=after)
        for name, (_outcome, before, after) in hosts.items()
    }
    outcomes = {
        name: Outcome(name, node_of(name), outcome, before, after, 1, finished=f"2026-11-28T14:{number:02}:00Z")
        for number, (name, (outcome, before, after)) in enumerate(hosts.items())
        if outcome != PENDING
    }
    summary = dict(Counter(outcome for outcome, _before, _after in hosts.values()))
    about = {"state": "successful", "summary": summary, **about}
    return Deployment(Record(identity, "web", version, hosts=planned, **about), outcomes=outcomes)


def history(*deployments: Deployment) -> History:
    """As it is kept, the newest first, however they are given."""
    by_id = {one.record.id: one for one in deployments}
    return History([by_id[one] for one in sorted(by_id, reverse=True)], by_id.get)


def recorded(deployment: str, versions: dict[str, str | None], state: str = "ok") -> dict[str, NodeVersion]:
    """Node -> what is recorded there, with a status of that deployment."""
    status = {"deployment": deployment, "state": state}
    return {node_of(host): NodeVersion(node_of(host), version=one, status=status) for host, one in versions.items()}


def all_of(hosts: Iterable[str], ended: Ended) -> dict[str, Ended]:
    return dict.fromkeys(hosts, ended)
