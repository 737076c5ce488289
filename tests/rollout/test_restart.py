"""A restart and a reboot under load: by the steps of a rollout, and no version changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from lab import wait_until
from lab.testkit.ansible_run import Run, flat
from tests.rollout.drive import Drive, Load, RotationWatch

VERSION = "1.0.0"
REBOOT_FOR_EVER = "LAB_REBOOT_TAKES=900 {{ lab_vm_dir }}/reboot"
SLOW = "sleep 3; {{ lab_vm_dir }}/restart"
"""Time to cut off its run."""


def pids(drive: Drive) -> list[int | None]:
    return [vm.app_pid() for vm in drive.lab.vms]


def check_versions_unchanged(drive: Drive) -> None:
    assert drive.running() == [VERSION] * len(drive.lab.vms)
    assert not [key for key in drive.all_keys() if key.endswith(("/version", "/previous"))], "nothing is recorded"


def test_restart(drive: Drive) -> None:
    before = pids(drive)
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(None, name="restart", batch_size=4, probe_url=drive.lab.frontend)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert all(one != other for one, other in zip(before, pids(drive), strict=True))
    check_versions_unchanged(drive)
    assert drive.outcomes() == dict.fromkeys(("web1", "web2", "web3", "web4", "web5"), "ok")
    assert watch.fewest >= 3, "the minimum holds"
    assert watch.most == 2
    assert drive.is_settled()
    record = drive.record()
    assert (record["direction"], record["state"], record["version"]) == ("restart", "successful", None)
    assert "5 restarted." in result.output
    assert (record["probe"]["failed"], record["probe"]["count"] > 10) == (0, True)
    assert f"{record['probe']['count']} probes, 0 failed, longest gap " in flat(result.output)

    back = drive.run(None, "--check", name="rollback")
    assert "No deployment of web is recorded" in flat(back.output), "a restart is none that could be undone"


def test_reboot(drive: Drive) -> None:
    before, boots = pids(drive), [vm.boot_id() for vm in drive.lab.vms]
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(None, name="reboot", kind="ssh", batch_size=2)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert all(one != other for one, other in zip(before, pids(drive), strict=True))
    assert all(one != vm.boot_id() for one, vm in zip(boots, drive.lab.vms, strict=True))
    check_versions_unchanged(drive)
    assert watch.fewest >= 3
    assert drive.is_settled()
    assert "5 rebooted." in result.output


@pytest.mark.slow
def test_a_reboot_without_the_way_out_of_rotation_loses_requests(drive: Drive) -> None:
    """The control: the load would show a loss."""
    vm = drive.lab.vms[0]
    with Load(drive.lab) as load:
        was = vm.boot_id()
        subprocess.run([vm.directory / "reboot"], check=True, timeout=30)
        wait_until("it is back", lambda: vm.boot_id() != was, 30)
    assert load.report.lost


@pytest.mark.slow
def test_a_machine_that_does_not_come_back_stops_it_and_stays_out(drive: Drive) -> None:
    """Nothing is rolled back; once it is there again the same command goes on with what is left."""
    lab = drive.lab
    command = "{% if inventory_hostname == 'web2' %}" + REBOOT_FOR_EVER + "{% else %}{{ lab_vm_dir }}/reboot{% endif %}"
    quick = {"name": "reboot", "kind": "ssh", "hosts": "web1,web2,web3"}
    with Load(lab) as load:
        failed = drive.run(None, reboot_command=command, reboot_deadline=12, **quick)
    assert failed.rc != 0
    load.check_nothing_lost()
    assert drive.outcomes() == {"web1": "ok", "web2": "lost", "web3": "pending"}
    assert "It has not come back within 12 s (rollout_reboot_deadline)" in flat(failed.output)
    assert "Out of rotation: web2, lost: it cannot be reached." in flat(failed.output)
    vm = lab.vm("web2")
    vm.start(VERSION)
    vm.wait_started()
    wait_until("its maintenance is in the catalog again", lambda: "web2" in drive.maintenance(), 30)

    again = drive.run(None, **quick)
    assert again.rc == 0, again.output
    assert drive.outcomes() == {"web2": "ok", "web3": "ok"}
    assert "1 already rebooted" in again.output
    assert drive.is_settled()


@pytest.mark.slow
def test_a_restart_that_fails_is_held_and_a_command_that_cannot_reboot_changes_nothing(drive: Drive) -> None:
    failed = drive.run(None, name="restart", hosts="web1,web2", restart_command="echo no such unit; exit 5")
    assert failed.rc != 0
    assert drive.outcomes() == {"web1": "failed", "web2": "pending"}
    assert "no version has changed, and nothing is to roll back" in flat(failed.output)
    assert list(drive.maintenance()) == ["web1"]
    assert drive.run(None, name="recover").rc != 0, "it may serve nobody"
    # A rollout takes it over, as it does what any deployment holds.
    assert drive.run("2.0.0", hosts="web1").rc == 0
    assert drive.is_settled()

    refused = drive.run(None, name="reboot", kind="ssh", hosts="web3", reboot_command="echo not permitted; exit 1")
    assert refused.rc != 0
    assert "The reboot command exited with 1: not permitted. Nothing was deployed." in flat(refused.output)
    assert drive.outcomes() == {"web3": "untouched"}
    assert drive.is_settled()

    local = drive.run(None, name="reboot", kind="local", hosts="web3")
    assert local.rc != 0
    told = "web3 has a local connection: its reboot would be that of the machine that Ansible runs on."
    assert told in flat(local.output)


def killed_at(drive: Drive, run: Run, node: str) -> None:
    """kill -9 of the controller alone, while the node's command runs."""
    wait_until("it is begun", lambda: drive.status(node) == "deploying", 90)
    os.kill(run.process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_one_that_is_killed_goes_on_where_it_was(drive: Drive) -> None:
    with Load(drive.lab) as load:
        with drive.start(None, name="restart", kind="ssh", restart_command=SLOW) as run:
            killed_at(drive, run, "web2")
        restarted = drive.lab.vm("web1").app_pid()
        wait_until("its lock is free", lambda: not drive.holds_lock(), 90)
        again = drive.run(None, name="restart", kind="ssh")
    assert again.rc == 0, again.output
    load.check_nothing_lost()
    assert drive.lab.vm("web1").app_pid() == restarted, "it has had its turn"
    assert drive.outcomes() == dict.fromkeys(("web3", "web4", "web5"), "ok"), "its worker has ended the turn of web2"
    assert drive.is_settled()
    statuses = (json.loads(drive.lab.kv(f"nodes/{vm.name}/deployment/web/status") or "{}") for vm in drive.lab.vms)
    assert not any(one.get("unsure") for one in statuses)
    check_versions_unchanged(drive)


@pytest.mark.slow
def test_tasks_of_the_user_make_batches_of_it(drive: Drive) -> None:
    """A rollout's smoke test is one of the restart, too; what prepares a deployment is left aside."""
    smoke = drive.lab.directory / "smoke.yml"
    smoke.write_text("- ansible.builtin.debug: {msg: 'smoke test of a {{ deploy_reason }}'}\n", encoding="utf-8")
    options = {"smoke_tasks": str(smoke), "prepare_tasks": str(smoke), "batch_size": 2, "hosts": "web1,web2"}
    result = drive.run(None, name="reboot", kind="ssh", **options)
    assert result.rc == 0, result.output
    assert result.output.count("smoke test of a reboot") == 2
    assert drive.outcomes() == {"web1": "ok", "web2": "ok"}
    assert drive.is_settled()
