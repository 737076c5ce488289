"""What is taken from inside ansible-core is there, in the oldest and the newest supported version."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ansible.template
import pytest
from ansible.errors import AnsibleError
from ansible.inventory.data import InventoryData
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible.template import Templar
from ansible.utils.display import Display
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.hitless.consul.plugins.plugin_utils import _ansible_internals as internals
from lab.testkit.link_tree import CHECKOUT

pytestmark = pytest.mark.oldest


class Project:
    """An inventory, of two hosts where none is given, and a playbook of one play, as Ansible has them while it runs."""

    def __init__(self, folder: Path, hosts: Path | None = None) -> None:
        if hosts is None:
            hosts = folder / "hosts"
            hosts.write_text("[web]\nweb1\nweb2\n[all:vars]\naddress=http://{{ name }}:8500\nname=consul\n", "utf-8")
        book = folder / "book.yml"
        book.write_text(
            "- hosts: localhost\n  vars: {rollout_service: web}\n"
            "  tasks: [{name: a task, block: [{name: inner, ansible.builtin.debug: {}}]}]\n",
            "utf-8",
        )
        self.hosts = hosts
        self.loader = DataLoader()
        self.inventory = InventoryManager(loader=self.loader, sources=[str(hosts)])
        self.manager = VariableManager(loader=self.loader, inventory=self.inventory)
        self.manager._extra_vars = {"rollout_version": "2"}
        self.hostvars = HostVars(inventory=self.inventory, variable_manager=self.manager, loader=self.loader)
        self.play = Playbook.load(str(book), variable_manager=self.manager, loader=self.loader).get_plays()[0]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_variables_of_a_play_and_no_others(project: Project) -> None:
    block = project.play.compile()[-2 if len(project.play.compile()) > 2 else 0]
    task = next(one for one in project.play.get_tasks()[0] if one.name)
    assert block is not None
    assert internals.play_variables(task) == {"rollout_service": "web"}


def test_the_inventory_its_sources_and_extra_vars(project: Project) -> None:
    found = internals.inventory_of(project.hostvars).get_hosts("web", ignore_limits=True, ignore_restrictions=True)
    assert [host.name for host in found] == ["web1", "web2"]
    assert internals.inventory_sources(project.hostvars) == [str(project.hosts)]
    assert internals.extra_vars(project.hostvars) == {"rollout_version": "2"}
    assert project.hostvars.raw_get("web1")["address"] == "http://{{ name }}:8500", "as it is, unresolved"


def test_variables_as_localhost_has_them_in_a_play(project: Project) -> None:
    """For the callback. An implicit localhost has those of the group all."""
    project.play._variable_manager = project.manager
    found = internals.play_variables_of(project.play, "localhost", ["address", "missing"])
    assert found == {"address": "http://consul:8500"}


def test_a_role_of_a_collection() -> None:
    assert internals.collection_has_role("hitless.consul.rollout")
    assert not internals.collection_has_role("hitless.consul.nothing")


def test_what_came_from_elsewhere_is_no_template(project: Project) -> None:
    text = internals.untemplated("{{ name }}")
    assert text == "{{ name }}"
    assert Templar(loader=project.loader, variables={"name": "x"}).template(text) == "{{ name }}"


class Queue:
    """As multiprocessing's, which Ansible's own is made of."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self._reader = os.fdopen(self.read_end)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    made = Queue()
    monkeypatch.setattr(Display(), "_final_q", made, raising=False)
    yield made
    made._reader.close()
    os.close(made.write_end)


def test_the_pipe_of_the_workers_results(queue: Queue) -> None:
    assert internals.results_pipe() == queue.read_end


def test_a_display_has_a_queue_and_a_queue_has_a_reader() -> None:
    from ansible.executor.task_queue_manager import FinalQueue

    assert "_final_q" in vars(Display()), "which a worker's display sends what it shows through"
    assert hasattr(FinalQueue(), "_reader")


def test_where_there_is_none_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def warning(_display: Any, message: str, *_more: object, **_options: object) -> None:
        told.append(message)

    monkeypatch.setattr(Display(), "_final_q", None, raising=False)
    monkeypatch.setattr(type(Display()), "warning", warning)
    assert internals.results_pipe() is None
    assert "does not tell where its workers write their results" in told[0]


class Constructing(BaseInventoryPlugin, Constructable):
    """An inventory plugin with a host, as it is when it constructs variables and groups."""

    NAME = "test"

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        BaseInventoryPlugin.parse(self, InventoryData(), DataLoader(), "none")
        self.inventory.add_host("web1")

    def get_option(self, option: str, hostvars: Any = None) -> Any:
        return self.options.get(option, {"strict": False, "use_extra_vars": False}.get(option))


def trusted(text: str) -> Any:
    """As if read from an inventory file."""
    return ansible.template.trust_as_template(text) if internals.TRUST_IS_EXPLICIT else text


def test_what_an_inventory_constructs_for_a_host_is_seen_and_not_done() -> None:
    plugin, about = Constructing(), {"rack": "a", "inventory_hostname": "web1"}
    keyed = {"key": trusted("rack"), "prefix": "rack", "parent_group": "racks"}
    done = [
        internals.recorded(plugin, "web1", run)
        for run in (
            lambda: internals.set_composed(plugin, "upper", trusted("rack | upper"), about, "web1"),
            lambda: internals.add_to_conditional(plugin, {"in_a": trusted("rack == 'a'")}, about, "web1"),
            lambda: internals.add_to_conditional(plugin, {"in_b": trusted("rack == 'b'")}, about, "web1"),
            lambda: internals.add_to_keyed(plugin, keyed, about, "web1"),
        )
    ]
    assert done == [([], {"upper": "A"}), (["in_a"], {}), ([], {}), (["rack_a"], {})]
    inventory = plugin.inventory
    assert "upper" not in inventory.hosts["web1"].vars
    assert inventory.groups["rack_a"].get_hosts() == inventory.groups["in_a"].get_hosts() == []
    assert [group.name for group in inventory.groups["racks"].child_groups] == ["rack_a"]


def test_an_expression_that_fails_leaves_the_inventory_as_it_was() -> None:
    plugin = Constructing(strict=True)
    inventory = plugin.inventory
    with pytest.raises(AnsibleError, match="web1"):
        internals.recorded(plugin, "web1", lambda: internals.set_composed(plugin, "x", trusted("no.such"), {}, "web1"))
    assert plugin.inventory is inventory


def test_the_extra_vars_of_an_inventory() -> None:
    plugin = Constructing()
    plugin._vars = {"a": 1}
    assert internals.extra_vars_of(plugin) == {"a": 1}


@pytest.mark.parametrize("mark", ["", "_"])
def test_the_parts_of_a_result(mark: str) -> None:
    result = SimpleNamespace(**{f"{mark}result": {"a": 1}, f"{mark}task": "task", f"{mark}host": "host"})
    assert (internals.data_of(result), internals.task_of(result), internals.host_of(result)) == (
        {"a": 1},
        "task",
        "host",
    )


def test_tasks_of_one_name_are_told_apart(project: Project) -> None:
    uuids = {internals.uuid_of(task) for block in project.play.compile() for task in block.block}
    assert all(uuids)


def test_nothing_else_takes_what_is_private() -> None:
    """But for what an action has of its own, and what Python's standard library has."""
    found = set()
    for file in (CHECKOUT / "plugins").rglob("*.py"):
        if file.name != "_ansible_internals.py":
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                    found.add(ast.unparse(node))
    others = {name for name in found if not name.startswith(("self._", "cls._"))}
    assert others - {"self.action._templar", "os._exit", "ssl._create_unverified_context"} == set()
