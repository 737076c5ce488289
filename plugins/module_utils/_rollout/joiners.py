# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances that registered while a deployment ran, and are not in its plan (a private helper of this collection).

They are named at its end (rollout_joiners: name), or rolled by the same run, as the same command again would: in a
deployment of its own, which resumes the one that has ended, since a plan never changes (roll).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance, read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, fleet
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import hand_over, plan_run, record_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import NAME, Keys, usable_version
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import JOINING
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import named
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    FAILED,
    JOINED_LIMIT,
    SUCCESSFUL,
    Record,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import (
    NodeVersion,
    meta_version,
    read_versions,
)
from ansible_collections.hitless.consul.plugins.module_utils._views import report

ROLL = "roll"
"""As rollout_joiners."""
Again = Callable[[], "tuple[Run, Sequence[fleet.WantedHost]]"]
"""Reads the options anew, with the inventory as it is now -> a run, and its hosts."""


def nodes_joined(record: Record, instances: Iterable[Instance]) -> list[str]:
    """The nodes with an instance that were there neither as hosts nor beside them when the plan was made."""
    known = {one.node for one in record.hosts.values()} | set(record.uncovered)
    return sorted({one.node for one in instances} - known)


def with_joiners(client: Client, keys: Keys, ended: Deployment, instances: Sequence[Instance]) -> Deployment:
    """The deployment with what has joined and does not run its version, in its record and in what that says.

    Where nothing has joined no request is made.

    :param instances: of the service, as the catalog shows them now.
    """
    record = ended.record
    is_over = record.state in (SUCCESSFUL, FAILED) and not record.kind.keeps_version
    nodes = nodes_joined(record, instances) if is_over else []
    if not nodes:
        return ended
    recorded = read_versions(client, keys, [node for node in nodes if NAME.fullmatch(node) and ".." not in node])
    there = fleet.by_node(instances)
    versions = {
        node: usable_version(recorded.get(node, NodeVersion(node)).version)
        or usable_version(meta_version(there[node]))
        or ""
        for node in nodes
    }
    joined = {node: version for node, version in versions.items() if not record.version or version != record.version}
    if not joined:
        return ended
    kept = dict(list(joined.items())[:JOINED_LIMIT])
    described = f"{record.description} {report.joined(joined)}"
    return replace(ended, record=replace(record, joined=kept, description=described))


def follow(task: Task, run: Run, again: Again, forks: int) -> Run:
    """Roll what has joined -> the run as it goes on: that of a further deployment, where there is something to roll.

    It never fails: what is not rolled is named at the end.
    """
    if run.options["joiners"] != ROLL or run.options["direction"] != "deploy" or run.undoes:
        return run
    keys = run.keys(task)
    try:
        ended = ending.conclude(task.consul, keys, run.id, probed=run.probed)
        if ended.record.state != SUCCESSFUL:
            return run
        instances, _answer = read_instances(task.consul, run.service, tags=run.options["tags"])
        joined = {one.node for one in instances} - {one.node for one in ended.record.hosts.values()}
        if not joined:
            return run
        prepared, hosts = again()
        new = [one for one in hosts if one.node in joined]
        if not new:
            return run
        after = _after(run, prepared)
        task.show(
            f"{ended.record.description} {named(one.host for one in new)} joined meanwhile (rollout_joiners: roll)."
        )
        after = replace(after, plan=plan_run(task, after, hosts, forks))
        if after.plan["nothing_to_do"]:
            return run
        return hand_over(task, ended, after, replace(record_of(after), resumes=run.id))
    except HitlessError as error:
        task.warn(f"What joined {run.service} meanwhile is not rolled: {error}")
        return run


def _after(run: Run, prepared: Run) -> Run:
    """The run of the further deployment: what has the version is left alone, and what fails goes back alone.

    The others were changed and watched; that one more machine fails is no reason to take it from them.
    """
    back = "host" if run.options["rollback"] == "fleet" else run.options["rollback"]
    options = {**prepared.options, **JOINING, "rollback": back}
    return replace(
        prepared,
        options=options,
        claim=run.claim,
        session=run.session,
        follows=run.id,
        resumed=[run.id, *run.resumed],
    )
