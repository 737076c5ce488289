"""What is taken from inside ansible-core is there, in the oldest and the newest supported version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.template import Templar
from ansible.utils.display import Display
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.hitless.consul.plugins.plugin_utils import _ansible_internals as internals

pytestmark = pytest.mark.oldest


class Project:
    """An inventory of two hosts and a playbook of one play, as Ansible has them while it runs."""

    def __init__(self, folder: Path) -> None:
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
