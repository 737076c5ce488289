# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service on all its machines, read at once (a private helper of this collection).

One request for the instances with their checks and maintenance, one for 64 nodes for the recorded versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    SERF_HEALTH,
    Check,
    Instance,
    read_any_case,
    read_instances,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import set_by_deployment_of
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys, usable_version
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import HostState, Maintenance, named
from ansible_collections.hitless.consul.plugins.module_utils._rollout.reach import elsewhere
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
    :param namesakes: services whose names differ from this one in case alone.
    """

    service: str
    instances: list[Instance]
    versions: Mapping[str, NodeVersion] = field(default_factory=dict)
    others: Sequence[Instance] = ()
    namesakes: Sequence[str] = ()

    @property
    def datacenter(self) -> str:
        """Where they are: all in the one that was asked for."""
        return next((one.datacenter for one in self.instances if one.datacenter), "")

    @property
    def nodes(self) -> list[str]:
        """The nodes with an instance, by name."""
        return sorted({one.node for one in self.instances})

    @property
    def serving(self) -> int:
        """Instances that may get traffic."""
        return sum(one.in_rotation for one in self.instances)


@dataclass(frozen=True)
class WantedHost:
    """A host a deployment is to cover.

    :param target: the version it is to get; None for the one that it had before a deployment that is undone.
    :param unreachable: why it cannot be worked on, None where it can.
    :param datacenter: that its agent tells, None where that was not asked.
    :param health_url: whether its application is asked after the deployment.
    :param smoke_test: whether the user's own tasks test it then.
    """

    host: str
    node: str
    target: str | None = None
    unreachable: str | None = None
    datacenter: str | None = None
    health_url: bool = False
    smoke_test: bool = False


def wanted_hosts(
    reached: Mapping[str, Mapping[str, Any]], target: str | None, asked: Iterable[str] = (), *, smoke_test: bool = False
) -> list[WantedHost]:
    """The hosts as the plan takes them.

    :param reached: host -> what :func:`reach.reach` found.
    :param asked: the hosts with a health URL; ``smoke_test``: whether the user's tasks test each of them.
    :param target: the version that they are to get; None for what each had before a deployment that is undone.
    :raises HitlessError: something is wrong with hosts that can be reached.
    """
    with_url, problems = set(asked), []
    for host, found in reached.items():
        if "node" not in found:
            problems.append(f"{host}: {found.get('msg') or 'it was not asked'}.")
        elif found["problem"]:
            problems.append(found["problem"])
    if problems:
        raise HitlessError(f"Nothing was changed. {' '.join(problems)}")
    return [
        WantedHost(
            host,
            found["node"],
            target,
            unreachable=found["why"] or None,
            datacenter=found["datacenter"] or None,
            health_url=host in with_url,
            smoke_test=smoke_test,
        )
        for host, found in reached.items()
    ]


def warnings_of(instances: Iterable[Instance], *, accept_warning: bool) -> list[str]:
    """What keeps instances that may get traffic from being verified: checks that warn before anything has begun.

    One that serves nothing has nothing to lose, so that its deployment may be the cure.
    """
    return [
        f"{one.node}: {check.told()}"
        for one in instances
        if one.in_rotation
        for check in one.failing(accept_warning=accept_warning)
    ]


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
    :raises HitlessError: no instance is registered, or the token may see none (Consul's answer to both is empty).
    """
    service = keys.service
    found, answer = read_any_case(client, service)
    everywhere = [one for one in found if one.service == service]
    namesakes = sorted({one.service for one in found} - {service})
    if namesakes and not everywhere:
        raise HitlessError(
            f"Consul has no service {service}: it is spelled {' or '.join(namesakes)} there; nothing was changed.",
            hint="Set rollout_service just so: names are compared exactly.",
        )
    instances = [one for one in everywhere if set(tags) <= set(one.tags)]
    if not everywhere:
        where = f" in the datacenter {client.connection.datacenter}" if client.connection.datacenter else ""
        hidden = "Consul says that the token may not see some." if answer.filtered else ""
        raise HitlessError(
            f"No instance of {service} is registered{where}, or the token lacks read permission (Consul returns an "
            f"empty result for both); nothing was changed. {hidden}".rstrip(),
            hint="Check rollout_service, and that the token has service:read on it and node:read on its nodes.",
        )
    if not instances:
        raise HitlessError(
            f"None of the {len(everywhere)} instances of {service} has the tags {', '.join(tags)}; nothing was "
            "changed.",
            hint="Check rollout_tags.",
        )
    fleet = Fleet(service, instances, namesakes=namesakes)
    others = [one for name in sorted(set(also) - {service}) for one in read_instances(client, name)[0]]
    versions = read_versions(client, keys, fleet.nodes if nodes is None else nodes)
    return replace(fleet, versions=versions, others=others)


def host_states(
    fleet: Fleet, hosts: Iterable[WantedHost], *, accept_warning: bool, wave_of: Mapping[str, str] | None = None
) -> list[HostState]:
    """Each host as it was found.

    :param wave_of: host -> its wave.
    :raises HitlessError: the agent of a host belongs to another datacenter than the service.
    """
    hosts = list(hosts)
    require_datacenter(fleet, hosts)
    instances, others = by_node(fleet.instances), by_node(fleet.others)
    states = [
        _host_state(fleet, wanted, instances.get(wanted.node, []), others.get(wanted.node, []), accept_warning)
        for wanted in hosts
    ]
    return [replace(one, wave=wave_of.get(one.host, "")) for one in states] if wave_of else states


