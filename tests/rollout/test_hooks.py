"""Every kind of hook, as docs/deploy-hooks.md has it: when and where it runs, what it gets, what its failure does."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_variables import AT_END, OF_HOST, OF_RUN
from lab import Lab
from lab.testkit.ansible_run import Result
from tests.fleet import CONSUL
from tests.rollout.drive import Drive, Load, RotationWatch

OLD, NEW = "1.0.0", "2.0.0"
GETS = {
    **dict.fromkeys(("prepare", "drain", "deploy", "smoke", "restore"), ("inventory_hostname", *OF_HOST)),
    **dict.fromkeys(("start", "before_batch", "after_batch"), OF_RUN),
    **dict.fromkeys(("on_failure", "finish"), AT_END),
}
"""Hook -> the variables that it gets."""

# A line of JSON for each hook that runs: where it does, and which nodes the catalog shows in maintenance.
TELL = """
import json, os, sys, urllib.request
log, url, hook, about = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
checks = json.load(opener.open(url + "/v1/health/checks/web?consistent"))
out = sorted(check["Node"] for check in checks if check["CheckID"].startswith("_service_maintenance:"))
line = {"hook": hook, "on_host": "SSH_CONNECTION" in os.environ, "out": out, **json.loads(about)}
with open(log, "a") as file:
    file.write(json.dumps(line) + "\\n")
"""
INSTALL = """
- name: Install
  ansible.builtin.command: "{{ lab_vm_dir }}/deploy {{ deploy_version }}"
  environment:
    DEPLOY_REASON: "{{ deploy_reason }}"
    DEPLOY_ID: "{{ deploy_id }}"
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=3, consul=CONSUL) as running:
        yield running


