# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a rollout (a private helper of this collection).

One table, :data:`OPTIONS`, drives reading, coercion, validation, the check for unknown names, and docs/options.md.
A role's argument_specs would not do: they validate without converting (``1.10`` arrives as 1.1), and let unknown names
pass; and group_vars of the hosts are invisible to localhost, where a rollout is prepared.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    CLUSTER_SPEC,
    KEYS_SPEC,
    VARIABLE_PREFIX,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_tasks import (
    HookTasks,
    Load,
    opaque,
    read_role,
    read_tasks,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_files import Places, find_file, find_role
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_kinds import (
    Choice,
    ExitCodes,
    Flag,
    HostsPattern,
    Kind,
    MaintenanceScope,
    Names,
    Number,
    Parsed,
    RoleName,
    ServiceName,
    TasksFile,
    Text,
    Urls,
    Version,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_templates import (
    RESERVED,
    Templates,
    given_to,
    has_template,
    inputs_of,
    refuse_missing_handler,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import parse_batch_size, parse_min_healthy

PREFIX = "rollout_"
LATER = ("waves_by", "waves", "bake_time", "pause_after", "probe", "analysis")
"""Options of later versions."""
DEPLOY_WAYS = ("deploy_command", "deploy_tasks", "deploy_role")
NEEDS_CONNECTION = (
    "deploy_tasks",
    "deploy_role",
    "deploy_success_codes",
    "become",
    "gather_facts",
    "prepare_tasks",
    "smoke_tasks",
)
"""Options that only the mode push can follow."""
DRAINED_BY_CONTROLLER = ("drain_observe", "drain_tasks", "restore_tasks")
"""Likewise: in agent mode each machine drains itself."""
UNSET = (None, "")
"""Values that stand for "not set": a survey of AWX sends empty text for an answer that was left out."""


# --- the table -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One option, without the prefix in its name.

    :param default: what holds where it is not set; None for "not set".
    :param shown: the default as the documentation shows it.
    :param per_host: hosts may differ; it is not read here but on the host, once its version is known.
    """

    name: str
    kind: Kind
    default: Any = None
    help: str = ""
    shown: str | None = None
    per_host: bool = False

    @property
    def variable(self) -> str:
        return PREFIX + self.name

    @property
    def is_hook(self) -> bool:
        return isinstance(self.kind, TasksFile | RoleName)


_SECONDS = Number(0, whole=False, unit="seconds")
_SOME_SECONDS = Number(0, whole=False, unit="seconds", above=True)

OPTIONS: tuple[Option, ...] = (
    Option("service", ServiceName(), help="the service to roll over, by its name in Consul", shown="required"),
    Option("version", Version(), help="the version to go to; not needed by the playbook `rollback`", shown="required"),
    Option("hosts", HostsPattern(), help="the hosts, in the inventory's order", shown="`service_<rollout_service>`"),
    Option(
        "mode",
        Choice(("push", "agent")),
        "push",
        "deploy over the hosts' connections, or ask the deploy agent of each machine (no SSH), see agent-mode.md",
    ),
    Option("tags", Names(), [], "only instances with all of these service tags (prod and staging under one name)"),
    Option("deploy_command", Text("command line"), help="deployment: a command line, run on the host", per_host=True),
    Option("deploy_tasks", TasksFile(), help="or a tasks file"),
    Option("deploy_role", RoleName(), help="or a role; exactly one of the three is required"),
    Option("deploy_success_codes", ExitCodes(), [0], "exit codes of the command that mean success (puppet: `[0, 2]`)"),
    Option("deploy_timeout", Number(1, unit="seconds"), 1800, "for the command, or for each task"),
    Option("become", Flag(), False, "become, for your deployment and hooks on hosts; never on the controller"),
    Option("gather_facts", Flag(), False, "gather facts of the hosts before your deployment"),
    Option("start_tasks", TasksFile(), help="on the controller, once, before the first host (migrations, silences)"),
    Option("prepare_tasks", TasksFile(), help="on the host while it still serves (fetch the artefact)"),
    Option("smoke_tasks", TasksFile(), help="on the host once it is healthy, before it gets traffic"),
    Option("before_batch_tasks", TasksFile(), help="on the controller, before each batch"),
    Option("after_batch_tasks", TasksFile(), help="on the controller, after each batch"),
    Option("on_failure_tasks", TasksFile(), help="on the controller, when the deployment has failed"),
    Option("finish_tasks", TasksFile(), help="on the controller, at the end, however it ended"),
    Option(
        "batch_size",
        Parsed('number, percentage, or a list of them such as `[1, "10%", "50%"]`', parse_batch_size),
        1,
        "hosts at a time; a percentage is of the hosts to change, rounded down, at least 1; the last of a list repeats",
    ),
    Option(
        "min_healthy",
        Parsed("number or percentage", parse_min_healthy),
        "50%",
        "instances that must stay in rotation; a percentage is of the registered ones, rounded up",
    ),
    Option("failure_budget", Number(), 0, "hosts that may fail, whatever becomes of them, before the deployment stops"),
    Option("maintenance", MaintenanceScope(), "service", "what is taken out of rotation on a host"),
    Option("drain_time", _SECONDS, 10, "at least, from when the catalog shows the maintenance to the deployment"),
    Option(
        "drain_observe",
        Urls(),
        [],
        "HAProxy statistics: the drain ends when all of them show the instance out and idle, instead of after "
        "`rollout_drain_time`, see load-balancers.md",
    ),
    Option("drain_least", _SECONDS, 1, "an observed drain lasts at least"),
    Option("drain_most", _SECONDS, 60, "after which sessions that an observed drain still shows are given up"),
    Option(
        "drain_tasks",
        TasksFile(),
        help="on the controller, for each host that is in maintenance: take it out at a load balancer that does not "
        "follow Consul; the drain counts from then on",
    ),
    Option(
        "restore_tasks",
        TasksFile(),
        help="on the controller, for each host that has proven healthy: put it back there, before its maintenance ends",
    ),
    Option(
        "health_url",
        Text("URL"),
        help="asked from the host after the deployment, so that the new process answers",
        per_host=True,
    ),
    Option(
        "health_match",
        Text("pattern"),
        help="what its answer must match (the version); needs `rollout_health_url`",
        per_host=True,
    ),
    Option("healthy_deadline", _SOME_SECONDS, 300, "a host has to become healthy"),
    Option(
        "min_healthy_time",
        _SECONDS,
        10,
        "it must stay so; without `rollout_health_url` at least as long as each check takes to run anew",
    ),
    Option(
        "check_interval",
        _SOME_SECONDS,
        30,
        "how often checks run, where Consul does not tell and no `rollout_health_url` is set",
    ),
    Option(
        "accept_warning",
        Flag(),
        False,
        "a check in state warning counts as healthy; without it a host that warns and gets traffic is refused",
    ),
    Option(
        "unverified",
        Flag(),
        False,
        "go on where nothing can verify a host: no `rollout_health_url`, no `rollout_smoke_tasks`, and no check that "
        "runs by itself (none at all, or only a TTL or alias)",
    ),
    Option("progress_deadline", _SOME_SECONDS, 3600, "without any host finishing, after which the deployment stops"),
    Option(
        "rollback",
        Choice(("host", "none"), later=("batch", "fleet")),
        "host",
        "roll a host back where it fails",
    ),
    Option("previous_version", Version(), help="where a rollback goes, for hosts that have no version recorded"),
    Option("skip_current", Flag(), True, "leave hosts alone that are healthy on the version: running again resumes"),
    Option(
        "unreachable", Choice(("fail", "skip")), "fail", "refuse to begin with an unreachable host, or leave it out"
    ),
    Option("strict", Flag(), False, "hosts that were skipped make the exit code non-zero"),
    Option("lock_wait", _SECONDS, 0, "to wait for another deployment of the service to end"),
    Option(
        "pickup_deadline",
        _SOME_SECONDS,
        60,
        "agent mode: a machine has to take its request, and may be out of Consul's sight",
    ),
    Option(
        "show_log",
        Choice(("always", "failed", "never")),
        "failed",
        "what the deployment prints on the machines: shown as it comes, where it failed, or not at all",
    ),
    Option("agent_event", Flag(), False, "agent mode: also fire a Consul event, a hint that nothing depends on"),
    Option("keep_deployments", Number(1), 20, "deployments that are kept, each with its record and log (see keys.md)"),
    Option("message", Text(), "", "why, shown with the lock and the deployment", shown="-"),
    Option("direction", Choice(("deploy", "rollback")), "deploy", "set by the playbooks, not by you"),
)
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}


def options_table() -> str:
    """The table of docs/options.md."""
    rows = ["| variable | value | default | meaning |", "|---|---|---|---|"]
    for option in OPTIONS:
        default = option.shown or ("-" if option.default in UNSET else f"`{_yaml(option.default)}`")
        each = "; may differ from host to host" if option.per_host else ""
        rows.append(f"| `{option.variable}` | {option.kind.rule} | {default} | {option.help}{each} |")
    return "\n".join(rows) + "\n"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- where they come from ------------------------------------------------------------------------------------


class Inventory(Protocol):
    """What is read of Ansible's inventory and variables."""

    @property
    def groups(self) -> Iterable[str]:
        """Names of all groups."""

    def select(self, pattern: str) -> list[str]:
        """Names of the hosts that match, in the inventory's order."""

    def variables(self, host: str) -> Mapping[str, Any]:
        """The host's variables, templates unresolved."""

    def resolve(self, value: Any, host: str | None, given: Mapping[str, Any] | None = None) -> Any:
        """A value with its templates resolved, with a host's variables or with those of this play on localhost.

        :param given: variables that beat those of the host.
        """


@dataclass(frozen=True)
class Settings:
    """Ansible's own configuration, as far as a rollout cannot run with all of it.

    :param strategy: the default strategy.
    :param native_templates: whether a template makes 1.1 of the text 1.10 (jinja2_native before ansible-core 2.19).
    """

    strategy: str = "linear"
    native_templates: bool = False


@dataclass(frozen=True)
class Sources:
    """What options are read from: extra vars, else the play's own variables, else the hosts', else localhost's.

    :param unread: inventory sources that could not be read, each with the reason.
    :param load: reads the user's tasks files.
    :param needed: the variables without which a template cannot be resolved.
    """

    inventory: Inventory
    extra: Mapping[str, Any] = field(default_factory=dict)
    play: Mapping[str, Any] = field(default_factory=dict)
    localhost: Mapping[str, Any] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    places: Places = field(default_factory=Places)
    unread: Sequence[str] = ()
    load: Load = lambda path: None
    needed: Callable[[str], Iterable[str]] = lambda text: ()


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
class Address:
    """What localhost takes from the hosts' variables of how Consul is asked: it is one rollout, and one Consul.

    :param host: whose variables; their names are in ``variables``, never their values: one may be a token.
    :param differ: why the address is not taken from the hosts, as a sentence.
    """

    host: str = ""
    variables: Sequence[str] = ()
    differ: str = ""


@dataclass(frozen=True)
class RolloutOptions:
    """All options, checked, and what follows from them.

    :param options: run-wide ones by name, without the prefix.
    :param steps: the steps of one host, in order; ``rollback_steps`` those of its rollback.
    :param health_urls: the hosts with a health URL.
    :param address: see :class:`Address`.
    :param first_tasks: name and action of the tasks of the deployment before which nothing has touched the host.
    """

    options: dict[str, Any]
    hosts: list[str]
    hooks: list[Hook]
    steps: list[str]
    rollback_steps: list[str]
    health_urls: list[str] = field(default_factory=list)
    address: Address = field(default_factory=Address)
    first_tasks: list[dict[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "options": self.options,
            "hosts": self.hosts,
            "hooks": [hook.as_dict() for hook in self.hooks],
            "steps": self.steps,
            "rollback_steps": self.rollback_steps,
            "health_urls": self.health_urls,
            "first_tasks": self.first_tasks,
            "address": asdict(self.address),
        }


def read_options(sources: Sources, *, deploys: bool = True) -> RolloutOptions:
    """All options of a rollout, or a refusal; nothing has been changed then.

    :param deploys: whether a version is going to be deployed; a recovery needs neither one nor a way to deploy it, and
        looks for no hooks.
    :raises HitlessError: one clear sentence.
    """
    _refuse_settings(sources.settings)
    reader = _Reader(sources)
    reader.check_names(["extra vars", "the play's variables", "the variables of localhost"])
    hosts = reader.find_hosts()
    reader.check_names(hosts)
    _refuse_ignored_files(sources.places)
    options = {option.name: reader.read(option) for option in OPTIONS if not option.per_host}
    address = reader.find_address()
    if not deploys:
        restore = [_hook(BY_NAME["restore_tasks"], options, sources.places)] if options["restore_tasks"] else []
        options |= {hook.option: hook.target for hook in restore}
        return RolloutOptions(options, hosts, restore, [], [], address=address)
    _refuse_contradictions(options)
    way = "deploy_by_agent" if options["mode"] == "agent" else reader.deploy_way(options)
    if options["mode"] == "agent":
        reader.refuse_connections(options)
    health_urls = reader.hosts_with_health_url()
    hooks = [_hook(option, options, sources.places) for option in OPTIONS if option.is_hook and options[option.name]]
    options |= {hook.option: hook.target for hook in hooks}
    tasks = {hook.option: _tasks_of(hook, sources.load) for hook in hooks}
    refuse_missing_handler(list(tasks.values()))
    reader.check_templates(options, list(tasks.values()))
    rollback_steps = [way] if options["mode"] == "agent" else _steps(way, options)
    first = [step for step, wanted in (("facts", "gather_facts"), ("prepare", "prepare_tasks")) if options[wanted]]
    steps = [*first, *rollback_steps]
    return RolloutOptions(options, hosts, hooks, steps, rollback_steps, health_urls, address, _first_tasks(way, tasks))


def _tasks_of(hook: Hook, load: Load) -> HookTasks:
    if hook.kind == "tasks":
        return read_tasks(hook.option, hook.target, load)
    return read_role(hook.option, hook.target, load) if os.path.isabs(hook.target) else opaque(hook.option, hook.target)


def _first_tasks(way: str, tasks: Mapping[str, HookTasks]) -> list[dict[str, str]]:
    if way == "deploy_command":
        return [{"name": "Deploy", "action": "hitless.consul.rollout_step"}]
    return tasks[way].before_anything() if way in tasks else []


def _steps(way: str, options: Mapping[str, Any]) -> list[str]:
    """The steps of one host from its maintenance on; what has nothing in between is one step, and quicker."""
    apart = bool(options["drain_tasks"])
    between = [step for step, wanted in (("smoke", options["smoke_tasks"]), ("restore_by_hook", apart)) if wanted]
    back = ["verify", *between, "return"] if between else ["verify_and_return"]
    return ["drain_by_hook" if apart else "drain", way, *back]


def _hook(option: Option, options: Mapping[str, Any], places: Places) -> Hook:
    value = options[option.name]
    if isinstance(option.kind, RoleName):
        return Hook(option.name.removesuffix("_role"), option.name, "role", find_role(value, option.variable, places))
    return Hook(option.name.removesuffix("_tasks"), option.name, "tasks", find_file(value, option.variable, places))


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


def _refuse_ignored_files(places: Places) -> None:
    if places.ignored:
        raise HitlessError(
            f"{', '.join(places.ignored)} would set options of this rollout, but Ansible does not read variables "
            "beside a playbook that imports another.",
            hint="Move group_vars and host_vars beside the inventory, or give the options as vars of import_playbook.",
        )


def _refuse_contradictions(options: Mapping[str, Any]) -> None:
    if options["direction"] == "deploy" and not options["version"]:
        raise HitlessError("rollout_version is not set: the version to deploy.", hint="Add -e rollout_version=VERSION.")
    if bool(options["drain_tasks"]) != bool(options["restore_tasks"]):
        there, missing = ("drain", "restore") if options["drain_tasks"] else ("restore", "drain")
        raise HitlessError(
            f"rollout_{there}_tasks is set, and rollout_{missing}_tasks is not: what the one takes out of a load "
            "balancer the other puts back."
        )
    if options["drain_most"] < options["drain_least"]:
        raise HitlessError(
            f"rollout_drain_most ({options['drain_most']:g} s) is less than rollout_drain_least "
            f"({options['drain_least']:g} s)."
        )
    scope = options["maintenance"]
    if isinstance(scope, list) and options["service"] not in scope:
        raise HitlessError(
            f"rollout_maintenance ({', '.join(scope)}) does not contain {options['service']}, which would keep its "
            "traffic.",
            hint=f"Add {options['service']} to the list.",
        )


# --- reading -------------------------------------------------------------------------------------------------

_ABSENT = object()


class _Reader:
    """Finds the value of each option, and says where it was found."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._inventory = sources.inventory
        self._by_host: dict[str, Mapping[str, Any]] = {}
        self._pattern = ""
        self._own = {
            "extra vars": sources.extra,
            "the play's variables": sources.play,
            "the variables of localhost": sources.localhost,
        }

    def check_names(self, places: Iterable[str]) -> None:
        """Refuse names that are ours to give, and ``rollout_`` names that nobody knows."""
        seen: set[str] = set()
        for place in places:
            variables = self._own.get(place, self._by_host.get(place, {}))
            where = place if place in self._own else f"the variables of {place}"
            for name in RESERVED:
                if name in variables:
                    raise HitlessError(
                        f"{name} is set in {where}; the rollout sets it itself for each host, and yours would win, in "
                        "the rollback too.",
                        hint="Remove it (the version to deploy is rollout_version).",
                    )
            for name in variables:
                if name not in seen and name.startswith(PREFIX):
                    seen.add(name)
                    if not _is_result(variables[name]):
                        _refuse_unknown(name, where)

    def find_hosts(self) -> list[str]:
        """The hosts of the rollout, in the inventory's order."""
        pattern = self._locally(BY_NAME["hosts"])
        if pattern is None:
            service = self._locally(BY_NAME["service"])
            if service is None:
                raise HitlessError(
                    "rollout_service is not set: the service to roll over.",
                    hint="Add -e rollout_service=NAME; where variables of the hosts set it, give rollout_hosts.",
                )
            pattern = "service_" + re.sub(r"[^A-Za-z0-9_]", "_", service)
        hosts = self._inventory.select(pattern)
        if not hosts:
            raise self._no_hosts(pattern)
        self._pattern = pattern
        self._by_host = {host: self._inventory.variables(host) for host in hosts}
        for host, variables in self._by_host.items():
            told = variables.get("rollout_hosts")
            if told not in UNSET and self._first_own("rollout_hosts") is _ABSENT:
                raise HitlessError(
                    f"rollout_hosts is set in the variables of {host} ({told}), which are read only once the hosts are "
                    "known.",
                    hint="Give it with -e, or as vars of import_playbook.",
                )
        return hosts

    def _no_hosts(self, pattern: str) -> HitlessError:
        if self._sources.unread:
            unread = " ".join(self._sources.unread)
            return HitlessError(f"There is no host to roll over, since the inventory could not be read: {unread}")
        plain = re.fullmatch(r"[A-Za-z0-9_.-]+", pattern)
        groups = sorted(self._inventory.groups)
        services = [group for group in groups if group.startswith("service_")]
        there = f"its groups of services are {', '.join(services[:20])}" if services else "it has no groups of services"
        problem = "is empty" if pattern in groups else "is not in the inventory" if plain else "matches no host"
        return HitlessError(
            f"There is no host to roll over: the {'group' if plain else 'pattern'} {pattern} {problem} ({there}).",
            hint="Set rollout_hosts to a group or pattern of hosts, or use an inventory of the plugin "
            "hitless.consul.catalog.",
        )

    def find_address(self) -> Address:
        """Which variables of how Consul is asked localhost lacks, and all hosts agree in."""
        url = VARIABLE_PREFIX + "url"
        own, told = self._first_own(url), self._told(url)
        of_hosts = next(iter(told), "") if len(told) == 1 else ""
        if len(told) > 1:
            (first, host), (second, other) = list(told.items())[:2]
            sentence = f"{url} is {_shown(first)} for {host} and {_shown(second)} for {other}."
            return Address(differ=sentence if own is _ABSENT else "")
        if own is not _ABSENT and of_hosts not in UNSET and self._resolved(own, url) != of_hosts:
            # Another Consul's token must not go to this one.
            return Address()
        names = [VARIABLE_PREFIX + name for name in (*CLUSTER_SPEC, *KEYS_SPEC)]
        lacking = [name for name in names if self._first_own(name) is _ABSENT]
        agreed = [name for name in lacking if self._has_one(name)]
        return Address(next(iter(self._by_host)), agreed) if agreed else Address()

    def _has_one(self, variable: str) -> bool:
        told = self._told(variable)
        return len(told) == 1 and next(iter(told)) not in UNSET

    def _told(self, variable: str) -> dict[Any, str]:
        """The values that hosts give to a variable, each with the first host that has it."""
        told = [(host, variables.get(variable)) for host, variables in self._by_host.items()]
        first = told[0][1]
        if not has_template(first) and all(value == first for _host, value in told):
            told = told[:1]
        elif has_template([value for _host, value in told]):
            told = self._resolved_of_hosts(told, variable)
        values: dict[Any, str] = {}
        for host, value in told:
            values.setdefault(value if value in UNSET else str(value), host)
        return values

    def read(self, option: Option) -> Any:
        """The option's value, else its default."""
        if option.name == "hosts":
            return self._pattern
        value = self._found(option.variable)
        return option.default if value in UNSET else option.kind.read(value, option.variable)

    def deploy_way(self, options: Mapping[str, Any]) -> str:
        """Which of the three ways it is; refuses none, and more than one."""
        shared = [name for name in DEPLOY_WAYS if options.get(name)]
        with_command = self._hosts_with("deploy_command")
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
        missing = [host for host in self._by_host if host not in having]
        if with_command and missing:
            raise HitlessError(
                f"rollout_deploy_command is set for {with_command[0]}, and not for {', '.join(missing[:5])}.",
                hint="Set it for every host.",
            )
        return ways[0]

    def refuse_connections(self, options: Mapping[str, Any]) -> None:
        """Agent mode logs in nowhere: what would need that is refused, and never left out silently."""
        with_command = self._hosts_with("deploy_command")
        if with_command:
            raise HitlessError(
                f"rollout_deploy_command is set for {with_command[0]}, and in agent mode a machine's own configuration "
                "says what its deployment is.",
                hint="Set deploy_agent_services of the role deploy_agent there, and empty the option for this mode: "
                "-e rollout_deploy_command=",
            )
        needs_connection = [
            name for name in NEEDS_CONNECTION if options[name] not in UNSET and options[name] != BY_NAME[name].default
        ]
        if needs_connection:
            named = " and ".join(PREFIX + name for name in needs_connection)
            raise HitlessError(
                f"{named} cannot be used with rollout_mode agent, which logs in on no host.",
                hint="Let the deployment command of the machine do it, or remove the option.",
            )
        drained = [name for name in DRAINED_BY_CONTROLLER if options[name]]
        if drained:
            raise HitlessError(
                f"{' and '.join(PREFIX + name for name in drained)} cannot be used with rollout_mode agent: there each "
                "machine drains itself.",
                hint="Remove it, and let rollout_drain_time be long enough.",
            )

    def hosts_with_health_url(self) -> list[str]:
        """Hosts whose application is asked; refuses a match without an address to ask."""
        asked = self._hosts_with("health_url")
        unasked = [host for host in self._hosts_with("health_match") if host not in set(asked)]
        if unasked:
            raise HitlessError(f"rollout_health_match is set for {unasked[0]}, and rollout_health_url is not.")
        return asked

    def check_templates(self, options: Mapping[str, Any], hooks: list[HookTasks]) -> None:
        """Options that are read on the hosts, and the user's tasks, must not fail for want of a variable."""
        given, stand_ins = given_to(options["version"], options["direction"])
        shared = {**self._sources.play, **self._sources.extra}
        templates = Templates(self._by_host, shared, hooks, self._sources.needed)
        for option in OPTIONS:
            if option.per_host:
                values = self._of_hosts(option.variable)
                templates.refuse_unresolvable(
                    option.variable, values, stand_ins, lambda value, host: self._inventory.resolve(value, host, given)
                )
        templates.refuse_unknown_variables()

    def _of_hosts(self, variable: str) -> dict[str, Any]:
        """Each host's template of an option that is read there, later."""
        own = self._first_own(variable, localhost=False)
        values = {host: self._by_host[host].get(variable) if own is _ABSENT else own for host in self._by_host}
        return {host: value for host, value in values.items() if has_template(value)}

    def _hosts_with(self, name: str) -> list[str]:
        """Hosts for which an option is set that is read there, later."""
        own = self._first_own(PREFIX + name, localhost=False)
        if own is not _ABSENT:
            return [] if own in UNSET else list(self._by_host)
        return [host for host, variables in self._by_host.items() if variables.get(PREFIX + name) not in UNSET]

    def _locally(self, option: Option) -> Any:
        """An option that is needed before the hosts are known."""
        value = self._resolved(self._first_own(option.variable), option.variable)
        return None if value in UNSET else option.kind.read(value, option.variable)

    def _first_own(self, variable: str, *, localhost: bool = True) -> Any:
        own = (self._sources.extra, self._sources.play, *((self._sources.localhost,) if localhost else ()))
        return next((variables[variable] for variables in own if variable in variables), _ABSENT)

    def _found(self, variable: str) -> Any:
        own = self._first_own(variable, localhost=False)
        if own is not _ABSENT:
            return self._resolved(own, variable)
        told = [(host, variables.get(variable)) for host, variables in self._by_host.items()]
        if all(value in UNSET for _host, value in told):
            return self._resolved(self._first_own(variable), variable)
        first_host, first = told[0]
        if has_template([value for _host, value in told]):
            told = self._resolved_of_hosts(told, variable)
            first = told[0][1]
        other = next(((host, value) for host, value in told if value != first), None)
        if other:
            raise HitlessError(
                f"{variable} holds for the whole rollout, but it is {_shown(first)} for {first_host} and "
                f"{_shown(other[1])} for {other[0]}.",
                hint="Set it alike for all its hosts, or with -e.",
            )
        return first

    def _resolved_of_hosts(self, told: Iterable[tuple[str, Any]], variable: str) -> list[tuple[str, Any]]:
        """Each host's value; resolved once for hosts that agree in all it names, since it takes 4 ms a host."""
        results: list[tuple[str, Any]] = []
        known: list[tuple[Any, Mapping[str, Any], Any]] = []
        for host, value in told:
            inputs = inputs_of(value, self._by_host[host])
            same = (result for one, its, result in known[-4:] if inputs is not None and (one, its) == (value, inputs))
            result = next(same, _ABSENT)
            if result is _ABSENT:
                result = self._resolved(value, variable, host)
                known.append((value, inputs or {}, result))
            results.append((host, result))
        return results

    def _resolved(self, value: Any, variable: str, host: str | None = None) -> Any:
        if value is _ABSENT:
            return None
        if not has_template(value):
            return value
        try:
            return self._inventory.resolve(value, host)
        except HitlessError as error:
            where = f" of {host}" if host else ""
            raise HitlessError(f"The template in {variable}{where} cannot be resolved: {error}") from None


def _shown(value: Any) -> str:
    return "not set" if value in UNSET else repr(value)


def _is_result(value: Any) -> bool:
    """Whether a variable is the registered result of a task, of ours or of the user's, and so no option."""
    return isinstance(value, Mapping) and "failed" in value and "changed" in value


def _refuse_unknown(variable: str, where: str) -> None:
    name = variable.removeprefix(PREFIX)
    if name in BY_NAME:
        return
    if name in LATER:
        sentence = f"{variable} (in {where}) is not known in this version of hitless.consul."
        raise HitlessError(sentence, hint="Remove it.")
    near = difflib.get_close_matches(variable, [option.variable for option in OPTIONS], n=1, cutoff=0.6)
    raise HitlessError(
        f"{variable} (in {where}) is not an option of a rollout.",
        hint=f"Is it {near[0]}?" if near else "docs/options.md has a table of them.",
    )
