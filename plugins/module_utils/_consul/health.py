# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of a service and their health, as the catalog shows them (a private helper of this collection).

One read serves all: ``/v1/health/service/<service>`` holds the instance, its checks, its node's checks and the
maintenance of both, and is filtered by node on the server. An instance is a node and a service ID, since every VM may
use the same ID.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer, Watching
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import AskAgain, Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.durations import seconds_of
from ansible_collections.hitless.consul.plugins.module_utils._errors import DeadlineExceeded, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_name

SERVICE_MAINTENANCE = "_service_maintenance:"
NODE_MAINTENANCE = "_node_maintenance"
SERF_HEALTH = "serfHealth"
STATUSES = ("passing", "warning", "critical", "maintenance")
"""From best to worst: Consul's own order when it aggregates checks (api/health.go, AggregatedStatus)."""
SERVED = ("passing", "warning")
"""What Consul's DNS serves, and so a load balancer that follows it: all but critical (dns.only_passing is off)."""
_REPORTED = ("ttl", "alias")
"""Types of checks that the agent does not run: it waits for a report, or repeats what others say."""
_DEFAULT_TIMEOUT = 10.0
"""Seconds a check may take where its definition says nothing (Consul's default)."""


@dataclass(frozen=True)
class Check:
    """One check; ``interval``, ``timeout`` and ``deregister_after`` in seconds, 0 where Consul does not tell them.

    :param type: ``http``, ``tcp``, ``ttl``, ...; empty where whoever registered it has not told.
    """

    id: str
    name: str
    status: str
    notes: str
    output: str
    service_id: str
    type: str = ""
    interval: float = 0.0
    timeout: float = 0.0
    deregister_after: float = 0.0

    @property
    def is_maintenance(self) -> bool:
        return is_maintenance(self.id)

    @property
    def tells_of_process(self) -> bool:
        """Whether its result tells anything of the application; the other two tell of the agent and of an operator."""
        return not self.is_maintenance and self.id != SERF_HEALTH

    @property
    def runs_anew(self) -> bool:
        """Whether it finds out by itself what runs there now; a TTL may have been reported by the old process."""
        return self.tells_of_process and self.type not in _REPORTED

    def delay(self, check_interval: float) -> float:
        """Seconds within which it has a new result; ``check_interval`` where Consul does not tell, as before 1.20."""
        return self.interval + (self.timeout or _DEFAULT_TIMEOUT) if self.interval else check_interval

    def told(self) -> str:
        """The check as an error shows it: name, status and the last of its output."""
        output = re.sub(r"\s+", " ", self.output).strip()[:300]
        return f"{self.name or self.id} is {self.status}" + (f" ({output})" if output else "")


@dataclass(frozen=True)
class Instance:
    """One instance of a service on one node, with the checks of both."""

    node: str
    address: str
    datacenter: str
    service_id: str
    service: str
    port: int
    tags: tuple[str, ...]
    meta: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def maintenance(self) -> Check | None:
        """The maintenance this instance is in: its own, else its node's."""
        found = [check for check in self.checks if check.is_maintenance]
        return min(found, key=lambda check: check.id == NODE_MAINTENANCE) if found else None

    def reason(self, *, node_wide: bool) -> str | None:
        """The reason of the maintenance of that kind, None where there is none."""
        wanted = NODE_MAINTENANCE if node_wide else SERVICE_MAINTENANCE + self.service_id
        return next((check.notes for check in self.checks if check.id == wanted), None)

    def failing(self, *, accept_warning: bool, but_maintenance: bool = False) -> list[Check]:
        """The checks that keep it out of rotation."""
        good = ("passing", "warning") if accept_warning else ("passing",)
        return [
            check
            for check in self.checks
            if check.status not in good and not (but_maintenance and check.is_maintenance)
        ]

    @property
    def in_rotation(self) -> bool:
        """Whether it may get traffic: a load balancer that follows Consul's DNS also serves what warns."""
        return all(check.status in SERVED for check in self.checks)

    @property
    def status(self) -> str:
        """passing, warning, critical or maintenance, see :func:`aggregate`."""
        return aggregate((check.id, check.status) for check in self.checks)

    @property
    def is_verifiable(self) -> bool:
        """Whether some check, its own or its node's, finds out what runs there now."""
        return any(check.runs_anew for check in self.checks)

    def freshness(self, check_interval: float) -> float:
        """Seconds after which each check that covers it, its node's too, has a new result; 0 without any."""
        return max((check.delay(check_interval) for check in self.checks if check.tells_of_process), default=0.0)


def is_maintenance(check_id: str) -> bool:
    """Maintenance is a critical check with a name of its own (agent/structs, ServiceMaintPrefix and NodeMaint)."""
    return check_id == NODE_MAINTENANCE or check_id.startswith(SERVICE_MAINTENANCE)


def is_dead(checks: Iterable[tuple[str, str]]) -> bool:
    """Whether Consul holds a node for dead, from the ID and status of each of its checks."""
    return (SERF_HEALTH, "critical") in checks


