# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares new instances with old ones for as long as a deployment goes on (a private helper of this collection).

It runs in a process beside the run (beside.py), between the turns of hosts and while they bake alike, and says what it
finds by a key (findings.py). With the last host there is no old instance left: what was seen until then counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance, read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    TXN_LIMIT,
    json_object,
    kv_check_session,
    kv_read,
    kv_set,
    kv_text,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout import findings, haproxy
from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import comparison_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beside import Ended
from ansible_collections.hitless.consul.plugins.module_utils._rollout.comparison import NEW, OLD, Comparison
from ansible_collections.hitless.consul.plugins.module_utils._rollout.haproxy import Statistics, normal
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress, reads
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import CURRENT, OK

WATCHER = "analysis"
EVERY = 1.0
"""Seconds between two looks."""
INSTANCES_EVERY = 10
"""Looks between two at which instances and their addresses are read."""


class Sides:
    """Which instances run the new version, and which the old one.

    A host is new once its turn has ended well, or where it had the version before. It is old while its turn has not
    begun. In between, and where its turn has failed, it is neither.
    """

    def __init__(self, client: Client, keys: Keys, run: Run) -> None:
        self._client, self._keys, self._run = client, keys, run
        self._of_node = {one.node: NEW if one.state == CURRENT else OLD for one in run.planned}
        """Of those whose turn has not begun, or never does."""
        self._ended: dict[str, str] = {}
        self._begun: set[str] = set()
        self._ended_at = ""
        self._reads = 1
        self._instances: Sequence[Instance] = ()
        self._looks = 0

    def at(self, progress: Progress) -> dict[str, str]:
        """Address of each instance whose side is known -> new or old."""
        if self._looks % INSTANCES_EVERY == 0:
            self._instances = read_instances(self._client, self._run.service, tags=self._run.options["tags"])[0]
        self._looks += 1
        flying = set(progress.in_flight)
        self._begun |= flying | self._begun_in_batches(progress)
        if progress.ended_at != self._ended_at:
            # It tells the second: within it more may have ended.
            self._ended_at, self._reads = progress.ended_at, 2
        if self._reads or not self._begun <= flying | self._ended.keys():
            self._read_ended()
            self._reads = max(0, self._reads - 1)
        sides = {}
        for one in self._instances:
            side = self._ended.get(one.node, "" if one.node in self._begun else self._of_node.get(one.node, ""))
            if side and one.port:
                sides[normal(f"{one.address}:{one.port}")] = side
        return sides

    def _begun_in_batches(self, progress: Progress) -> set[str]:
        if self._run.is_window:
            return set()
        return {one.node for one in self._run.changing if (one.batch or 0) <= progress.batch}

    def _read_ended(self) -> None:
        prefix = self._keys.outcomes(self._run.id)
        names = [name.removeprefix(prefix) for name in self._client.key_names(prefix)]
        new = [name for name in names if name not in self._ended]
        for start in range(0, len(new), TXN_LIMIT):
            items = self._client.txn([kv_read(f"{prefix}{name}") for name in new[start : start + TXN_LIMIT]])
            for item in items:
                node = item["Key"].removeprefix(prefix)
                self._ended[node] = NEW if Outcome.from_json(kv_text(item), node).outcome == OK else ""


