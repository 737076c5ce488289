# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan refuses, and what it warns of (a private helper of this collection).

Each refusal is an error that says what cannot work and what to set; nothing has been changed then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import (
    HostPlan,
    HostState,
    PlanSettings,
    named,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    LEFT_OUT,
    OTHER_OWNER,
    TO_CHANGE,
    UNREACHABLE,
)


def refuse_what_cannot_be(hosts: Sequence[HostState], settings: PlanSettings) -> None:
    """No host, a host twice, several datacenters, or hosts without the service."""
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


def refuse_skipped(
    hosts: Sequence[HostState], states: Mapping[str, tuple[str, str | None]], settings: PlanSettings
) -> None:
    """Hosts that cannot be reached, unless they may be skipped; or no host left to work on.

    :param states: host -> its state in the plan, and why.
    """
    lost = [f"{one.host} ({states[one.host][1]})" for one in hosts if states[one.host][0] == UNREACHABLE]
    if lost and settings.unreachable == "fail":
        raise HitlessError(
            f"Unreachable: {named(lost)}; nothing was changed.",
            hint="Repair it, or go on without it: rollout_unreachable: skip.",
        )
    left = [f"{one.host} ({states[one.host][1]})" for one in hosts]
    if all(state == OTHER_OWNER for state, _why in states.values()):
        raise HitlessError(
            f"Every host is in maintenance set by someone else ({named(left)}); nothing was changed.",
            hint="End it first: it is never cleared here.",
        )
    if all(state in (OTHER_OWNER, UNREACHABLE) for state, _why in states.values()):
        raise HitlessError(f"No host is left to work on ({named(left)}); nothing was changed.")


def refuse_without_target(chosen: Sequence[HostState], settings: PlanSettings) -> None:
    """A rollback needs a version to go to."""
    nowhere = [f"{one.host} ({one.note})" if one.note else one.host for one in chosen if one.target is None]
    if nowhere:
        raise HitlessError(
            f"There is no version of {settings.service} to go back to on {named(nowhere)}; nothing was changed.",
            hint="Say where to go: rollout_version for all hosts, or rollout_previous_version for those of which no "
            "version before is recorded.",
        )


def refuse_warning(chosen: Sequence[HostState]) -> None:
    """It gets traffic, and would not get it back after its deployment, nor after a rollback."""
    warns = [check for one in chosen for check in one.warning]
    if warns:
        hosts = [one.host for one in chosen if one.warning]
        raise HitlessError(
            f"A check warns on {named(hosts)} ({'; '.join(warns[:3])}{'; ...' if len(warns) > 3 else ''}), so that no "
            "deployment could be verified there by its checks; nothing was changed.",
            hint="Repair it, or accept it: rollout_accept_warning: true. Consul's DNS serves what warns.",
        )


def refuse_unverifiable(chosen: Sequence[HostState], settings: PlanSettings) -> None:
    """A broken version would be taken for a good one, on all hosts."""
    unverifiable = [one.host for one in chosen if not one.verifiable]
    new = "" if settings.kind.keeps_version else "a new version of "
    if unverifiable and not settings.unverified:
        raise HitlessError(
            f"Nothing can tell whether {new}{settings.service} works on {named(unverifiable)}: there is no "
            "rollout_health_url, and no check that runs by itself (a TTL may have been reported before the "
            f"{settings.kind.noun}); nothing was changed.",
            hint="Set rollout_health_url, or give the service a check, or go on without: rollout_unverified: true.",
        )


def warnings_of(plans: Mapping[str, HostPlan], chosen: Sequence[HostState], settings: PlanSettings) -> list[str]:
    """What a person should know of a plan that can work.

    :param plans: of all hosts; ``chosen`` are those to change, as they were found.
    """
    return [
        *_rollback_warnings(plans, settings),
        *_blocked_warnings(chosen),
        *_unverified_warnings(chosen, settings),
        *_skipped_warnings(plans),
        *_uncovered_warnings(settings),
        *_mixed_warnings(plans, settings),
    ]


def _rollback_warnings(plans: Mapping[str, HostPlan], settings: PlanSettings) -> list[str]:
    if settings.rollback == "none" or settings.kind.keeps_version:
        return []
    without = [one for one in plans.values() if one.state == TO_CHANGE and one.rollback_to is None]
    unknown = [one.host for one in without if one.from_version is None]
    same = [one.host for one in without if one.from_version is not None and one.from_version == one.to_version]
    warnings = []
    if unknown:
        warnings.append(
            f"No rollback possible on {named(unknown)} (no version recorded): set rollout_previous_version."
        )
    if same:
        warnings.append(f"No rollback possible on {named(same)}: the version is the one that runs there.")
    return warnings


def _unverified_warnings(chosen: Sequence[HostState], settings: PlanSettings) -> list[str]:
    unverifiable = [one.host for one in chosen if not one.verifiable]
    if not unverifiable:
        return []
    what, broken = ("it", "a failure") if settings.kind.keeps_version else ("a new version", "a broken one")
    return [f"Nothing verifies that {what} works on {named(unverifiable)}: {broken} would stay unnoticed."]


def _blocked_warnings(chosen: Sequence[HostState]) -> list[str]:
    return [
        f"{one.host} cannot become healthy as long as its node's own check fails: {one.blocked}."
        for one in chosen
        if one.blocked
    ]


def _skipped_warnings(plans: Mapping[str, HostPlan]) -> list[str]:
    return [f"{one.host} is skipped: {one.why}." for one in plans.values() if one.state in LEFT_OUT]


def _uncovered_warnings(settings: PlanSettings) -> list[str]:
    if not settings.uncovered:
        return []
    nodes = named(settings.uncovered, "node")
    return [f"{settings.service} also runs on {nodes}; this rollout does not cover them, and they stay as they are."]


def _mixed_warnings(plans: Mapping[str, HostPlan], settings: PlanSettings) -> list[str]:
    """A rollback that leaves several versions side by side: each host may be where it was, and the fleet is not one."""
    after: dict[str, list[str]] = {}
    for one in plans.values():
        version = one.to_version if one.state == TO_CHANGE else one.from_version
        after.setdefault(version or "an unknown version", []).append(one.host)
    changes = any(one.state == TO_CHANGE for one in plans.values())
    if settings.direction != "rollback" or len(after) < 2 or not changes:
        return []
    runs = "; ".join(f"{version} on {named(hosts)}" for version, hosts in after.items())
    return [
        f"After this rollback the hosts run different versions: {runs}. rollout_version would take all of them to one."
    ]
