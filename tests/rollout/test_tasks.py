"""The tasks in ordinary playbooks: over local and SSH connections, and what a connection can do to them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from lab import Lab
from lab.testkit.ansible_run import CHECKOUT, Ansible, Result
from tests.rollout.drive import Load

pytestmark = pytest.mark.oldest

ID = "20261123T142233Z-1.4.2-7f3a"


@pytest.fixture
def run(ansible: Ansible, fleet: Lab, tmp_path: Path) -> Play:
    return Play(ansible, fleet, tmp_path)


class Play:
    """Plays of some tasks on some hosts of the lab."""

    def __init__(self, ansible: Ansible, lab: Lab, folder: Path) -> None:
        self.ansible, self.lab, self.folder = ansible, lab, folder

    def __call__(self, tasks: str, *more: str, hosts: str = "web1", kind: str = "ssh", head: str = "") -> Result:
        play = [f"- hosts: {hosts}", "  gather_facts: false", *(f"  {line}" for line in head.splitlines()), "  tasks:"]
        play += [f"    {line}" for line in tasks.strip("\n").splitlines()]
        site = self.folder / "site.yml"
        site.write_text("\n".join(play) + "\n", encoding="utf-8")
        inventory = self.lab.directory / "inventory" / f"static-{kind}.yml"
        return self.ansible.playbook("-i", inventory, site, *more, env=self.lab.environment)


OUT_AND_BACK = """
- hitless.consul.maintenance: {service: web, reason: "{{ ansible_connection }}"}
  register: out
- hitless.consul.health_wait: {service: web, state: out_of_rotation, deadline: 5}
- hitless.consul.maintenance: {service: web, reason: again}
  register: again
- hitless.consul.maintenance: {service: web, state: disabled}
  register: back
- hitless.consul.health_wait: {service: web, deadline: 5}
  register: healthy
- ansible.builtin.assert:
    that:
      - out is changed and again is not changed and back is changed and healthy is not changed
      - again.reason == 'ansible ' ~ ansible_connection
      - out.node == inventory_hostname
      - healthy.instances | map(attribute='status') | list == ['passing']
      - healthy.instances[0].node == inventory_hostname
      - out.diff is not defined
"""


@pytest.mark.parametrize(
    ("via", "kind"),
    [
        ("auto", "ssh"),
        ("host", "local"),
        ("controller", "ssh"),
        pytest.param("auto", "local", marks=pytest.mark.slow),
        pytest.param("host", "ssh", marks=pytest.mark.slow),
        pytest.param("controller", "local", marks=pytest.mark.slow),
    ],
)
def test_out_and_back_on_all_hosts_at_once(run: Play, via: str, kind: str) -> None:
    result = run(OUT_AND_BACK, "-e", f"hitless_consul_via={via}", hosts="web", kind=kind)
    assert result.rc == 0, result.output
    assert len(result.recap) == 5


def a_run(**options: object) -> str:
    """Tasks that make a run, as those before them do in a rollout."""
    values = {**DEFAULTS, "service": "web", "version": "1.4.2", **options}
    planned = {"node": "web1", "batch": 1, "from": None, "to": "1.4.2", "rollback_to": None}
    run = {"id": ID, "options": values, "session": "none", "plan": {"hosts": {"web1": planned}}}
    head = "- ansible.builtin.set_fact:\n    hitless_run: {made}\n  delegate_to: localhost\n  delegate_facts: true\n"
    return head.format(made=json.dumps(run))


def test_the_internal_step_works_in_a_rollout_only(run: Play) -> None:
    result = run("- hitless.consul.rollout_step: {step: drain, run: hitless_run}")
    assert result.rc == 2
    assert "works in these only" in result.output
    assert run.lab.vm("web1").maintenance_reason() is None


def test_check_mode_and_diff(run: Play) -> None:
    result = run("- hitless.consul.maintenance: {service: web, reason: why}", "--check", "--diff")
    assert result.rc == 0, result.output
    assert result.recap["web1"]["changed"] == 1
    assert '"web": "ansible why"' in result.stdout
    assert run.lab.vm("web1").maintenance_reason() is None


def test_wrong_options_are_told_as_a_module_tells_them(run: Play) -> None:
    result = run("- hitless.consul.health_wait: {service: web, state: fine, deadline: soon}")
    assert result.rc == 2
    assert "value of state must be one of: passing, checks_passing, out_of_rotation" in result.output
    assert "Traceback" not in result.output


def test_a_host_that_is_lost_reaches_rescue(run: Play) -> None:
    run.lab.vm("web2").stop_sshd()
    tasks = """
- block:
    - hitless.consul.maintenance: {service: web}
  rescue:
    - ansible.builtin.assert:
        that: ansible_failed_result.lost and not (ansible_failed_result.unreachable | default(false))