class Analyst:
    """Looks until the run ends, or the deployment stops.

    :param settings: of the comparison, see analysis_options.py.
    :param ask: reads the statistics of a load balancer.
    """

    def __init__(
        self, task: Task, run: Run, settings: Mapping[str, Any], ask: Callable[[str], Statistics] = haproxy.ask
    ) -> None:
        own = replace(task)  # connections of its own: those of the task's process are not to be shared
        self._client, self._keys, self._run = own.consul, own.keys(run.service), run
        self._settings, self._ask = settings, ask
        self._sides = Sides(self._client, self._keys, run)
        self._comparison: Comparison | None = None
        self._written: Mapping[str, Any] = {}
        self._silent = 0
        self._doubts = False

    def work(self, ended: Ended) -> None:
        """In the process beside the run."""
        while True:
            try:
                if self.look():
                    return
            except LockLost:
                return
            except ConsulError:  # there will be another answer, or the lock is lost
                pass
            except Exception as error:  # nobody sees this process: what it cannot do has to be a doubt
                with suppress(HitlessError):
                    self._doubt([f"{type(error).__name__}: {error}"])
            if ended(EVERY):
                return

    def look(self) -> bool:
        """Take in what was counted since the last look -> whether that was the last one.

        :raises LockLost: the run is over.
        """
        progress, comparison = self._read()
        if progress.stop:
            return True
        answers, problems = self._statistics()
        comparison.look(answers, self._sides.at(progress))
        worse = comparison.worse
        if worse and not self._settings["dry_run"]:
            self._client.txn([self._fence(), *self._changes()])
            self._tell(findings.Finding(WATCHER, True, f"analysis: {worse}"))
            return True
        self._doubt(problems)
        return False

    def _read(self) -> tuple[Progress, Comparison]:
        """The progress, and the comparison as the keys hold it; what the last look has counted is written with that."""
        own, name = self._keys.analysis(self._run.id), self._run.id
        first = self._comparison is None
        operations = [*reads(self._keys, name), *([kv_read(own)] if first else self._changes())]
        items = self._client.txn([self._fence(), *operations])
        values = {item["Key"]: item for item in items}
        if self._comparison is None:
            left = json_object(kv_text(values[own])) if own in values else None
            self._comparison = Comparison(self._settings, left)
        return Progress.of(self._keys, name, values), self._comparison

    def _changes(self) -> list[dict[str, Any]]:
        data = self._comparison.as_dict() if self._comparison else {}
        if data == self._written:
            return []
        self._written = data
        return [kv_set(self._keys.analysis(self._run.id), json.dumps(data, separators=(",", ":")))]

    def _fence(self) -> dict[str, Any]:
        return kv_check_session(self._keys.lock, self._run.session)

    def _statistics(self) -> tuple[dict[str, Statistics], list[str]]:
        """Those of the load balancers that answer, and what is wrong with the others."""
        urls = self._run.options["load_balancers"]

        def asked(url: str) -> Statistics | str:
            try:
                return self._ask(url)
            except HitlessError as error:
                return str(error)

        found = dict(zip(urls, haproxy.at_once(asked, urls), strict=True))
        answers = {url: one for url, one in found.items() if isinstance(one, Statistics)}
        return answers, [one for one in found.values() if isinstance(one, str)]

    def _doubt(self, problems: Sequence[str]) -> None:
        """A load balancer that does not answer for long is a doubt; it is over with the first answer."""
        self._silent = self._silent + 1 if problems else 0
        limit = self._settings["inconclusive_limit"]
        if self._silent > limit and not self._doubts and not self._settings["dry_run"]:
            why = f"analysis: nothing can be compared for {self._silent * EVERY:.0f} s: {problems[0]}"
            self._tell(findings.Finding(WATCHER, False, why.rstrip(".")))
            self._doubts = True
        elif self._doubts and not problems:
            findings.withdraw(self._client, self._keys, self._run.id, self._run.session, WATCHER)
            self._doubts = False

    def _tell(self, found: findings.Finding) -> None:
        found.tell(self._client, self._keys, self._run.id, self._run.session)


def told(task: Task, run: Run) -> str:
    """What the comparison has come to so far, for a person; empty where there is none."""
    if comparison_of(run.options) is None:
        return ""
    pair = task.consul.key(run.keys(task).analysis(run.id))
    found = json_object(pair.value) if pair else None
    return str((found or {}).get("told") or "nothing was compared")


def begin(task: Task, run: Run, beside: Callable[[Callable[[Ended], None]], object]) -> None:
    """Begin to compare in a process beside the run, where that is asked for and there is something to come.

    :param beside: starts it, see beside.py.
    """
    settings = comparison_of(run.options) if run.options["direction"] != "rollback" and run.recorded else None
    if settings is not None and run.changing:
        beside(lambda ended: Analyst(task, run, settings).work(ended))
