# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old and new instances that fail alike: the new version is not the reason (a private helper of this collection).

Then no instance is left that works, and one at least of those that the deployment has not changed worked before; or a
host fails on its old version too, as it goes back. A single one that works, an old or a new one, tells them apart: what
fails beside it fails for a reason of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import halt_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress, read_progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import CURRENT, OK
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import read_outcomes

LOOK_EVERY = 0.5
"""Seconds between two looks while it is being confirmed."""

Ask = Callable[[PlannedHost], "str | None"]
"""Asks a host's health URL -> what is wrong with its answer, empty where nothing is; None where it cannot tell."""


def cannot_ask(_planned: PlannedHost) -> str | None:
    """Where there is no health URL."""
    return None


def others_fail(task: Task, run: Run, ask: Ask = cannot_ask, *, changed_too: bool = False) -> int:
    """How many instances the deployment has not changed that were well before, where all instances fail; else 0.

    :param ask: asks those that the catalog still shows in rotation: their checks may not have run again yet.
    :param changed_too: count those that it has changed as well: the old version is known to fail.
    """
    keys, client = run.keys(task), task.consul
    instances, _answer = read_instances(client, run.service, tags=run.options["tags"])
    if not _answer_badly(task, run, ask, [one.node for one in instances if one.in_rotation]):
        return 0
    prefix = keys.outcomes(run.id)
    changed = {name.removeprefix(prefix) for name in client.key_names(prefix)}
    unwell = {one.node for one in run.planned if not run.was_healthy(one.host)} - changed
    current = {one.node for one in run.planned if one.state == CURRENT}
    left_out = unwell | set(read_progress(client, keys, run.id).in_flight)
    left_out |= set() if changed_too else changed | current
    return sum(one.node not in left_out and not one.maintenance for one in instances)


def _answer_badly(task: Task, run: Run, ask: Ask, nodes: Sequence[str]) -> bool:
    """Whether each of the nodes answers badly, each asked as its own version has to answer; so do no nodes."""
    planned = {one.node: one for one in run.planned}
    known = [planned[node] for node in nodes if node in planned]
    if len(known) < len(nodes):
        return False
    ended = read_outcomes(task.consul, run.keys(task), run.id, nodes)
    for one in known:
        is_changed = one.node in ended and ended[one.node].outcome == OK
        version = one.to_version if is_changed else one.from_version
        if not version or not ask(replace(one, to_version=version)):
            return False
    return True


def others_keep_failing(task: Task, run: Run, *, changed_too: bool = False) -> int:
    """The same, where they have failed throughout rollout_watch_grace."""
    until = time.monotonic() + run.options["watch_grace"]
    while (others := others_fail(task, run, changed_too=changed_too)) and time.monotonic() < until:
        time.sleep(LOOK_EVERY)
    return others


def trouble_of_all(task: Task, run: Run, *, went_back: bool) -> str:
    """Why the failure of a host in its turn is not its own, as a sentence; empty where it may be.

    Where the deployment is ending anyway there is no later in which the host could take its turn again.

    :param went_back: whether it is its old version that fails there.
    """
    progress = read_progress(task.consul, run.keys(task), run.id)
    others = 0 if _is_ending(run, progress) else others_keep_failing(task, run, changed_too=went_back)
    if not others:
        return ""
    fails = f"each of the {others} other instances of {run.service} fails" if others > 1 else "the other instance fails"
    what = "restart" if run.kind.keeps_version else "new version"
    return f"But {fails} alike, so that the {what} is not the reason."


def _is_ending(run: Run, progress: Progress) -> bool:
    halt = halt_of(run, progress)
    is_told = halt is not None and not halt.pauses
    return is_told or bool(progress.stop and not progress.control.noted.is_waiting)
