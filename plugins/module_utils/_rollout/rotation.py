# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Out of rotation and back: the steps of one host around its deployment (a private helper of this collection).

Each step that changes something is fenced: the host's status is written in one transaction with a check that the
deployment's lock is still held, so that a run which was stopped for longer than its lock lived does nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Answer, Client, kv_check_session
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    Wanted,
    freshness,
    parse_instances,
    service_query,
    wait_for_health,
    with_tags,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import drain
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import batch_op, status_op
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import (
    CLEARED,
    DEPLOYING,
    DRAINING,
    RETURNING,
)

_LOOK_AGAIN_AFTER = 1.0
"""Seconds after which the catalog is looked at again, while the application does not answer yet."""
_SAID = 1000
"""Characters of a health URL's answer that are shown."""


@dataclass(frozen=True)
class Turn:
    """A host's turn in a deployment.

    :param cluster: asks the cluster; ``agent`` asks the host's own agent.
    :param session: of the deployment's lock; empty for a turn without one.
    :param scope: what goes into maintenance: ``["service"]``, ``["node"]``, or services by name.
    :param tags: only the deployment's instances with these tags.
    """

    cluster: Client
    agent: Client
    keys: Keys
    deployment: str
    node: str
    session: str = ""
    scope: Sequence[str] = ("service",)
    tags: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        return str(maintenance.DeploymentReason(self.deployment, self.keys.service))

    @property
    def node_wide(self) -> bool:
        return list(self.scope) == ["node"]

    @property
    def targets(self) -> list[maintenance.Target]:
        if self.node_wide:
            return [maintenance.Target(self.node)]
        services = [self.keys.service] if list(self.scope) == ["service"] else list(self.scope)
        return [
            maintenance.Target(self.node, service, tags=self.tags if service == self.keys.service else ())
            for service in services
        ]

    @property
    def main_target(self) -> maintenance.Target:
        """The target that holds the deployment's own instances."""
        for target in self.targets:
            if target.node_wide or target.service == self.keys.service:
                return target
        raise HitlessError(
            f"{self.keys.service} is not among the services that go into maintenance ({', '.join(self.scope)}).",
            hint="Add it to rollout_maintenance.",
        )

    def fence(self) -> list[dict[str, Any]]:
        return [kv_check_session(self.keys.lock, self.session)] if self.session else []

    def begin(self, state: str, message: str = "", *, also: Sequence[dict[str, Any]] = ()) -> None:
        """Write the host's status, and ``also`` these operations, if the lock is still ours.

        :raises LockLost: it is not.
        """
        if self.session:
            status = status_op(self.keys, self.node, self.deployment, state, message)
            self.cluster.txn([*self.fence(), status, *also])


@dataclass(frozen=True)
class Drain:
    """How long a host drains.

    :param time: seconds after the catalog shows the maintenance; with ``observe`` for what cannot be observed.
    :param observe: addresses of load balancers' statistics, which say when it is over: after ``least`` seconds at the
        earliest, after ``most`` at the latest.
    """

    time: float = 0.0
    observe: Sequence[str] = ()
    least: float = 1.0
    most: float = 60.0

    def find(self, turn: Turn) -> list[drain.Watched]:
        """The host's instances on the load balancers: to be looked for while they serve."""
        if not self.observe:
            return []
        cluster, found = turn.cluster, []
        services = {target.service: target.tags for target in turn.targets} if not turn.node_wide else {}
        for service, tags in (services or {turn.keys.service: turn.tags}).items():
            path, params = service_query(str(service), turn.node, cluster.connection.datacenter)
            found += with_tags(parse_instances(cluster.get(path, params).data), tags)
        return drain.find(self.observe, [f"{one.address}:{one.port}" for one in found])

    def wait(self, watched: Sequence[drain.Watched], since: float) -> list[str]:
        """Wait until it is over -> what a person should know of it.

        :param since: when it began, on the monotonic clock.
        """
        if watched:
            return drain.wait(watched, since, self.least, self.most, self.time).notes
        time.sleep(max(0.0, since + self.time - time.monotonic()))
        return []


