"""The Consul leader dies in the middle of a rollout: it goes on with the next one, and no request is lost.

The shorter telling of it, for each run of the tests, is in test_closed.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lab import ConsulError, Lab, Server, wait_until
from tests.fleet import CONSUL
from tests.rollout.drive import Drive, Load

OLD = "1.0.0"
NEW = "2.0.0-deployslow2-slow2"
"""Its deployment command takes two seconds, and so does its start: time to meet a run in each of its steps."""
HOSTS = ["web1", "web2", "web3"]

STEPS: dict[str, Callable[[Drive], bool]] = {
    "drain": lambda drive: "web1" in drive.maintenance(),
    "deploy": lambda drive: bool(drive.lab.vm("web1").deploys()),
    "verify": lambda drive: drive.lab.vm("web1").running_version() == NEW,
    "return": lambda drive: drive.status("web1") in ("returning", "ok"),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=5, servers=3, consul=CONSUL) as running:
        yield running


def kill_leader(lab: Lab) -> Server:
    """kill -9; returns when another one leads."""
    leader = lab.leader()
    assert leader is not None
    leader.kill()
    wait_until("another server leads", lambda: lab.leader() not in (None, leader), 60)
    return leader


def can_lose_one(lab: Lab) -> bool:
    """Whether the cluster has three servers with a vote: one that came back gets its vote some 10 s later."""
    try:
        return int(lab.consul_get("operator/autopilot/health")["FailureTolerance"]) >= 1
    except ConsulError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_the_leader_dies(drive: Drive, step: str) -> None:
    lab = drive.lab
    wait_until("a server can be lost", lambda: can_lose_one(lab))
    with Load(lab) as load:
        with drive.start(NEW, kind="ssh", hosts=HOSTS, batch_size=2) as run:
            wait_until(f"it is at {step}", lambda: STEPS[step](drive), 60)
            killed = kill_leader(lab)
            result = run.wait()
        assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert not lab.unit_runs(f"{killed.name}.consul"), "it was back before the end"
    assert drive.running() == [NEW] * 3 + [OLD] * 2
    assert drive.recorded()[:3] == [NEW] * 3
    assert drive.record()["state"] == "successful"
    assert drive.is_settled()


@pytest.mark.slow
def test_the_leader_dies_while_what_was_changed_is_watched(drive: Drive) -> None:
    """It is watched all the same: what turns bad after that goes back."""
    lab, new = drive.lab, "3.0.0-badafter30"
    wait_until("a server can be lost", lambda: can_lose_one(lab))
    with drive.start(new, hosts=HOSTS, batch_size=3, min_healthy=2, bake_time=60) as run:
        run.wait_for("baking for", 120)
        kill_leader(lab)
        result = run.wait()
    assert result.rc != 0, result.output
    assert drive.running() == [OLD] * 5, result.output
    assert drive.record("deploy")["state"] == "failed"
    assert "regressed" in drive.outcomes("deploy").values()
    assert drive.record("rollback")["state"] == "successful", result.output
    assert drive.is_settled()


CANARY = {"hosts": HOSTS, "batch_size": [1, "100%"], "pause_after": [1], "bake_time": 1}


@pytest.mark.slow
def test_the_leader_dies_while_a_run_waits_to_be_promoted(drive: Drive) -> None:
    lab, new = drive.lab, "2.0.0"
    wait_until("a server can be lost", lambda: can_lose_one(lab))
    with Load(lab) as load, drive.start(new, **CANARY, pause_wait=600) as run:
        run.wait_for("is paused", 120)
        kill_leader(lab)
        assert drive.run(None, "-e", "control_action=promote", name="control").rc == 0
        result = run.wait()
    load.check_nothing_lost()
    assert result.rc == 0, result.output
    assert drive.running() == [new] * 3 + [OLD] * 2
    assert drive.record()["state"] == "successful"
    assert drive.is_settled()


@pytest.mark.slow
def test_the_leader_dies_while_nothing_stands_for_a_paused_one_but_its_record(drive: Drive) -> None:
    lab, new = drive.lab, "2.0.0"
    wait_until("a server can be lost", lambda: can_lose_one(lab))
    assert drive.run(new, **CANARY).rc == 0
    paused = drive.record()
    assert paused["state"] == "paused"
    kill_leader(lab)
    still = drive.run(new, **CANARY)
    assert (still.rc, drive.record()["state"]) == (0, "paused"), still.output
    assert drive.running() == [new] + [OLD] * 4
    assert drive.run(None, "-e", "control_action=promote", name="control").rc == 0
    with Load(lab) as load:
        result = drive.run(new, **CANARY)
    load.check_nothing_lost()
    assert result.rc == 0, result.output
    assert drive.running() == [new] * 3 + [OLD] * 2
    assert (drive.record()["id"], drive.record()["state"]) == (paused["id"], "successful")
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["planned", "drain", "deploy"])
def test_the_leader_dies_on_the_way_back(drive: Drive, step: str) -> None:
    lab, new = drive.lab, "3.0.0-brokenon-web3"
    wait_until("a server can be lost", lambda: can_lose_one(lab))
    going_back: dict[str, Callable[[], bool]] = {
        "planned": lambda: bool(drive.record("rollback")),
        "drain": lambda: any(drive.status(name) == "draining" for name in drive.outcomes("deploy")),
        "deploy": lambda: any(run.reason == "rollback" for run in drive.lab.vm("web1").deploys()),
    }
    with Load(lab) as load, drive.start(new, kind="ssh", hosts=HOSTS, drain_time=2) as run:
        run.wait_for("PLAY [Roll back]" if step == "drain" else "PLAY [Watch]", 120)
        wait_until(f"it is at {step}", going_back[step], 60)
        kill_leader(lab)
        result = run.wait()
    load.check_nothing_lost()
    assert result.rc != 0, result.output
    assert result.red == {"web3"}, result.output
    assert drive.running() == [OLD] * 5, result.output
    assert drive.record("deploy")["state"] == "failed"
    assert drive.record("rollback")["state"] == "successful", result.output
    assert drive.is_settled()
