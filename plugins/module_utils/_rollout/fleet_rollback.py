# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that stops by failure is undone by the same run (rollout_rollback: fleet; a private helper).

What follows is the rollback that a person would start by hand, see undo.py: a deployment of its own with a plan and a
record, and with the lock, which the failed one hands on to it. Where that is interrupted as well, the next start of the
same command ends it first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, fleet, probing
from ansible_collections.hitless.consul.plugins.module_utils._rollout.alike import Ask, others_keep_failing
from ansible_collections.hitless.consul.plugins.module_utils._rollout.bake import bake
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import undo_failed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import ABORT, FAILURE, STOP, UNDONE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import halt_of, record_stop
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import is_changed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome, budget_spent
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import read_progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import FAILED, PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
    NOTHING_DEPLOYED,
    OK,
    ROLLED_BACK,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment


def settle(task: Task, run: Run, ask: Ask, hosts: Callable[[], Sequence[fleet.WantedHost]], forks: int) -> Run:
    """Watch what was changed -> the run as it goes on: that of the rollback, where the deployment has failed.

    It never fails: whatever is wrong, the run ends with a verdict.

    :param hosts: finds those of the rollout, where they are needed.
    """
    try:
        bake(task, run, ask)
        run = _end_probe(task, run)
        if run.options["rollback"] != "fleet" or run.options["direction"] == "rollback":
            return run
        found = ending.conclude(task.consul, run.keys(task), run.id, probed=run.probed)
        if not stopped_by_failure(found):
            return run
        if not run.resumed and not any(is_changed(one.outcome) for one in found.outcomes.values()):
            return run  # all of it is back already, which the verdict says
        # Whoever aborts has looked.
        others = 0 if found.control.noted.kind == ABORT else others_keep_failing(task, run)
        if others:
            task.warn(
                f"What {run.id} has changed is not rolled back: each of the {others} other instances of {run.service} "
                "fails as well, so that the new version is not the reason. Once they are healthy again run the same "
                "command again, or hitless.consul.rollback."
            )
            return run
        task.show(f"{found.record.description} What it has changed goes back now (rollout_rollback: fleet).")
        return undo_failed(task, run, found, hosts(), forks)
    except HitlessError as error:
        task.warn(f"What {run.id} has changed is not rolled back: {error}")
        return probing.end(run)


def _end_probe(task: Task, run: Run) -> Run:
    """The run without its probe; what that has found at the very last counts, too."""
    if not run.probing:
        return run
    run = probing.end(run)
    progress = read_progress(task.consul, run.keys(task), run.id)
    halt = halt_of(run, progress)
    if halt and halt.kind == FAILURE and not progress.stop:
        record_stop(task, run, "its end", halt.why, len(run.plan["batches"]), halt)
    return run


def stopped_by_failure(found: Deployment) -> bool:
    """Whether a deployment has spent more than its failure budget, was aborted, or a watcher has found it bad.

    What stops for another reason may go on later, and what an operator has stopped stays as it is.
    """
    kind = found.control.noted.kind
    if found.record.state != FAILED or kind == STOP:
        return False
    return kind in UNDONE or budget_spent(found.outcomes.values()) > found.record.failure_budget


def joined(failed: Deployment, back: Deployment) -> Deployment:
    """A deployment with what its rollback came to: each host as it is now, and both stories."""
    hosts, outcomes = dict(failed.record.hosts), dict(failed.outcomes)
    for name, planned in back.record.hosts.items():
        ended, before = back.outcomes.get(name), failed.outcomes.get(name)
        if ended is None or name not in hosts:
            continue
        if ended.outcome == OK:
            hosts[name] = replace(hosts[name], from_version=planned.to_version)
            outcomes[name] = _turned_back(hosts[name], ended, before.error if before else "")
        elif before and ended.outcome in NOTHING_DEPLOYED:
            # It runs what the deployment left there.
            why = ended.error or planned.why or "not begun."
            outcomes[name] = replace(before, error=f"{before.error} It was not rolled back: {why}".lstrip())
        elif planned.batch is not None:
            outcomes[name] = ended
        elif ended.outcome == CURRENT and before and _has_left(failed, before, planned.from_version):
            hosts[name] = replace(hosts[name], from_version=planned.from_version)
            outcomes[name] = _turned_back(hosts[name], before, before.error)
    story = f"{failed.record.description} {back.record.description}"
    return replace(failed, record=replace(failed.record, hosts=hosts, description=story), outcomes=outcomes)


def _has_left(failed: Deployment, ended: Outcome, runs: str | None) -> bool:
    """Whether a host that had its version runs another one now: a rollback that was interrupted has taken it back."""
    had_it = ended.outcome == CURRENT or is_changed(ended.outcome)
    return had_it and runs not in (None, ended.to_version, failed.record.version)


def _turned_back(planned: PlannedHost, ended: Outcome, why: str) -> Outcome:
    before, after = planned.from_version, planned.to_version
    return replace(ended, outcome=ROLLED_BACK, from_version=before, to_version=after, error=why)


def not_well(failed: Deployment, back: Mapping[str, str]) -> list[str]:
    """The hosts that made a deployment fail, and those that did not go back; not those that went back well.

    :param back: host -> outcome of the rollback.
    """
    # One that it was not to change is current there.
    bad = {host for host, outcome in back.items() if outcome not in (OK, CURRENT)}
    return [host for host in failed.record.hosts if host in bad or host in failed.failed_hosts]