def aggregate(checks: Iterable[tuple[str, str]]) -> str:
    """The status of an instance or a node, one of :data:`STATUSES`, from the ID and status of each of its checks.

    The worst counts. A dead machine is critical, though it may be in maintenance: nothing can be done on it.
    """
    bad = [one for one in checks if one[1] != "passing"]
    if not bad:
        return "passing"
    return worst(("maintenance" if is_maintenance(name) else status for name, status in bad), dead=is_dead(bad))


def worst(statuses: Iterable[str], *, dead: bool = False) -> str:
    """The worst of the statuses, passing where there are none; what Consul does not know counts as critical."""
    if dead:
        return "critical"
    known = (status if status in STATUSES else "critical" for status in statuses)
    return max(known, key=STATUSES.index, default="passing")


def parse_check(data: dict[str, Any]) -> Check:
    definition = data.get("Definition") or {}
    return Check(
        id=data.get("CheckID", ""),
        name=data.get("Name", ""),
        status=data.get("Status", "critical"),
        notes=data.get("Notes", ""),
        output=data.get("Output", ""),
        service_id=data.get("ServiceID", ""),
        type=data.get("Type", ""),
        interval=seconds_of(definition.get("Interval") or data.get("Interval")),
        timeout=seconds_of(definition.get("Timeout") or data.get("Timeout")),
        deregister_after=seconds_of(definition.get("DeregisterCriticalServiceAfter")),
    )


def parse_instances(entries: Iterable[dict[str, Any]] | None) -> list[Instance]:
    """The answer of ``/v1/health/service`` as instances."""
    return [
        Instance(
            node=entry["Node"]["Node"],
            address=entry["Service"].get("Address") or entry["Node"].get("Address", ""),
            datacenter=entry["Node"].get("Datacenter", ""),
            service_id=entry["Service"]["ID"],
            service=entry["Service"]["Service"],
            port=entry["Service"].get("Port", 0),
            tags=tuple(entry["Service"].get("Tags") or ()),
            meta=entry["Service"].get("Meta") or {},
            checks=tuple(parse_check(check) for check in entry.get("Checks") or ()),
        )
        for entry in entries or ()
    ]


def service_query(service: str, node: str | None = None, also: str = "") -> tuple[str, list[tuple[str, object]]]:
    """Path and parameters of the read of a service, or of its instances on one node.

    Consul compares the name in the path without regard to case, and so answers with ``Web`` for ``web``; a filter
    compares exactly.

    :param also: a further condition, in Consul's filter language.
    """
    where = [f'Service.Service == "{checked_name(service, "service")}"']
    if node is not None:
        where.append(f'Node.Node == "{checked_name(node, "node")}"')
    where += [f"({also})"] if also else []
    params: list[tuple[str, object]] = [("filter", " and ".join(where))]
    return f"/v1/health/service/{service}", params


def read_instances(
    client: Client, service: str, node: str | None = None, tags: Sequence[str] = ()
) -> tuple[list[Instance], Answer]:
    """The instances with all the tags, now; and the answer for a blocking read that goes on from there."""
    path, params = service_query(service, node)
    answer = client.get(path, params)
    return with_tags(parse_instances(answer.data), tags), answer


def read_any_case(client: Client, service: str) -> tuple[list[Instance], Answer]:
    """As :func:`read_instances`, with those of services whose names differ from this one in case alone."""
    path, params = service_query(service)
    answer = client.get(path, [param for param in params if param[0] != "filter"])
    return parse_instances(answer.data), answer


def with_tags(instances: Iterable[Instance], tags: Sequence[str]) -> list[Instance]:
    return [instance for instance in instances if set(tags) <= set(instance.tags)]


@dataclass(frozen=True)
class Wanted:
    """What :func:`wait_for_health` waits for.

    :param state: ``passing`` (in rotation), ``checks_passing`` (all but maintenance passes) or ``out_of_rotation``.
    :param node: only instances there; all of them must be in the state.
    :param count: without ``node``: so many instances at least.
    :param stable_for: seconds it must stay so without a break.
    :param in_maintenance: only while in maintenance, too.
    """

    service: str
    state: str = "passing"
    node: str | None = None
    service_id: str | None = None
    tags: tuple[str, ...] = ()
    count: int = 1
    stable_for: float = 0.0
    accept_warning: bool = False
    in_maintenance: bool = False

    def select(self, data: Any) -> list[Instance]:
        found = with_tags(parse_instances(data), self.tags)
        return [one for one in found if self.service_id in (None, one.service_id)]

    def is_reached(self, instance: Instance) -> bool:
        if self.state == "out_of_rotation":
            return not instance.in_rotation
        if self.in_maintenance and instance.maintenance is None:
            return False
        only_checks = self.state == "checks_passing"
        return not instance.failing(accept_warning=self.accept_warning, but_maintenance=only_checks)

    def holds(self, instances: list[Instance]) -> bool:
        reached = sum(self.is_reached(instance) for instance in instances)
        if self.node is None:
            return reached >= self.count
        # None registered is out of rotation too, and never healthy.
        return reached == len(instances) and (reached >= self.count or self.state == "out_of_rotation")


