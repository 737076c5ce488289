"""Hosts that are visited from within one task of localhost: each by its own connection and its own variables."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext
from ansible.plugins import loader as plugin_loader
from ansible.template import Templar

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction
from ansible_collections.hitless.consul.plugins.plugin_utils._visit import Visitor, visit

from .test_ansible_internals import Project

pytestmark = pytest.mark.oldest

INVENTORY = """
[web]
web1 ansible_connection=local hitless_consul_agent_url="http://{{ address }}:8500" address=10.0.0.1
web2 ansible_host=10.0.0.2 ansible_user=deploy ansible_port=2222 consul_node=node2
lorry ansible_connection=lorry
odd ansible_connection=local hitless_consul_agent_url="{{ nowhere }}"
"""


@pytest.fixture
def visited(tmp_path: Path) -> Any:
    """Visits hosts of the inventory from a task of localhost, whose play is local and sets one more variable."""
    hosts = tmp_path / "inventory.ini"
    hosts.write_text(INVENTORY, "utf-8")
    project = Project(tmp_path, hosts)
    play_vars = {"ansible_connection": "local", "ansible_host": "localhost", "hitless_consul_timeout": 3}
    project.play.vars = play_vars
    task = next(one for one in project.play.get_tasks()[0] if one.name)
    context = PlayContext()
    context.password = "of --ask-pass"
    variables = {**play_vars, "hostvars": project.hostvars}
    action = HitlessAction(
        task,
        None,
        context,
        project.loader,
        Templar(loader=project.loader, variables=variables),
        SimpleNamespace(connection_loader=plugin_loader.connection_loader),
    )
    address = {"host": "web2", "variables": ["hitless_consul_datacenter"]}
    return lambda what, *names: visit(action, project.hostvars, names, address, 2, what)


def about(visitor: Visitor, task: Task) -> dict[str, Any]:
    return {"host": task.host.name, "local": visitor.is_local(), "options": task.options, "node": task.node_hint}


def test_each_host_has_its_own_connection_and_variables(visited: Any) -> None:
    found = visited(about, "web1", "web2")
    assert list(found) == ["web1", "web2"]
    assert (found["web1"]["local"], found["web2"]["local"]) == (True, False), "the play of localhost alone is local"
    assert found["web1"]["options"]["agent_url"] == "http://10.0.0.1:8500"
    assert found["web2"]["node"] == "node2"
    assert [one["options"]["timeout"] for one in found.values()] == [3, 3], "as beside import_playbook"


def test_a_connection_has_the_options_of_its_host(visited: Any) -> None:
    names = ("host", "remote_user", "port", "password")
    found = visited(lambda visitor, _task: {one: visitor._connection.get_option(one) for one in names}, "web2")
    assert found["web2"] == {"host": "10.0.0.2", "remote_user": "deploy", "port": 2222, "password": "of --ask-pass"}


def test_what_is_wrong_with_a_host_is_told_of_that_one(visited: Any) -> None:
    def what(visitor: Visitor, task: Task) -> dict[str, Any]:
        if task.host.name == "web2":
            raise HitlessError("It does not answer.")
        return about(visitor, task)

    found = visited(what, "lorry", "odd", "web2", "web1")
    assert "lorry" in found["lorry"]["msg"]
    assert "nowhere" in found["odd"]["msg"]
    assert found["web2"] == {"msg": "It does not answer"}
    assert found["web1"]["host"] == "web1"
