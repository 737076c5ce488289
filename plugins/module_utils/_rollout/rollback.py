# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollback by hand: which deployment it undoes, and what that means for its hosts (a private helper).

Pure but for its history, of which it reads what it needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History, is_changed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import NAMED, HostState, named
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import CHANGED_SINCE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import CURRENT
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment, Listed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.undo import Undo, failed_in, undo
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import NodeVersion


@dataclass(frozen=True)
class Rollback:
    """What is asked for, as the plan takes it.

    :param hosts: as they were found, with where each goes, in the order in which they should go.
    :param undoes: the id of the deployment that is undone; empty where all hosts go to one version, and where there is
        nothing to undo, which ``nothing`` says.
    :param notes: what a person should know, as sentences.
    """

    hosts: Sequence[HostState]
    undoes: str = ""
    nothing: str = ""
    notes: Sequence[str] = ()


def find_rollback(
    history: History,
    service: str,
    options: Mapping[str, Any],
    hosts: Sequence[HostState],
    versions: Mapping[str, NodeVersion],
    *,
    automatic: bool = False,
) -> Rollback:
    """What a rollback by hand does, where it is not told another version: it undoes a deployment.

    :param options: of the rollout, by name without the prefix.
    :param hosts: as they were found; ``versions``: node -> what is recorded there.
    :param automatic: whether the run of that deployment itself asks, which has failed and still has the lock: it does
        what can be done.
    :raises HitlessError: that deployment cannot be undone; nothing has been changed.
    """
    if options["version"]:
        return Rollback(hosts, notes=_warn_of_failed(history, options["version"], hosts))
    wanted = str(options["rollback_deployment"] or "")
    deployment = _named(history, service, wanted, automatic=automatic) if wanted else _last(history, service)
    if deployment is None:
        return Rollback(_left_alone(hosts), nothing=_was_a_rollback(history, service, hosts))
    nodes = [one.node for one in hosts]
    out = {one.node for one in hosts if one.maintenance and one.maintenance.ours}
    known = {node: versions.get(node) or NodeVersion(node) for node in nodes}
    found = undo(history, deployment, known, out=out, previous_version=options["previous_version"])
    elsewhere = [host for node, host in found.hosts.items() if node not in known]
    notes = []
    if elsewhere:
        notes.append(
            f"{found.deployment} also changed {named(elsewhere)}; this rollback does not cover them, and they stay as "
            "they are."
        )
    changes = bool(found.back or found.stuck)
    nothing = "" if changes else _nothing(history, service, found, hosts, wanted)
    states = _states(found, hosts, strict=not automatic)
    return Rollback(states, found.deployment if changes else "", nothing, notes)


# -- which one ----------------------------------------------------------------------------------------------------


def _named(history: History, service: str, wanted: str, *, automatic: bool) -> Deployment:
    """The deployment that was asked for by its id."""
    listed = history.find(wanted)
    if listed is None:
        problem = (
            f"Consul knows no deployment {wanted} of {service} (a run with --check leaves none, and old ones are "
            "deleted, see rollout_keep_deployments)"
        )
    elif listed.is_alive and not automatic:
        problem = f"The deployment {wanted} of {service} is still running, and cannot be undone before its end"
    elif listed.record.direction == "rollback":
        problem = f"{wanted} is itself a rollback: to go forward again, roll out the version"
    else:
        return _readable(history, service, listed)
    ids = [one.record.id for one in _undoable(history)]
    known = ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
    raise HitlessError(f"{problem}; nothing was changed.", hint=f"It could be one of {known}." if ids else "")


def _last(history: History, service: str) -> Deployment | None:
    """The last deployment, None where that was a rollback to one version, which is not undone."""
    last = history.last()
    if last is None:
        raise HitlessError(
            f"No deployment of {service} is recorded (or the token may not read its records), so that there is none to "
            "undo; nothing was changed.",
            hint="Say which version all hosts are to go to: rollout_version.",
        )
    if last.record.direction == "rollback":
        undone = history.find(last.record.undoes)
        return _readable(history, service, undone) if undone else None
    return _readable(history, service, last)


