# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a service stands after a run, and what to do: the last lines of it (a private helper of this collection)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping

from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PAUSED, PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
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
_TOLD = (ROLLED_BACK, UNTOUCHED, REGRESSED, FAILED, LOST)


def standing(record: Record, outcomes: Mapping[str, Outcome], in_rotation: Container[str]) -> str:
    """What is, as the catalog shows it now; why hosts did not end well, in full; what to do.

    :param in_rotation: nodes on which the service gets traffic.
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
        f"Out of rotation: {name}{_why_out(planned, outcomes.get(name))}"
        for name, planned in hosts.items()
        if planned.node not in in_rotation
    ]
    bad = [one for one in outcomes.values() if one.outcome in _TOLD and one.error]
    lines += [f"{one.host}: {plain(one.error)}{_last_line(one.output)}" for one in bad[:REASONS]]
    if len(bad) > REASONS:
        lines.append(f"... and {len(bad) - REASONS} more")
    lines += _next(record, {one.outcome for one in outcomes.values()})
    return "\n".join([*lines, _story(record)])


def _story(record: Record) -> str:
    about = f"-e rollout_service={record.service} -e status_id={record.id}"
    return f"The story of it: ansible-playbook hitless.consul.status {about}"


def _version(planned: PlannedHost, outcome: Outcome | None) -> str:
    """What runs on a host by what became of it; empty where nobody knows."""
    ended = outcome.outcome if outcome else PENDING
    if ended in (OK, CURRENT, REGRESSED):
        # Whoever has it already has no version to go to.
        return planned.to_version or planned.from_version or ""
    return "" if ended in (FAILED, LOST) else planned.from_version or ""


def _told(runs: Mapping[str, int], number: int) -> str:
    if not number:
        return ""
    if len(runs) == 1:
        return f", {'all ' if number > 1 else ''}on {next(iter(runs))}"
    return ": " + ", ".join(f"{count} on {version}" for version, count in sorted(runs.items()))


def _why_out(planned: PlannedHost, outcome: Outcome | None) -> str:
    ended = outcome.outcome if outcome else PENDING
    if ended == FAILED:
        return ", held in maintenance since its deployment failed."
    if ended == REGRESSED:
        return f", no longer healthy on {planned.to_version}."
    if ended == LOST:
        return ", lost in its turn: nobody knows which version runs there."
    if ended == SKIPPED:
        why = planned.why or (outcome.error if outcome else "") or "left alone"
        return f", skipped: {plain(why).rstrip('.')}."
    return ", though nothing of this deployment keeps it out."


def _last_line(output: str) -> str:
    """The end of what the deployment printed, which often says why."""
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    return f' It printed last: "{plain(last)[:200]}".' if last else ""


def _next(record: Record, ended: Container[str]) -> list[str]:
    """What to do, where there is something."""
    if record.state == PAUSED:  # its sentence says so
        return []
    if LOST in ended:
        return ["Next: once they can be reached, run the same command again, or hitless.consul.recover."]
    if FAILED in ended:
        return ["Next: roll out a version that works; it takes over what is held in maintenance."]
    if ROLLED_BACK in ended or UNTOUCHED in ended:
        version = record.version or "it"
        return [f"Next: repair {version}, and run the same command again; hosts that have it are left alone."]
    if PENDING in ended:
        return ["Next: run the same command again; hosts that have the version are left alone."]
    return []
