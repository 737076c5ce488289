# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a deployment: which hosts, in which exact batches (a private helper of this collection).

Pure: :func:`make_plan` is a function of what _fleet.py has read. Its promise: as long as batches succeed, what we do
ourselves never leaves fewer healthy instances than the minimum.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    FOREIGN,
    TO_CHANGE,
    UNREACHABLE,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import CURRENT

Size: TypeAlias = "int | str"
"""A number of hosts, or a percentage such as ``25%``."""

_PERCENT = re.compile(r"(\d{1,3})\s*%")
_NAMED = 10
"""Hosts a sentence names at most."""


@dataclass(frozen=True)
class Maintenance:
    """A maintenance a host is in, and whether a deployment of this service has set it."""

    ours: bool
    reason: str


@dataclass(frozen=True)
class HostState:
    """A host as it was found.

    :param registered: instances of the service on its node, 0 where there is none.
    :param serving: those of them that may get traffic; those that warn do.
    :param warning: checks that warn on such instances, in words; empty where that is accepted.
    :param version: what runs there, None where nobody tells.
    :param version_source: ``recorded`` (in Consul's KV store) or ``meta`` (the service's own meta).
    :param target: the version it is to get, None where there is none to go to.
    :param previous: the version recorded as running before.
    :param blocked: why its instances can never pass (a node's check that is critical).
    :param unreachable: why it cannot be worked on, None where it can.
    :param verifiable: whether anything can tell that a new process works there.
    """

    host: str
    node: str
    registered: int = 1
    serving: int = 1
    version: str | None = None
    version_source: str | None = None
    target: str | None = None
    previous: str | None = None
    maintenance: Maintenance | None = None
    unreachable: str | None = None
    blocked: str | None = None
    datacenter: str | None = None
    sure: bool = True
    warning: tuple[str, ...] = ()
    verifiable: bool = True

    @property
    def is_healthy(self) -> bool:
        return 0 < self.registered == self.serving and not self.warning


@dataclass(frozen=True)
class PlanSettings:
    """What the plan has to keep to.

    :param registered_total: instances of the service (with the tags), wherever they are.
    :param serving_total: those of them that may get traffic.
    :param batch_size: one size, or a list whose last element repeats; percentages are of the hosts to change.
    :param min_healthy: instances that must stay in rotation; a percentage is of ``registered_total``, rounded up.
    :param unreachable: ``fail`` or ``skip``.
    :param rollback: ``host`` or ``none``.
    :param previous_version: what runs, where nothing is recorded.
    :param unverified: whether hosts are changed that nothing can verify.
    :param uncovered: nodes that run the service and are none of the hosts.
    """

    service: str
    registered_total: int
    serving_total: int
    batch_size: Size | Sequence[Size]
    min_healthy: Size
    skip_current: bool
    unreachable: str
    rollback: str
    previous_version: str | None
    direction: str
    unverified: bool
    uncovered: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostPlan:
    """What happens to one host. ``batch`` is 1 for the first, None where it gets no turn."""

    host: str
    node: str
    state: str
    from_version: str | None
    to_version: str | None
    rollback_to: str | None
    healthy: bool
    why: str | None = None
    batch: int | None = None
    coordinator: str | None = None
    unsure: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "state": self.state,
            "batch": self.batch,
            "coordinator": self.coordinator,
            "from": self.from_version,
            "to": self.to_version,
            "rollback_to": self.rollback_to,
            "healthy": self.healthy,
            "why": self.why,
            "unsure": self.unsure,
        }


