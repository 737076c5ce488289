# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a rollout, read and checked, and what follows from them (a private helper of this collection)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import (
    analysis_options,
    pause_options,
    wave_options,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_options import refuse_connections
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_includes import HookVariables, Surroundings
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_reader import (
    Load,
    opaque,
    read_role,
    read_tasks,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_tasks import HookTasks
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import (
    REBOOT,
    RESTART,
    ROLLBACK,
    Kind,
    kind_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_files import (
    SearchPaths,
    find_file,
    find_role,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_kinds import RoleName
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_sources import (
    Address,
    OptionSources,
    Settings,
    Values,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_templates import (
    Templates,
    given_to,
    refuse_missing_handlers,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import (
    BY_NAME,
    OPTIONS,
    PREFIX,
    ROLLBACK_SIZE,
    Option,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.restart_options import keep_versions

TURN = "turn"
"""The only step of a host in a window: its whole turn."""
DEPLOY_WAYS = ("deploy_command", "deploy_tasks", "deploy_role")
_BETWEEN = (
    "gather_facts",
    "prepare_tasks",
    "drain_tasks",
    "restore_tasks",
    "smoke_tasks",
    "before_batch_tasks",
    "after_batch_tasks",
)
"""Options that put tasks between the steps of a host, or between hosts."""


@dataclass(frozen=True)
class Hook:
    """Tasks or a role of the user's.

    :param name: ``prepare``, ``deploy``, ``smoke``, ...
    :param option: the option that names it.
    :param target: absolute path, or the full name of a collection's role.
    """

    name: str
    option: str
    kind: str
    target: str

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "kind": self.kind, "path" if self.kind == "tasks" else "role": self.target}


@dataclass(frozen=True)
class RolloutOptions:
    """All options, checked, and what follows from them.

    :param options: run-wide ones by name, without the prefix.
    :param steps: the steps of one host, in order; ``rollback_steps`` those of its rollback.
    :param health_urls: the hosts with a health URL.
    :param waves: wave -> its hosts, in the order of the waves.
    :param address: see :class:`Address`.
    :param warnings: what may go wrong, as sentences.
    :param first_tasks: name and action of the tasks of the deployment before which nothing has touched the host.
    """

    options: dict[str, Any]
    hosts: list[str]
    hooks: list[Hook]
    steps: list[str]
    rollback_steps: list[str]
    health_urls: list[str] = field(default_factory=list)
    waves: dict[str, list[str]] = field(default_factory=dict)
    address: Address = field(default_factory=Address)
    first_tasks: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "options": self.options,
            "hosts": self.hosts,
            "hooks": [hook.as_dict() for hook in self.hooks],
            "steps": self.steps,
            "rollback_steps": self.rollback_steps,
            "health_urls": self.health_urls,
            "waves": self.waves,
            "first_tasks": self.first_tasks,
            "address": asdict(self.address),
        }


def read_options(sources: OptionSources, *, deploys: bool = True) -> RolloutOptions:
    """All options of a rollout, or a refusal; nothing has been changed then.

    :param deploys: whether a version is going to be deployed; a recovery needs neither one nor a way to deploy it, and
        looks for no hooks.
    :raises HitlessError: one clear sentence.
    """
    _refuse_settings(sources.settings)
    values = Values(sources)
    values.check_names(["extra vars", "the play's variables", "the variables of localhost"])
    hosts = values.find_hosts()
    values.check_names(hosts)
    _refuse_ignored_files(sources.search_paths)
    options = values.read_all()
    kind = kind_of(options["direction"])
    if kind.direction == ROLLBACK:
        _be_quick(values, options)
    if kind.keeps_version:
        keep_versions(values, options, kind)
    address = values.find_address()
    if not deploys:
        restore = [_hook(BY_NAME["restore_tasks"], options, sources.search_paths)] if options["restore_tasks"] else []
        options |= {hook.option: hook.target for hook in restore}
        return RolloutOptions(options, hosts, restore, [], [], address=address)
    _refuse_contradictions(options)
    way = _way(values, options, kind)
    if options["mode"] == "agent":
        refuse_connections(values, options, kind)
    health_urls = _hosts_with_health_url(values)
    hooks = [
        _hook(option, options, sources.search_paths) for option in OPTIONS if option.is_hook and options[option.name]
    ]
    options |= {hook.option: hook.target for hook in hooks}
    around = _surroundings(values, options)
    tasks = {hook.option: _tasks_of(hook, sources.load, around) for hook in hooks}
    warnings = refuse_missing_handlers(list(tasks.values()))
    _check_templates(values, options, list(tasks.values()))
    steps, rollback_steps, first_tasks = [TURN], [], []
    in_window = _is_window(way, options)
    waves = wave_options.read_waves(options, values.by_host, values.resolved_of)
    pause_options.refuse_contradictions(options, in_window=in_window, waves=len(waves))
    analysis_options.refuse_contradictions(options)
    if not in_window:
        rollback_steps = [way] if options["mode"] == "agent" else _steps(way, options)
        first = [step for step, wanted in (("facts", "gather_facts"), ("prepare", "prepare_tasks")) if options[wanted]]
        steps = [*first, *rollback_steps]
        first_tasks = _first_tasks(way, tasks)
    return RolloutOptions(
        options, hosts, hooks, steps, rollback_steps, health_urls, waves, address, first_tasks, warnings
    )


def _surroundings(values: Values, options: Mapping[str, Any]) -> Surroundings:
    sources = values.sources
    given, stand_ins = given_to(options["version"], options["direction"], options["service"])
    resolve = sources.inventory.resolve
    variables = HookVariables(values.by_host, sources.play, sources.extra, resolve, given, stand_ins)
    return Surroundings(variables, sources.search_paths.included_roles)


def _tasks_of(hook: Hook, load: Load, around: Surroundings) -> HookTasks:
    if hook.kind == "tasks":
        return read_tasks(hook.option, hook.target, load, around)
    if os.path.isabs(hook.target):
        return read_role(hook.option, hook.target, load, around)
    return opaque(hook.option, hook.target)


def _first_tasks(way: str, tasks: Mapping[str, HookTasks]) -> list[dict[str, str]]:
    if way == "deploy_command":
        return [{"name": "Deploy", "action": "hitless.consul.rollout_step"}]
    return tasks[way].before_anything() if way in tasks else []


def _is_window(way: str, options: Mapping[str, Any]) -> bool:
    """Whether a host's whole turn can be one task: no task of the user's lies in it, or between the turns of hosts."""
    return way in ("deploy_command", "deploy_by_agent", RESTART, REBOOT) and not any(options[name] for name in _BETWEEN)


def _steps(way: str, options: Mapping[str, Any]) -> list[str]:
    """The steps of one host from its maintenance on; what has nothing in between is one step, and quicker."""
    apart = bool(options["drain_tasks"])
    between = [step for step, wanted in (("smoke", options["smoke_tasks"]), ("restore_by_hook", apart)) if wanted]
    back = ["verify", *between, "return"] if between else ["verify_and_return"]
    return ["drain_by_hook" if apart else "drain", way, *back]


def _hook(option: Option, options: Mapping[str, Any], paths: SearchPaths) -> Hook:
    value = options[option.name]
    if isinstance(option.kind, RoleName):
        return Hook(option.name.removesuffix("_role"), option.name, "role", find_role(value, option.variable, paths))
    return Hook(option.name.removesuffix("_tasks"), option.name, "tasks", find_file(value, option.variable, paths))


def _be_quick(values: Values, options: dict[str, Any]) -> None:
    """A rollback by hand: as many hosts at a time as can be, and none goes forward again for another's failure."""
    if not values.is_given(BY_NAME["batch_size"]):
        options["batch_size"] = ROLLBACK_SIZE
    if options["rollback"] == "fleet":
        options["rollback"] = "host"


def _refuse_settings(settings: Settings) -> None:
    if settings.strategy.removeprefix("ansible.builtin.").removeprefix("ansible.legacy.") not in ("linear", "debug"):
        raise HitlessError(
            f"A rollout cannot run with the strategy {settings.strategy}: it does not keep to batches.",
            hint="Unset ANSIBLE_STRATEGY (strategy in ansible.cfg).",
        )
    if settings.native_templates:
        raise HitlessError(
            "A rollout cannot run with Ansible's setting jinja2_native: your templates would make the number 1.1 of "
            "the version 1.10.",
            hint="Set ANSIBLE_JINJA2_NATIVE=false (jinja2_native in ansible.cfg), or use ansible-core 2.19 or newer.",
        )


def _refuse_ignored_files(paths: SearchPaths) -> None:
    if paths.ignored:
        raise HitlessError(
            f"{', '.join(paths.ignored)} would set options of this rollout, but Ansible does not read variables "
            "beside a playbook that imports another.",
            hint="Move group_vars and host_vars beside the inventory, or give the options as vars of import_playbook.",
        )


def _refuse_contradictions(options: Mapping[str, Any]) -> None:
    if options["direction"] == "deploy" and not options["version"]:
        raise HitlessError("rollout_version is not set: the version to deploy.", hint="Add -e rollout_version=VERSION.")
    if options["rollback_deployment"] and options["direction"] != ROLLBACK:
        raise HitlessError(
            "rollback_deployment is set, which the playbook hitless.consul.rollback takes, and not a "
            f"{kind_of(options['direction']).playbook}.",
            hint="Run that playbook, or remove it.",
        )
    if options["rollback_deployment"] and options["version"]:
        raise HitlessError(
            f"rollback_deployment ({options['rollback_deployment']}) and rollout_version ({options['version']}) are "
            "both set: the one takes each host back to what it had before that deployment, the other all hosts to one "
            "version.",
            hint="Leave one of them out.",
        )
    if bool(options["drain_tasks"]) != bool(options["restore_tasks"]):
        there, missing = ("drain", "restore") if options["drain_tasks"] else ("restore", "drain")
        raise HitlessError(
            f"rollout_{there}_tasks is set, and rollout_{missing}_tasks is not: what the one takes out of a load "
            "balancer the other puts back."
        )
    if options["drain_tasks"] and options["drain_tasks"] == options["restore_tasks"]:
        raise HitlessError(
            f"rollout_drain_tasks and rollout_restore_tasks are the same file ({options['drain_tasks']}), which is not "
            "told what it is run for.",
            hint="Set each to a file of its own.",
        )
    if options["drain_deadline"] < options["drain_min_time"]:
        raise HitlessError(
            f"rollout_drain_deadline ({options['drain_deadline']:g} s) is less than rollout_drain_min_time "
            f"({options['drain_min_time']:g} s)."
        )
    wave_options.refuse_contradictions(options)
    _refuse_short_progress(options)
    scope = options["maintenance"]
    if isinstance(scope, list) and options["service"] not in scope:
        raise HitlessError(
            f"rollout_maintenance ({', '.join(scope)}) does not contain {options['service']}, which would keep its "
            "traffic.",
            hint=f"Add {options['service']} to the list.",
        )


def _refuse_short_progress(options: Mapping[str, Any]) -> None:
    """The lock is given up at the progress deadline, which a turn that keeps to its own deadlines must not meet.

    Its rollback is not counted, nor how long it waits for others to be healthy. A bake before it is.
    """
    drain = "drain_deadline" if options["load_balancers"] and options["mode"] == "push" else "drain_time"
    accepted = ["accept_deadline"] if options["mode"] == "agent" else []
    pause = pause_options.longest_pause(options)
    bake, kind = pause_options.longest_bake(options), kind_of(options["direction"])
    waits = [*([bake] if kind.direction != ROLLBACK and options[bake] else []), *pause]
    parts = [*accepted, drain, kind.limit, "healthy_deadline", "min_healthy_time", *waits]
    longest = sum(options[name] for name in parts)
    if options["progress_deadline"] < longest:
        listed = ", ".join(f"{PREFIX}{name} {options[name]:g}" for name in parts)
        raise HitlessError(
            f"rollout_progress_deadline ({options['progress_deadline']:g} s) is shorter than the turn of one host may "
            f"take, with what is waited before it ({longest:g} s: {listed}).",
            hint=f"Set rollout_progress_deadline: {longest:g} or more, or lower those.",
        )


def _way(values: Values, options: Mapping[str, Any], kind: Kind) -> str:
    """The step that changes a host."""
    if options["mode"] == "agent":
        return "deploy_by_agent"
    return kind.direction if kind.keeps_version else _deploy_way(values, options)


def _deploy_way(values: Values, options: Mapping[str, Any]) -> str:
    """Which of the three ways it is; refuses none, and more than one."""
    shared = [name for name in DEPLOY_WAYS if options.get(name)]
    with_command = values.hosts_with("deploy_command")
    ways = [*(["deploy_command"] if with_command else []), *shared]
    listed = ", ".join(PREFIX + name for name in DEPLOY_WAYS)
    if not ways:
        raise HitlessError(f"Nothing says how a version gets onto a host: set one of {listed}.")
    if len(ways) > 1:
        raise HitlessError(
            f"{' and '.join(PREFIX + name for name in ways)} are both set; one of {listed} is needed.",
            hint=f"rollout_deploy_command is set for {with_command[0]}." if with_command else "",
        )
    having = set(with_command)
    missing = [host for host in values.by_host if host not in having]
    if with_command and missing:
        raise HitlessError(
            f"rollout_deploy_command is set for {with_command[0]}, and not for {', '.join(missing[:5])}.",
            hint="Set it for every host.",
        )
    return ways[0]


def _hosts_with_health_url(values: Values) -> list[str]:
    """Hosts whose application is asked; refuses a match without an address to ask."""
    asked = values.hosts_with("health_url")
    with_url = set(asked)
    unasked = [host for host in values.hosts_with("health_match") if host not in with_url]
    if unasked:
        raise HitlessError(f"rollout_health_match is set for {unasked[0]}, and rollout_health_url is not.")
    return asked


def _check_templates(values: Values, options: Mapping[str, Any], hooks: list[HookTasks]) -> None:
    """Options that are read on the hosts, and the user's tasks, must not fail for want of a variable."""
    given, stand_ins = given_to(options["version"], options["direction"], options["service"])
    sources = values.sources
    shared = {**sources.play, **sources.extra}
    templates = Templates(values.by_host, sources.localhost, shared, hooks, sources.needed)
    for option in OPTIONS:
        if option.per_host:
            found = values.templates_of(option.variable)
            templates.refuse_unresolvable(
                option.variable, found, stand_ins, lambda value, host: sources.inventory.resolve(value, host, given)
            )
    templates.refuse_unknown_variables()
