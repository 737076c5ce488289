"""A rollout whose controller is interrupted is taken over; two at once, and an operator, do not meet."""

from __future__ import annotations

import json
import signal
from itertools import pairwise

import pytest

from lab import wait_until
from lab.testkit.ansible_run import flat
from tests.rollout.drive import Drive, Load

OLD = "1.0.0"
SLOW = "2.0.0-deployslow4"
"""Its deployment command takes four seconds: time to do something to the run."""


def wait_for_deployment(drive: Drive, name: str) -> None:
    """Return when the deployment command runs on that VM."""
    wait_until(f"the deployment runs on {name}", lambda: bool(drive.lab.vm(name).deploys()), 60)


def check_no_overlap(drive: Drive) -> None:
    """No two runs of the deployment command met on a host."""
    for vm in drive.lab.vms:
        for before, after in pairwise(vm.deploys()):
            assert before.end is not None, f"{vm.name}: {before} was cut off"
            assert before.end <= after.start, f"{vm.name}: {before} and {after} overlap"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_killed_and_run_again(drive: Drive, number: signal.Signals) -> None:
    with Load(drive.lab) as load:
        with drive.start(SLOW, kind="ssh", batch_size=2) as run:
            wait_for_deployment(drive, "web1")
            run.send(number)
            run.process.wait(60)
            assert run.process.returncode != 0
            result = drive.run(SLOW, kind="ssh", batch_size=2, lock_wait=60)
        assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [SLOW] * 5
    assert drive.recorded() == [SLOW] * 5
    assert drive.record()["state"] == "successful"
    assert drive.is_settled()
    check_no_overlap(drive)


@pytest.mark.slow
def test_two_at_once(drive: Drive) -> None:
    with drive.start(SLOW, hosts="web1:web2", message="night shift") as first:
        wait_for_deployment(drive, "web1")
        holder = drive.record()
        second = drive.run("3.0.0")
        assert second.rc != 0
        assert holder["id"] in flat(second.output), second.output
        assert "night shift" in flat(second.output)
        result = first.wait()
    assert result.rc == 0, result.output
    assert drive.record()["id"] == holder["id"], "the second left a record"
    assert drive.running() == [SLOW] * 2 + [OLD] * 3
    assert drive.is_settled()


@pytest.mark.slow
def test_the_second_may_wait(drive: Drive) -> None:
    with Load(drive.lab) as load, drive.start(SLOW, hosts="web1:web2") as first:
        wait_for_deployment(drive, "web1")
        holder = drive.record()["id"]
        second = drive.run("3.0.0", lock_wait=120)
        assert first.wait().rc == 0
    assert second.rc == 0, second.output
    load.check_nothing_lost()
    assert drive.record()["id"] > holder
    assert drive.running() == ["3.0.0"] * 5
    assert drive.recorded("previous") == [SLOW, SLOW, OLD, OLD, OLD]
    assert drive.is_settled()


def test_operators_maintenance_is_left_alone(drive: Drive) -> None:
    drive.lab.vm("web3").operator_maintenance("disk is being replaced")
    result = drive.run("2.0.0", hosts="web2:web3", batch_size=2)
    assert result.rc == 0, result.output
    assert "web3" in flat(result.output)
    assert "disk is being replaced" in flat(result.output)
    assert drive.maintenance() == {"web3": "disk is being replaced"}
    assert drive.running() == [OLD, "2.0.0", OLD, OLD, OLD]
    assert drive.lab.vm("web3").deploys() == []
    assert not drive.holds_lock()


def test_recover(drive: Drive) -> None:
    """What an interrupted run left is told with --check, and cleared without; an operator's own is not."""
    drive.lab.vm("web4").operator_maintenance("disk is being replaced")
    with drive.start(SLOW, hosts="web1:web2") as run:
        wait_for_deployment(drive, "web1")
        # With its workers: one that is left alone ends the turn of its host.
        run.kill()
        run.process.wait(60)
    wait_until("the lock is free", lambda: not drive.holds_lock(), 60)
    told = drive.run(None, "--check", name="recover")
    assert told.rc == 0, told.output
    assert "web1" in told.output
    assert drive.maintenance().keys() == {"web1", "web4"}

    cleared = drive.run(None, name="recover", lock_wait=60, healthy_deadline=20, min_healthy_time=1, check_interval=2)
    assert cleared.rc == 0, cleared.output
    assert drive.maintenance() == {"web4": "disk is being replaced"}
    assert drive.record()["state"] == "interrupted"
    assert not drive.holds_lock()
    check_no_overlap(drive)


def test_recover_says_why_hosts_stay_and_what_to_do(drive: Drive) -> None:
    """One whose deployment failed, and one that the inventory does not have; no run was interrupted."""
    identity = "20260101T000000Z-2.0.0-0000"
    hosts = {name: {"node": node, "batch": 1} for name, node in (("web1", "web1"), ("elsewhere", "web2"))}
    record = {"state": "failed", "version": "2.0.0", "plan": {"chunks": 1}}
    plan = {"hosts": hosts, "uncovered": []}
    failed = {"host": "web1", "node": "web1", "outcome": "failed", "error": "Deploy: It exited with 3."}
    prefix = f"kv/deploy/web/deployments/{identity}"
    drive.lab.consul.call("PUT", f"{prefix}/plan/000001", json.dumps(plan).encode())
    drive.lab.consul.call("PUT", f"{prefix}/record", json.dumps(record).encode())
    drive.lab.consul.call("PUT", f"{prefix}/nodes/web1", json.dumps(failed).encode())
    for name in ("web1", "web2"):
        drive.lab.vm(name).operator_maintenance(f"deploy:{identity} web")
    told = drive.run(None, name="recover", healthy_deadline=5)
    assert told.rc == 2
    assert "web: still in a deployment's maintenance" in told.output
    assert "dead" not in told.output
    message = (
        "Still in maintenance: web1, elsewhere. Deploy: It exited with 3. Not in the inventory: elsewhere. Recover "
        "with an inventory that has them. Run the rollout again with a version that works, or, where that was not why, "
        "with the recorded one."
    )
    assert message in told.output.replace("\n", " ")
