# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision at the head of each batch (a private helper of this collection). Pure: plain data in and out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Outcome, Record, budget_spent


@dataclass(frozen=True)
class Head:
    """How many instances are healthy as a batch is about to begin, and would be without its own."""

    registered: int
    healthy: int
    healthy_without: int


def head_of(instances: Iterable[Instance], nodes: Iterable[str], *, accept_warning: bool) -> Head:
    """Counts instances in rotation, all, and those that are not on the batch's nodes."""
    mine, found = set(nodes), list(instances)
    healthy = [one for one in found if one.in_rotation(accept_warning=accept_warning)]
    return Head(len(found), len(healthy), sum(one.node not in mine for one in healthy))


def may_begin(head: Head, min_healthy: int) -> bool:
    """Our own action never takes the service below the minimum; taking out what is broken takes nothing away."""
    return head.healthy_without >= min_healthy or head.healthy_without == head.healthy


def lost_before(record: Record, outcomes: Sequence[Outcome], batch: int) -> list[str]:
    """Hosts planned in an earlier batch that have no outcome: their turn began, and nobody came back from it.

    Only the record counts, not facts, so that the last play and a later run see the same.
    """
    written = {one.node for one in outcomes}
    return [
        planned.host
        for planned in record.hosts.values()
        if planned.batch is not None and planned.batch < batch and planned.node not in written
    ]


def budget_stop(outcomes: Sequence[Outcome], failure_budget: int) -> str:
    """Why the deployment stops, empty where the failure budget still holds."""
    spent = budget_spent(outcomes)
    if spent <= failure_budget:
        return ""
    hosts = ", ".join(f"{one.host} {one.outcome.replace('_', ' ')}" for one in outcomes if budget_spent([one]))
    return f"the failure budget of {failure_budget} is spent ({hosts})"


def progress_stop(seconds_since_progress: float, progress_deadline: float) -> str:
    """Why the deployment stops, empty where some host has finished recently enough."""
    if seconds_since_progress <= progress_deadline:
        return ""
    return (
        f"no host has finished for {seconds_since_progress:.0f} s, more than rollout_progress_deadline "
        f"({progress_deadline:g} s)"
    )


def healthy_stop(head: Head, min_healthy: int, waited: float) -> str:
    """Why the deployment stops where too few instances are healthy."""
    return (
        f"only {head.healthy} of {head.registered} instances are healthy after {waited:.0f} s, and this batch would "
        f"leave {head.healthy_without}, fewer than the minimum of {min_healthy} (rollout_min_healthy)"
    )
