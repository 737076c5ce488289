# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment told while it runs: each host's steps and its log as they come (a private helper of this collection)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import (
    Deployment,
    read_steps,
    refresh,
    require,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import seconds_between
from ansible_collections.hitless.consul.plugins.module_utils._views.log import key_name
from ansible_collections.hitless.consul.plugins.module_utils._views.text import moment, of_host, plain

Step = tuple[str, str]
"""Its state, and when it began as keys hold it."""

EVERY = 1.0
"""Seconds between two looks: what is looked at is many keys, and who watches is a person."""


def news(shown: Sequence[Step], steps: Sequence[Step]) -> list[Step]:
    """The steps of one host that come after those that were shown, each (state, when).

    A host's status holds the step that it is at, and its outcome all of them: some were over before anybody looked, and
    each has another clock reading. So what was shown last is looked for by its name, the nearest in time of several;
    what comes before it in the list is late and left to the story.
    """
    if not shown:
        return list(steps)
    state, at = shown[-1]
    places = [place for place, step in enumerate(steps) if step[0] == state]
    if places:
        return list(steps[min(places, key=lambda place: _apart(steps[place][1], at)) + 1 :])
    return [step for step in steps if step[1] >= at and step not in shown]


def _apart(one: str, other: str) -> float:
    return abs(seconds_between(one, other) or 0.0)


class Follower:
    """Tells each step and each line once and in order, from the deployment's beginning.

    :param show: called with the lines of one look.
    :param with_log: whether logs are told, or steps only.
    """

    def __init__(
        self, client: Client, keys: Keys, deployment: str, show: Callable[[str], None], *, with_log: bool
    ) -> None:
        self._client = client
        self._keys = keys
        self._id = deployment
        self._show = show
        self._with_log = with_log
        self._shown: dict[str, list[Step]] = {}
        self._errors: set[str] = set()
        self._read: dict[str, str] = {}
        self._partial: dict[str, str] = {}
        self._silent: set[str] = set()

    def follow(self) -> Deployment:
        """Tell until no living run holds the lock for it -> how it stands then."""
        found = require(self._client, self._keys, self._id)
        while True:
            # In this order: what a host printed is told before the step that came of it.
            lines = [*(self._log_lines(found) if self._with_log else ()), *self._step_lines(found)]
            if lines:
                self._show("\n".join(lines))
            if not found.is_alive:
                return found
            time.sleep(EVERY)
            found = refresh(self._client, self._keys, found)

    def _step_lines(self, found: Deployment) -> list[str]:
        new: list[tuple[str, str]] = []
        for host, steps in read_steps(self._client, self._keys, found).items():
            shown = self._shown.setdefault(host, [])
            fresh = news(shown, [(str(step.get("state")), str(step.get("at"))) for step in steps])
            shown += fresh
            new += [(at, f"{moment(at)[11:] or '-'} {plain(host)}: {plain(state)}") for state, at in fresh]
        for host, one in found.outcomes.items():
            if one.error and host not in self._errors:
                self._errors.add(host)
                at = one.finished or found.record.started or ""
                new.append((at, f"{moment(one.finished)[11:] or '-'} {plain(host)}: {plain(one.error)}"))
        # Stable: an error follows the step that it explains.
        return [line for _at, line in sorted(new, key=lambda item: item[0])]

    def _log_lines(self, found: Deployment) -> list[str]:
        hosts = found.record.hosts
        names = {key_name(host): host for host in hosts}
        prefix = self._keys.run_logs(self._id)
        lines: list[str] = []
        by_name: dict[str, list[str]] = {}
        for key in self._client.key_names(prefix):
            by_name.setdefault(key.removeprefix(prefix).partition("/")[0], []).append(key)
        for name, keys in by_name.items():
            lines += self._new_lines(f"run {name}", names.get(name, name), keys)
        for host, planned in hosts.items() if found.record.by_agents else ():
            if host not in self._silent and found.has_begun(planned):
                log = self._client.key_names(self._keys.agent_log(planned.node, self._id))
                lines += self._new_lines(f"agent {host}", host, log)
                # It has ended, and so has its log: not asked any more.
                self._silent |= {host} & found.outcomes.keys()
        return lines

    def _new_lines(self, source: str, host: str, keys: Iterable[str]) -> list[str]:
        text = self._partial.pop(source, "")
        for key in sorted(keys):
            if key > self._read.get(source, ""):
                pair = self._client.key(key)
                text += pair.value if pair else ""
                self._read[source] = key
        whole, newline, partial = text.rpartition("\n")
        if partial:
            self._partial[source] = partial
        return of_host(plain(host), whole.splitlines()) if newline else []