def _readable(history: History, service: str, listed: Listed) -> Deployment:
    found = history.with_hosts(listed.record.id)
    if found is None or not found.record.hosts:
        raise HitlessError(
            f"What the deployment {listed.record.id} of {service} has changed cannot be read, so that it cannot be "
            "undone; nothing was changed.",
            hint="Say which version all hosts are to go to: rollout_version.",
        )
    return found


def _undoable(history: History) -> list[Listed]:
    """Deployments that may have changed hosts, newest first."""
    return [
        one
        for one in history.listed
        if one.record.direction == "deploy" and not one.is_alive and any(map(is_changed, one.record.summary))
    ]


# -- what it means for the hosts ----------------------------------------------------------------------------------


def _states(found: Undo, hosts: Sequence[HostState], *, strict: bool) -> list[HostState]:
    """The hosts in the order of their turns, each with where it goes, or why it stays.

    :param strict: whether the plan is to refuse a host that has no version to go back to; else that stays as it is.
    """
    by_node = {one.node: one for one in hosts}
    states = [
        replace(
            by_node[one.node],
            version=one.given or by_node[one.node].version,
            version_source="recorded",
            target=one.target,
            returns=one.in_rotation,
            note=one.note,
        )
        for one in found.back
    ]
    going = {one.node for one in found.back}
    for host in hosts:
        if host.node in found.stuck and not strict:
            states.append(replace(host, decided=(CHANGED_SINCE, f"cannot go back: {found.stuck[host.node]}")))
        elif host.node in found.stuck:
            states.append(replace(host, target=None, note=found.stuck[host.node]))
        elif host.node in found.stays:
            states.append(replace(host, decided=(CHANGED_SINCE, found.stays[host.node])))
        elif host.node not in going:
            why = "runs what it had before" if host.node in found.hosts else "not changed by"
            states.append(replace(host, decided=(CURRENT, f"{why} {found.deployment}")))
    return states


def _left_alone(hosts: Iterable[HostState]) -> list[HostState]:
    return [replace(one, decided=(CURRENT, "nothing to undo")) for one in hosts]


def _warn_of_failed(history: History, version: str, hosts: Iterable[HostState]) -> list[str]:
    """It is asked for by name, and so is done."""
    told = dict.fromkeys(failed_in(history, version, one.node) for one in hosts)
    named_so = "it is deployed all the same, since rollout_version names it"
    return [f"{version} failed or was rolled back from in {why}; {named_so}." for why in told if why]


# -- nothing to undo ----------------------------------------------------------------------------------------------


def _nothing(history: History, service: str, found: Undo, hosts: Sequence[HostState], wanted: str) -> str:
    which = wanted or f"the last deployment ({found.deployment})"
    if found.stays:
        why = f"none runs what {which} gave it any more"
    else:
        why = f"which is what {'it' if len(hosts) == 1 else 'they'} had before {which}"
    older = [one.record for one in _undoable(history) if one.record.id < found.deployment]
    earlier = f", to undo the one before it rollback_deployment={older[0].id}" if older else ""
    return f"{service}: nothing to undo: {_runs(hosts)}, {why}; for an older version say rollout_version{earlier}"


def _was_a_rollback(history: History, service: str, hosts: Sequence[HostState]) -> str:
    last = history.last()
    name = f" ({last.record.id})" if last else ""
    return (
        f"{service}: nothing to undo: {_runs(hosts)}, and the last deployment{name} was a rollback itself; for another "
        "version say rollout_version"
    )


def _runs(hosts: Sequence[HostState]) -> str:
    """``all 5 hosts run 1.4.2``."""
    if len(hosts) == 1:
        return f"{hosts[0].host} runs {hosts[0].version or 'an unknown version'}"
    counted = Counter(one.version or "an unknown version" for one in hosts)
    if len(counted) == 1:
        return f"all {len(hosts)} hosts run {next(iter(counted))}"
    return ", ".join(f"{number} run {version}" for version, number in counted.items())
