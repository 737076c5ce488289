# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""THE table of the options of a rollout, and what is made from it (a private helper of this collection). Pure.

Defaults, kinds and documentation of an option stand here and nowhere else: option_reader.py reads them, others take
a default from :data:`DEFAULTS`, ``scripts/write-options`` writes docs/options.md and the role's argument_specs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import RULE, parse_analysis
from ansible_collections.hitless.consul.plugins.module_utils._rollout.change_windows import parse_windows
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import KINDS
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
    Url,
    Urls,
    Version,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import (
    parse_batch_size,
    parse_min_healthy,
    parse_pause_after,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.wave_options import (
    parse_waves,
    parse_waves_by,
)

PREFIX = "rollout_"
ROLLBACK_PREFIX = "rollback_"
"""Of what only the playbook ``rollback`` takes."""
ROLLBACK_SIZE = "100%"
"""As many hosts at a time as the minimum of healthy ones allows: a rollback by hand is in a hurry."""
UNSET = (None, "")
"""Values that stand for "not set": a survey of AWX sends empty text for an answer that was left out."""


@dataclass(frozen=True)
class Option:
    """One option, without the prefix ``rollout_`` in its name.

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
        return self.name if self.name.startswith(ROLLBACK_PREFIX) else PREFIX + self.name

    @property
    def is_hook(self) -> bool:
        return isinstance(self.kind, TasksFile | RoleName)


_SECONDS = Number(0, whole=False, unit="seconds")
_SOME_SECONDS = Number(0, whole=False, unit="seconds", above=True)

OPTIONS: tuple[Option, ...] = (
    Option("service", ServiceName(), help="the service to roll over, by its name in Consul", shown="required"),
    Option(
        "version",
        Version(),
        help="the version to go to; without it the playbook `rollback` undoes a deployment",
        shown="required",
    ),
    Option(
        "rollback_deployment",
        Text("id of a deployment"),
        help="the deployment that the playbook `rollback` undoes, instead of the last one, see rollback.md",
    ),
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
    Option("deploy_timeout", Number(1, unit="seconds"), 1800, "for the command, or each task, those of hooks as well"),
    Option(
        "restart_command",
        Text("command line"),
        help="what the playbook `restart` runs on the host, see restart.md",
        shown="`systemctl restart <rollout_service>`",
        per_host=True,
    ),
    Option(
        "reboot_command",
        Text("command line"),
        "shutdown -r now",
        "what the playbook `reboot` runs on the host, see restart.md",
        per_host=True,
    ),
    Option(
        "boot_id_command",
        Text("command line"),
        "cat /proc/sys/kernel/random/boot_id",
        "prints an id of the machine's boot, which is another one once it has rebooted",
        per_host=True,
    ),
    Option("reboot_deadline", _SOME_SECONDS, 600, "a machine that is rebooted, and its Consul agent, have to be back"),
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
        "hosts in flight at a time; a percentage is of the hosts to change, rounded down, at least 1; of a list each "
        "but the last is a stage of so many hosts, and the last counts for all others. In a rollback a percentage is "
        "of all instances, and only what is given with its start counts (`-e`, or vars of the play): else as many "
        "as `rollout_min_healthy` allows. With waves a percentage is of the wave, see policy.md",
    ),
    Option(
        "min_healthy",
        Parsed("number or percentage", parse_min_healthy),
        "50%",
        "instances that must stay in rotation; a percentage is of the registered ones, rounded up. In each wave the "
        "same share must, rounded down",
    ),
    Option("failure_budget", Number(), 0, "hosts that may fail, whatever becomes of them, before the deployment stops"),
    Option("maintenance", MaintenanceScope(), "service", "what is taken out of rotation on a host"),
    Option("drain_time", _SECONDS, 10, "at least, from when the catalog shows the maintenance to the deployment"),
    Option(
        "load_balancers",
        Urls(),
        [],
        "HAProxy statistics: the drain ends when all of them show the instance out and idle, instead of after "
        "`rollout_drain_time`, see load-balancers.md",
    ),
    Option("drain_min_time", _SECONDS, 1, "an observed drain lasts at least"),
    Option("drain_deadline", _SECONDS, 60, "after which sessions that an observed drain still shows are given up"),
    Option(
        "drain_tasks",
        TasksFile(),
        help="on the controller, for each host that is in maintenance: take it out at a load balancer that does not "
        "follow Consul; the drain counts from then on",
    ),
    Option(
        "restore_tasks",
        TasksFile(),
        help="on the controller, for each host verified as healthy: put it back there, before its maintenance ends",
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
        Choice(("fleet", "host", "none")),
        "fleet",
        "what is rolled back by itself: a host that fails and, where the deployment stops for that, all that it has "
        "changed; only the host that fails; nothing",
    ),
    Option(
        "bake_time",
        _SECONDS,
        10,
        "what was changed is watched for so long after each stage, and after the last host, before the next stage or "
        "the word successful",
    ),
    Option(
        "analysis",
        Parsed(RULE, parse_analysis),
        [],
        "what says whether the new version is good: `load_balancers` compares new with old instances by HAProxy's "
        "counters, all the time; checks are HTTP requests or commands of yours while it bakes, see policy.md",
    ),
    Option(
        "watch_grace",
        _SOME_SECONDS,
        3,
        "the health URL of a host that was changed answers badly for so long before it counts as regressed; without "
        "`rollout_health_url` its check has to fail twice",
    ),
    Option(
        "waves_by",
        Parsed("name of a variable of the hosts, such as `consul_node_meta.zone` or `group_names`", parse_waves_by),
        help="one wave of hosts after the other, by what this is on each host, see policy.md",
    ),
    Option(
        "waves",
        Parsed("list of names", parse_waves),
        [],
        "the waves in their order, instead of by name; where the variable is a list (`group_names`), which of it are "
        "waves",
    ),
    Option(
        "wave_bake_time",
        _SECONDS,
        help="what was changed is watched for so long after each wave",
        shown="`rollout_bake_time`",
    ),
    Option(
        "probe_url",
        Url(),
        help="the public address, asked all the time as a client does, from here; more failures than "
        "`rollout_probe_failures` stop the deployment, see policy.md",
    ),
    Option("probe_interval", _SOME_SECONDS, 0.1, "between two probes"),
    Option("probe_failures", Number(), 10, "probes that may fail before the deployment does"),
    Option(
        "pause_after",
        Parsed("list of numbers of stages (batches), 1 for the first, or `each`, or `each_wave`", parse_pause_after),
        [],
        "stages after which the rollout pauses until it is promoted, see operating.md",
    ),
    Option(
        "pause_wait",
        _SECONDS,
        0,
        "a paused rollout waits in place, before its run ends as paused and holds nothing",
    ),
    Option(
        "auto_promote",
        _SECONDS,
        0,
        "after which a stage is promoted by itself, where what was changed has been healthy for so long; 0 for never",
    ),
    Option("supersede", Flag(), False, "take over from a paused deployment of another version, which is cancelled"),
    Option(
        "windows",
        Parsed("list of `Mon-Thu 09:00-16:00 Europe/Berlin`, or text with semicolons between them", parse_windows),
        [],
        "times of the week in which hosts may begin; outside them a rollout is refused, and one that runs pauses",
    ),
    Option("previous_version", Version(), help="where a rollback goes, for hosts of which no version is recorded"),
    Option("skip_current", Flag(), True, "leave hosts alone that are healthy on the version: running again resumes"),
    Option(
        "unreachable", Choice(("fail", "skip")), "fail", "refuse to begin with an unreachable host, or leave it out"
    ),
    Option(
        "joiners",
        Choice(("name", "roll")),
        "name",
        "instances that registered while it ran: named at its end, or rolled too by the same run, see policy.md",
    ),
    Option("strict", Flag(), False, "hosts that were skipped make the exit code non-zero"),
    Option("lock_wait", _SECONDS, 0, "to wait for another deployment of the service to end"),
    Option(
        "accept_deadline",
        _SOME_SECONDS,
        60,
        "agent mode: a machine has to accept its request, and may be failed in Consul (serfHealth critical)",
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
    Option("direction", Choice(tuple(KINDS)), "deploy", "set by the playbooks, not by you"),
)
UNDOING: Mapping[str, Any] = {
    "direction": "rollback",
    "version": None,
    "batch_size": ROLLBACK_SIZE,
    "rollback": "none",
    "unreachable": "skip",
    "unverified": True,
}
"""What a rollout that has failed sets for the rollback of itself: as fast as the minimum allows, as far as possible."""
JOINING: Mapping[str, Any] = {"skip_current": True, "pause_after": [], "auto_promote": 0}
"""What a rollout sets for the one that follows it, of what has joined: the others are left alone, and nobody waits."""
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}
DEFAULTS: Mapping[str, Any] = {option.name: option.default for option in OPTIONS}


def options_table() -> str:
    """The table of docs/options.md."""
    rows = ["| variable | value | default | meaning |", "|---|---|---|---|"]
    for option in OPTIONS:
        each = "; may differ from host to host" if option.per_host else ""
        rows.append(f"| `{option.variable}` | {option.kind.rule} | {_default(option)} | {option.help}{each} |")
    return "\n".join(rows) + "\n"


def argument_spec() -> dict[str, dict[str, str]]:
    """The options as the role's argument_specs document them: in few words, since Ansible copies them for each import.

    Only so: Ansible would validate without converting (1.10 arrives as 1.1), and the role takes them from the hosts.
    """
    return {option.variable: _described(option) for option in OPTIONS if option.name != "direction"}


def _described(option: Option) -> dict[str, str]:
    lines = [option.help[0].upper() + option.help[1:] + ".", f"Value - {option.kind.rule}."]
    if option.default not in UNSET:
        lines.append(f"Default - {_yaml(option.default)}.")
    return {"description": " ".join(lines).replace("`", "")}


def _default(option: Option) -> str:
    return option.shown or ("-" if option.default in UNSET else f"`{_yaml(option.default)}`")


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