@dataclass(frozen=True)
class Reached:
    """The instances when the wait ended, how long it took in seconds, and the answer that showed them."""

    instances: list[Instance]
    seconds: float
    answer: Answer | None = None


def wait_for_health(
    client: Watching,
    wanted: Wanted,
    deadline: float,
    *,
    spent: float = 0.0,
    first: Answer | None = None,
    also: Callable[[Any], object] | None = None,
) -> Reached:
    """Blocking reads until the state is reached and has been stable for as long as wanted.

    The deadline bounds *reaching* the state: once it holds at the deadline, the stable time is waited out, and any
    break after the deadline is final.

    :param deadline: seconds, ``spent`` of which have passed before.
    :param first: an answer already read.
    :param also: called with what each read returned, to put something right while waiting.
    :raises HitlessError: names the failing checks with their output.
    """
    started = time.monotonic()
    within = started + deadline - spent
    since: float | None = None
    last: list[Instance] = []

    def decide(data: Any) -> Reached | None:
        nonlocal since, last
        last = wanted.select(data)
        now = time.monotonic()
        if also:
            also(data)
        if not wanted.holds(last):
            since = None
            if now >= within:
                raise DeadlineExceeded("not healthy in time")
            raise AskAgain(max(0.01, within - now))
        since = now if since is None else since
        if now - since >= wanted.stable_for:
            return Reached(last, now - started)
        raise AskAgain(since + wanted.stable_for - now)

    path, params = service_query(wanted.service, wanted.node)
    try:
        until = within + wanted.stable_for + 1
        reached, answer = client.watch_with_answer(path, params, decide, until, first=first)
        return replace(reached, answer=answer)
    except DeadlineExceeded:
        raise not_reached(wanted, last, deadline) from None


def not_reached(wanted: Wanted, instances: list[Instance], deadline: float) -> DeadlineExceeded:
    """The error that says which instances failed which checks, with the checks' own output."""
    where = f" on {wanted.node}" if wanted.node else ""
    if not instances:
        return DeadlineExceeded(
            f"No instance of {wanted.service}{where} is registered"
            + (f" with ID {wanted.service_id}" if wanted.service_id else "")
            + (f" and tags {', '.join(wanted.tags)}" if wanted.tags else "")
            + f" after {round(deadline, 1):g} s, or the token lacks read permission (Consul returns an "
            "empty result for both).",
            details={"failing_checks": []},
        )
    only_checks = wanted.state == "checks_passing"
    failing = [
        (one, check)
        for one in instances
        for check in one.failing(accept_warning=wanted.accept_warning, but_maintenance=only_checks)
    ]
    problem = "; ".join(
        (f"{check.told()}" if wanted.node else f"{one.node}: {check.told()}") for one, check in failing[:5]
    )
    if wanted.state == "out_of_rotation":
        inside = [one.node for one in instances if one.in_rotation]
        problem = f"still in rotation: {', '.join(inside) or 'too few are out'}"
    elif not failing:
        # Nothing fails: the maintenance is missing that should have kept it out, or there are too few.
        outside = wanted.in_maintenance and any(one.maintenance is None for one in instances)
        number = len(instances)
        problem = "it is not in maintenance" if outside else f"{number} {'is' if number == 1 else 'are'} registered"
    what = {"passing": "in rotation", "checks_passing": "healthy", "out_of_rotation": "out of rotation"}[wanted.state]
    needed = "" if wanted.node else f" on {wanted.count} instances"
    return DeadlineExceeded(
        f"{wanted.service}{where} was not {what}{needed} within {round(deadline, 1):g} s: {problem}.",
        details={
            "failing_checks": [
                {
                    "node": one.node,
                    "check": check.id,
                    "name": check.name,
                    "status": check.status,
                    "output": check.output,
                }
                for one, check in failing
            ]
        },
    )


def require_registered(instances: list[Instance], service: str, node: str) -> None:
    """Refuse a service that is not on the node: nothing could be taken out of rotation."""
    if not instances:
        raise HitlessError(
            f"No instance of {service} is registered on the node {node}, or the token may not read it.",
            hint="Is it the right node (consul_node) and agent (hitless_consul_agent_url), and is the service spelled "
            "just so in Consul?",
        )


def freshness(instances: Iterable[Instance], check_interval: float) -> float:
    """Seconds a check must have passed for, before that tells of a process started just now.

    Registering again, or restarting a process, keeps the check's old status until it runs anew: within its interval
    and timeout, which Consul tells from 1.20 on. The longest of all counts, of those told and those assumed.

    :param check_interval: seconds to assume for each check of which Consul does not tell.
    """
    return max((one.freshness(check_interval) for one in instances), default=check_interval)
