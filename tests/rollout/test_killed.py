"""A run that is killed, at whatever step: the same command again finishes its work, and no request is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lab import wait_until
from lab.testkit.ansible_run import Run, flat
from tests.rollout.drive import Drive, Load

OLD = "1.0.0"
NEW = "2.0.0-deployslow2-slow2"
"""Its deployment command takes two seconds, and so does its start: time to meet a run in each of its steps."""
HOSTS = ["web1", "web2", "web3"]

STEPS: dict[str, Callable[[Drive], bool]] = {
    "prepare": lambda drive: (drive.lab.vm("web1").directory / "preparing").exists(),
    "drain": lambda drive: "web1" in drive.maintenance(),
    "deploy": lambda drive: bool(drive.lab.vm("web1").deploys()),
    "verify": lambda drive: drive.lab.vm("web1").running_version() == NEW,
    # Hardly longer than it takes to look.
    "return": lambda drive: drive.status("web1") in ("returning", "ok"),
    "between hosts": lambda drive: drive.outcomes().keys() >= {"web1", "web2"},
}


def kill(drive: Drive, run: Run, how: str) -> None:
    """End the run: alone, or with all of its processes, the keeper of its lock among them."""
    deployment = drive.record()["id"]
    if how == "everything":
        run.kill()
        for keeper in keepers(deployment):
            os.kill(keeper, signal.SIGKILL)
    else:
        # A terminal's Ctrl-C reaches the whole group.
        run.send(signal.Signals[how], group=how == "SIGINT")
    run.process.wait(60)
    assert run.process.returncode != 0
    if how == "SIGINT":
        assert "The rollout of web was interrupted." in flat(run.stderr), run.stderr


def keepers(deployment: str) -> list[int]:
    """The processes that keep the lock of a deployment."""
    wanted = f"keeper.py\0web\0{deployment}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if entry.read_bytes().endswith(wanted):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def check_no_overlap(drive: Drive) -> None:
    """No two runs of the deployment command met on a host."""
    for vm in drive.lab.vms:
        for before, after in pairwise(vm.deploys()):
            assert before.end is not None, f"{vm.name}: {before} was cut off"
            assert before.end <= after.start, f"{vm.name}: {before} and {after} overlap"


def hooks(folder: Path) -> dict[str, str]:
    """Hooks that leave a mark, and time to be met in."""
    prepare, after = folder / "prepare.yml", folder / "after.yml"
    prepare.write_text(
        "- name: Fetch\n  ansible.builtin.command: sh -c 'touch {{ lab_vm_dir }}/preparing; sleep 1'\n",
        encoding="utf-8",
    )
    after.write_text("- name: Look\n  ansible.builtin.wait_for:\n    timeout: 1\n", encoding="utf-8")
    return {"prepare_tasks": str(prepare), "after_batch_tasks": str(after)}


# How, at which step, and in which way: hooks on the hosts make batches of it.
DEFAULT = [("SIGKILL", "deploy", "window")]
IN_HOOKS = ("prepare", "between hosts")
CASES = [
    pytest.param(
        how,
        step,
        way,
        id=f"{how} at {step} in {way}",
        marks=[] if (how, step, way) in DEFAULT else [pytest.mark.slow],
    )
    for how in ("SIGKILL", "SIGTERM", "SIGINT", "everything")
    for step in STEPS
    for way in ("window", "batches")
    if way == "batches" or step not in IN_HOOKS
]


@pytest.mark.parametrize(("how", "step", "way"), CASES)
def test_the_same_command_again(drive: Drive, tmp_path: Path, how: str, step: str, way: str) -> None:
    for vm in drive.lab.vms:
        (vm.directory / "preparing").unlink(missing_ok=True)
    # The lock of a run whose keeper was killed as well is free within 30 s.
    options: dict[str, Any] = {"hosts": HOSTS, "batch_size": 2, "lock_wait": 60}
    options |= hooks(tmp_path) if way == "batches" else {}
    with Load(drive.lab) as load:
        with drive.start(NEW, kind="ssh", **options) as run:
            wait_until(f"it is at {step}", lambda: STEPS[step](drive), 60)
            kill(drive, run, how)
            result = drive.run(NEW, kind="ssh", **options)
        assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [NEW] * 3 + [OLD] * 2
    assert drive.recorded()[:3] == [NEW] * 3
    assert drive.recorded("previous")[:3] == [OLD] * 3
    assert drive.record()["state"] == "successful"
    assert set(drive.outcomes().values()) <= {"ok"}
    assert drive.is_settled()
    check_no_overlap(drive)
