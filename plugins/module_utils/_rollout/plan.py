# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a deployment, and what it is made from: plain data (a private helper of this collection).

planning.py makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import Kind, kind_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import Size
from ansible_collections.hitless.consul.plugins.module_utils._rollout.waves import Waves

NAMED = 10
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
    :param returns: whether a failure there takes it back to the version that it has: not where that has failed.
    :param note: what a person should know of its target, or why there is none.
    :param decided: its state in the plan, and why, where that does not depend on how it was found.
    :param blocked: why its instances can never pass (a node's check that is critical).
    :param unreachable: why it cannot be worked on, None where it can.
    :param verifiable: whether anything can tell that a new process works there.
    :param wave: that it is in; empty where it is in none.
    """

    host: str
    node: str
    registered: int = 1
    serving: int = 1
    version: str | None = None
    version_source: str | None = None
    target: str | None = None
    returns: bool = True
    note: str = ""
    decided: tuple[str, str] | None = None
    maintenance: Maintenance | None = None
    unreachable: str | None = None
    blocked: str | None = None
    datacenter: str | None = None
    sure: bool = True
    warning: tuple[str, ...] = ()
    verifiable: bool = True
    wave: str = ""

    @property
    def is_healthy(self) -> bool:
        return 0 < self.registered == self.serving and not self.warning


@dataclass(frozen=True)
class PlanSettings:
    """What the plan has to keep to.

    :param registered_total: instances of the service (with the tags), wherever they are.
    :param serving_total: those of them that may get traffic.
    :param batch_size: one size, or a list whose last element repeats; percentages are of the hosts to change, in a
        rollback of ``registered_total``.
    :param min_healthy: instances that must stay in rotation; a percentage is of ``registered_total``, rounded up.
    :param unreachable: ``fail`` or ``skip``.
    :param rollback: ``host`` or ``none``.
    :param previous_version: what runs, where nothing is recorded.
    :param unverified: whether hosts are changed that nothing can verify.
    :param uncovered: nodes that run the service and are none of the hosts.
    :param in_window: whether hosts take their turns in a sliding window, in stages instead of batches.
    :param undoes: the deployment that a rollback undoes; ``nothing``: why there is none to undo.
    :param waves: in their order; a rollback takes no notice of it.
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
    in_window: bool = False
    undoes: str = ""
    nothing: str = ""
    waves: Sequence[str] = ()

    @property
    def kind(self) -> Kind:
        """A rollout, a rollback, a restart or a reboot."""
        return kind_of(self.direction)


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
    """Hosts in exact batches, or in stages; ``minimum`` is the number of instances that must stay in rotation.

    :param uncovered: nodes that run the service and stay as they are.
    :param windows: how many hosts of each stage may be in flight at once; empty where they go in batches.
    :param largest: instances that one host takes out of rotation at most.
    :param undoes: the deployment that it undoes, empty where it is no such rollback.
    :param waves: each with the stages or batches that it has; ``wave_of``: node -> its wave, for all hosts.
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
    windows: tuple[int, ...] = ()
    largest: int = 0
    undoes: str = ""
    waves: Waves = field(default_factory=Waves)
    wave_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def nothing_to_do(self) -> bool:
        return not any(self.batches)

    @property
    def coordinators(self) -> list[str]:
        """None in stages: a host's whole turn is one task there, which never fails."""
        if self.windows:
            return []
        return [coordinator_name(self.service, number, len(self.batches)) for number in range(1, len(self.batches) + 1)]

    def as_dict(self) -> dict[str, Any]:
        """The result of the task: ``order`` and ``serial`` are what the rolling play takes."""
        places = {name: place for place, name in enumerate((one for batch in self.batches for one in batch), 1)}
        led = self.batches
        if not self.windows:
            led = [[name, *batch] for name, batch in zip(self.coordinators, self.batches, strict=True) if batch]
        return {
            "description": self.description,
            "nothing_to_do": self.nothing_to_do,
            "batches": self.batches,
            "windows": list(self.windows),
            "coordinators": self.coordinators,
            "order": [host for batch in led for host in batch],
            # A play's serial must not be empty.
            "serial": [len(batch) for batch in led if batch] or [1],
            "hosts": {name: {**host.as_dict(), "place": places.get(name)} for name, host in self.hosts.items()},
            "places": len(places),
            "uncovered": list(self.uncovered),
            "health": {"registered": self.registered, "healthy": self.healthy, "minimum": self.minimum},
            "largest": self.largest,
            "undoes": self.undoes,
            "waves": self.waves.as_list(),
            "wave_of": dict(self.wave_of),
        }


def coordinator_name(service: str, batch: int, batches: int) -> str:
    """The inventory name of the host that leads a batch."""
    return f"{service}-batch-{batch}-of-{batches}"


def named(hosts: Iterable[str], what: str = "host") -> str:
    """``2 hosts: web1, web2``; a long list is cut."""
    names = list(hosts)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}: {', '.join(names[:NAMED])}{more}"
