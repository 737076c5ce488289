"""Settings of ansible.cfg that would change what a rollout does are overruled by its plays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.testkit.ansible_run import flat
from tests.rollout.drive import Drive


@pytest.mark.slow
@pytest.mark.oldest
def test_one_hosts_failure_is_its_own_and_no_wait_is_cut_off(drive: Drive) -> None:
    """any_errors_fatal would roll back the healthy host of the batch; task_timeout would end each drain."""
    new = "2.0.0-brokenon-web1"
    drive = replace(drive, more={"ANSIBLE_ANY_ERRORS_FATAL": "true", "ANSIBLE_TASK_TIMEOUT": "3"})
    result = drive.run(new, batch_size=2, drain_time=4)
    assert result.rc != 0
    assert drive.outcomes()["web1"] == "rolled_back", result.output
    assert drive.outcomes()["web2"] == "ok", result.output
    assert drive.running()[:2] == ["1.0.0", new]
    assert "Timed out" not in result.output
    assert drive.is_settled()


def test_what_ansible_itself_cannot_begin_ends_with_a_verdict(drive: Drive) -> None:
    """It fails each host before its step is begun; a stage whose hosts have all failed would end the playbook there."""
    result = drive.run("2.0.0", "-e", "ansible_become_method=none_such", become=True)
    assert result.rc != 0
    assert "5 not begun" in flat(result.output), result.output
    assert drive.record()["state"] == "failed"
    assert drive.deployed() == []
    assert drive.maintenance() == {}
    assert not drive.holds_lock()
