"""Options of a rollout: where each is taken from, what it may be, and every refusal."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_variables import RESERVED
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_files import SearchPaths, find_role
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_reader import RolloutOptions, read_options
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_sources import OptionSources, Settings
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import OPTIONS

NEEDED = {"rollout_service": "web", "rollout_version": "2.0.0", "rollout_deploy_command": "deploy"}


@dataclass
class FakeInventory:
    """Hosts with their variables, all in the group service_web; ``{{ name }}`` is that variable of the host."""

    hosts: dict[str, dict[str, Any]] = field(default_factory=lambda: {"web1": {}, "web2": {}, "web3": {}})
    groups: Iterable[str] = ("all", "service_web", "service_api", "empty")
    own: Mapping[str, Any] = field(default_factory=dict)

    def select(self, pattern: str) -> list[str]:
        if pattern in ("service_web", "all"):
            return list(self.hosts)
        return [name for name in pattern.split(",") if name in self.hosts]

    def variables(self, host: str) -> Mapping[str, Any]:
        return self.hosts[host]

    def resolve(self, value: Any, host: str | None, given: Mapping[str, Any] | None = None) -> Any:
        if isinstance(value, Vaulted):
            return str(value)
        known = self.own if host is None else {"inventory_hostname": host, **self.hosts[host], **(given or {})}
        for name in re.findall(r"{{ *(\w+)", value):
            if name not in known:
                raise HitlessError(f"'{name}' is undefined")
            value = known[name]
        return value


def sources(*, needed: bool = True, **changes: Any) -> OptionSources:
    extra = {**(NEEDED if needed else {}), **changes.pop("extra", {})}
    return replace(OptionSources(FakeInventory()), extra=extra, **changes)


def read(*, needed: bool = True, **changes: Any) -> RolloutOptions:
    return read_options(sources(needed=needed, **changes))


def refused(*, needed: bool = True, **changes: Any) -> str:
    with pytest.raises(HitlessError) as caught:
        read(needed=needed, **changes)
    return str(caught.value)


def of_hosts(*variables: dict[str, Any]) -> FakeInventory:
    return FakeInventory({f"web{number}": values for number, values in enumerate(variables, 1)})


# --- defaults and sources ------------------------------------------------------------------------------------


def test_the_least_that_is_needed() -> None:
    assert read().as_dict() == {
        "options": {
            "service": "web",
            "version": "2.0.0",
            "hosts": "service_web",
            "mode": "push",
            "tags": [],
            "deploy_tasks": None,
            "deploy_role": None,
            "deploy_success_codes": [0],
            "deploy_timeout": 1800,
            "reboot_deadline": 600,
            "become": False,
            "gather_facts": False,
            "start_tasks": None,
            "prepare_tasks": None,
            "smoke_tasks": None,
            "before_batch_tasks": None,
            "after_batch_tasks": None,
            "on_failure_tasks": None,
            "finish_tasks": None,
            "batch_size": 1,
            "min_healthy": "50%",
            "failure_budget": 0,
            "maintenance": "service",
            "drain_time": 10,
            "load_balancers": [],
            "analysis": [],
            "drain_min_time": 1,
            "drain_deadline": 60,
            "drain_tasks": None,
            "restore_tasks": None,
            "healthy_deadline": 300,
            "min_healthy_time": 10,
            "check_interval": 30,
            "accept_warning": False,
            "unverified": False,
            "progress_deadline": 3600,
            "rollback": "fleet",
            "bake_time": 10,
            "watch_grace": 3,
            "probe_url": None,
            "probe_interval": 0.1,
            "probe_failures": 10,
            "waves_by": None,
            "waves": [],
            "wave_bake_time": None,
            "pause_after": [],
            "pause_wait": 0,
            "auto_promote": 0,
            "supersede": False,
            "windows": [],
            "previous_version": None,
            "skip_current": True,
            "unreachable": "fail",
            "joiners": "name",
            "strict": False,
            "lock_wait": 0,
            "accept_deadline": 60,
            "show_log": "failed",
            "agent_event": False,
            "keep_deployments": 20,
            "message": "",
            "direction": "deploy",
            "rollback_deployment": None,
        },
        "hosts": ["web1", "web2", "web3"],
        "hooks": [],
        "steps": ["turn"],
        "rollback_steps": [],
        "health_urls": [],
        "waves": {},
        "first_tasks": [],
        "address": {"host": "", "variables": (), "differ": ""},
    }


def test_which_hosts_have_a_health_url() -> None:
    url = {"rollout_health_url": "http://{{ inventory_hostname }}/health"}
    assert read(extra=url).health_urls == ["web1", "web2", "web3"]
    assert read(inventory=of_hosts(url, {}, {"rollout_health_url": ""})).health_urls == ["web1"]


def test_extra_vars_beat_the_play_beats_the_hosts_beat_localhost() -> None:
    order: dict[str, Any] = {
        "extra": {"rollout_drain_time": 1},
        "play": {"rollout_drain_time": 2, "rollout_healthy_deadline": 2},
        "inventory": of_hosts(
            *[{"rollout_drain_time": 3, "rollout_healthy_deadline": 3, "rollout_check_interval": 3}] * 2
        ),
        "localhost": dict.fromkeys(
            ["rollout_drain_time", "rollout_healthy_deadline", "rollout_check_interval", "rollout_lock_wait"], 4
        ),
    }
    found = read(**order).options
    assert [found[name] for name in ("drain_time", "healthy_deadline", "check_interval", "lock_wait")] == [1, 2, 3, 4]


def test_everything_may_come_from_the_hosts_where_they_are_named() -> None:
    found = read(needed=False, extra={"rollout_hosts": "web1,web2"}, inventory=of_hosts(*[dict(NEEDED)] * 3))
    assert found.hosts == ["web1", "web2"]
    assert (found.options["service"], found.options["version"]) == ("web", "2.0.0")
    assert found.options["hosts"] == "web1,web2"


def test_hosts_may_be_a_list() -> None:
    assert read(extra={"rollout_hosts": ["web3", "web1"]}).hosts == ["web3", "web1"]


def test_an_empty_answer_of_a_survey_is_not_set() -> None:
    extra = dict.fromkeys(["rollout_batch_size", "rollout_hosts", "rollout_smoke_tasks", "rollout_message"], "")
    found = read(extra=extra)
    assert found.options["batch_size"] == 1
    assert found.hosts == ["web1", "web2", "web3"]


def test_hosts_that_differ_are_named() -> None:
    inventory = of_hosts({"rollout_drain_time": 5}, {"rollout_drain_time": 5}, {"rollout_drain_time": 7})
    assert refused(inventory=inventory) == (
        "rollout_drain_time holds for the whole rollout, but it is 5 for web1 and 7 for web3. Set it alike for all its "
        "hosts, or with -e."
    )
    assert "it is 5 for web1 and not set for web2" in refused(inventory=of_hosts({"rollout_drain_time": 5}, {}))
    assert read(inventory=inventory, extra={"rollout_drain_time": 6}).options["drain_time"] == 6


def test_templates_of_hosts_are_resolved_before_they_are_compared() -> None:
    value = {"rollout_drain_time": "{{ mine }}"}
    assert read(inventory=of_hosts({**value, "mine": 4}, {**value, "mine": 4})).options["drain_time"] == 4
    assert "is 4 for web1 and 5 for web2" in refused(inventory=of_hosts({**value, "mine": 4}, {**value, "mine": 5}))
    assert "The template in rollout_drain_time of web2 cannot be resolved: 'mine' is undefined" in refused(
        inventory=of_hosts({**value, "mine": 4}, value)
    )


def test_a_template_is_resolved_once_for_hosts_that_agree() -> None:
    hosts = [{"rollout_drain_time": "{{ mine }}", "mine": "{{ other }}", "other": 4}] * 50
    inventory = of_hosts(*hosts)
    asked = []

    def resolve(value: Any, host: str | None, _given: Mapping[str, Any] | None = None) -> Any:
        asked.append(host)
        return 4 if host is None else inventory.hosts[host]["other"]

    inventory.resolve = resolve  # type: ignore[method-assign]
    assert read(inventory=inventory).options["drain_time"] == 4
    assert asked == ["web1"]
    inventory.hosts["web50"] = {**hosts[0], "other": 5}
    assert "is 4 for web1 and 5 for web50" in refused(inventory=inventory)
    indirect = "{{ lookup('vars', 'oth' ~ 'er') }}"
    inventory.hosts = {name: {**values, "rollout_drain_time": indirect} for name, values in inventory.hosts.items()}
    assert "is 4 for web1 and 5 for web50" in refused(inventory=inventory)


class Vaulted:
    """A text that Ansible has not decrypted yet, and that is no str."""

    def __str__(self) -> str:
        return "1.10"


def test_a_vaulted_text_is_a_text() -> None:
    others = {name: value for name, value in NEEDED.items() if name != "rollout_version"}
    inventory = of_hosts({"rollout_version": Vaulted()}, {"rollout_version": Vaulted()})
    assert read(inventory=inventory, needed=False, extra=others).options["version"] == "1.10"
    assert read(extra={"rollout_version": Vaulted()}).options["version"] == "1.10"


def test_templates_of_the_play_are_resolved_on_localhost() -> None:
    inventory = FakeInventory(own={"mine": "25%"})
    assert read(inventory=inventory, play={"rollout_batch_size": "{{ mine }}"}).options["batch_size"] == "25%"
    assert "The template in rollout_batch_size cannot" in refused(play={"rollout_batch_size": "{{ other }}"})


def test_the_deployment_may_differ_from_host_to_host_and_is_not_resolved() -> None:
    hosts = [{"rollout_deploy_command": f"deploy {number} {{{{ deploy_version }}}}"} for number in (1, 2)]
    extra = {name: NEEDED[name] for name in ("rollout_service", "rollout_version")}
    assert read(needed=False, extra=extra, inventory=of_hosts(*hosts)).steps == ["turn"]


def test_a_group_of_a_service_is_named_as_the_inventory_names_it() -> None:
    inventory = FakeInventory(groups=["service_my_api"])
    inventory.select = lambda pattern: ["a"] if pattern == "service_my_api" else []  # type: ignore[method-assign]
    inventory.hosts = {"a": {}}
    assert read(inventory=inventory, extra={"rollout_service": "my-api"}).hosts == ["a"]


# --- what values may be --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("rollout_strict", "false", False),
        ("rollout_strict", "Yes", True),
        ("rollout_become", 1, True),
        ("rollout_failure_budget", "2", 2),
        ("rollout_drain_time", "0.5", 0.5),
        ("rollout_drain_time", 0, 0),
        (
            "rollout_load_balancers",
            "http://lb1:8404/;csv, https://lb2/stats",
            ["http://lb1:8404/", "https://lb2/stats"],
        ),
        ("rollout_load_balancers", ["http://lb1:8404/"], ["http://lb1:8404/"]),
        ("rollout_batch_size", "25%", "25%"),
        ("rollout_batch_size", ["1", "10%"], [1, "10%"]),
        ("rollout_min_healthy", "0", 0),
        ("rollout_tags", "prod, blue", ["prod", "blue"]),
        ("rollout_tags", ["prod"], ["prod"]),
        ("rollout_deploy_success_codes", "0,2", [0, 2]),
        ("rollout_deploy_success_codes", 3, [3]),
        ("rollout_deploy_success_codes", [0, "2"], [0, 2]),
        ("rollout_maintenance", "node", "node"),
        ("rollout_maintenance", ["web", "worker"], ["web", "worker"]),
        ("rollout_maintenance", "web,worker", ["web", "worker"]),
        ("rollout_previous_version", "1.0", "1.0"),
        ("rollout_message", 7, "7"),
        ("rollout_rollback", "none", "none"),
        ("rollout_direction", "rollback", "rollback"),
    ],
)
def test_values_are_converted(variable: str, value: object, found: object) -> None:
    read_value = read(extra={variable: value}).options[variable.removeprefix("rollout_")]
    assert read_value == found
    assert type(read_value) is type(found)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("rollout_strict", "perhaps"),
        ("rollout_failure_budget", -1),
        ("rollout_failure_budget", 1.5),
        ("rollout_failure_budget", True),
        ("rollout_drain_time", "10s"),
        ("rollout_drain_time", "nan"),
        ("rollout_deploy_timeout", 0),
        ("rollout_deploy_timeout", 0.5),
        ("rollout_deploy_timeout", 1.5),
        ("rollout_deploy_timeout", "inf"),
        ("rollout_batch_size", 0),
        ("rollout_min_healthy", "most"),
        ("rollout_load_balancers", "lb1:8404"),
        ("rollout_load_balancers", "http://["),
        ("rollout_load_balancers", "http://operator:secret@lb1:8404/"),
        ("rollout_tags", 5),
        ("rollout_tags", [1]),
        ("rollout_deploy_success_codes", 256),
        ("rollout_deploy_success_codes", "two"),
        ("rollout_deploy_success_codes", [True]),
        ("rollout_maintenance", "services"),
        ("rollout_maintenance", ["a b"]),
        ("rollout_maintenance", []),
        ("rollout_rollback", "always"),
        ("rollout_unreachable", "ignore"),
        ("rollout_service", 5),
        ("rollout_service", "a/b"),
        ("rollout_hosts", {"web1": 1}),
        ("rollout_keep_deployments", 0),
        ("rollout_prepare_tasks", ["a.yml"]),
        ("rollout_deploy_role", 5),
        ("rollout_message", ["a"]),
        ("rollout_direction", "sideways"),
    ],
)
def test_other_values_are_refused_by_name(variable: str, value: object) -> None:
    message = refused(extra={variable: value})
    assert variable in message or message.startswith("The service name")


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.text(), st.lists(st.text()), st.none()))
def test_no_value_of_any_option_is_worse_than_refused(value: object) -> None:
    for option in OPTIONS:
        if value not in (None, ""):
            try:
                option.kind.read(value, option.variable)
            except HitlessError as error:
                assert str(error)  # noqa: PT017 - refusing is allowed, anything else is not


def test_a_version_is_a_string() -> None:
    assert refused(extra={"rollout_version": 1.1}).startswith("rollout_version must be a string, and 1.1 is a number")
    assert "is not a version" in refused(extra={"rollout_version": "1.0; rm -rf /"})
    assert "rollout_previous_version must be a string" in refused(extra={"rollout_previous_version": 2})


def test_a_drain_has_room(project: Callable[..., SearchPaths]) -> None:
    assert refused(extra={"rollout_drain_min_time": 9, "rollout_drain_deadline": 5}) == (
        "rollout_drain_deadline (5 s) is less than rollout_drain_min_time (9 s)."
    )
    agent = {"rollout_mode": "agent", "rollout_deploy_command": "", "rollout_load_balancers": "http://lb1:8404/"}
    compared = read(extra={**agent, "rollout_analysis": "load_balancers"}).options
    assert compared["load_balancers"] == ["http://lb1:8404/"], "for what they count, and not for the drain"
    assert "rollout_load_balancers cannot be used with rollout_mode agent" in refused(
        extra=agent, search_paths=project()
    )


SHORT = {
    "rollout_progress_deadline": 100,
    "rollout_drain_time": 20,
    "rollout_deploy_timeout": 50,
    "rollout_healthy_deadline": 25,
    "rollout_min_healthy_time": 5,
    "rollout_bake_time": 0,
}
OBSERVED = {"rollout_load_balancers": "http://lb1:8404/", "rollout_drain_time": 1000}


def test_a_turn_has_time_before_the_progress_deadline() -> None:
    assert read(extra=SHORT).options["progress_deadline"] == 100
    assert read(extra={**SHORT, **OBSERVED, "rollout_drain_deadline": 20}).hosts
    assert refused(extra={**SHORT, "rollout_progress_deadline": 99}) == (
        "rollout_progress_deadline (99 s) is shorter than the turn of one host may take, with what is waited before "
        "it (100 s: rollout_drain_time 20, rollout_deploy_timeout 50, rollout_healthy_deadline 25, "
        "rollout_min_healthy_time 5). Set "
        "rollout_progress_deadline: 100 or more, or lower those."
    )
    assert "(140 s: rollout_drain_deadline 60, " in refused(extra={**SHORT, **OBSERVED})
    agent = {**SHORT, "rollout_mode": "agent", "rollout_deploy_command": ""}
    assert "(160 s: rollout_accept_deadline 60, rollout_drain_time 20, " in refused(extra=agent)


@pytest.mark.parametrize("name", [name for name in SHORT if name != "rollout_progress_deadline"])
def test_each_part_of_a_turn_counts(name: str) -> None:
    assert "(101 s: " in refused(extra={**SHORT, name: SHORT[name] + 1})


# --- refusals ------------------------------------------------------------------------------------------------


def test_unknown_names_are_refused_with_the_nearest() -> None:
    assert refused(extra={"rollout_batchsize": 1}) == (
        "rollout_batchsize (in extra vars) is not an option of a rollout. Is it rollout_batch_size?"
    )
    assert "docs/options.md" in refused(extra={"rollout_xyzzy_plugh": 1})
    assert "(in the play's variables)" in refused(play={"rollout_drain": 1})
    assert "(in the variables of localhost)" in refused(localhost={"rollout_drain": 1})
    assert "(in the variables of web2)" in refused(inventory=of_hosts({}, {"rollout_drain": 1}))


def test_results_of_tasks_are_no_options() -> None:
    result = {"changed": False, "failed": False}
    assert read(localhost={"rollout_plan": result}, inventory=of_hosts({"rollout_reach": result})).hosts == ["web1"]


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("extra", "extra vars"),
        ("play", "the play's variables"),
        ("localhost", "the variables of localhost"),
        ("inventory", "the variables of web2"),
    ],
)
def test_what_the_deployment_is_given_is_ours_to_set(name: str, where: str, told: str) -> None:
    given_there: Any = of_hosts({}, {name: "1"}) if where == "inventory" else {name: "1"}
    assert refused(**{where: given_there}).startswith(f"{name} is set in {told};")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(strategy="free"), "the strategy free"),
        (Settings(strategy="ansible.builtin.host_pinned"), "the strategy ansible.builtin.host_pinned"),
        (Settings(native_templates=True), "Ansible's setting jinja2_native"),
    ],
)
def test_settings_that_a_rollout_cannot_run_with(settings: Settings, told: str) -> None:
    assert f"A rollout cannot run with {told}" in refused(settings=settings)


@pytest.mark.parametrize("strategy", ["linear", "ansible.builtin.linear", "ansible.legacy.linear", "debug"])
def test_strategies_that_keep_to_batches(strategy: str) -> None:
    assert read(settings=Settings(strategy=strategy)).hosts


def test_service_and_version_are_needed() -> None:
    assert refused(needed=False).startswith("rollout_service is not set")
    assert refused(extra={"rollout_version": ""}).startswith("rollout_version is not set")
    back = read(extra={"rollout_version": ""}, play={"rollout_direction": "rollback"})
    assert back.options["version"] is None


BACK: Any = {"play": {"rollout_direction": "rollback"}}


def test_a_rollback_is_as_fast_as_the_minimum_allows_unless_its_start_says_otherwise() -> None:
    """What rollouts do in general, with a canary first, is nothing for an emergency."""
    canary = of_hosts(*[{"rollout_batch_size": [1, "25%"]}] * 3)
    assert read(inventory=canary).options["batch_size"] == [1, "25%"]
    assert read(inventory=canary, **BACK).options["batch_size"] == "100%"
    assert read(localhost={"rollout_batch_size": 1}, **BACK).options["batch_size"] == "100%"
    assert read(extra={"rollout_batch_size": ""}, inventory=canary, **BACK).options["batch_size"] == "100%"
    assert read(extra={"rollout_batch_size": 2}, inventory=canary, **BACK).options["batch_size"] == 2
    asked = {"play": {**BACK["play"], "rollout_batch_size": "25%"}}
    assert read(inventory=canary, **asked).options["batch_size"] == "25%"


def test_a_rollback_is_not_rolled_back_as_a_whole() -> None:
    """All that had gone back would get the bad version again."""
    assert read().options["rollback"] == "fleet"
    assert read(**BACK).options["rollback"] == "host"
    assert read(extra={"rollout_rollback": "none"}, **BACK).options["rollback"] == "none"


def test_which_deployment_a_rollback_undoes() -> None:
    one = {"rollback_deployment": "20261128T142831Z-2.0.0-5fb2"}
    assert (
        read(extra={**one, "rollout_version": ""}, **BACK).options["rollback_deployment"] == one["rollback_deployment"]
    )
    assert "rollback_deployment is set, which the playbook hitless.consul.rollback takes" in refused(extra=one)
    both = refused(extra={**one, "rollout_version": "1.4.1"}, **BACK)
    assert both.startswith("rollback_deployment (20261128T142831Z-2.0.0-5fb2) and rollout_version (1.4.1) are both set")


def test_a_misspelled_deployment_would_undo_another() -> None:
    typo = {"rollback_deploymnet": "x"}
    assert "Is it rollback_deployment?" in refused(extra=typo, **BACK)
    assert "Is it rollback_deployment?" in refused(inventory=of_hosts(typo), **BACK)
    assert "rollout_rollback_deployment (in extra vars) is not an option" in refused(
        extra={"rollout_rollback_deployment": "x"}, **BACK
    )
    assert read(extra=typo).hosts, "in a rollout that is a variable of somebody else"


def test_groups_and_patterns_without_hosts() -> None:
    assert refused(extra={"rollout_service": "db"}) == (
        "There is no host to roll over: the group service_db is not in the inventory (its groups of services are "
        "service_api, service_web). Set rollout_hosts to a group or pattern of hosts, or use an inventory of the "
        "plugin hitless.consul.catalog."
    )
    assert "the group empty is empty" in refused(extra={"rollout_hosts": "empty"})
    assert "the pattern web9,web8 matches no host" in refused(extra={"rollout_hosts": "web9,web8"})
    assert "(it has no groups of services)" in refused(inventory=FakeInventory({}, groups=["all"]))


def test_hosts_that_would_choose_the_hosts() -> None:
    assert "rollout_hosts is set in the variables of web1 (x)" in refused(inventory=of_hosts({"rollout_hosts": "x"}))


def test_one_way_to_deploy_is_needed(tmp_path: Path) -> None:
    (tmp_path / "deploy.yml").touch()
    paths = SearchPaths([str(tmp_path)])
    extra = {name: NEEDED[name] for name in ("rollout_service", "rollout_version")}
    assert refused(needed=False, extra=extra).startswith("Nothing says how a version gets onto a host: set one of")
    both = {"rollout_deploy_tasks": "deploy.yml"}
    assert "rollout_deploy_command and rollout_deploy_tasks are both set" in refused(extra=both, search_paths=paths)
    some = of_hosts({"rollout_deploy_command": "a"}, {}, {"rollout_deploy_command": "a"})
    assert "rollout_deploy_command is set for web1, and not for web2" in refused(
        needed=False, extra=extra, inventory=some
    )
    assert read(extra={**both, "rollout_deploy_command": ""}, search_paths=paths).steps[1] == "deploy_tasks"


def test_a_match_needs_a_url() -> None:
    assert "rollout_health_url is not" in refused(extra={"rollout_health_match": "2.0"})
    assert "set for web2" in refused(inventory=of_hosts({}, {"rollout_health_match": "2.0"}))


def test_a_maintenance_without_the_service() -> None:
    assert "does not contain web" in refused(extra={"rollout_maintenance": ["worker"]})


def test_variables_that_ansible_would_not_read() -> None:
    assert "/srv/group_vars/web.yml would set options" in refused(
        search_paths=SearchPaths(ignored=["/srv/group_vars/web.yml"])
    )


# --- files and roles -----------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., SearchPaths]:
    """Makes files below two folders: the first beside the playbook, the second the working directory."""

    def make(*paths: str, **more: Any) -> SearchPaths:
        for path in paths:
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return SearchPaths([str(tmp_path / "beside"), str(tmp_path / "here")], **more)

    return make


def test_hooks_and_steps(project: Callable[..., SearchPaths], tmp_path: Path) -> None:
    paths = project("beside/hooks/prepare.yml", "here/smoke.yml", "beside/roles/install/tasks/main.yml")
    extra = {
        "rollout_deploy_command": "",
        "rollout_deploy_role": "install",
        "rollout_prepare_tasks": "hooks/prepare.yml",
        "rollout_smoke_tasks": "smoke.yml",
        "rollout_finish_tasks": str(tmp_path / "here/smoke.yml"),
    }
    found = read(extra=extra, search_paths=paths)
    assert found.as_dict()["hooks"] == [
        {"name": "deploy", "kind": "role", "role": f"{tmp_path}/beside/roles/install"},
        {"name": "prepare", "kind": "tasks", "path": f"{tmp_path}/beside/hooks/prepare.yml"},
        {"name": "smoke", "kind": "tasks", "path": f"{tmp_path}/here/smoke.yml"},
        {"name": "finish", "kind": "tasks", "path": f"{tmp_path}/here/smoke.yml"},
    ]
    assert found.options["prepare_tasks"] == f"{tmp_path}/beside/hooks/prepare.yml"
    assert found.options["deploy_role"] == f"{tmp_path}/beside/roles/install"
    assert found.steps == ["prepare", "drain", "deploy_role", "verify", "smoke", "return"]
    assert found.rollback_steps == ["drain", "deploy_role", "verify", "smoke", "return"]


@pytest.mark.parametrize("option", ["prepare", "smoke", "before_batch", "after_batch"])
def test_tasks_between_the_steps_mean_batches(project: Callable[..., SearchPaths], option: str) -> None:
    paths = project("here/hook.yml")
    extra = {f"rollout_{option}_tasks": "hook.yml"}
    assert "deploy_command" in read(extra=extra, search_paths=paths).steps
    assert read(extra={"rollout_start_tasks": "hook.yml"}, search_paths=paths).steps == ["turn"]


def test_what_a_hook_may_notify_is_warned_of_in_a_window_too(project: Callable[..., SearchPaths]) -> None:
    paths = project("here/finish.yml", "here/tell-Debian.yml")
    tasks = {
        "finish.yml": [{"include_tasks": "tell-{{ ansible_facts.distribution }}.yml"}],
        "tell-Debian.yml": [{"name": "Tell", "debug": {}, "notify": "nobody"}],
    }
    found = read(
        extra={"rollout_finish_tasks": "finish.yml"},
        search_paths=paths,
        load=lambda path: tasks.get(os.path.basename(path)),
    )
    assert found.steps == ["turn"]
    assert len(found.warnings) == 1
    assert "tell-Debian.yml" in found.warnings[0]


def test_hooks_of_a_load_balancer_that_consul_does_not_drive(project: Callable[..., SearchPaths]) -> None:
    paths = project("here/out.yml", "here/in.yml")
    pair = {"rollout_drain_tasks": "out.yml", "rollout_restore_tasks": "in.yml"}
    found = read(extra=pair, search_paths=paths)
    steps = ["drain_by_hook", "deploy_command", "verify", "restore_by_hook", "return"]
    assert found.steps == found.rollback_steps == steps
    smoke = read(extra={**pair, "rollout_smoke_tasks": "in.yml"}, search_paths=paths)
    assert smoke.steps[-4:] == ["verify", "smoke", "restore_by_hook", "return"]
    recovery = read_options(sources(extra=pair, search_paths=paths), deploys=False)
    assert [hook.name for hook in recovery.hooks] == ["restore"]
    for one, other in (("drain", "restore"), ("restore", "drain")):
        said = refused(extra={f"rollout_{one}_tasks": pair[f"rollout_{one}_tasks"]}, search_paths=paths)
        assert said.startswith(f"rollout_{one}_tasks is set, and rollout_{other}_tasks is not")
    assert refused(extra={**pair, "rollout_restore_tasks": "out.yml"}, search_paths=paths) == (
        "rollout_drain_tasks and rollout_restore_tasks are the same file (out.yml), which is not told what it is run "
        "for. Set each to a file of its own."
    )


def test_files_beside_the_playbook_come_first(project: Callable[..., SearchPaths], tmp_path: Path) -> None:
    paths = project("beside/a.yml", "here/a.yml")
    assert read(extra={"rollout_smoke_tasks": "a.yml"}, search_paths=paths).options["smoke_tasks"] == str(
        tmp_path / "beside/a.yml"
    )


def test_a_missing_file_names_the_places(project: Callable[..., SearchPaths], tmp_path: Path) -> None:
    assert refused(extra={"rollout_smoke_tasks": "a.yml"}, search_paths=project()) == (
        f"rollout_smoke_tasks: there is no file a.yml; searched: {tmp_path}/beside/a.yml, {tmp_path}/here/a.yml."
    )
    assert refused(extra={"rollout_smoke_tasks": "/nowhere/a.yml"}, search_paths=project()).endswith(
        "searched: /nowhere/a.yml."
    )


def test_roles(project: Callable[..., SearchPaths], tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    paths = project(
        "here/roles/one/tasks/main.yml",
        "installed/two/tasks/main.yml",
        "beside/deploy/three/tasks/main.yml",
        "beside/roles/empty/README.md",
        role_paths=[str(installed)],
        collection_role=lambda name: name == "acme.web.four",
    )
    assert find_role("one", "x", paths) == str(tmp_path / "here/roles/one")
    assert find_role("two", "x", paths) == str(installed / "two")
    assert find_role("deploy/three", "x", paths) == str(tmp_path / "beside/deploy/three")
    assert find_role(str(installed / "two"), "x", paths) == str(installed / "two")
    assert find_role("acme.web.four", "x", paths) == "acme.web.four"
    for name in ("empty", "acme.web.five"):
        with pytest.raises(HitlessError, match=f"there is no role {name} .*searched: .*{installed}/{name}"):
            find_role(name, "rollout_deploy_role", paths)


# --- Consul's address ----------------------------------------------------------------------------------------


X, Y = {"hitless_consul_url": "http://x"}, {"hitless_consul_url": "http://y"}
TOKEN = {"hitless_consul_token": "secret"}


@pytest.mark.parametrize(
    ("hosts", "changes", "taken"),
    [
        ([{}, {}], {}, []),
        ([X, X], {}, ["hitless_consul_url"]),
        ([{**X, **TOKEN}, {**X, **TOKEN}], {}, ["hitless_consul_url", "hitless_consul_token"]),
        ([{**X, **TOKEN}, {**X, "hitless_consul_token": "other"}], {}, ["hitless_consul_url"]),
        ([X, {}], {}, []),
        ([X, Y], {}, []),
        # The agents' own addresses are theirs.
        ([{"hitless_consul_agent_url": "http://x"}] * 2, {}, []),
        ([{"hitless_consul_deploy_prefix": "team"}] * 2, {}, ["hitless_consul_deploy_prefix"]),
        # localhost has one of its own: a token of another Consul's must not go there.
        ([X, X], {"localhost": X}, []),
        ([{**X, **TOKEN}] * 2, {"extra": X}, ["hitless_consul_token"]),
        ([{**X, **TOKEN}] * 2, {"play": Y}, []),
        ([TOKEN] * 2, {"localhost": Y}, ["hitless_consul_token"]),
        ([{"hitless_consul_url": "{{ its }}", "its": "http://x"}] * 2, {}, ["hitless_consul_url"]),
        ([{"hitless_consul_url": "{{ its }}", "its": "http://x"}, X], {}, ["hitless_consul_url"]),
    ],
)
def test_what_localhost_takes_from_the_hosts(
    hosts: list[dict[str, Any]], changes: dict[str, Any], taken: list[str]
) -> None:
    found = read(inventory=of_hosts(*hosts), **changes).address
    assert (found.host, list(found.variables)) == (("web1", taken) if taken else ("", []))
    assert "secret" not in repr(found)


def test_why_no_address_is_taken_from_the_hosts() -> None:
    found = read(inventory=of_hosts(X, Y)).address
    assert found.differ == "hitless_consul_url is 'http://x' for web1 and 'http://y' for web2."
    assert read(inventory=of_hosts(X, Y), localhost=X).address.differ == ""


def test_an_inventory_that_could_not_be_read() -> None:
    told = refused(inventory=FakeInventory({}), unread=["web.consul.yml: Permission denied."])
    assert told.endswith("since the inventory could not be read: web.consul.yml: Permission denied.")
    assert read(unread=["other.consul.yml: Permission denied."]).hosts