def require_datacenter(fleet: Fleet, hosts: Iterable[WantedHost]) -> None:
    """Refuse hosts whose agents tell another datacenter: a node of the same name may be in both."""
    others = [one for one in hosts if one.datacenter and fleet.datacenter and one.datacenter != fleet.datacenter]
    if others:
        names = [one.host for one in others]
        raise HitlessError(elsewhere(names, str(others[0].datacenter), fleet.datacenter))


def by_node(instances: Iterable[Instance]) -> dict[str, list[Instance]]:
    """Node -> its instances."""
    found: dict[str, list[Instance]] = {}
    for one in instances:
        found.setdefault(one.node, []).append(one)
    return found


def _host_state(
    fleet: Fleet,
    wanted: WantedHost,
    instances: list[Instance],
    others: list[Instance],
    accept_warning: bool,
) -> HostState:
    recorded = fleet.versions.get(wanted.node) or NodeVersion(wanted.node)
    of_meta, version = usable_version(meta_version(instances)), usable_version(recorded.version)
    node_checks = _failing_node_checks(instances, accept_warning)
    down = next((check for check in node_checks if check.id == SERF_HEALTH), None)
    return HostState(
        host=wanted.host,
        node=wanted.node,
        registered=len(instances),
        serving=sum(one.in_rotation for one in instances),
        warning=tuple(warnings_of(instances, accept_warning=accept_warning)),
        version=version or of_meta,
        version_source="recorded" if version else "meta" if of_meta else None,
        target=wanted.target,
        maintenance=maintenance_of(fleet.service, [*instances, *others]),
        unreachable=wanted.unreachable or (f"its Consul agent does not answer: {down.told()}" if down else None),
        blocked="; ".join(check.told() for check in node_checks) or None,
        datacenter=instances[0].datacenter if instances and not wanted.datacenter else wanted.datacenter,
        sure=recorded.version_is_trusted,
        verifiable=wanted.health_url or wanted.smoke_test or all(one.is_verifiable for one in instances),
    )


def maintenance_of(service: str, instances: Iterable[Instance]) -> Maintenance | None:
    """The maintenance that the instances of one node are in; one set by someone else counts before one of ours."""
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


def unusable_versions(fleet: Fleet, nodes: Iterable[str]) -> list[str]:
    """A note for each version that is recorded or told there and cannot be deployed: it counts as unknown."""
    found: dict[str, list[str]] = {}
    instances = by_node(fleet.instances)
    for node in nodes:
        recorded = fleet.versions.get(node) or NodeVersion(node)
        of_meta = meta_version(instances.get(node, ()))
        for where, text in (("version", recorded.version), ("previous version", recorded.previous), ("meta", of_meta)):
            if text and not usable_version(text):
                found.setdefault(f"The {where} {text[:80]!r}", []).append(node)
    return [
        f"{what} of {named(there, 'node')} cannot be deployed (letters, digits and . _ + ~ : @ - can), and counts as "
        "unknown."
        for what, there in found.items()
    ]


def sidecar_notes(client: Client, service: str, nodes: Iterable[str], maintenance: str | Sequence[str]) -> list[str]:
    """A note where a sidecar goes on to get the mesh's requests while its service is in maintenance.

    It leaves the rotation with the service only by an alias check, which Consul gives it where it is defined without
    checks of its own.

    :param maintenance: ``service``, ``node``, or the services that go into it.
    """
    if maintenance == "node":
        return []
    wanted, taken_out = set(nodes), [] if isinstance(maintenance, str) else list(maintenance)
    staying: dict[str, list[str]] = {}
    for entry in client.get(f"/v1/health/connect/{service}").data or ():
        name, node = entry["Service"]["Service"], entry["Node"]["Node"]
        is_ours = (entry["Service"].get("Proxy") or {}).get("DestinationServiceName") == service
        follows = name in taken_out or any(check.get("Type") == "alias" for check in entry["Checks"] or ())
        if is_ours and node in wanted and not follows:
            staying.setdefault(name, []).append(node)
    return [
        f"The sidecar {name} has no alias check of {service} on {named(there, 'node')}: it goes on to get the mesh's "
        f"requests while {service} is in maintenance. Give it one (alias_service), or set rollout_maintenance: "
        f"[{service}, {name}]."
        for name, there in staying.items()
    ]


def namesake_notes(fleet: Fleet) -> list[str]:
    """A note where load balancers send requests to other services as well."""
    return [
        f"Consul also has the service {name}, which this rollout leaves alone; but its DNS and health API give the "
        f"instances of both for either name, so that load balancers mix them. Rename one of them."
        for name in fleet.namesakes
    ]


def assumed_intervals(fleet: Fleet, nodes: Iterable[str], check_interval: float) -> list[str]:
    """A note where it is not known how old a passing result may be: before Consul 1.20, and never of a TTL.

    :param nodes: those without a health URL.
    :param check_interval: seconds that are assumed.
    """
    wanted = set(nodes)
    unknown = {
        f"{check.name or check.id}{f' ({check.type})' if check.type else ''}"
        for one in fleet.instances
        for check in one.checks
        if one.node in wanted and check.tells_of_process and not check.interval
    }
    if not unknown:
        return []
    checks = ", ".join(sorted(unknown)[:5]) + (", ..." if len(unknown) > 5 else "")
    sentence = (
        f"Consul does not tell how often these checks have a new result: {checks}. {check_interval:g} s are assumed "
        "(rollout_check_interval); rollout_health_url would ask the new process itself."
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