@dataclass(frozen=True)
class Plan:
    """Hosts in exact batches; ``minimum`` is the number of instances that must stay in rotation.

    :param uncovered: nodes that run the service and stay as they are.
    """

    service: str
    hosts: dict[str, HostPlan]
    batches: list[list[str]]
    minimum: int
    registered: int
    healthy: int
    description: str
    warnings: list[str]
    uncovered: tuple[str, ...] = ()

    @property
    def nothing_to_do(self) -> bool:
        return not self.batches

    @property
    def coordinators(self) -> list[str]:
        return [coordinator_name(self.service, number, len(self.batches)) for number in range(1, len(self.batches) + 1)]

    def as_dict(self) -> dict[str, Any]:
        """The result of the task: ``order`` and ``serial`` are what the rolling play takes."""
        led = [[name, *batch] for name, batch in zip(self.coordinators, self.batches, strict=True)]
        return {
            "description": self.description,
            "nothing_to_do": self.nothing_to_do,
            "batches": self.batches,
            "coordinators": self.coordinators,
            "order": [host for batch in led for host in batch],
            # A play's serial must not be empty.
            "serial": [len(batch) for batch in led] or [1],
            "hosts": {name: host.as_dict() for name, host in self.hosts.items()},
            "uncovered": list(self.uncovered),
            "health": {"registered": self.registered, "healthy": self.healthy, "minimum": self.minimum},
        }


def coordinator_name(service: str, batch: int, batches: int) -> str:
    """The inventory name of the host that leads a batch."""
    return f"{service}-batch-{batch}-of-{batches}"


def parse_size(value: object, name: str, *, least: int) -> Size:
    """``3``, ``"3"`` or ``"25%"``; raises :class:`HitlessError` for anything else."""
    text = str(value).strip()
    if not isinstance(value, bool):
        percent = _PERCENT.fullmatch(text)
        if percent and least <= int(percent[1]) <= 100:
            return f"{int(percent[1])}%"
        if text.isascii() and text.isdigit() and int(text) >= least:
            return int(text)
    raise HitlessError(
        f"{name} must be a whole number, {least} or more, or a percentage such as 25%, and is {value!r}."
    )


def parse_batch_size(value: object, name: str) -> Size | list[Size]:
    """A size, or a list of sizes, which may also come as text: ``1, 10%, 50%``."""
    if isinstance(value, str) and ("," in value or value.strip().startswith("[")):
        value = [part.strip(" '\"") for part in value.strip(" []").split(",")]
    if not isinstance(value, list | tuple):
        return parse_size(value, name, least=1)
    if not value:
        raise HitlessError(f"{name} is an empty list.", hint="Give at least one size.")
    return [parse_size(item, name, least=1) for item in value]


def parse_min_healthy(value: object, name: str) -> Size:
    """A number of instances or a percentage, from 0 on."""
    return parse_size(value, name, least=0)