"""
    result = run(tasks, hosts="web2")
    assert result.rc == 0, result.output
    assert result.recap["web2"]["rescued"] == 1


@pytest.fixture
def noisy(fleet: Lab) -> Iterator[Lab]:
    """web3 greets whoever comes, as a ~/.bashrc that prints does."""
    vm = fleet.vm("web3")
    config = vm.directory / "sshd_config"
    quiet = config.read_text(encoding="utf-8")
    greet = vm.directory / "greet"
    greet.write_text('#!/bin/sh\necho "Welcome to {web3}!"\necho careful >&2\neval "$SSH_ORIGINAL_COMMAND"\n')
    greet.chmod(0o755)
    config.write_text(f"{quiet}ForceCommand {greet}\n", encoding="utf-8")
    vm.stop_sshd()
    vm.start_sshd()
    yield fleet
    config.write_text(quiet, encoding="utf-8")
    vm.stop_sshd()
    vm.start_sshd()


def test_a_login_shell_that_greets(noisy: Lab, run: Play) -> None:
    result = run(OUT_AND_BACK, hosts="web3")
    assert result.rc == 0, result.output


def test_a_connection_that_takes_no_standard_input(run: Play) -> None:
    plugins = run.folder / "connection_plugins"
    plugins.mkdir()
    (plugins / "lorry.py").write_text(
        "from ansible.plugins.connection.local import Connection as Local\n"
        "DOCUMENTATION = 'name: lorry\\nshort_description: x\\ndescription: [x]\\noptions: {}'\n"
        "class Connection(Local):\n    transport = 'lorry'\n    has_pipelining = False\n"
    )
    tasks = "- hitless.consul.maintenance: {service: web}"
    refused = run(tasks, "-e", "ansible_connection=lorry")
    assert refused.rc == 2
    assert "The connection plugin lorry cannot pass standard input to a command" in refused.output
    assert "hitless_consul_via: controller" in refused.output
    assert run.lab.vm("web1").maintenance_reason() is None
    works = run(tasks, "-e", "ansible_connection=lorry", "-e", "hitless_consul_via=controller")
    assert works.rc == 0, works.output


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user without a password")
def test_a_deployment_as_another_user(run: Play) -> None:
    deploy = """
- hitless.consul.rollout_step:
    step: deploy
    run: hitless_run
    command: id -un; echo $DEPLOY_VERSION $DEPLOY_REASON; exit 2
  become: true
  become_user: nobody
  become_method: ansible.builtin.su
  become_flags: -s /bin/sh
  register: done
- ansible.builtin.assert:
    that: done.stdout_lines == ['nobody', '1.4.2 deploy'] and done.rc == 2
# Asking the agent is no matter of the user.
- hitless.consul.maintenance: {service: web}
  become: true
  become_user: nobody
  become_method: ansible.builtin.su
"""
    for kind in ("ssh", "local"):
        tasks = a_run(deploy_success_codes=[0, 2]) + deploy
        result = run(tasks, "-e", "ansible_python_interpreter=/usr/bin/python3", kind=kind)
        assert result.rc == 0, result.output


def test_a_deployment_that_fails_tells_its_output(run: Play) -> None:
    result = run(
        a_run() + "- hitless.consul.rollout_step: {step: deploy, run: hitless_run, command: echo because; exit 4}"
    )
    assert result.rc == 2
    assert "The deployment command exited with 4." in result.output
    assert "because" in result.output


def test_a_token_is_in_no_output(run: Play) -> None:
    variables = {"hitless_consul_token": "s3cret-of-nobody"}
    (run.folder / "secret.json").write_text(json.dumps(variables))
    result = run(OUT_AND_BACK, "-e", f"@{run.folder}/secret.json", "-vvvv")
    assert result.rc == 0, result.output
    assert "s3cret-of-nobody" not in result.output


@pytest.mark.parametrize("kind", ["ssh", pytest.param("local", marks=pytest.mark.slow)])
def test_the_rolling_restart_of_the_readme(ansible: Ansible, fleet: Lab, kind: str) -> None:
    """The application takes longer to start than its check takes to run: an old "passing" would lose requests."""
    variables = {"drain_time": 1, "check_interval": 3, "restart_command": "{{ lab_vm_dir }}/deploy 1.0.0-slow2"}
    inventory = fleet.directory / "inventory" / f"static-{kind}.yml"
    with Load(fleet) as load:
        result = ansible.playbook(
            "-i",
            inventory,
            CHECKOUT / "examples" / "rolling-restart.yml",
            "-e",
            json.dumps(variables),
            "--limit",
            "web1:web2",
            env=fleet.environment,
        )
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert [vm.running_version() for vm in fleet.vms] == ["1.0.0-slow2"] * 2 + ["1.0.0"] * 3
    assert all(vm.maintenance_reason() is None for vm in fleet.vms)
