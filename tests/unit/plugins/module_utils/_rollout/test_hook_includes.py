"""Which files and roles are looked at where a template names them, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_includes import (
    Choice,
    Chosen,
    HookVariables,
    Scope,
    Surroundings,
    fitting,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_reader import read_role, read_tasks
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_tasks import HookTasks, missing_handlers
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_templates import given_to

pytestmark = pytest.mark.oldest

HOSTS: dict[str, dict[str, Any]] = {
    "web1": {"inventory_hostname": "web1", "flavour": "blue", "deep": "{{ flavour }}", "parts": ["a", "b"], "lit": "a"},
    "web2": {"inventory_hostname": "web2", "flavour": "blue", "deep": "{{ flavour }}", "parts": ["a", "b"], "odd": "x"},
    "web3": {"inventory_hostname": "web3", "flavour": "red", "deep": "{{ flavour }}", "parts": ["a", "b"]},
}
JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)


class Lab:
    """Files of a user, and hosts whose variables resolve as Ansible resolves them."""

    def __init__(self, folder: Path, version: str | None = "2.0.0", **files: str) -> None:
        self.folder = folder
        self.asked: list[str] = []
        for name, text in files.items():
            path = folder / (name.replace("__", "/").replace("_", "-") + ".yml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.play: dict[str, Any] = {"stage": "prod"}
        self.extra: dict[str, Any] = {}
        given, stand_ins = given_to(version, "deploy", "web")
        self.variables = HookVariables(HOSTS, self.play, self.extra, self.resolve, given, stand_ins)
        self.around = Surroundings(self.variables, [str(folder / "roles")])

    def resolve(self, value: Any, host: str, given: Mapping[str, Any]) -> Any:
        self.asked.append(host)
        return self._rendered(value, {**HOSTS[host], **self.play, **self.extra, **given})

    def _rendered(self, value: Any, known: Mapping[str, Any]) -> Any:
        if isinstance(value, list):
            return [self._rendered(part, known) for part in value]
        if not isinstance(value, str) or "{{" not in value:
            return value
        try:
            if value.startswith("{{") and value.endswith("}}") and value.count("{{") == 1:
                found = JINJA.compile_expression(value[2:-2], undefined_to_none=False)(**known)
                if isinstance(found, jinja2.Undefined):
                    raise HitlessError("undefined")
            else:
                found = JINJA.from_string(value).render(known)
        except jinja2.UndefinedError as error:
            raise HitlessError(str(error)) from None
        return self._rendered(found, known)

    def load(self, path: str) -> Any:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else None

    def tasks(self, option: str = "deploy_tasks", name: str = "deploy") -> HookTasks:
        return read_tasks(option, str(self.folder / f"{name}.yml"), self.load, self.around)

    def role(self, name: str = "install") -> HookTasks:
        return read_role("deploy_role", str(self.folder / "roles" / name), self.load, self.around)


def told(*hooks: HookTasks) -> dict[str, bool]:
    """Files of tasks that notify what is not there, each with whether that is sure."""
    return {Path(one.task.path).stem: one.sure for one in missing_handlers(hooks)}


def values(chosen: Chosen) -> list[Any]:
    return [choice.value for choice in chosen.choices]


NOTIFIES = "- {name: Install, command: install, notify: Restart}\n"
FINE = "- {name: Install, command: install}\n"

# --- values --------------------------------------------------------------------------------------------------


def test_a_value_of_each_host_resolved_once_for_those_that_agree(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    chosen = lab.variables.choose("{{ deep }}.yml", Scope(), on_host=True)
    assert chosen == Chosen(
        [Choice("blue.yml", Scope(), ["web1", "web2"]), Choice("red.yml", Scope(), ["web3"])],
        frozenset({"deep", "flavour"}),
        complete=True,
    )
    assert lab.asked == ["web1", "web3"]
    lab.variables.choose("{{ deep }}.yml", Scope(), on_host=True)
    assert lab.asked == ["web1", "web3"]


def test_a_template_of_too_many_values_is_left_open(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    many = {f"web{number}": {"inventory_hostname": f"web{number}"} for number in range(1000)}
    given, stand_ins = given_to("2.0.0", "deploy", "web")
    variables = HookVariables(many, {}, {}, lambda value, host, given: lab.asked.append(host), given, stand_ins)
    assert not variables.choose("{{ inventory_hostname }}.yml", Scope(), on_host=True).complete
    assert len(lab.asked) == 200


@pytest.mark.parametrize(
    "template",
    [
        "{{ ansible_distribution }}.yml",
        "{{ ansible_facts.distribution }}.yml",
        "{{ item }}.yml",
        "{{ hostvars.web1.flavour }}.yml",
        "{{ lookup('env', 'x') }}.yml",
        "{{ deploy_id }}.yml",
        "{{ deploy_previous_version }}.yml",
    ],
)
def test_what_only_the_turn_of_a_host_tells(tmp_path: Path, template: str) -> None:
    lab = Lab(tmp_path)
    assert lab.variables.choose(template, Scope(), on_host=True) == Chosen()
    assert lab.asked == []


def test_hosts_without_the_variable_leave_it_open(tmp_path: Path) -> None:
    chosen = Lab(tmp_path).variables.choose("{{ odd }}", Scope(), on_host=True)
    assert (values(chosen), chosen.complete) == (["x"], False)


def test_which_variable_wins(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    scope = Scope({"flavour": "of task", "stage": "of task"}, {"flavour": "default", "port": "default"})
    value = "{{ flavour }}/{{ stage }}/{{ port }}"
    assert values(lab.variables.choose(value, scope, on_host=True)) == ["of task/of task/default"]
    lab.extra["stage"] = "of extra"
    assert values(lab.variables.choose(value, scope, on_host=True)) == ["of task/of extra/default"]
    defaults = Scope({}, {"flavour": "default", "stage": "default"})
    assert values(lab.variables.choose("{{ flavour }}/{{ stage }}", defaults, on_host=True)) == [
        "blue/of extra",
        "red/of extra",
    ]


def test_the_controller_has_what_the_play_has(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    assert values(lab.variables.choose("{{ stage }}.yml", Scope(), on_host=False)) == ["prod.yml"]
    assert lab.variables.choose("{{ flavour }}.yml", Scope(), on_host=False) == Chosen()


def test_a_deployment_and_its_rollback(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    assert values(lab.variables.choose("{{ deploy_reason }}", Scope(), on_host=True)) == ["deploy", "rollback"]
    assert values(lab.variables.choose("{{ deploy_version }}", Scope(), on_host=True)) == ["2.0.0"]
    assert Lab(tmp_path, version=None).variables.choose("{{ deploy_version }}", Scope(), on_host=True) == Chosen()


def test_names_that_fit(tmp_path: Path) -> None:
    Lab(tmp_path, deploy_blue="", deploy_red="", other="")
    folders = [str(tmp_path)]
    assert [Path(path).name for path in fitting("deploy-{{ x }}.yml", folders)] == ["deploy-blue.yml", "deploy-red.yml"]
    assert len(fitting("{{ x }}.yml", folders)) == 3
    assert len(fitting("{{ role_path }}/other.yml", ["/"], Scope({"role_path": str(tmp_path)}))) == 1
    for nothing in ("{{ x }}", "{% if x %}deploy-blue.yml{% endif %}", "deploy-{{ x }}.yaml"):
        assert fitting(nothing, folders) == []


# --- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "include",
    [
        "- include_tasks: 'to-{{ flavour }}.yml'\n",
        "- ansible.builtin.import_tasks: {file: 'to-{{ deep }}.yml'}\n",
        "- include_tasks: '{{ which }}'\n  vars: {which: to-red.yml}\n",
        "- block: [{include_tasks: '{{ which }}'}]\n  vars: {which: to-red.yml}\n",
        "- include_tasks: 'to-{{ item }}.yml'\n  loop: [blue, red]\n",
        "- include_tasks: 'to-{{ item.name }}.yml'\n  with_items: [[{name: blue}], {name: red}]\n",
        "- include_tasks: 'to-{{ colour }}.yml'\n  loop: ['{{ flavour }}']\n  loop_control: {loop_var: colour}\n",
        "- include_tasks: 'to-{{ deploy_reason }}.yml'\n",
        "- include_tasks: more.yml\n  vars: {which: to-red.yml}\n",
    ],
)
def test_a_file_that_the_variables_name_is_refused(tmp_path: Path, include: str) -> None:
    lab = Lab(
        tmp_path, deploy=include, to_blue=FINE, to_red=NOTIFIES, to_deploy=FINE, to_rollback=NOTIFIES,
        more="- include_tasks: '{{ which }}'\n",
    )  # fmt: skip
    found = told(lab.tasks())
    assert set(found) in ({"to-red"}, {"to-rollback"})
    assert all(found.values())


@pytest.mark.parametrize(
    "include",
    [
        "- include_tasks: 'to-{{ ansible_facts.distribution }}.yml'\n",
        "- include_tasks: 'to-{{ found.stdout }}.yml'\n",
        "- include_tasks: 'to-{{ item }}.yml'\n  loop: '{{ found.results }}'\n",
        "- include_tasks: 'to-{{ item }}.yml'\n  with_fileglob: [x]\n",
        # It may come to something else: a task sets it, or may set it, before.
        "- set_fact: {flavour: green}\n- include_tasks: 'to-{{ flavour }}.yml'\n",
        "- {command: x, register: flavour}\n- include_tasks: 'to-{{ deep }}.yml'\n",
        "- include_vars: x.yml\n- include_tasks: 'to-{{ flavour }}.yml'\n",
    ],
)
def test_a_file_that_may_be_meant_is_warned_of(tmp_path: Path, include: str) -> None:
    lab = Lab(tmp_path, deploy=include, to_blue=FINE, to_red=NOTIFIES, to_site="- {hosts: all, tasks: []}\n")
    assert told(lab.tasks()) == {"to-red": False}


def test_a_file_that_a_task_before_may_choose_is_warned_of(tmp_path: Path) -> None:
    text = "- set_fact: {flavour: green}\n- include_tasks: 'to-{{ flavour }}.yml'\n"
    lab = Lab(tmp_path, deploy=text, to_blue=FINE, to_red=FINE, to_green=NOTIFIES)
    assert told(lab.tasks()) == {"to-green": False}


def test_a_version_that_a_rollback_may_go_to_is_warned_of(tmp_path: Path) -> None:
    include = "- include_tasks: 'to-{{ deploy_version }}.yml'\n"
    lab = Lab(tmp_path, deploy=include)
    for version in ("1.0.0", "2.0.0"):
        (tmp_path / f"to-{version}.yml").write_text(NOTIFIES, encoding="utf-8")
    assert told(lab.tasks()) == {"to-1.0.0": False, "to-2.0.0": True}


def test_a_file_that_nothing_can_choose_is_not_looked_at(tmp_path: Path) -> None:
    lab = Lab(
        tmp_path, deploy="- include_tasks: 'to-{{ flavour }}.yml'\n", to_blue=FINE, to_red=FINE, to_green=NOTIFIES
    )
    assert told(lab.tasks()) == {}


def test_another_hook_may_set_the_variable(tmp_path: Path) -> None:
    include = "- include_tasks: 'to-{{ flavour }}.yml'\n"
    lab = Lab(tmp_path, deploy=include, to_blue=FINE, to_red=NOTIFIES, prepare="- set_fact: {flavour: x}\n")
    assert told(lab.tasks(), lab.tasks("prepare_tasks", "prepare")) == {"to-red": False}


def test_a_file_that_includes_itself(tmp_path: Path) -> None:
    lab = Lab(
        tmp_path,
        deploy=NOTIFIES + "- include_tasks: '{{ flavour }}.yml'\n",
        blue="- include_tasks: '{{ flavour }}.yml'\n",
    )
    assert told(lab.tasks()) == {"deploy": True}


def test_a_file_is_read_for_the_hosts_that_come_to_it(tmp_path: Path) -> None:
    """What the others have is not resolved in it; nor is the deployment's reason in the rollback's file."""
    lab = Lab(
        tmp_path,
        deploy="- include_tasks: '{{ flavour }}-{{ deploy_reason }}.yml'\n",
        red_rollback="- {command: x, notify: 'Stop {{ flavour }} {{ deploy_reason }}'}\n",
        blue_deploy=FINE,
    )
    assert [one.name for one in missing_handlers([lab.tasks()])] == ["Stop red rollback"]


def test_a_file_is_read_for_each_item_that_comes_to_it(tmp_path: Path) -> None:
    include = "- {include_tasks: '{{ lit }}.yml', vars: {lit: more}, loop: [x, y, z]}\n"
    lab = Lab(tmp_path, deploy=include, more="- {command: x, notify: '{{ item }}'}\n")
    assert [one.name for one in missing_handlers([lab.tasks()])] == ["x", "y", "z"]


@pytest.mark.parametrize(
    "text",
    [
        "- {include_tasks: '{{ flavour }}.yml', when: flavour != 'red'}\n",
        "- {block: [{include_tasks: '{{ flavour }}.yml'}], when: x}\n",
        "- {include_tasks: more.yml, when: x}\n",
        "- {command: x, notify: '{{ flavour }}', when: x}\n",
    ],
)
def test_a_condition_may_keep_a_host_from_it(tmp_path: Path, text: str) -> None:
    lab = Lab(tmp_path, deploy=text, more="- include_tasks: '{{ flavour }}.yml'\n", red=NOTIFIES, blue=FINE)
    assert set(told(lab.tasks()).values()) == {False}


# --- names of handlers ---------------------------------------------------------------------------------------


def test_a_handler_that_the_variables_name(tmp_path: Path) -> None:
    texts = {
        "roles__install__tasks__main": "- {command: x, notify: 'Restart {{ flavour }}'}\n",
        "roles__install__handlers__main": "- {name: Restart blue, command: x}\n",
    }
    found = missing_handlers([Lab(tmp_path, **texts).role()])
    assert [(one.name, one.sure) for one in found] == [("Restart red", True)]


@pytest.mark.parametrize(
    ("notify", "names"),
    [
        ("['{{ flavour }}']", ["blue", "red"]),
        ("'{{ parts }}'", ["a", "b"]),
        ("'{{ ansible_distribution }}'", []),
        ("'{{ item }}'\n  loop: [a]", ["a"]),
        ("'{{ item }}'\n  loop: '{{ ansible_x }}'", []),
    ],
)
def test_names_of_handlers(tmp_path: Path, notify: str, names: list[str]) -> None:
    lab = Lab(tmp_path, deploy=f"- command: x\n  notify: {notify}\n")
    assert [one.name for one in missing_handlers([lab.tasks()])] == names


# --- roles ---------------------------------------------------------------------------------------------------

ROLE = {"roles__a__tasks__main": NOTIFIES, "roles__b__tasks__main": FINE, "roles__b__tasks__x": NOTIFIES}


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("- include_role: {name: a}\n", {"main": True}),
        ("- import_role: {name: '{{ lit }}'}\n  vars: {lit: a}\n", {"main": True}),
        ("- include_role: {name: '{{ item }}'}\n  loop: '{{ parts }}'\n", {"main": True}),
        ("- include_role: {name: b, tasks_from: '{{ flavour }}'}\n  vars: {flavour: x.yml}\n", {"x": True}),
        ("- include_role: {name: b, tasks_from: '{{ ansible_x }}.yml'}\n", {"x": False}),
        ("- include_role: {name: b}\n", {}),
        # A role of a collection, or one that is not found: it may bring the handler.
        (NOTIFIES + "- include_role: {name: acme.web.a}\n", {}),
        (NOTIFIES + "- include_role: {name: '{{ flavour }}'}\n", {}),
        (NOTIFIES + "- include_role: {name: '{{ ansible_x }}'}\n", {}),
        # Its handlers serve what comes after it.
        ("- include_role: {name: c}\n" + NOTIFIES, {}),
        ("- include_role: {name: '{{ item }}'}\n  loop: [c]\n" + NOTIFIES, {}),
    ],
)
def test_roles_that_are_included(tmp_path: Path, include: str, expected: dict[str, bool]) -> None:
    lab = Lab(tmp_path, deploy=include, **ROLE, roles__c__handlers__main="- {name: Restart, command: x}\n")
    assert told(lab.tasks()) == expected


def test_the_variables_of_a_role_name_its_files(tmp_path: Path) -> None:
    texts = {
        "roles__install__tasks__main": "- include_tasks: '{{ of_role }}-{{ of_default }}-{{ flavour }}.yml'\n"
        "- include_tasks: '{{ role_path }}/tasks/own.yml'\n",
        "roles__install__tasks__x_y_red": NOTIFIES,
        "roles__install__tasks__own": NOTIFIES,
        "roles__install__vars__main": "of_role: x\n",
        "roles__install__defaults__main": "of_default: y\nflavour: z\n",
    }
    assert told(Lab(tmp_path, **texts).role()) == {"x-y-red": True, "own": True}
