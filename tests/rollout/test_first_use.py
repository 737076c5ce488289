"""The first rollout of a fleet, one with nothing to do, a look with --check, and a rollback by hand."""

from __future__ import annotations

import pytest

from tests.rollout.drive import Drive, flat

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


def test_rollback_without_a_previous_version_is_refused(drive: Drive) -> None:
    result = drive.run(None, name="rollback")
    assert result.rc != 0
    assert "No previous version of web is recorded" in flat(result.output)
    # Consul keeps the key of a lock that was taken for the plan.
    assert set(drive.all_keys()) <= {"deploy/web/lock"}
    assert drive.deployed() == []
