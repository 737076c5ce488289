# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a run, by what Consul says now (a private helper of this collection). planning.py makes it."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import fleet, haproxy
from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import comparison_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import read_history
from ansible_collections.hitless.consul.plugins.module_utils._rollout.pause_options import refuse_beyond
from ansible_collections.hitless.consul.plugins.module_utils._rollout.paused import continued
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import Plan, PlanSettings
from ansible_collections.hitless.consul.plugins.module_utils._rollout.planning import make_plan
from ansible_collections.hitless.consul.plugins.module_utils._rollout.restart import find_restart
from ansible_collections.hitless.consul.plugins.module_utils._rollout.rollback import Rollback, find_rollback
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment


def read_plan(
    task: Task,
    run: Run,
    hosts: Sequence[fleet.WantedHost],
    forks: int = 0,
    goes_on: Deployment | None = None,
) -> tuple[Plan, list[str]]:
    """The plan by what Consul says now, and what a person should know of it.

    :param forks: hosts that Ansible works on at once; 0 where that does not matter.
    :param goes_on: a paused deployment that the run goes on with.
    """
    options = run.options
    others = options["maintenance"] if isinstance(options["maintenance"], list) else []
    there = fleet.read_fleet(task.consul, run.keys(task), options["tags"], [host.node for host in hosts], others)
    wave_of = {host: name for name, mine in run.waves.items() for host in mine}
    back = Rollback(fleet.host_states(there, hosts, accept_warning=options["accept_warning"], wave_of=wave_of))
    if options["direction"] == "rollback":
        history = read_history(task.consul, run.keys(task))
        back = find_rollback(history, run.service, options, back.hosts, there.versions, automatic=bool(run.undoes))
    elif run.kind.keeps_version:
        history = read_history(task.consul, run.keys(task))
        back = find_restart(history, run.kind, back.hosts, skip_current=options["skip_current"])
    settings = PlanSettings(
        service=run.service,
        registered_total=len(there.instances),
        serving_total=there.serving,
        batch_size=options["batch_size"],
        min_healthy=options["min_healthy"],
        skip_current=options["skip_current"],
        unreachable=options["unreachable"],
        rollback=options["rollback"],
        previous_version=options["previous_version"],
        direction=options["direction"],
        unverified=options["unverified"],
        in_window=run.is_window,
        uncovered=tuple(sorted(set(there.nodes) - {host.node for host in hosts})),
        undoes=back.undoes,
        nothing=back.nothing,
        waves=tuple(run.waves),
    )
    plan = make_plan(back.hosts, settings)
    if goes_on:
        plan = continued(plan, goes_on)
    elif not run.is_window and all(one.batch for one in plan.hosts.values()):
        refuse_beyond(options, len(plan.batches))
    longest = options[run.kind.limit] + options["drain_time"] + options["healthy_deadline"]
    changing = [host.node for host in plan.hosts.values() if host.batch]
    asked = set(run.health_urls)
    unasked = [host.node for host in plan.hosts.values() if host.batch and host.host not in asked]
    notes = [*fleet.deregistrations(there, changing, longest), *plan.warnings, *back.notes]
    if changing:
        notes += fleet.sidecar_notes(task.consul, run.service, changing, options["maintenance"])
    notes += [*fleet.namesake_notes(there), *fleet.unusable_versions(there, changing)]
    notes += [*fleet.assumed_intervals(there, unasked, options["check_interval"]), *_too_many(plan, forks)]
    silent = haproxy.unanswered(options["load_balancers"])
    if silent and changing and options["direction"] != "rollback" and comparison_of(options):
        raise HitlessError(f"rollout_analysis cannot compare: {silent[0]}", hint="Nothing was changed.")
    if run.by_agents:
        return plan, notes
    fixed = f"Each drain is waited for by the fixed time ({options['drain_time']:g} s) there."
    return plan, notes + [f"{problem} {fixed}" for problem in silent]


def _too_many(plan: Plan, forks: int) -> list[str]:
    window = max(plan.windows, default=0)
    if forks and window > forks:
        sentence = f"{window} hosts may be in flight, and Ansible works on {forks} at once: no more than that are."
        return [f"{sentence} Set forks to {window} or more (ANSIBLE_FORKS, --forks)."]
    if window:
        return []
    largest = max((len(batch) for batch in plan.batches), default=0)
    if not forks or largest <= forks:
        return []
    sentence = (
        f"The largest batch has {largest} hosts, and Ansible works on {forks} at once: hosts would be out of rotation "
        f"while they wait for their turn. Set forks to {largest} or more (ANSIBLE_FORKS, --forks)."
    )
    return [sentence]
