# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restart, or a reboot: which hosts get a turn (a private helper of this collection).

No version tells whether a host has had it, as it does in a rollout; what the deployment has recorded that this one goes
on with does. Pure but for its history, of which it reads what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import parse_reason
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import Kind
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import HostState, named
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import OTHER_OWNER
from ansible_collections.hitless.consul.plugins.module_utils._rollout.rollback import Rollback
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import CURRENT, OK


def find_restart(history: History, kind: Kind, hosts: Sequence[HostState], *, skip_current: bool) -> Rollback:
    """The hosts, each to the version that it has, and what a person should know.

    A host that a rollout holds in maintenance is left alone: that it runs again would not tell that its version works.

    :param skip_current: whether those stay alone that the deployment has restarted which this one goes on with.
    """
    resumed = history.resumed_by(None, kind.direction) if skip_current else ""
    had_it = _restarted(history, resumed)
    states = [_state(history, kind, one, had_it.get(one.node, "")) for one in hosts]
    left_alone = [one.host for one in states if one.decided and one.decided[0] == CURRENT]
    if not left_alone:
        return Rollback(states)
    note = (
        f"{named(left_alone)} {kind.done} already by {resumed}, which did not reach all of its hosts, and left alone; "
        "rollout_skip_current: false takes all of them anew."
    )
    return Rollback(states, notes=[note])


def _restarted(history: History, deployment: str) -> dict[str, str]:
    """Node -> the deployment that restarted it: this one, or one that it had resumed."""
    found: dict[str, str] = {}
    for name in history.chain(deployment):
        there = history.with_hosts(name)
        ended = there.outcomes.values() if there else ()
        found.update({one.node: name for one in ended if one.outcome == OK and one.node not in found})
    return found


def _state(history: History, kind: Kind, one: HostState, had_it: str) -> HostState:
    if had_it and one.is_healthy and not one.maintenance:
        return replace(one, decided=(CURRENT, f"{kind.already} by {had_it}"))
    reason = parse_reason(one.maintenance.reason) if one.maintenance and one.maintenance.ours else None
    holder = history.find(reason.deployment) if reason else None
    if reason and not (holder and holder.record.kind.keeps_version):
        why = f"held in maintenance by {reason.deployment}: roll out a version that works, or recover it"
        return replace(one, decided=(OTHER_OWNER, why))
    return replace(one, target=one.version)
