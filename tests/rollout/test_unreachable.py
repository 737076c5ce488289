"""A VM out of reach before, during and after its turn: the others keep serving, and the end names it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lab import wait_until
from lab.testkit.ansible_run import Result, flat
from tests.rollout.drive import Drive, Load, once

OLD = "1.0.0"
NEW = "2.0.0-deployslow2"
"""Its deployment takes two seconds: time to cut the connection that it was started by."""


def cut_off(drive: Drive, name: str, when: Callable[[], bool]) -> AbstractContextManager[None]:
    """The VM's sshd and its open connections end as soon as ``when`` holds; what runs there goes on."""
    return once(f"{name} is to be cut off", when, drive.lab.vm(name).stop_sshd)


def deploys_on(drive: Drive, name: str) -> Callable[[], bool]:
    return lambda: bool(drive.lab.vm(name).deploys())


def ended_on(drive: Drive, name: str) -> Callable[[], bool]:
    return lambda: drive.outcomes().get(name) == "ok"


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    """A deployment by tasks: a connection lost there is Ansible's own "unreachable", which no rescue sees."""
    path = tmp_path / "deploy.yml"
    path.write_text(
        "- name: Install\n"
        "  ansible.builtin.command: '{{ lab_vm_dir }}/deploy {{ deploy_version }}'\n"
        "  environment:\n    DEPLOY_REASON: '{{ deploy_reason }}'\n    DEPLOY_ID: '{{ deploy_id }}'\n",
        encoding="utf-8",
    )
    return str(path)


def check_told(drive: Drive, result: Result, lost: str, verdict: str) -> None:
    """The last plays ran: the verdict names it, the record has ended, the lock is free."""
    assert result.rc != 0, result.output
    assert verdict in flat(result.output), result.output
    assert lost in result.red
    assert drive.outcomes("deploy")[lost] == "lost"
    assert drive.record("deploy")["state"] == "failed"
    assert verdict in drive.record("deploy")["description"]
    assert not drive.holds_lock()
    # What may be half deployed gets no traffic.
    assert drive.maintenance().keys() == {lost}


def test_before_during_and_after(drive: Drive, tasks: str) -> None:
    """One before its turn, one in it, one after it; in batches of two."""
    drive.lab.vm("web2").stop_sshd()
    with (
        Load(drive.lab) as load,
        cut_off(drive, "web1", ended_on(drive, "web1")),
        cut_off(drive, "web4", deploys_on(drive, "web4")),
    ):
        result = drive.run(
            NEW,
            kind="ssh",
            batch_size=2,
            unreachable="skip",
            failure_budget=1,
            deploy_command="",
            deploy_tasks=tasks,
        )
    load.check_nothing_lost()
    check_told(drive, result, "web4", "3 changed, 1 lost (web4), 1 skipped (web2)")
    assert result.red == {"web4"}
    assert drive.outcomes() == {"web1": "ok", "web3": "ok", "web4": "lost", "web5": "ok"}
    assert drive.running()[:3] == [NEW, OLD, NEW]
    assert drive.recorded()[3] is None

    # It is back: the same command finishes the work.
    for name in ("web1", "web2", "web4"):
        drive.lab.vm(name).start_sshd()
    with Load(drive.lab) as load:
        again = drive.run(NEW, kind="ssh", batch_size=2)
    assert again.rc == 0, again.output
    load.check_nothing_lost()
    assert drive.recorded() == [NEW] * 5
    assert drive.is_settled()


@pytest.mark.parametrize("batch_size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_before_and_not_to_be_skipped(drive: Drive, batch_size: int) -> None:
    drive.lab.vm("web2").stop_sshd()
    result = drive.run(NEW, kind="ssh", batch_size=batch_size)
    assert result.rc != 0
    assert "Unreachable: 1 host: web2" in flat(result.output), result.output
    assert "nothing was changed" in flat(result.output)
    assert "rollout_unreachable: skip" in flat(result.output)
    wait_until("nothing is left of the run", lambda: drive.all_keys() == [], 10)
    assert drive.deployed() == []
    assert drive.maintenance() == {}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("strict", [False, True])
def test_before_and_skipped(drive: Drive, batch_size: int, strict: bool) -> None:
    drive.lab.vm("web2").stop_sshd()
    with Load(drive.lab) as load:
        result = drive.run(NEW, kind="ssh", batch_size=batch_size, unreachable="skip", strict=strict)
    load.check_nothing_lost()
    assert (result.rc != 0) is strict, result.output
    assert "web2 is skipped" in flat(result.output)
    assert drive.running() == [NEW, OLD, NEW, NEW, NEW]
    assert drive.record()["state"] == "successful"
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["command", "tasks"])
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("unreachable", ["fail", "skip"])
def test_during(drive: Drive, tasks: str, way: str, batch_size: int, unreachable: str) -> None:
    options = {} if way == "command" else {"deploy_command": "", "deploy_tasks": tasks}
    with Load(drive.lab) as load, cut_off(drive, "web2", deploys_on(drive, "web2")):
        result = drive.run(
            NEW, kind="ssh", hosts="web1:web2:web3", batch_size=batch_size, unreachable=unreachable, **options
        )
    load.check_nothing_lost()
    check_told(drive, result, "web2", "1 changed, 1 lost (web2), 1 not begun (web3)")
    assert result.red == {"web2"}
    assert drive.lab.vm("web3").deploys() == []
    assert drive.running()[0] == OLD, "what was changed has gone back"
    assert drive.outcomes("rollback")["web1"] == "ok"
    assert "1 lost (web2)" in drive.record("rollback")["description"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["command", "tasks"])
def test_a_batch_that_is_lost_as_a_whole(drive: Drive, tasks: str, way: str) -> None:
    options = {} if way == "command" else {"deploy_command": "", "deploy_tasks": tasks}
    with (
        Load(drive.lab) as load,
        cut_off(drive, "web1", deploys_on(drive, "web1")),
        cut_off(drive, "web2", deploys_on(drive, "web2")),
    ):
        result = drive.run(
            NEW, kind="ssh", hosts="web1:web2:web3", batch_size=2, failure_budget=2, min_healthy=2, **options
        )
    load.check_nothing_lost()
    assert result.rc != 0
    assert "1 changed, 2 lost (web1, web2)" in flat(result.output), result.output
    assert drive.outcomes() == {"web1": "lost", "web2": "lost", "web3": "ok"}
    assert result.red == {"web1", "web2"}
    assert not drive.holds_lock()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("unreachable", ["fail", "skip"])
def test_after(drive: Drive, batch_size: int, unreachable: str) -> None:
    with Load(drive.lab) as load, cut_off(drive, "web1", ended_on(drive, "web1")):
        result = drive.run(NEW, kind="ssh", hosts="web1:web2:web3", batch_size=batch_size, unreachable=unreachable)
    load.check_nothing_lost()
    assert result.rc == 0, result.output
    assert drive.running() == [NEW] * 3 + [OLD] * 2
    assert drive.is_settled()
