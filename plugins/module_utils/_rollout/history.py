# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deployments of a service that are kept, newest first (a private helper of this collection).

Their records are read at once, which are small; the hosts of one only where somebody asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import STOP, UNDONE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import DEPLOY, kind_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import INTERRUPTED, SUCCESSFUL
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
    LOST,
    NOTHING_DEPLOYED,
    OK,
    REGRESSED,
    ROLLED_BACK,
    SKIPPED,
    SPENDING,
)

_AS_BEFORE = (*NOTHING_DEPLOYED, CURRENT, ROLLED_BACK)


def is_changed(outcome: str) -> bool:
    """Whether a host with that outcome may run another version than before: also one that failed or is lost."""
    return outcome not in _AS_BEFORE


@dataclass(frozen=True)
class History:
    """What is kept of the deployments of a service.

    :param listed: newest first; of an interrupted one its record as it will stand once somebody has settled it.
    :param read: id -> the deployment with its hosts, None where it is gone.
    """

    listed: Sequence[store.Listed]
    read: Callable[[str], store.Deployment | None]
    _found: dict[str, store.Deployment | None] = field(default_factory=dict)
    _taken_away: dict[str, frozenset[str | None]] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return [one.record.id for one in self.listed]

    def find(self, deployment: str) -> store.Listed | None:
        return next((one for one in self.listed if one.record.id == deployment), None)

    def with_hosts(self, deployment: str) -> store.Deployment | None:
        """A deployment with its hosts, read once."""
        if deployment not in self._found:
            self._found[deployment] = self.read(deployment)
        return self._found[deployment]

    def taken_away_by(self, rollback: str) -> frozenset[str | None]:
        """The versions that hosts had before a rollback by hand took them to another; found once."""
        if rollback not in self._taken_away:
            found = self.with_hosts(rollback)
            ended = found.outcomes.values() if found else ()
            self._taken_away[rollback] = frozenset(
                one.from_version for one in ended if is_changed(one.outcome) and one.from_version != one.to_version
            )
        return self._taken_away[rollback]

    def older_than(self, deployment: str) -> list[store.Listed]:
        """Those before it, newest first; ids sort by time."""
        return [one for one in self.listed if one.record.id < deployment]

    def last(self) -> store.Listed | None:
        """The last one that began to change versions: one that found every host in place is passed over, and so is one
        that runs, or that only restarted hosts.

        A deployment that put everything back is not: going on to the one before it would take away a good version.
        """
        return next((one for one in self.listed if not one.is_alive and _has_changed(one)), None)

    def unfinished_rollback(self, version: str | None) -> str:
        """The id of the deployment of that version that its own run was to roll back, and was interrupted in.

        Empty where the last thing that happened is something else.
        """
        last = self.last()
        if last is None or last.record.state != INTERRUPTED:
            return ""
        undone = self.find(last.record.undoes) if last.record.is_automatic else last
        if undone is None or undone.record.version != version or (undone is last and not self._was_failing(last)):
            return ""
        # One that came after it and found every host in place is passed over as the last one, and has ended it.
        newer = [one.record for one in self.listed if one.record.id > last.record.id]
        is_ended = any(one.undoes == undone.record.id and one.state != INTERRUPTED for one in newer)
        return "" if is_ended else undone.record.id

    def _was_failing(self, one: store.Listed) -> bool:
        """Whether an interrupted deployment had failed already, and has left hosts that should have gone back."""
        if one.record.direction != "deploy" or one.record.options.get("rollback") != "fleet":
            return False
        found = self.with_hosts(one.record.id)
        if found is None or found.control.noted.kind == STOP:
            return False
        was_told = found.control.noted.kind in UNDONE or any(one.is_failure for one in found.control.findings)
        ended = Counter(found.results.values())
        # One that is lost may be so by the interruption alone.
        spent = sum(ended[outcome] for outcome in SPENDING if outcome != LOST)
        return (was_told or spent > one.record.failure_budget) and bool(ended[OK] or ended[REGRESSED])

    def needed(self) -> set[str]:
        """The ids that a rollback by hand would look at now, see :meth:`last`: these must stay."""
        last = self.last()
        waiting, found = [last.record.id] if last else [], set()
        while waiting:
            one = self.find(waiting.pop())
            if one is not None and one.record.id not in found:
                found.add(one.record.id)
                waiting += [one.record.undoes, one.record.resumes]
        return found

    def resumed_by(self, version: str | None, direction: str = DEPLOY) -> str:
        """The id of the deployment that one to this version goes on with; empty where it begins afresh.

        That is one of the same version which did not reach all of its hosts, with none in between that changed others.
        A restart has changed no version.

        :param direction: likewise for a restart, or a reboot.
        """
        keeps = kind_of(direction).keeps_version
        for one in self.listed:
            changes = any(is_changed(outcome) for outcome in one.record.summary)
            if (one.record.direction, one.record.version) != (direction, version):
                if changes and (keeps or not one.record.kind.keeps_version):
                    return ""
            elif one.record.state == SUCCESSFUL:
                return ""
            elif changes or one.record.resumes:
                return one.record.id
        return ""

    def chain(self, deployment: str) -> list[str]:
        """The ids of a deployment and of those that it resumed, the newest first; empty for none."""
        found: list[str] = []
        one = self.find(deployment)
        # Ids sort by time: what stands there and is not older would never end.
        while one and (not found or one.record.id < found[-1]):
            found.append(one.record.id)
            one = self.find(one.record.resumes)
        return found


def read_history(client: Client, keys: Keys) -> History:
    """The deployments that are kept of a service, in two requests for up to 63, and one for each unsettled one."""

    def read(deployment: str) -> store.Deployment | None:
        found = store.read(client, keys, deployment)
        return ending.settled(client, keys, found) if found else None

    kept = store.read_records(client, keys, store.list_ids(client, keys))
    settled = [read(one.record.id) or one if one.record.is_unsettled and not one.is_alive else one for one in kept]
    return History(settled, read)


def _has_changed(one: store.Listed) -> bool:
    """Whether it may have given hosts another version: of one whose record cannot be read nobody knows."""
    found_all_in_place = bool(one.record.summary) and set(one.record.summary) <= {CURRENT, SKIPPED}
    return not one.record.kind.keeps_version and not found_all_in_place