class Hooks:
    """Tasks files in a folder, each of which tells what it got; ``told`` is what they told so far."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab, self._folder, self._log = lab, folder, folder / "told"
        self._tell = folder / "tell.py"
        self._tell.write_text(TELL, encoding="utf-8")

    def write(self, *names: str, more: str = "") -> dict[str, str]:
        """Options that name a file for each of these hooks; ``more`` are tasks at the end of it."""
        return {f"{name}_tasks": self._write(name, more) for name in names}

    def _write(self, name: str, more: str) -> str:
        about = ", ".join(f"'{variable}': {variable}" for variable in GETS[name])
        command = [sys.executable, str(self._tell), str(self._log), self._lab.url, name]
        # The space keeps Ansible before 2.19 from reading a dictionary into it.
        argv = json.dumps([*command, f" {{{{ {{{about}}} | to_json }}}}"])
        file = self._folder / f"{name}.yml"
        file.write_text(f"- name: Tell\n  ansible.builtin.command: {{argv: {argv}}}\n{more}", encoding="utf-8")
        return str(file)

    @property
    def told(self) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def hooks(fleet: Lab, tmp_path: Path) -> Hooks:
    return Hooks(fleet, tmp_path)


def fails(why: str, when: str = "true") -> str:
    """A task that fails with that message, under a condition."""
    return f"- name: Say no\n  ansible.builtin.fail:\n    msg: {why}\n  when: {json.dumps(when)}\n"


def told_in_red(result: Result) -> dict[str, str]:
    """Host -> why it is red, by the last play: what one reads who looks at the end alone."""
    found = re.findall(
        r"^fatal: \[(\S+)\]: FAILED! => (.*)$", result.stdout.rpartition("TASK [Result]")[2], re.MULTILINE
    )
    return {host: json.loads(said)["msg"] for host, said in found}


@pytest.mark.oldest
def test_each_hook_of_a_rollout_that_goes_well(drive: Drive, hooks: Hooks) -> None:
    options = hooks.write("start", "prepare", "before_batch", "drain", "smoke", "restore", "after_batch")
    options |= hooks.write("on_failure", "finish") | hooks.write("deploy", more=INSTALL)
    options |= {"batch_size": [1, 2], "min_healthy": 1, "deploy_command": "", "message": "CHG-1"}
    result = drive.run(NEW, kind="ssh", **options)
    assert result.rc == 0, result.output
    assert drive.running() == [NEW] * 3
    told = hooks.told
    record = drive.record()
    same = {"deploy_id": record["id"], "deploy_service": "web", "deploy_version": NEW, "deploy_reason": "deploy"}
    for one in told:
        assert {name: one.pop(name) for name in same} == same
    # Hosts of a batch take each step together.
    by_hook = [
        (name, sorted(found, key=lambda one: str(one.get("inventory_hostname"))))
        for name, found in itertools.groupby(told, lambda one: str(one["hook"]))
    ]

    def once(name: str, hosts: tuple[str, ...], outcome: str) -> tuple[str, list[dict[str, object]]]:
        given = {"from": OLD, "to": NEW, "outcome": outcome, "why": ""}
        about = {"deploy_operator": record["holder"], "deploy_message": "CHG-1"}
        about["deploy_hosts"] = dict.fromkeys(hosts, given)
        return name, [{"hook": name, "on_host": False, "out": [], **about}]

    def of_hosts(name: str, hosts: tuple[str, ...], *, on_host: bool, out: bool) -> tuple[str, list[dict[str, object]]]:
        given = {"hook": name, "on_host": on_host, "out": list(hosts) if out else [], "deploy_previous_version": OLD}
        return name, [{**given, "inventory_hostname": host} for host in hosts]

    def of_batch(*hosts: str) -> list[tuple[str, list[dict[str, object]]]]:
        return [
            once("before_batch", hosts, "pending"),
            of_hosts("prepare", hosts, on_host=True, out=False),
            of_hosts("drain", hosts, on_host=False, out=True),
            of_hosts("deploy", hosts, on_host=True, out=True),
            of_hosts("smoke", hosts, on_host=True, out=True),
            of_hosts("restore", hosts, on_host=False, out=True),
            once("after_batch", hosts, "ok"),
        ]

    ended = by_hook[-1][1][0].pop("deploy_result")
    every = ("web1", "web2", "web3")
    assert by_hook == [
        once("start", every, "pending"),
        *of_batch("web1"),
        *of_batch("web2", "web3"),
        once("finish", every, "ok"),
    ]
    assert ended.items() >= {"result": "successful", "why": "", "failed_hosts": [], "rollback": None}.items()
    assert ended["verdict"] == record["description"]
    assert ended["standing"].startswith(f"web: 3 of 3 in rotation, all on {NEW}.")
    assert "web1  1.0.0  2.0.0  ok" in ended["table"]


@pytest.mark.slow
def test_a_start_hook_that_fails(drive: Drive, hooks: Hooks) -> None:
    """No host is touched; what is told at the end gets the reason."""
    options = hooks.write("start", more=fails("the migration does not apply")) | hooks.write("on_failure", "finish")
    with RotationWatch(drive.lab) as watch:
        result = drive.run(NEW, **options)
    assert result.rc != 0
    assert result.red == {"localhost"}
    reason = "the start hook failed: the migration does not apply"
    assert told_in_red(result)["localhost"].endswith(f"It stopped because {reason}."), result.output
    assert not watch.seen
    assert drive.deployed() == []
    assert drive.running() == [OLD] * 3
    assert set(drive.outcomes().values()) == {"pending"}
    assert drive.record()["state"] == "failed"
    assert drive.is_settled()
    told = hooks.told
    assert [one["hook"] for one in told] == ["start", "on_failure", "finish"]
    for one in told[1:]:
        ended = one["deploy_result"]
        assert (ended["result"], ended["failed_hosts"], ended["why"]) == ("failed", [], reason)
        assert reason in ended["verdict"]
        assert {host["outcome"] for host in one["deploy_hosts"].values()} == {"pending"}


@pytest.mark.oldest
def test_hooks_that_fail_on_a_host_and_around_batches(drive: Drive, hooks: Hooks) -> None:
    """The budget of one host goes on after the first; the second is done, and the third not begun."""
    options = {
        **hooks.write("prepare", more=fails("the disk is full", "inventory_hostname == 'web1'")),
        **hooks.write("before_batch", more=fails("not on a Friday", "'web3' in deploy_hosts")),
        **hooks.write("after_batch", more=fails("the wallboard is gone", "'web2' in deploy_hosts")),
        **hooks.write("on_failure"),
    }
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(NEW, kind="ssh", failure_budget=1, **options)
    assert result.rc != 0
    load.check_nothing_lost()
    ran = [
        (one["hook"], {name: host["outcome"] for name, host in one.get("deploy_hosts", {}).items()})
        for one in hooks.told
        if one["hook"] != "prepare"
    ]
    assert ran == [
        ("before_batch", {"web1": "pending"}),
        ("after_batch", {"web1": "untouched"}),
        ("before_batch", {"web2": "pending"}),
        ("after_batch", {"web2": "ok"}),
        ("before_batch", {"web3": "pending"}),
        ("on_failure", {"web1": "untouched", "web2": "ok", "web3": "pending"}),
    ], result.output
    assert [one["inventory_hostname"] for one in hooks.told if one["hook"] == "prepare"] == ["web1", "web2"]
    assert watch.seen.keys() == {"web2"}
    assert drive.deployed() == ["web2"]
    assert drive.running() == [OLD, NEW, OLD]
    assert drive.outcomes() == {"web1": "untouched", "web2": "ok", "web3": "pending"}
    assert drive.is_settled()
    ended = hooks.told[-1]["deploy_result"]
    assert (ended["result"], ended["failed_hosts"]) == ("failed", ["web1"])
    assert ended["why"] == "web1: Say no: the disk is full. Nothing was deployed."
    assert result.red == {"web1", "localhost"}, result.output
    assert told_in_red(result) == {
        "web1": "Say no: the disk is full. Nothing was deployed.",
        "localhost": f"{drive.record()['description']} The after_batch hook failed: the wallboard is gone.",
    }
    assert "It stopped because the before_batch hook failed: not on a Friday." in drive.record()["description"]


@pytest.mark.oldest
def test_after_batch_and_finish_hooks_that_fail(drive: Drive, hooks: Hooks) -> None:
    """The deployment is successful, and the exit code says that something else was not."""
    options = hooks.write("after_batch", more=fails("the wallboard is gone"))
    options |= hooks.write("finish", more=fails("the chat is gone")) | hooks.write("on_failure")
    result = drive.run(NEW, hosts="web1", **options)
    assert result.rc != 0
    assert result.red == {"localhost"}
    why = "The after_batch hook failed: the wallboard is gone. The finish hook failed: the chat is gone."
    assert told_in_red(result) == {"localhost": why}, result.output
    assert [one["hook"] for one in hooks.told] == ["after_batch", "finish"]
    assert drive.record()["state"] == "successful"
    assert drive.running() == [NEW, OLD, OLD]
    assert drive.is_settled()


HANGS = "- name: Wait for the chat\n  ansible.builtin.wait_for: {timeout: 300}\n"


@pytest.mark.slow
def test_a_fleet_rollback_is_told_and_a_hook_that_hangs_is_cut_off(drive: Drive, hooks: Hooks) -> None:
    """Both hooks are told once, after it, of the deployment that was started and of what undid it."""
    bad = f"{NEW}-brokenon-web2"
    options = hooks.write("start", "on_failure") | hooks.write("finish", more=HANGS)
    options |= {"healthy_deadline": 5, "bake_time": 1, "deploy_timeout": 6}
    result = drive.run(bad, **options)
    assert result.rc != 0
    assert drive.running() == [OLD] * 3
    assert drive.is_settled(), "the lock is not kept for the hook"
    told = hooks.told
    assert [one["hook"] for one in told] == ["start", "on_failure", "finish"]
    deployment = told[0]["deploy_id"]
    assert {(one["deploy_id"], one["deploy_version"], one["deploy_reason"]) for one in told} == {
        (deployment, bad, "deploy")
    }
    back = drive.record()
    assert (back["undoes"], back["state"]) == (deployment, "successful")
    for one in told[1:]:
        ended, hosts = one["deploy_result"], one["deploy_hosts"]
        assert (ended["result"], ended["failed_hosts"]) == ("failed", ["web2"])
        assert ended["why"].startswith("web2: ")
        rollback = {"id": back["id"], "result": "successful", "verdict": back["description"], "failed_hosts": []}
        assert ended["rollback"] == rollback
        assert ended["standing"].startswith(f"web: 3 of 3 in rotation, all on {OLD}.")
        assert {name: host["outcome"] for name, host in hosts.items()} == {
            "web1": "rolled_back",
            "web2": "rolled_back",
            "web3": "pending",
        }
    red = told_in_red(result)
    assert red.keys() == {"web2", "localhost"}, result.output
    assert "Rollback of web successful" in red["localhost"]
    assert re.search(r"The finish hook failed: .*\b6\b", red["localhost"])


@pytest.mark.slow
def test_a_paused_rollout_tells_the_finish_hook_and_goes_on_with_the_start_hook(drive: Drive, hooks: Hooks) -> None:
    options = hooks.write("start", "on_failure", "finish")
    options |= {"batch_size": [1, "100%"], "pause_after": [1], "bake_time": 0}
    assert drive.run(NEW, **options).rc == 0
    first = hooks.told
    assert [one["hook"] for one in first] == ["start", "finish"]
    assert first[1]["deploy_result"]["result"] == "paused"
    assert "It is paused because" in first[1]["deploy_result"]["verdict"]
    assert {name: host["outcome"] for name, host in first[1]["deploy_hosts"].items()} == {
        "web1": "ok",
        "web2": "pending",
        "web3": "pending",
    }
    promote = json.dumps({"rollout_service": "web", "control_action": "promote"})
    drive.ansible.playbook("hitless.consul.control", "-e", promote, env=drive.environment)
    assert drive.run(NEW, **options).rc == 0
    again = hooks.told[2:]
    assert [one["hook"] for one in again] == ["start", "finish"]
    assert list(again[0]["deploy_hosts"]) == ["web2", "web3"]
    assert again[1]["deploy_result"]["result"] == "successful"
    assert {one["deploy_id"] for one in (*first, *again)} == {first[0]["deploy_id"]}
