"""What cannot work is refused with one clear sentence, while nothing has been touched."""

from __future__ import annotations

import pytest

from lab import Lab
from lab.nodes import wait_until
from tests.rollout.drive import VARIABLES, Drive, flat
from tests.rollout.support import Ansible

HOOKS = {
    "deploy.yml": "- ansible.builtin.command: 'true'\n",
    "broken.yml": "- name: [x\n",
    "unknown.yml": "- name: Notify\n  no.such.module:\n",
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
    for name, text in HOOKS.items():
        (ansible.home / name).write_text(text, encoding="utf-8")
    return Drive(ansible, untouched)


def check_untouched(drive: Drive) -> None:
    # A lock that was taken for the plan ends with its run; Consul keeps the key.
    wait_until("the lock is free", lambda: not drive.holds_lock(), 10)
    assert [key for key in drive.all_keys() if not key.endswith("/lock")] == []
    assert drive.maintenance() == {}
    assert drive.deployed() == []
    assert drive.running() == ["1.0.0"] * 5


REFUSALS = {
    "limit": (["--limit", "web1"], "--limit cannot be used with a rollout"),
    "limit that keeps localhost": (["--limit", "web1,localhost"], "--limit cannot be used with a rollout"),
    "tags": (["--tags", "deploy"], "A rollout cannot run with --tags (deploy)"),
    "skip tags": (["--skip-tags", "deploy"], "A rollout cannot run with --skip-tags (deploy)"),
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
    "no way to deploy": (["-e", "rollout_deploy_command="], "Nothing says how a version gets onto a host"),
    "two ways to deploy": (
        ["-e", "rollout_deploy_tasks=deploy.yml"],
        "rollout_deploy_command and rollout_deploy_tasks are both set",
    ),
}
CROSS_SECTION = {"limit", "unknown option", "version is no string", "minimum impossible", "hook with unknown module"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [pytest.param(*REFUSALS[name], id=name, marks=[pytest.mark.oldest] * (name in CROSS_SECTION)) for name in REFUSALS],
)
def test_refusal(refused: Drive, arguments: list[str], sentence: str) -> None:
    result = refused.run("2.0.0", *arguments)
    assert result.rc != 0, result.output
    for part in sentence.split(" ... "):
        assert part in flat(result.output), result.output
    assert "Traceback" not in result.output
    check_untouched(refused)


def test_the_same_lab_accepts_a_rollout(refused: Drive) -> None:
    """The control: what is refused above is not refused for another reason."""
    result = refused.run("2.0.0", "--check")
    assert result.rc == 0, result.output
    check_untouched(refused)
