# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was changed is watched for a while, before more is (a private helper of this collection)."""

from __future__ import annotations

import os
import time

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import read_instances, service_query
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._rollout import analyst, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.alike import Ask
from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import checks_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.checks import Checks
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import ALIKE, Halt
from ansible_collections.hitless.consul.plugins.module_utils._rollout.gate import spent_stop, wait_for_change
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import LOOK_EVERY, halt_of, record_stop
from ansible_collections.hitless.consul.plugins.module_utils._rollout.pause_options import longest_bake
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress, read_progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.regression import look_back
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import CURRENT, OK
from ansible_collections.hitless.consul.plugins.module_utils._rollout.telling import Telling
from ansible_collections.hitless.consul.plugins.module_utils._views.text import duration

LISTEN_EVERY = 1.0
"""Seconds between two looks at what an analysis has found."""


def bake(task: Task, run: Run, ask: Ask, *, ended: int = 0) -> None:
    """Watch what was changed for rollout_bake_time; it ends early where the deployment stops.

    With a time of 0 it is looked at once. A rollback does not bake: what it returns to has proven itself.

    :param ended: the stage, or batch, that has ended; 0 for the last one.
    """
    client, keys, seconds = task.consul, run.keys(task), bake_seconds(run, ended)
    if run.options["direction"] == "rollback" or not client.key_names(keys.outcomes(run.id)):
        return
    until, telling = time.monotonic() + seconds, Telling(task.show, run.service)
    stop = _stop(run, read_progress(client, keys, run.id))
    if stop is None:
        if seconds:
            wave = run.planned_waves.told(ended or len(run.plan["batches"]))
            after = f"{wave} is done, " if wave and _ends_wave(run, ended) else ""
            telling.tell(f"{after}baking for {duration(seconds)}: what was changed is watched")
        asked = checks_of(run.options) if seconds else []
        about = _about(task, run) if any("command" in one for one in asked) else {}
        checks = Checks(asked, about, seconds, telling.tell)
        with checks, telling.waiting(lambda passed: f"baking, {passed:.0f} of {seconds:g} s"):
            stop = _watch(task, run, ask, until, checks)
        compared = analyst.told(task, run) if stop is None and seconds else ""
        if compared:
            telling.tell(f"analysis: {compared}")
    if stop:
        what = "stage" if run.is_window else "batch"
        record_stop(
            task, run, f"{what} {ended + 1}" if ended else "its end", stop, begun=ended or len(run.plan["batches"])
        )
    if stop is not None and not ended and run.options["rollback"] != "fleet":
        _look_once(task, run, ask)


def _look_once(task: Task, run: Run, ask: Ask) -> None:
    """Of what it has changed the others stay as they are, where it has failed, and nobody looks at them after this."""
    progress = read_progress(task.consul, run.keys(task), run.id)
    if not progress.control.noted.is_waiting:
        instances, _answer = read_instances(task.consul, run.service, tags=run.options["tags"])
        look_back(task, run, ask, instances, progress.in_flight, {one.node for one in instances})


def bake_seconds(run: Run, ended: int) -> float:
    """How long: batches of one size are no stages, and only looked at in between."""
    if _ends_wave(run, ended):
        return float(run.options[longest_bake(run.options)])
    sizes = run.options["batch_size"]
    is_stage = run.is_window or not ended or (isinstance(sizes, list) and ended < len(sizes))
    return float(run.options["bake_time"]) if is_stage else 0.0


def _ends_wave(run: Run, ended: int) -> bool:
    return run.planned_waves.ends_with(ended or len(run.plan["batches"]))


def _about(task: Task, run: Run) -> dict[str, str]:
    """What a check's command finds in its environment."""
    found = store.require(task.consul, run.keys(task), run.id)
    changed = [name for name, one in found.outcomes.items() if one.outcome in (OK, CURRENT)]
    return {
        "HITLESS_SERVICE": run.service,
        "HITLESS_VERSION": str(run.options["version"] or ""),
        "HITLESS_DEPLOYMENT": run.id,
        "HITLESS_CHANGED": " ".join(changed),
    }


def _watch(task: Task, run: Run, ask: Ask, until: float, checks: Checks) -> str | None:
    """Why the deployment stops; None where the time is up."""
    client, keys, last = task.consul, run.keys(task), len(run.plan["batches"])
    parent = os.getppid()
    # Where the controller was killed, the lock is kept for as long as one of its workers is there.
    while os.getppid() == parent:
        progress = read_progress(client, keys, run.id)
        stop = _stop(run, progress)
        halt = halt_of(run, progress) or checks.halt
        # An operator's pause is for the gate that follows; what a watcher cannot tell is told by no other bake.
        if halt and (not halt.pauses or halt.is_found):
            record_stop(task, run, "more is changed", halt.why, last, halt)
            stop = ""
        if stop is not None:
            return stop
        instances, answer = read_instances(client, run.service, tags=run.options["tags"])
        found = look_back(task, run, ask, instances, progress.in_flight, {one.node for one in instances})
        if found and found.alike:
            # It would be no better for a rollback.
            record_stop(task, run, "more is changed", found.alike, last, Halt(ALIKE, found.alike))
            return ""
        now = time.monotonic()
        if not found and now >= until and not checks.are_open:
            return None
        if not found:
            later = now + (LISTEN_EVERY if run.options["analysis"] else LOOK_EVERY)
            wait_for_change(client, service_query(run.service), answer, min(until, later) if until > now else later)
    return ""


def _stop(run: Run, progress: Progress) -> str | None:
    """Why it stops, empty where that is recorded already; None where it goes on."""
    if progress.stop:
        return ""
    return spent_stop(progress.spent, run.options["failure_budget"]) or None
