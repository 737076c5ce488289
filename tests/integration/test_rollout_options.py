"""Options as Ansible really hands them over: its variables, inventory, command line. Consul only has to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from lab.testkit import link_tree
from lab.testkit.ansible_run import Ansible, Result, flat
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import started

pytestmark = pytest.mark.commands

CORE = tuple(int(part) for part in version("ansible-core").split(".")[:2])

IMPORTED = [
    {
        "name": "Prepare",
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Read",
                "hitless.consul.rollout_step": {"step": "prepare"},
                "register": "_found",
                "tags": ["always"],
            },
            {
                "name": "Show",
                "ansible.builtin.copy": {"content": "{{ _found | to_json }}", "dest": "{{ result }}", "mode": "600"},
                "tags": ["always"],
            },
        ],
    }
]


class Project:
    """A user's project: a playbook of one import, an inventory in a folder of its own."""

    def __init__(self, folder: Path, consul: Server) -> None:
        self.folder = folder
        self._consul = consul
        self._ansible = Ansible(link_tree.COLLECTIONS, folder, folder / "logs")
        self.write("elsewhere/imported.yml", json.dumps(IMPORTED))
        self.rollout({"rollout_service": "web"})
        self.inventory(["web1", "web2", "web3"])
        self.write(
            "project/inventory/group_vars/service_web.yml", "rollout_deploy_command: deploy {{ deploy_version }}"
        )

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def rollout(self, variables: dict[str, Any]) -> None:
        entry = {"import_playbook": str(self.folder / "elsewhere/imported.yml"), "vars": variables}
        self.write("project/rollout.yml", json.dumps([entry]))

    def inventory(self, hosts: list[str]) -> None:
        lines = ["[service_web]", *(f"{host} ansible_connection=local" for host in hosts)]
        self.write("project/inventory/hosts", "\n".join(lines) + "\n")

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Result:
        (self.folder / "result.json").unlink(missing_ok=True)
        return self._ansible.playbook(
            *("-i", self.folder / "project/inventory/hosts", self.folder / "project/rollout.yml"),
            *("-e", f"result={self.folder / 'result.json'}", *arguments),
            env={"CONSUL_HTTP_ADDR": self._consul.url, **(env or {})},
        )

    def read(self, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
        """Where there is a hook nothing is planned in the task that reads."""
        hook = self.write("start.yml", "- ansible.builtin.meta: noop\n")
        result = self.run("-e", "rollout_version=1.10", "-e", f"rollout_start_tasks={hook}", *arguments, env=env)
        assert result.rc == 0, result.output
        found: dict[str, Any] = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        return found

    def refused(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        result = self.run("-e", "rollout_version=1.10", *arguments, env=env)
        assert result.rc != 0, result.output
        assert not (self.folder / "result.json").exists()
        return flat(result.output.replace("\\\n", ""))


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    yield from started(CONSUL)


@pytest.fixture
def project(tmp_path: Path, consul: Server) -> Project:
    return Project(tmp_path, consul)


@pytest.mark.oldest
def test_every_place_is_read(project: Project) -> None:
    project.write(
        "project/inventory/group_vars/service_web.yml",
        "\n".join(
            [
                "rollout_deploy_command: deploy {{ deploy_version }} {{ inventory_hostname }}",
                "rollout_drain_time: '{{ 2 if inventory_hostname in groups.service_web else 3 }}'",
                "rollout_batch_size: [1, '{{ share }}']",
                "rollout_message: '{{ hostvars.web3.inventory_hostname }}'",
                "rollout_strict: true",
                "rollout_analysis: [{url: 'http://m/?q={{ query | urlencode }}'}, {command: '{{ look }}'}]",
                "look: look {{ deploy_version }}",
                'query: up{version="{{ deploy_version }}"}',
                "share: 25%",
            ]
        ),
    )
    project.write("project/inventory/group_vars/all.yml", "rollout_lock_wait: 7\nrollout_drain_time: 99\n")
    project.rollout({"rollout_service": "web", "rollout_min_healthy": "{{ lowest }}", "lowest": 1})
    found = project.read("-e", "rollout_strict=false")
    assert found["hosts"] == ["web1", "web2", "web3"]
    expected = {
        "version": "1.10",
        "drain_time": 2,
        "batch_size": [1, "25%"],
        "message": "web3",
        "strict": False,
        "lock_wait": 7,
        "min_healthy": 1,
    }
    assert {name: found["options"][name] for name in expected} == expected
    checked = [one.get("url") or one["command"] for one in found["options"]["analysis"]]
    assert checked == ["http://m/?q=up%7Bversion%3D%221.10%22%7D", "look 1.10"]
    assert found["id"].split("-")[1] == "1.10"


@pytest.mark.oldest
def test_hooks_beside_the_playbook_that_imports(project: Project) -> None:
    hook = project.write("project/hooks/prepare.yml", "[]")
    project.write("project/roles/install/tasks/main.yml", "[]")
    project.write("project/inventory/group_vars/service_web.yml", "rollout_deploy_role: install")
    found = project.read("-e", "rollout_prepare_tasks=hooks/prepare.yml")
    assert found["hooks"] == [
        {"name": "deploy", "kind": "role", "role": str(project.folder / "project/roles/install")},
        {"name": "start", "kind": "tasks", "path": str(project.folder / "start.yml")},
        {"name": "prepare", "kind": "tasks", "path": str(hook)},
    ]
    # The role rollout is installed with this collection.
    assert (
        project.read("-e", "rollout_deploy_role=hitless.consul.rollout")["hooks"][0]["role"] == "hitless.consul.rollout"
    )


def test_refusals_of_values(project: Project) -> None:
    assert "rollout_version must be a string, and 1.1 is a number" in project.refused("-e", '{"rollout_version": 1.10}')
    assert "Is it rollout_batch_size?" in project.refused("-e", "rollout_batchsize=2")
    assert "deploy_version is set in extra vars" in project.refused("-e", "deploy_version=1")
    assert "the group service_db is not in the inventory (its groups of services are service_web)" in project.refused(
        "-e", "rollout_service=db"
    )
    project.write("project/inventory/host_vars/web2.yml", "rollout_drain_time: 5")
    assert "it is not set for web1 and 5 for web2" in project.refused()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"ANSIBLE_STRATEGY": "free"}, "cannot run with the strategy free"),
        ({"ANSIBLE_STRATEGY": "host_pinned"}, "cannot run with the strategy host_pinned"),
    ],
)
def test_refusals_of_settings(project: Project, environment: dict[str, str], told: str) -> None:
    assert told in project.refused(env=environment)