def minimum_of(min_healthy: Size, registered: int) -> int:
    """The number of instances that must stay in rotation; a percentage is rounded up."""
    if isinstance(min_healthy, str):
        return -(-registered * int(min_healthy.rstrip("%")) // 100)
    return min_healthy


def sizes_of(batch_size: Size | Sequence[Size], hosts: int) -> list[int]:
    """Each element as a number of hosts; a percentage is of the hosts to change, rounded down, at least 1."""
    sizes = [batch_size] if isinstance(batch_size, int | str) else list(batch_size)
    return [max(1, hosts * int(size.rstrip("%")) // 100) if isinstance(size, str) else size for size in sizes]


def make_plan(hosts: Sequence[HostState], settings: PlanSettings) -> Plan:
    """The plan, or a refusal that says what cannot work and what to set.

    :param hosts: in the order they are to be changed in.
    :raises HitlessError: what is asked for cannot work; nothing has been changed.
    """
    _refuse_what_cannot_be(hosts, settings)
    hosts = _rolled_back_already(hosts)
    states = {one.host: _state(one, settings) for one in hosts}
    _refuse_skipped(hosts, states, settings)
    chosen = [one for one in hosts if states[one.host][0] == TO_CHANGE]
    _refuse_without_target(chosen, settings)
    _refuse_warning(chosen)
    _refuse_unverifiable(chosen, settings)
    minimum = minimum_of(settings.min_healthy, settings.registered_total)
    # Those that serve nothing take nothing away, and count as healthy once they are repaired.
    ordered = sorted(chosen, key=lambda one: not _is_broken(one))
    batches = _batches(ordered, settings, minimum)
    plans: dict[str, HostPlan] = {}
    for one in hosts:
        state, why = states[one.host]
        running = _running(one, settings)
        to = one.target if state == TO_CHANGE else None
        back = running if state == TO_CHANGE and running != to else None
        plans[one.host] = HostPlan(
            one.host, one.node, state, running, to, back, one.is_healthy, why, unsure=not one.sure
        )
    for number, batch in enumerate(batches, 1):
        leader = coordinator_name(settings.service, number, len(batches))
        for one in batch:
            plans[one.host] = replace(plans[one.host], batch=number, coordinator=leader)
    names = [[one.host for one in batch] for batch in batches]
    return Plan(
        settings.service,
        plans,
        names,
        minimum,
        settings.registered_total,
        settings.serving_total,
        _description(settings, plans, names, minimum),
        [
            *_rollback_warnings(plans, settings),
            *_blocked_warnings(chosen),
            *_unverified_warnings(chosen),
            *_skipped_warnings(plans),
            *_uncovered_warnings(settings),
        ],
        settings.uncovered,
    )


def named(hosts: Iterable[str], what: str = "host") -> str:
    """``2 hosts: web1, web2``; a long list is cut."""
    names = list(hosts)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}: {', '.join(names[:_NAMED])}{more}"


def _is_broken(one: HostState) -> bool:
    return one.serving == 0


def _state(one: HostState, settings: PlanSettings) -> tuple[str, str | None]:
    if one.maintenance and not one.maintenance.ours:
        return FOREIGN, f"in maintenance set by someone else: {one.maintenance.reason or 'no reason given'}"
    if (
        settings.skip_current
        and one.is_healthy
        and not one.maintenance
        and one.target is not None
        and one.version == one.target
        and one.sure
    ):
        return CURRENT, f"already healthy on {one.target}"
    if one.unreachable:
        return UNREACHABLE, one.unreachable
    return TO_CHANGE, None


def _running(one: HostState, settings: PlanSettings) -> str | None:
    """What runs there: as recorded, else as given, else as the service's meta tells."""
    return one.version if one.version_source == "recorded" else settings.previous_version or one.version


def _refuse_what_cannot_be(hosts: Sequence[HostState], settings: PlanSettings) -> None:
    service = settings.service
    if not hosts:
        raise HitlessError(f"There is no host to roll {service} over.", hint="Set rollout_hosts.")
    nodes = Counter(one.node for one in hosts)
    double = [one.host for one in hosts if nodes[one.node] > 1]
    if double:
        raise HitlessError(
            f"Some of the hosts are the same node in Consul ({named(double)}).",
            hint="Set consul_node for each host, or leave one of them out of rollout_hosts.",
        )
    centers = sorted({one.datacenter for one in hosts if one.datacenter})
    if len(centers) > 1:
        raise HitlessError(
            f"The hosts are in several Consul datacenters ({', '.join(centers)}); a rollout covers one.",
            hint="Roll out one after the other: rollout_hosts, hitless_consul_datacenter.",
        )
    skipped = settings.unreachable == "skip"
    without = [one.host for one in hosts if not one.registered and not (one.unreachable and skipped)]
    if without:
        raise HitlessError(
            f"{service} is not registered on {named(without)}; nothing was changed.",
            hint="Register it there, or leave the host out of rollout_hosts; where it is registered, the host's name "
            "in Consul is another one (consul_node), or it lacks the tags of rollout_tags.",
        )


def _rolled_back_already(hosts: Sequence[HostState]) -> list[HostState]:
    """A rollback by hand forgets the previous version: a host on the one that others go back to is there already."""
    targets = {one.target for one in hosts if one.target}
    return [replace(one, target=one.version) if one.target is None and one.version in targets else one for one in hosts]


def _refuse_skipped(
    hosts: Sequence[HostState], states: dict[str, tuple[str, str | None]], settings: PlanSettings
) -> None:
    lost = [f"{one.host} ({states[one.host][1]})" for one in hosts if states[one.host][0] == UNREACHABLE]
    if lost and settings.unreachable == "fail":
        raise HitlessError(
            f"Unreachable: {named(lost)}; nothing was changed.",
            hint="Repair it, or go on without it: rollout_unreachable: skip.",
        )
    left = [f"{one.host} ({states[one.host][1]})" for one in hosts]
    if all(state == FOREIGN for state, _why in states.values()):
        raise HitlessError(
            f"Every host is in maintenance set by someone else ({named(left)}); nothing was changed.",
            hint="End it first: it is never cleared here.",
        )
    if all(state in (FOREIGN, UNREACHABLE) for state, _why in states.values()):
        raise HitlessError(f"No host is left to work on ({named(left)}); nothing was changed.")


def _refuse_without_target(chosen: Sequence[HostState], settings: PlanSettings) -> None:
    nowhere = [one.host for one in chosen if one.target is None]
    if nowhere:
        raise HitlessError(
            f"No previous version of {settings.service} is recorded for {named(nowhere)}; nothing was changed.",
            hint="Say where to go: rollout_version for all hosts, or rollout_previous_version for these.",
        )


def _refuse_warning(chosen: Sequence[HostState]) -> None:
    """It gets traffic, and would not get it back after its deployment, nor after a rollback."""
    warns = [check for one in chosen for check in one.warning]
    if warns:
        hosts = [one.host for one in chosen if one.warning]
        raise HitlessError(
            f"A check warns on {named(hosts)} ({'; '.join(warns[:3])}{'; ...' if len(warns) > 3 else ''}), so that no "
            "deployment could be verified there by its checks; nothing was changed.",
            hint="Repair it, or accept it: rollout_accept_warning: true. Consul's DNS serves what warns.",
        )


def _refuse_unverifiable(chosen: Sequence[HostState], settings: PlanSettings) -> None:
    """A broken version would be taken for a good one, on all hosts."""
    unverifiable = [one.host for one in chosen if not one.verifiable]
    if unverifiable and not settings.unverified:
        raise HitlessError(
            f"Nothing can tell whether a new version of {settings.service} works on {named(unverifiable)}: there is no "
            "rollout_health_url, and no check that runs by itself (a TTL may have been reported before the "
            "deployment); nothing was changed.",
            hint="Set rollout_health_url, or give the service a check, or go on without: rollout_unverified: true.",
        )


def _unverified_warnings(chosen: Sequence[HostState]) -> list[str]:
    unverifiable = [one.host for one in chosen if not one.verifiable]
    if not unverifiable:
        return []
    return [f"Nothing verifies that a new version works on {named(unverifiable)}: a broken one would stay unnoticed."]


def _batches(ordered: Sequence[HostState], settings: PlanSettings, minimum: int) -> list[list[HostState]]:
    """As many hosts a batch as its size and the minimum allow, in order."""
    sizes = sizes_of(settings.batch_size, len(ordered))
    healthy = settings.serving_total
    batches: list[list[HostState]] = []
    rest = list(ordered)
    while rest:
        size = sizes[min(len(batches), len(sizes) - 1)]
        batch: list[HostState] = []
        taken = 0
        for one in rest[:size]:
            if one.serving and healthy - taken - one.serving < minimum:
                break
            taken += one.serving
            batch.append(one)
        if not batch:
            raise _too_few(rest[0], settings, healthy, minimum)
        healthy += sum(one.registered - one.serving for one in batch if not one.blocked)
        rest = rest[len(batch) :]
        batches.append(batch)
    return batches


def _too_few(one: HostState, settings: PlanSettings, healthy: int, minimum: int) -> HitlessError:
    total = settings.registered_total
    share = f" ({settings.min_healthy} of {total})" if isinstance(settings.min_healthy, str) else ""
    repaired = "" if healthy == settings.serving_total else " once the broken hosts are repaired"
    have = f"{healthy} of its {total} instance{'' if total == 1 else 's'} {'is' if healthy == 1 else 'are'} healthy"
    lower = healthy - one.serving
    hint = f"Set rollout_min_healthy: {max(lower, 0)} to accept {'the downtime' if lower <= 0 else 'fewer'}."
    if healthy < total:
        hint = f"Repair the others first, or set rollout_min_healthy: {max(lower, 0)}" + (
            " to accept the downtime." if lower <= 0 else " to accept fewer."
        )
    return HitlessError(
        f"{settings.service} cannot be rolled over {one.host}: {have}{repaired}, and {minimum}{share} must stay so; "
        "nothing was changed.",
        hint=hint,
    )


def _description(settings: PlanSettings, plans: dict[str, HostPlan], batches: list[list[str]], minimum: int) -> str:
    change = Counter(
        (one.from_version or "unknown", one.to_version) for one in plans.values() if one.state == TO_CHANGE
    )
    count = sum(change.values())
    hosts = f"{count} host{'' if count == 1 else 's'}"
    if not change:
        parts = [f"{settings.service}: nothing to do"]
    elif len(change) == 1:
        before, after = next(iter(change))
        parts = [f"{settings.service} {before} -> {after} on {hosts} in {_sizes_told(batches)}"]
    else:
        ways = ", ".join(f"{number} from {before} to {after}" for (before, after), number in change.items())
        parts = [f"{settings.service} on {hosts} ({ways}) in {_sizes_told(batches)}"]
    if change:
        parts.append(f"at least {minimum} of {settings.registered_total} stay healthy")
    broken = [one.host for one in plans.values() if one.state == TO_CHANGE and not one.healthy]
    if broken:
        parts.append(f"not healthy now: {', '.join(broken[:_NAMED])}" + (", ..." if len(broken) > _NAMED else ""))
    for state, text in ((CURRENT, "already current"), (FOREIGN, "in other maintenance"), (UNREACHABLE, "unreachable")):
        found = sum(one.state == state for one in plans.values())
        if found:
            parts.append(f"{found} {text}")
    if settings.uncovered:
        parts.append(f"{len(settings.uncovered)} not covered")
    if settings.direction == "rollback":
        parts[0] = f"roll back {parts[0]}"
    return "; ".join(parts)


def _sizes_told(batches: list[list[str]]) -> str:
    sizes = [len(batch) for batch in batches]
    if len(sizes) == 1:
        return "1 batch"
    if len(set(sizes)) == 1:
        return f"{len(sizes)} batches of {sizes[0]}"
    return f"{len(sizes)} batches of {', '.join(map(str, sizes[:8]))}" + (", ..." if len(sizes) > 8 else "")


def _rollback_warnings(plans: dict[str, HostPlan], settings: PlanSettings) -> list[str]:
    if settings.rollback == "none":
        return []
    without = [one for one in plans.values() if one.state == TO_CHANGE and one.rollback_to is None]
    unknown = [one.host for one in without if one.from_version is None]
    same = [one.host for one in without if one.from_version is not None]
    warnings = []
    if unknown:
        warnings.append(
            f"No rollback possible on {named(unknown)} (no version recorded): set rollout_previous_version."
        )
    if same:
        warnings.append(f"No rollback possible on {named(same)}: the version is the one that runs there.")
    return warnings


def _blocked_warnings(chosen: Sequence[HostState]) -> list[str]:
    return [
        f"{one.host} cannot become healthy as long as its node's own check fails: {one.blocked}."
        for one in chosen
        if one.blocked
    ]


def _skipped_warnings(plans: dict[str, HostPlan]) -> list[str]:
    return [f"{one.host} is skipped: {one.why}." for one in plans.values() if one.state in (FOREIGN, UNREACHABLE)]


def _uncovered_warnings(settings: PlanSettings) -> list[str]:
    if not settings.uncovered:
        return []
    nodes = named(settings.uncovered, "node")
    return [f"{settings.service} also runs on {nodes}; this rollout does not cover them, and they stay as they are."]
