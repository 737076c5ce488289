# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service on all its machines, read at once (a private helper of this collection).

One request for the instances with their checks and maintenance, one for 64 nodes for the recorded versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    SERF_HEALTH,
    Check,
    Instance,
    read_instances,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import set_by_deployment_of
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import HostState, Maintenance
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import (
    NodeVersion,
    meta_version,
    read_versions,
)


@dataclass(frozen=True)
class Fleet:
    """What Consul says of a service.

    :param instances: those with the tags, wherever they are.
    :param versions: node -> what is recorded there.
    :param others: instances of the services that share its maintenance.
    :param untagged: instances without all of the tags.
    """

    service: str
    instances: list[Instance]
    versions: Mapping[str, NodeVersion] = field(default_factory=dict)
    others: Sequence[Instance] = ()
    untagged: int = 0

    @property
    def nodes(self) -> list[str]:
        """The nodes with an instance, by name."""
        return sorted({one.node for one in self.instances})

    def healthy(self, *, accept_warning: bool = False) -> int:
        return sum(one.in_rotation(accept_warning=accept_warning) for one in self.instances)

    @property
    def check_delay(self) -> float | None:
        """Seconds after which each of its checks has run again; None where Consul does not tell (1.8 does not)."""
        told = [one.check_delay for one in self.instances]
        known = [delay for delay in told if delay is not None]
        return max(known, default=0.0) if len(known) == len(told) else None


@dataclass(frozen=True)
class WantedHost:
    """A host a deployment is to cover.

    :param target: the version it is to get; None for the one recorded as previous.
    :param unreachable: why it cannot be worked on, None where it can.
    """

    host: str
    node: str
    target: str | None = None
    unreachable: str | None = None
    datacenter: str | None = None


def read_fleet(
    client: Client,
    keys: Keys,
    tags: Sequence[str] = (),
    nodes: Iterable[str] | None = None,
    also: Iterable[str] = (),
) -> Fleet:
    """The service as it is now.

    :param nodes: those whose recorded versions are read; all with an instance where not given.
    :param also: further services, for their maintenance.
    :raises HitlessError: no instance is registered, or the token may see none: Consul answers both alike.
    """
    service = keys.service
    everywhere, answer = read_instances(client, service)
    instances = [one for one in everywhere if set(tags) <= set(one.tags)]
    if not everywhere:
        where = f" in the datacenter {client.connection.datacenter}" if client.connection.datacenter else ""
        hidden = "Consul says that the token may not see some." if answer.filtered else ""
        raise HitlessError(
            f"No instance of {service} is registered{where}, or the token may not read it (Consul answers both "
            f"alike); nothing was changed. {hidden}".rstrip(),
            hint="Check rollout_service, and that the token has service:read on it and node:read on its nodes.",
        )
    if not instances:
        raise HitlessError(
            f"None of the {len(everywhere)} instances of {service} has the tags {', '.join(tags)}; nothing was "
            "changed.",
            hint="Check rollout_tags.",
        )
    found = Fleet(service, instances, untagged=len(everywhere) - len(instances))
    others = [one for name in sorted(set(also) - {service}) for one in read_instances(client, name)[0]]
    versions = read_versions(client, keys, found.nodes if nodes is None else nodes)
    return Fleet(service, instances, versions, others, found.untagged)


def host_states(
    fleet: Fleet, hosts: Iterable[WantedHost], *, accept_warning: bool = False, previous_version: str | None = None
) -> list[HostState]:
    """Each host as it was found.

    :param previous_version: where to go back to, for a host without target and recorded previous version.
    """
    by_node: dict[str, list[Instance]] = {}
    for one in fleet.instances:
        by_node.setdefault(one.node, []).append(one)
    others: dict[str, list[Instance]] = {}
    for one in fleet.others:
        others.setdefault(one.node, []).append(one)
    return [
        _host_state(
            fleet, wanted, by_node.get(wanted.node, []), others.get(wanted.node, []), accept_warning, previous_version
        )
        for wanted in hosts
    ]


def _host_state(
    fleet: Fleet,
    wanted: WantedHost,
    instances: list[Instance],
    others: list[Instance],
    accept_warning: bool,
    previous_version: str | None,
) -> HostState:
    recorded = fleet.versions.get(wanted.node) or NodeVersion(wanted.node)
    told = meta_version(instances)
    node_checks = _failing_node_checks(instances, accept_warning)
    down = next((check for check in node_checks if check.id == SERF_HEALTH), None)
    return HostState(
        host=wanted.host,
        node=wanted.node,
        registered=len(instances),
        healthy=sum(one.in_rotation(accept_warning=accept_warning) for one in instances),
        version=recorded.version or told,
        version_source="recorded" if recorded.version else "meta" if told else None,
        target=wanted.target or recorded.previous or previous_version,
        previous=recorded.previous,
        maintenance=maintenance_of(fleet.service, [*instances, *others]),
        unreachable=wanted.unreachable or (f"its Consul agent does not answer: {down.told()}" if down else None),
        blocked="; ".join(check.told() for check in node_checks) or None,
        datacenter=instances[0].datacenter if instances and not wanted.datacenter else wanted.datacenter,
        sure=recorded.version_is_trusted,
    )


def maintenance_of(service: str, instances: Iterable[Instance]) -> Maintenance | None:
    """The maintenance that the instances of one node are in; somebody else's counts before one of ours."""
    is_ours = set_by_deployment_of(service)
    found = [
        Maintenance(is_ours(check.notes), check.notes)
        for one in instances
        for check in one.checks
        if check.is_maintenance
    ]
    return min(found, key=lambda one: one.ours, default=None)


def deregistrations(fleet: Fleet, nodes: Iterable[str], longest: float) -> list[str]:
    """A warning where Consul would deregister an instance during a deployment of up to ``longest`` seconds."""
    wanted = set(nodes)
    found = [
        (check.deregister_after, one.node, check.name or check.id)
        for one in fleet.instances
        for check in one.checks
        if one.node in wanted and 0 < check.deregister_after < longest
    ]
    if not found:
        return []
    seconds, node, check = min(found)
    where = f"{node} and {len({one[1] for one in found}) - 1} others" if len({one[1] for one in found}) > 1 else node
    sentence = (
        f"DANGER: Consul deregisters {fleet.service} on {where} once its check {check} has been critical for "
        f"{seconds:g} s, and its maintenance with it; a deployment may take {longest:g} s (deploy timeout, drain and "
        "healthy deadline). Raise deregister_critical_service_after in the service's definition."
    )
    return [sentence]


def _failing_node_checks(instances: Iterable[Instance], accept_warning: bool) -> list[Check]:
    """The node's own checks that keep every instance there out of rotation, each once."""
    failing = {
        check.id: check
        for one in instances
        for check in one.failing(accept_warning=accept_warning, but_maintenance=True)
        if not check.service_id
    }
    return list(failing.values())