@pytest.mark.oldest
def test_a_version_stays_a_text_in_templates_or_the_setting_is_refused(project: Project) -> None:
    """Before ansible-core 2.19 jinja2_native makes 1.1 of 1.10, wherever a template of the user's names it."""
    native = {"ANSIBLE_JINJA2_NATIVE": "true"}
    if CORE < (2, 19):
        assert "cannot run with Ansible's setting jinja2_native" in project.refused(env=native)
    else:
        assert project.read(env=native)["options"]["version"] == "1.10"


@pytest.mark.oldest
def test_variables_beside_the_playbook_that_ansible_does_not_read(project: Project) -> None:
    """A regression test of Ansible too: were they read, the refusal could go."""
    project.write("project/group_vars/service_web.yml", "rollout_drain_time: 5")
    assert "project/group_vars/service_web.yml would set options of this rollout" in project.refused()
    project.write("project/group_vars/service_web.yml", "other: 5")
    assert project.read()["options"]["drain_time"] == 10


def test_a_thousand_hosts(project: Project) -> None:
    project.inventory([f"web{number}" for number in range(1000)])
    assert len(project.read()["hosts"]) == 1000


@pytest.mark.oldest
def test_it_takes_no_async(project: Project) -> None:
    play = json.loads(json.dumps(IMPORTED))
    play[0]["tasks"][0].update({"async": 10, "poll": 1})
    project.write("elsewhere/imported.yml", json.dumps(play))
    assert "takes no async: it would have to run on the host, with Consul's token there." in project.refused()


