"""The first rollout of a fleet, one with nothing to do, a look with --check, and a rollback by hand."""

from __future__ import annotations

import json

import pytest

from lab import wait_until
from lab.testkit.ansible_run import flat
from tests.rollout.drive import Drive, Load

OLD, NEW = "1.0.0", "2.0.0"


def test_check_mode_tells_and_changes_nothing(drive: Drive) -> None:
    result = drive.run(NEW, "--check", batch_size=2)
    assert result.rc == 0, result.output
    assert f"web {OLD} -> {NEW} on 5 hosts" in flat(result.output)
    assert drive.all_keys() == []
    assert drive.maintenance() == {}
    assert drive.deployed() == []
    assert drive.running() == [OLD] * 5


@pytest.mark.slow
@pytest.mark.oldest
def test_check_mode_says_that_a_rollout_is_under_way(drive: Drive) -> None:
    """It would plan from the state that is passing just now, in which hosts are out of rotation."""
    with drive.start("2.0.0-deployslow6") as run:
        wait_until("a host is drained", lambda: bool(drive.maintenance()), 60)
        told = drive.run(NEW, "--check")
        assert told.rc == 0, told.output
        assert "A rollout of web is under way: its lock is held by " in flat(told.output)
        run.close()


@pytest.mark.slow
def test_forth_adopted_from_meta_again_and_back(drive: Drive) -> None:
    """Nothing is recorded at first: the version that runs is what the service's meta tells."""
    assert drive.all_keys() == []
    first = drive.run(NEW, batch_size=2)
    assert first.rc == 0, first.output
    assert drive.recorded("previous") == [OLD] * 5

    again = drive.run(NEW)
    assert again.rc == 0, again.output
    assert "nothing to do" in flat(again.output)
    assert drive.is_settled()
    assert [len(vm.deploys()) for vm in drive.lab.vms] == [1] * 5

    back = drive.run(None, name="rollback", batch_size=2)
    assert back.rc == 0, back.output
    assert drive.running() == [OLD] * 5
    assert drive.recorded() == [OLD] * 5
    assert [run.reason for run in drive.lab.vms[0].deploys()] == ["deploy", "rollback"]
    assert drive.record()["state"] == "successful"
    assert drive.is_settled()


def forget_meta(drive: Drive) -> None:
    """The services tell no version, as those of most people do."""
    for vm in drive.lab.vms:
        registration = json.loads((vm.directory / "vm.json").read_text(encoding="utf-8"))["service"]
        vm.agent.call("PUT", "agent/service/register", {**registration, "Meta": {}})
    drive.lab.wait_passing()


@pytest.mark.slow
@pytest.mark.oldest
def test_no_version_is_known(drive: Drive) -> None:
    """Said before anything is touched; a host that fails has nowhere to go back to, and gets no traffic."""
    forget_meta(drive)
    told = drive.run("3.0.0-broken", "--check")
    assert told.rc == 0, told.output
    assert "No rollback possible on 5 hosts" in flat(told.output), told.output
    with Load(drive.lab) as load:
        failed = drive.run("3.0.0-broken")
    assert failed.rc != 0
    assert "No previous version is known" in flat(failed.output)
    load.check_nothing_lost()
    assert drive.outcomes()["web1"] == "failed"
    assert drive.maintenance().keys() == {"web1"}
    assert drive.deployed() == ["web1"]


@pytest.mark.slow
@pytest.mark.oldest
def test_the_previous_version_is_given(drive: Drive) -> None:
    forget_meta(drive)
    with Load(drive.lab) as load:
        failed = drive.run("3.0.0-broken", previous_version=OLD)
        assert failed.rc != 0
        assert drive.outcomes()["web1"] == "rolled_back", failed.output
        assert drive.running() == [OLD] * 5
        done = drive.run(NEW, previous_version=OLD, batch_size=2)
    assert done.rc == 0, done.output
    load.check_nothing_lost()
    assert drive.recorded("previous") == [OLD] * 5
    assert drive.is_settled()


@pytest.mark.slow
def test_the_same_version_once_more(drive: Drive) -> None:
    """Only where it is asked for. A host that fails has nothing else to go back to."""
    nothing = drive.run(OLD)
    assert nothing.rc == 0, nothing.output
    assert "nothing to do" in flat(nothing.output)
    assert drive.deployed() == []
    again = drive.run(OLD, skip_current=False, batch_size=2)
    assert again.rc == 0, again.output
    assert drive.recorded() == [OLD] * 5
    assert [len(vm.deploys()) for vm in drive.lab.vms] == [1] * 5
    failed = drive.run(OLD, skip_current=False, deploy_command="exit 1")
    assert failed.rc != 0
    assert "The previous version is the same" in flat(failed.output), failed.output
    assert drive.maintenance().keys() == {"web1"}


def test_a_rollback_without_any_deployment_is_refused(drive: Drive) -> None:
    result = drive.run(None, name="rollback")
    assert result.rc != 0
    assert "No deployment of web is recorded" in flat(result.output)
    # Consul keeps the key of a lock that was taken for the plan.
    assert set(drive.all_keys()) <= {"deploy/web/lock"}
    assert drive.deployed() == []
