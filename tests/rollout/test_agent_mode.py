"""Deployments without SSH: each machine's own agent deploys, and its log comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab
from tests.rollout import agent_fleet
from tests.rollout.drive import Drive, Load, flat

OLD, NEW = "1.0.0", "2.0.0"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from agent_fleet.running()


def test_new_version_without_ssh(drive: Drive) -> None:
    with Load(drive.lab) as load:
        result = drive.run(NEW, kind="agent", batch_size=2, show_log="always")
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [NEW] * 4
    assert drive.recorded() == [NEW] * 4
    assert drive.recorded("previous") == [OLD] * 4
    assert set(drive.outcomes().values()) == {"ok"}
    assert drive.record()["state"] == "successful"
    assert drive.is_settled()
    assert f"web1 | web1: {NEW} started" in result.stdout


def test_broken_version_is_put_back(drive: Drive) -> None:
    with Load(drive.lab) as load:
        result = drive.run("3.0.0-broken", kind="agent")
    assert result.rc != 0
    assert "The new process did not answer" in flat(result.output)
    load.check_nothing_lost()
    assert drive.running() == [OLD] * 4
    assert drive.outcomes()["web1"] == "rolled_back"
    assert drive.is_settled()
    assert load.report.by_version.keys() == {OLD}