@dataclass(frozen=True)
class TakenOut:
    """How a host left the rotation.

    :param shown_after: seconds until the catalog showed it; ``shown_at`` is when, on the monotonic clock.
    :param drained: this very deployment had taken it out before, and nothing is left to drain.
    :param watched: the host's instances on the load balancers.
    """

    changed: bool
    instances: list[str]
    shown_after: float
    shown_at: float
    drained: bool
    watched: Sequence[drain.Watched] = ()


def take_out(
    turn: Turn, how: Drain, *, batch: int | None = None, rollback: bool = False, check_mode: bool = False
) -> TakenOut:
    """Maintenance on, seen in the catalog.

    A maintenance that an earlier, dead deployment of the service has set is taken over as it is: Consul keeps the first
    reason, and taking it off for a moment would send traffic to whatever that deployment left there.

    The host's status says draining only while nothing can have been deployed there, so that a later run may trust it.

    :param batch: the number of its batch, which is begun with this.
    :param rollback: a deployment has begun there already.
    :raises HitlessError: somebody else's maintenance is there (``details["foreign"]``).
    """
    started = time.monotonic()
    targets = turn.targets
    found = [target.read(turn.cluster) for target in targets]
    watched = how.find(turn)
    if not check_mode:
        out_already = any(target.is_out(answer.data) for target, answer in zip(targets, found, strict=True))
        begun = [batch_op(turn.keys, turn.deployment, batch)] if batch else []
        turn.begin(DEPLOYING if rollback or out_already else DRAINING, also=begun)
    ours = maintenance.set_by_deployment_of(turn.keys.service)
    changes = [
        maintenance.enable(turn.cluster, turn.agent, target, turn.reason, ours, check_mode=check_mode, first=answer)
        for target, answer in zip(targets, found, strict=True)
    ]
    shown_at = max(change.shown_at for change in changes)
    before = {reason for change in changes for reason in change.before.values()}
    return TakenOut(
        changed=any(change.changed for change in changes),
        instances=[name for change in changes for name in change.after],
        shown_after=shown_at - started,
        shown_at=shown_at,
        # What an earlier deployment had taken out is drained again: nobody knows what it did since.
        drained=before == {turn.reason},
        watched=watched,
    )


def drained(turn: Turn, how: Drain, watched: Sequence[drain.Watched], since: float) -> list[str]:
    """Return when the host is drained, and its deployment may begin -> what a person should know of the drain.

    :raises LockLost: the drain was long enough to lose the lock in; nothing is deployed without it.
    """
    notes = how.wait(watched, since)
    turn.begin(DEPLOYING)
    return notes


@dataclass(frozen=True)
class Proof:
    """What proves that a host may get traffic.

    :param health_url: asked from the host until it answers well (and matches ``health_match``): the *new* process.
    :param deadline: seconds the host has to become healthy.
    :param stable_for: seconds it must stay so.
    :param check_interval: seconds within which a check runs anew, where Consul does not tell.
    """

    health_url: str = ""
    health_match: str = ""
    deadline: float = 300.0
    stable_for: float = 10.0
    check_interval: float = 30.0
    accept_warning: bool = False


@dataclass(frozen=True)
class Proven:
    """How it was proven.

    :param answer: the start of what the health URL said, empty without one.
    :param seen: the catalog's last answer, see :func:`put_back`.
    """

    seconds: float
    answer: str = ""
    seen: Answer | None = None


