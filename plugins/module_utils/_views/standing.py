# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a service stands after a run, and what to do: the last lines of it (a private helper of this collection)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping

from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import Kind
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PAUSED, PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
    DEFERRED,
    FAILED,
    LOST,
    OK,
    PENDING,
    REGRESSED,
    ROLLED_BACK,
    SKIPPED,
    UNTOUCHED,
)
from ansible_collections.hitless.consul.plugins.module_utils._views.text import plain

REASONS = 10
"""Hosts whose reason is told in full."""
_TOLD = (ROLLED_BACK, UNTOUCHED, REGRESSED, FAILED, LOST, DEFERRED)


def standing(
    record: Record,
    outcomes: Mapping[str, Outcome],
    in_rotation: Container[str],
    failing: Mapping[str, str] | None = None,
    *,
    undone: bool = False,
    found_bad: bool = False,
) -> str:
    """What is, as the catalog shows it now; why hosts did not end well, in full; what to do.

    :param in_rotation: nodes on which the service gets traffic.
    :param failing: node -> the checks that keep it out, in words.
    :param undone: whether the same run has rolled it back since.
    :param found_bad: whether it was stopped since an analysis, or another watcher, has found it bad.
    """
    hosts = record.hosts
    runs = Counter(
        _version(planned, outcomes.get(name)) or "an unknown version"
        for name, planned in hosts.items()
        if planned.node in in_rotation
    )
    number = sum(runs.values())
    lines = [f"{record.service}: {number} of {len(hosts)} in rotation{_told(runs, number)}."]
    lines += [
        f"Out of rotation: {name}"
        f"{_why_out(record.kind, planned, outcomes.get(name), (failing or {}).get(planned.node, ''))}"
        for name, planned in hosts.items()
        if planned.node not in in_rotation
    ]
    bad = [one for one in outcomes.values() if one.outcome in _TOLD and one.error]
    lines += [f"{one.host}: {plain(one.error)}{_last_line(one.output)}" for one in bad[:REASONS]]
    if len(bad) > REASONS:
        lines.append(f"... and {len(bad) - REASONS} more")
    old_ones = [one for name, one in hosts.items() if name not in outcomes or outcomes[name].outcome == PENDING]
    if old_ones and not number and record.state != PAUSED:
        lines.append("Next: what does not have it fails as well. See to that first, and run the same command again.")
    else:
        lines += _next(record, outcomes, undone=undone, found_bad=found_bad)
    return "\n".join([*lines, _story(record)])


def _story(record: Record) -> str:
    about = f"-e rollout_service={record.service} -e status_id={record.id}"
    return f"The story of it: ansible-playbook hitless.consul.status {about}"


def _version(planned: PlannedHost, outcome: Outcome | None) -> str:
    """What runs on a host by what became of it; empty where nobody knows."""
    ended = outcome.outcome if outcome else PENDING
    # Its own outcome may be that of the way back.
    before = (outcome.from_version if outcome else None) or planned.from_version
    after = (outcome.to_version if outcome else None) or planned.to_version
    if ended in (OK, CURRENT, REGRESSED):
        # Whoever has it already has no version to go to.
        return after or before or ""
    return "" if ended in (FAILED, LOST, DEFERRED) else before or ""


def _told(runs: Mapping[str, int], number: int) -> str:
    if not number:
        return ""
    if len(runs) == 1:
        return f", {'all ' if number > 1 else ''}on {next(iter(runs))}"
    return ": " + ", ".join(f"{count} on {version}" for version, count in sorted(runs.items()))


def _why_out(kind: Kind, planned: PlannedHost, outcome: Outcome | None, failing: str) -> str:
    ended = outcome.outcome if outcome else PENDING
    if ended == FAILED:
        return f", held in maintenance since its {kind.noun} failed."
    if ended == DEFERRED:
        return ", held in maintenance until its turn comes again."
    if ended == REGRESSED:
        return f", no longer healthy {'after it' if kind.keeps_version else f'on {planned.to_version}'}."
    if ended == LOST and kind.keeps_version:
        return ", lost: it cannot be reached."
    if ended == LOST:
        return ", lost: it cannot be reached, and nobody knows which version runs there."
    if ended == SKIPPED:
        why = planned.why or (outcome.error if outcome else "") or "left alone"
        return f", skipped: {plain(why).rstrip('.')}."
    return f", though nothing of this deployment keeps it out{f': {plain(failing)}' if failing else ''}."


def _last_line(output: str) -> str:
    """The end of what the deployment printed, which often says why."""
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    return f' It printed last: "{plain(last)[:200]}".' if last else ""


def _next(record: Record, outcomes: Mapping[str, Outcome], *, undone: bool, found_bad: bool) -> list[str]:
    """What to do, where there is something."""
    if record.state == PAUSED:  # its sentence says so
        return []
    ended = {one.outcome for one in outcomes.values()}
    if record.kind.keeps_version:
        return _next_restart(record.kind, ended)
    versions = [_version(record.hosts[name], one) for name, one in outcomes.items() if one.outcome != CURRENT]
    has_it = record.version in versions
    if undone and (has_it or FAILED in ended or LOST in ended):
        return ["Next: see to the hosts that did not go back, and run hitless.consul.rollback: it tries these again."]
    if LOST in ended:
        return ["Next: once they can be reached, run the same command again, or hitless.consul.recover."]
    if FAILED in ended:
        return ["Next: roll out a version that works; it takes over what is held in maintenance."]
    if REGRESSED in ended or (found_bad and has_it):
        return ["Next: hitless.consul.rollback undoes it; or roll out a version that works."]
    if ROLLED_BACK in ended or UNTOUCHED in ended:
        version = record.version or "it"
        if has_it:
            return [f"Next: repair {version}, and run the same command again; hosts that have it are left alone."]
        return [f"Next: repair {version}, and run the same command again. No host has it now, and nothing is to undo."]
    if PENDING in ended or DEFERRED in ended:
        return ["Next: run the same command again; hosts that have the version are left alone."]
    if record.joined:
        return ["Next: run the same command again; it rolls what has joined, where that is among rollout_hosts."]
    return []


def _next_restart(kind: Kind, ended: Container[str]) -> list[str]:
    """The same of a restart, or a reboot: no version has changed, so that there is nothing to roll back to."""
    left_alone = f"hosts that were {kind.done} are left alone"
    if FAILED in ended or REGRESSED in ended:
        again = f"run the same command again: it takes over what is held in maintenance, and {left_alone}"
        return [f"Next: no version has changed, and nothing is to roll back. See to what is not healthy, and {again}."]
    if LOST in ended:
        return ["Next: once they can be reached, run the same command again, or hitless.consul.recover."]
    if UNTOUCHED in ended:
        return [f"Next: see to what has kept it from being {kind.done}, and run the same command again; {left_alone}."]
    return [f"Next: run the same command again; {left_alone}."] if PENDING in ended else []
