"""What cannot work is refused with one clear sentence, while nothing has been touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab import Lab, wait_until
from lab.testkit.ansible_run import Ansible, Result, flat
from tests.http_server import HttpServer, Reply
from tests.rollout.drive import VARIABLES, Drive

FILES = {
    "deploy.yml": "- ansible.builtin.command: 'true'\n",
    "broken.yml": "- name: [x\n",
    "unknown.yml": "- name: Notify\n  no.such.module:\n",
    "handler.yml": "- name: Install\n  ansible.builtin.command: 'true'\n  notify: restart web\n",
    "chosen.yml": "- ansible.builtin.include_tasks: '{{ which }}.yml'\n",
    "undefined.yml": "- name: Install\n  ansible.builtin.command: install {{ verison }}\n",
    "keyword.yml": "- name: Notify\n  ansible.builtin.debug: {msg: x}\n  untill: true\n",
    # Further inventories, to be read beside the lab's.
    "nobody.ini": "[nobody]\n",
    "differ.ini": "web2 rollout_batch_size=2\nweb3 rollout_batch_size=3\n",
    "own.ini": "web2 deploy_version=9\n",
    "typing.ini": "web2 rollout_drain_tiem=9\n",
    "lb.ini": "lb ansible_connection=local consul_node=lb hitless_consul_agent_url={lb}\n",
    "stranger.ini": "stranger ansible_connection=local consul_node=stranger hitless_consul_agent_url={web1}\n",
    # A Python that finds no client library.
    "no-library/consul/__init__.py": "raise ImportError('No module named consul')\n",
}


@pytest.fixture(scope="module")
def untouched(lab: Lab) -> Lab:
    """The lab of this file: since nothing may change, it is put back before the first test only."""
    from tests.fleet import reset

    reset(lab)
    lab.write_inventory(VARIABLES)
    return lab


@pytest.fixture
def refused(ansible: Ansible, untouched: Lab) -> Drive:
    urls = {node.name: node.agent_url for node in (untouched.load_balancer, *untouched.vms)}
    for name, text in FILES.items():
        path = ansible.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format_map(urls) if name.endswith(".ini") else text, encoding="utf-8")
    return Drive(ansible, untouched)


@pytest.fixture
def no_consul() -> Iterator[str]:
    """The address of an HTTP server that is no Consul."""
    with HttpServer(Reply(body="<html>It works!</html>")) as server:
        yield server.url


def check_untouched(drive: Drive) -> None:
    # A lock that was taken for the plan ends with its run; Consul keeps the key.
    wait_until("the lock is free", lambda: not drive.holds_lock(), 10)
    assert [key for key in drive.all_keys() if not key.endswith("/lock")] == []
    assert drive.maintenance() == {}
    assert drive.deployed() == []
    assert drive.running() == ["1.0.0"] * 5


REFUSALS = {
    "limit": (["--limit", "web1"], "--limit (web1) cannot be used"),
    "limit that keeps localhost": (["--limit", "web1,localhost"], "--limit (web1,localhost) cannot be used"),
    "tags": (["--tags", "deploy"], "--tags (deploy) cannot be used"),
    "skip tags": (["--skip-tags", "deploy"], "--skip-tags (deploy) cannot be used"),
    "start at task": (["--start-at-task", "Plan"], "--start-at-task (Plan) cannot be used"),
    "unknown option": (
        ["-e", "rollout_batchsize=2"],
        "rollout_batchsize (in extra vars) is not an option of a rollout. Is it rollout_batch_size?",
    ),
    "version is no string": (["-e", '{"rollout_version": 1.10}'], "rollout_version must be a string"),
    "version is not possible": (["-e", "rollout_version='1.0 beta'"], "rollout_version '1.0 beta' is not a version"),
    "deploy_version": (["-e", "deploy_version=9"], "deploy_version is set in extra vars"),
    "unknown service": (["-e", "rollout_service=wbe"], "the group service_wbe is not in the inventory"),
    "service without hosts there": (
        ["-e", "rollout_service=wbe rollout_hosts=all"],
        "No instance of wbe is registered",
    ),
    "wrong address": (["-e", "hitless_consul_url=http://127.0.0.1:9"], "127.0.0.1:9"),
    "minimum impossible": (
        ["-e", "rollout_min_healthy=100%"],
        "web cannot be rolled over web1: ... Set rollout_min_healthy: 4",
    ),
    "hook missing": (["-e", "rollout_smoke_tasks=missing.yml"], "missing.yml ... rollout_smoke_tasks"),
    "hook is no YAML": (["-e", "rollout_smoke_tasks=broken.yml"], "broken.yml"),
    "hook with unknown module": (["-e", "rollout_smoke_tasks=unknown.yml"], "no.such.module"),
    "handler that is not there": (
        ["-e", "rollout_smoke_tasks=handler.yml"],
        "rollout_smoke_tasks: the task Install ... notifies the handler restart web, which is not there",
    ),
    "handler that is not there, in a file that a variable names": (
        ["-e", "rollout_smoke_tasks=chosen.yml which=handler"],
        "rollout_smoke_tasks: the task Install ... handler.yml) notifies the handler restart web, which is not there",
    ),
    "hook with an undefined variable": (
        ["-e", "rollout_smoke_tasks=undefined.yml"],
        "rollout_smoke_tasks: the task Install ... needs the variable verison, which web1 does not have",
    ),
    "command with an undefined variable": (
        ["-e", "rollout_deploy_command='install {{ verison }}'"],
        "The template in rollout_deploy_command of web1 cannot be resolved: ... 'verison' is undefined",
    ),
    "health URL with an undefined variable": (
        ["-e", "rollout_health_url='http://{{ consul_addres }}/'"],
        "The template in rollout_health_url of web1 cannot be resolved: ... 'consul_addres' is undefined",
    ),
    "no way to deploy": (["-e", "rollout_deploy_command="], "Nothing says how a version gets onto a host"),
    "two ways to deploy": (
        ["-e", "rollout_deploy_tasks=deploy.yml"],
        "rollout_deploy_command and rollout_deploy_tasks are both set",
    ),
}
CROSS_SECTION = {"limit", "unknown option", "version is no string", "minimum impossible", "hook with unknown module"}
CROSS_SECTION |= {"handler that is not there", "hook with an undefined variable", "command with an undefined variable"}
HELD_BY_UNIT_TESTS = {"tags", "skip tags", "start at task", "version is not possible", "deploy_version"}
HELD_BY_UNIT_TESTS |= {"two ways to deploy", "health URL with an undefined variable"}


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.oldest] * (name in CROSS_SECTION) + [pytest.mark.slow] * (name in HELD_BY_UNIT_TESTS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [pytest.param(*REFUSALS[name], id=name, marks=marks(name)) for name in REFUSALS],
)
def test_refusal(refused: Drive, arguments: list[str], sentence: str) -> None:
    check_refused(refused, refused.run("2.0.0", *arguments), sentence)


def check_refused(drive: Drive, result: Result, sentence: str) -> None:
    assert result.rc != 0, result.output
    for part in sentence.split(" ... "):
        assert part in flat(result.output), result.output
    assert "Traceback" not in result.output
    check_untouched(drive)


RARER = {
    "empty group": (["-i", "nobody.ini", "-e", "rollout_hosts=nobody"], "the group nobody is empty"),
    "host without the service": (["-i", "lb.ini", "-e", "rollout_hosts=all"], "lb"),
    "host that Consul does not know": (["-i", "stranger.ini", "-e", "rollout_hosts=all"], "stranger"),
    "hosts that differ": (["-i", "differ.ini"], "rollout_batch_size holds for the whole rollout ... web2"),
    "deploy_version of a host": (["-i", "own.ini"], "deploy_version is set in"),
    "unknown option of a host": (["-i", "typing.ini"], "rollout_drain_tiem ... Is it rollout_drain_time?"),
    "hook with unknown keyword": (["-e", "rollout_start_tasks=keyword.yml"], "untill"),
    "another host's agent": (["-e", "hitless_consul_agent_url={web2}"], "web2"),
    "no agent there": (["-e", "hitless_consul_agent_url=http://127.0.0.1:9"], "hitless_consul_agent_url"),
    "health match without a URL": (["-e", "rollout_health_url="], "rollout_health_url"),
    "turn that has no time": (["-e", "rollout_progress_deadline=60"], "Set rollout_progress_deadline: 1810.5 or more"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "sentence"), [pytest.param(*RARER[name], id=name) for name in RARER])
def test_rarer_refusals(refused: Drive, arguments: list[str], sentence: str) -> None:
    urls = {vm.name: vm.agent_url for vm in refused.lab.vms}
    check_refused(refused, refused.run("2.0.0", *(one.format_map(urls) for one in arguments)), sentence)


@pytest.mark.slow
def test_no_consul_there(refused: Drive, no_consul: str) -> None:
    check_refused(
        refused,
        refused.run("2.0.0", "-e", f"hitless_consul_url={no_consul}"),
        "with something that is not JSON ... Set url (hitless_consul_url, CONSUL_HTTP_ADDR)",
    )


SURROUNDINGS = {
    "strategy": ({"ANSIBLE_STRATEGY": "free"}, "A rollout cannot run with the strategy free"),
    "namespace": ({"CONSUL_NAMESPACE": "team"}, "CONSUL_NAMESPACE is set"),
    "partition": ({"CONSUL_PARTITION": "team"}, "CONSUL_PARTITION is set"),
    "missing token file": ({"CONSUL_HTTP_TOKEN_FILE": "/nonexistent"}, "The token file /nonexistent cannot be read"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("more", "sentence"), [pytest.param(*SURROUNDINGS[name], id=name) for name in SURROUNDINGS])
def test_what_surrounds_the_run(refused: Drive, more: dict[str, str], sentence: str) -> None:
    """With a plain inventory, since Consul's own would refuse most of it before."""
    refused = replace(refused, more=more)
    check_refused(refused, plain(refused), sentence)


@pytest.mark.slow
@pytest.mark.oldest
@pytest.mark.parametrize("inventory", ["plain", "Consul's"])
def test_no_client_library(refused: Drive, inventory: str) -> None:
    refused = replace(refused, more={"PYTHONPATH": str(refused.ansible.home / "no-library")})
    result = plain(refused) if inventory == "plain" else refused.run("2.0.0")
    check_refused(refused, result, "has no Consul client library ... pip install py-consul")


def plain(drive: Drive) -> Result:
    """A rollout over the hosts of a plain inventory."""
    inventory = drive.lab.directory / "inventory" / "static-local.yml"
    options = ["-e", "rollout_service=web", "-e", "rollout_hosts=web", "-e", "rollout_version=2.0.0"]
    return drive.ansible.playbook("-i", inventory, "hitless.consul.rollout", *options, env=drive.environment)


def test_the_same_lab_accepts_a_rollout(refused: Drive) -> None:
    """The control: what is refused above is not refused for another reason."""
    result = refused.run("2.0.0", "--check")
    assert result.rc == 0, result.output
    check_untouched(refused)