def prove(turn: Turn, host: Host, proof: Proof) -> Proven:
    """The new process answers, its own checks pass and stay so, while the host gets no traffic.

    The deployment may have dropped the maintenance (an application that registers itself): it is put back, whenever
    that happens. Without a health URL a passing check proves the new process only once it must have run anew.

    :raises HitlessError: names the failing checks, or the URL's last answer.
    """
    started = time.monotonic()
    main = turn.main_target
    path, params = service_query(turn.keys.service, turn.node, turn.cluster.connection.datacenter)

    def keep_out(data: Any) -> bool:
        """Whether it had to be put back."""
        dropped = [one for one in with_tags(parse_instances(data), turn.tags) if one.maintenance is None]
        for one in dropped:
            maintenance.send(turn.agent, main, "" if main.node_wide else one.service_id, turn.reason)
        return bool(dropped)

    answer: Answer | None = turn.cluster.get(path, params)
    data = answer.data if answer else None
    was_dropped = keep_out(data)
    stable_for, said = proof.stable_for, ""
    if proof.health_url:
        said = ask_application(host, proof, lambda: keep_out(turn.cluster.get(path, params).data))
        # What was read before that answer proves something only by staying so from now on.
        if was_dropped or not stable_for:
            answer = None
    else:
        stable_for = max(stable_for, freshness(with_tags(parse_instances(data), turn.tags), proof.check_interval))
    wanted = Wanted(
        service=turn.keys.service,
        state="checks_passing",
        node=turn.node,
        tags=turn.tags,
        stable_for=stable_for,
        accept_warning=proof.accept_warning,
        in_maintenance=True,
    )
    left = max(0.0, proof.deadline - (time.monotonic() - started))
    reached = wait_for_health(turn.cluster, wanted, left, first=answer, also=keep_out)
    return Proven(time.monotonic() - started, said, reached.answer)


def ask_application(host: Host, proof: Proof, meanwhile: Callable[[], object]) -> str:
    """The start of what the health URL answered, asked from the host until it answers well.

    Many tries are one call on the host; ``meanwhile`` is called between two such calls, since an application may
    register itself, and so drop its maintenance, long before it answers.

    :raises HitlessError: with its last answer.
    """
    until = time.monotonic() + proof.deadline
    while True:
        left = max(0.0, until - time.monotonic())
        answer = host.call(
            "probe",
            {
                "url": proof.health_url,
                "match": proof.health_match or None,
                "deadline": min(left, _LOOK_AGAIN_AFTER),
                "interval": 0.25,
                "timeout": 5.0,
                "stable_for": 0.0,
            },
        )
        if answer["ok"] or left <= _LOOK_AGAIN_AFTER:
            break
        meanwhile()
    if not answer["ok"]:
        raise HitlessError(
            f"The new process did not answer at {proof.health_url} within {proof.deadline:g} s: {answer['error']}.",
            details={"health_url": proof.health_url, "last_answer": answer["body"][:_SAID]},
        )
    return str(answer["body"][:_SAID])


def put_back(turn: Turn, proof: Proof, *, deployed: bool = True, seen: Answer | None = None) -> bool:
    """Maintenance off, seen in the catalog, and passing in rotation -> whether anything changed.

    :param deployed: whether a deployment may have changed the host; else its status says that nothing has.
    :param seen: what :func:`prove` saw just now of the service on the node, so that it need not be read again.
    """
    turn.begin(RETURNING if deployed else CLEARED)
    ours = maintenance.set_by_deployment_of(turn.keys.service)
    changes = [
        maintenance.disable(
            turn.cluster, turn.agent, target, ours, first=seen if target.service == turn.keys.service else None
        )
        for target in turn.targets
    ]
    wanted = Wanted(service=turn.keys.service, node=turn.node, tags=turn.tags, accept_warning=proof.accept_warning)
    # What showed the end of the maintenance usually shows the health as well.
    shown = [change.shown for change in changes if change.target.service == turn.keys.service]
    if not (shown and wanted.holds(wanted.select(shown[0]))):
        wait_for_health(turn.cluster, wanted, proof.deadline)
    return any(change.changed for change in changes)
