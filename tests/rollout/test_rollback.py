"""A rollback by hand undoes a deployment: the hosts that it changed, each to what it had, fast, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from lab import wait_until
from lab.testkit.ansible_run import Result, flat
from tests.rollout.drive import VARIABLES, Drive, Load, RotationWatch

OLD, GOOD = "1.0.0", "2.0.0"
SLOW = "3.0.0-deployslow4"
"""Its deployment command takes four seconds: time to cut off its run."""


def rolled_out(drive: Drive, version: str, **options: Any) -> Result:
    """Without the bake, and with what has changed left as it is where the rollout stops."""
    return drive.run(version, **{"bake_time": 0, "rollback": "host", **options})


def undone(drive: Drive, *more: str, **options: Any) -> Result:
    return drive.run(None, *more, name="rollback", **options)


def reasons(drive: Drive) -> list[list[str]]:
    """What each VM's deployment command was run for."""
    return [[run.reason for run in vm.deploys()] for vm in drive.lab.vms]


@pytest.mark.slow
def test_a_failure_that_has_put_itself_back_leaves_nothing_to_undo(drive: Drive) -> None:
    """The trap: one presses the button after a failure, and loses the good version."""
    assert rolled_out(drive, GOOD, batch_size=2).rc == 0
    before = drive.record()["id"]
    failed = rolled_out(drive, "3.0.0-broken")
    assert failed.rc != 0
    assert drive.running() == [GOOD] * 5
    sentence = (
        f"web: nothing to undo: all 5 hosts run {GOOD}, which is what they had before the last deployment "
        f"({drive.record()['id']}); for an older version say rollout_version, to undo the one before it "
        f"rollback_deployment={before}"
    )
    deployed = reasons(drive)
    for more in (["--check"], []):
        back = undone(drive, *more)
        assert back.rc == 0, back.output
        assert sentence in flat(back.output), back.output
        assert {counts["changed"] for counts in back.recap.values()} == {0}, back.output
    assert drive.running() == [GOOD] * 5
    assert reasons(drive) == deployed
    assert drive.is_settled()

    unknown = undone(drive, "-e", "rollback_deployment=20260101T000000Z-1.0.0-0000")
    assert unknown.rc != 0
    assert f"It could be one of {before}." in flat(unknown.output), unknown.output

    with Load(drive.lab) as load:
        named = undone(drive, "-e", f"rollback_deployment={before}")
    assert named.rc == 0, named.output
    load.check_nothing_lost()
    assert drive.running() == drive.recorded() == [OLD] * 5
    assert drive.record()["undoes"] == before


def test_half_a_rollout_goes_back_to_what_each_host_had(drive: Drive) -> None:
    """Two versions before it, two after it, said first; the hosts that never got it are left alone."""
    assert rolled_out(drive, GOOD, hosts="web1").rc == 0
    half = rolled_out(drive, "3.0.0-brokenon-web3")
    assert half.rc != 0
    assert drive.running() == ["3.0.0-brokenon-web3"] * 2 + [OLD] * 3
    told = undone(drive, "--check")
    assert told.rc == 0, told.output
    mixed = (
        f"After this rollback the hosts run different versions: {OLD} on 4 hosts: web2, web3, web4, web5; {GOOD} on 1 "
        "host: web1. rollout_version would take all of them to one."
    )
    assert mixed in flat(told.output), told.output
    with Load(drive.lab) as load:
        back = undone(drive)
    assert back.rc == 0, back.output
    load.check_nothing_lost()
    assert mixed in flat(back.output)
    assert "on 2 hosts (1 from 3.0.0-brokenon-web3 to 1.0.0, 1 from 3.0.0-brokenon-web3 to 2.0.0)" in flat(back.output)
    assert drive.running() == [GOOD] + [OLD] * 4
    assert drive.recorded() == [GOOD, OLD, OLD, None, None], "of those never reached nothing was recorded"
    assert reasons(drive) == [
        ["deploy", "deploy", "rollback"],
        ["deploy", "rollback"],
        ["deploy", "rollback"],  # by itself
        [],
        [],
    ]
    assert drive.is_settled()


@pytest.mark.slow
def test_what_is_out_of_rotation_on_the_bad_version_goes_first(drive: Drive) -> None:
    """Two hosts are held in maintenance; nothing else than the minimum bounds how many go at once."""
    canary = {**VARIABLES, "rollout_batch_size": [1, "25%"]}
    drive.lab.write_inventory(canary)
    bad = "3.0.0-brokenon-web3"
    failed = rolled_out(drive, bad, rollback="none", batch_size=1)
    assert failed.rc != 0
    assert drive.outcomes() == {"web1": "ok", "web2": "ok", "web3": "failed", "web4": "pending", "web5": "pending"}
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        back = undone(drive)
    assert back.rc == 0, back.output
    load.check_nothing_lost()
    assert drive.running() == [OLD] * 5
    assert [name for batch in drive.record()["plan"]["batches"] for name in batch] == ["web3", "web2", "web1"]
    assert drive.record()["plan"]["windows"] == [2], "five less the minimum of three, and no canary"
    assert watch.most == 2
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.oldest
def test_what_an_interrupted_run_had_changed_goes_back_too(drive: Drive) -> None:
    with drive.start(SLOW) as run:
        wait_until("the second host is deployed", lambda: bool(drive.lab.vm("web2").deploys()), 90)
        run.kill()
        run.process.wait(60)
    cut = drive.record()["id"]
    assert drive.outcomes().get("web1") == "ok"
    again = rolled_out(drive, SLOW, batch_size=2, lock_wait=60)
    assert again.rc == 0, again.output
    assert drive.record()["resumes"] == cut
    assert "web1" not in drive.results(), "the second run found it in place"
    with Load(drive.lab) as load:
        back = undone(drive)
    assert back.rc == 0, back.output
    load.check_nothing_lost()
    assert drive.running() == drive.recorded() == [OLD] * 5
    assert drive.is_settled()