@pytest.mark.oldest
def test_templates_are_tried(project: Project) -> None:
    """With Ansible's own templates and files; what is refused and what is not is in the unit tests."""
    project.write("project/inventory/group_vars/service_web.yml", "rollout_deploy_command: deploy {{ verison }}")
    assert "in rollout_deploy_command of web1 cannot be resolved: 'verison' is undefined" in project.refused()
    project.write(
        "project/inventory/group_vars/service_web.yml",
        "rollout_deploy_tasks: deploy.yml\nrollout_health_url: http://{{ inventory_hostname }}/{{ deploy_version }}\n",
    )
    project.write("project/deploy.yml", "- ansible.builtin.command: install {{ verison }}\n")
    assert "needs the variable verison, which web1 does not have" in project.refused()
    project.write("project/deploy.yml", "- ansible.builtin.command: install {{ deploy_version }}\n  notify: restart\n")
    assert "notifies the handler restart, which is not there" in project.refused()
    project.write("project/deploy.yml", "- name: Install\n  ansible.builtin.command: install {{ deploy_version }}\n")
    assert project.read()["first_tasks"] == [{"name": "Install", "action": "ansible.builtin.command"}]
    project.write("project/deploy.yml", "- name: [x\n")
    assert project.read()["first_tasks"] == [], "Ansible says what is wrong with it when it is parsed"


def test_files_that_templates_name(project: Project) -> None:
    """What the hosts' variables name is refused; what a fact may name is warned of."""
    project.write(
        "project/inventory/group_vars/service_web.yml", "rollout_deploy_role: install\nflavour: '{{ base }}'\n"
    )
    project.write("project/inventory/host_vars/web1.yml", "base: blue")
    project.write("project/inventory/host_vars/web2.yml", "base: blue")
    project.write("project/inventory/host_vars/web3.yml", "base: red")
    role = "project/roles/install"
    project.write(f"{role}/defaults/main.yml", "kind: to")
    project.write(f"{role}/handlers/main.yml", "- name: Restart blue\n  ansible.builtin.command: 'true'\n")
    project.write(f"{role}/tasks/main.yml", "- ansible.builtin.include_tasks: '{{ kind }}-{{ flavour }}.yml'\n")
    project.write(f"{role}/tasks/to-blue.yml", "- ansible.builtin.command: x\n  notify: Restart {{ flavour }}\n")
    project.write(f"{role}/tasks/to-red.yml", "- ansible.builtin.command: x\n  notify: Restart red\n")
    told = "to-red.yml) notifies the handler Restart red, "
    assert told + "which is not there" in project.refused()
    project.write(f"{role}/tasks/to-red.yml", "- ansible.builtin.include_role:\n    name: '{{ path }}'\n")
    project.write("roles/other/tasks/main.yml", "- name: Go\n  ansible.builtin.command: x\n  notify: Stop\n")
    other = project.folder / "roles" / "other"
    assert "the task Go" in project.refused("-e", f"path={other}")

    by_fact = "- ansible.builtin.include_tasks: to-{{ ansible_facts.distribution }}.yml\n"
    project.write(f"{role}/tasks/main.yml", by_fact)
    project.write(f"{role}/tasks/to-red.yml", "- ansible.builtin.command: x\n  notify: Restart red\n")
    warned = flat(project.run("-e", "rollout_version=1.10").output)
    assert told + "and nothing that can be found beforehand defines it" in warned
    assert "to-{{ ansible_facts.distribution }}.yml may come to this file" in warned
    assert "it stays in maintenance until you run hitless.consul.recover" in warned
    assert project.read()["first_tasks"] == []
