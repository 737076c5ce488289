"""Deployments without SSH, under load and with default-deny ACLs: each machine's own agent deploys."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from lab import VM, ConsulError, Lab, wait_until
from lab.testkit.ansible_run import Run, flat
from tests.fleet import CONSUL, reset
from tests.rollout.drive import VARIABLES, Drive, Load, RotationWatch

OLD, NEW = "1.0.0", "2.0.0"
ALL = {"web1", "web2", "web3", "web4"}
WITHOUT_URL = {"health_url": "", "health_match": "", "check_interval": 2}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """No sshd anywhere, and connections that are refused."""
    with Lab(vms=4, consul=CONSUL, ssh=False, agent="watch", acl=True, inventory_variables=VARIABLES) as running:
        yield running


@pytest.fixture
def fleet(lab: Lab) -> Lab:
    for vm in lab.vms:
        vm.deploy_agent.crash()
    reset(lab)
    for vm in lab.vms:
        vm.deploy_agent.reset()
    return lab


def status(vm: VM) -> dict[str, object]:
    found: dict[str, object] = json.loads(vm.site.consul.kv(f"nodes/{vm.name}/deployment/web/status") or "{}")
    return found


def reaches(vm: VM, *states: str, run: Run | None = None) -> None:
    def there() -> bool:
        assert run is None or run.process.poll() is None, run.stdout
        return status(vm).get("state") in states

    wait_until(f"{vm.name} is {states}", there, log=vm.deploy_agent.log)


def check_first_put_back(drive: Drive, load: Load) -> None:
    load.check_nothing_lost()
    assert drive.running() == [OLD] * 4
    assert drive.outcomes()["web1"] == "rolled_back"
    assert set(drive.outcomes().values()) <= {"rolled_back", "pending"}
    assert drive.deployed() == ["web1"]
    assert drive.record()["state"] == "failed"
    assert drive.is_settled()
    assert load.report.by_version.keys() == {OLD}, "the version that failed got traffic"


# -- what it does -------------------------------------------------------------------------------------------------


@pytest.mark.oldest
def test_new_version_without_ssh(drive: Drive) -> None:
    """An event is fired that nobody hears: it is only a hint."""
    with Load(drive.lab) as load:
        result = drive.run(NEW, kind="agent", batch_size=2, show_log="always", agent_event=True)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [NEW] * 4
    assert drive.recorded() == [NEW] * 4
    assert drive.recorded("previous") == [OLD] * 4
    assert set(drive.outcomes().values()) == {"ok"}
    assert drive.record()["state"] == "successful"
    assert drive.is_settled()
    assert f"web1 | web1: {NEW} started" in result.stdout
    for vm in drive.lab.vms:
        token = drive.lab.settings.tokens[f"deploy-{vm.name}"]
        assert token not in result.output
        for key in ("nodes/web9/deployment/web/version", "deploy/web/lock", "deploy/web/deployments/x/record"):
            with pytest.raises(ConsulError, match="403"):
                drive.lab.consul_put(f"kv/{key}", b"x", token=token)


def test_a_broken_version_is_put_back_and_what_it_printed_is_shown(drive: Drive) -> None:
    with Load(drive.lab) as load:
        result = drive.run("3.0.0-broken", kind="agent")
    assert result.rc != 0
    assert "The new process did not answer" in flat(result.output)
    assert "web1 | web1: 3.0.0-broken started" in result.stdout
    assert result.red == {"web1"}
    check_first_put_back(drive, load)
    steps = [step["state"] for step in drive.results()["web1"]["steps"]]
    assert steps[:5] == ["claimed", "draining", "deploying", "verifying", "failed"]
    assert steps[-1] == "done"


@pytest.mark.slow
def test_a_version_that_makes_errors_is_found_by_the_load_balancer(drive: Drive) -> None:
    """The controller asks it for this alone: each machine drains itself, by its own time."""
    stats = drive.lab.balancer.stats_url
    asked = {"batch_size": [1, "100%"], "bake_time": 20, "load_balancers": stats, "analysis": "load_balancers"}
    with drive.lab.load(rate=200):
        result = drive.run("3.0.0-flaky20", kind="agent", **asked)
    assert result.rc not in (0, 4), result.output
    assert ": worse (e " in result.output
    assert drive.running() == [OLD] * 4
    assert drive.is_settled()


@pytest.mark.slow
def test_a_machine_whose_agent_is_down_is_lost_and_does_not_deploy_later(drive: Drive) -> None:
    three = "web1:web2:web3"
    vm = drive.lab.vm("web2")
    vm.deploy_agent.stop()
    with Load(drive.lab) as load:
        result = drive.run(NEW, kind="agent", hosts=three, accept_deadline=3, failure_budget=1)
        assert result.rc != 0
        assert result.red == {"web2"}
        assert "web2 did not accept its request within 3 s" in flat(result.output)
        assert drive.outcomes() == {"web1": "ok", "web2": "lost", "web3": "ok"}
        vm.deploy_agent.start()
        time.sleep(3)
        assert drive.running() == [NEW, OLD, NEW, OLD]
        assert drive.is_settled()
        again = drive.run(NEW, kind="agent", hosts=three)
    assert again.rc == 0, again.output
    load.check_nothing_lost()
    assert drive.running() == [NEW] * 3 + [OLD]


# -- versions that fail -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "options", "reason"),
    [
        ("3.0.0-badafter3", {"min_healthy_time": 5}, "failing: version is broken"),
        ("3.0.0-slow30", {"healthy_deadline": 4}, "The new process did not answer"),
        ("3.0.0-deployfail", {}, "The deployment command exited with 3"),
        ("3.0.0-deployhang", {"deploy_timeout": 10}, "was ended after 10 s"),
    ],
    ids=["bad after a while", "too slow", "deployment fails", "deployment hangs"],
)
def test_first_host_fails(drive: Drive, version: str, options: dict[str, object], reason: str) -> None:
    with Load(drive.lab) as load:
        result = drive.run(version, kind="agent", **options)
    assert result.rc != 0
    assert reason in flat(result.output), result.output
    check_first_put_back(drive, load)


@pytest.mark.slow
def test_slow_start_gets_no_traffic_by_the_passing_of_before(drive: Drive) -> None:
    with Load(drive.lab) as load:
        result = drive.run(
            "3.0.0-slow5", kind="agent", hosts="web1:web2", batch_size=2, healthy_deadline=20, **WITHOUT_URL
        )
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == ["3.0.0-slow5"] * 2 + [OLD] * 2


@pytest.mark.slow
def test_an_application_that_registers_itself_again_gets_no_traffic_before_its_checks_pass(drive: Drive) -> None:
    with Load(drive.lab) as load:
        result = drive.run("2.0.0-reregister-slow2", kind="agent", healthy_deadline=20)
    assert result.rc == 0, result.output
    load.check_nothing_lost()


@pytest.mark.slow
def test_the_rollback_fails_too(drive: Drive) -> None:
    vm = drive.lab.vm("web1")
    vm.deploy_agent.configure(command=[str(vm.directory / "deploy"), "3.0.0-broken"])
    vm.deploy_agent.stop()
    vm.deploy_agent.start()
    with Load(drive.lab) as load:
        result = drive.run("3.0.0-broken", kind="agent")
    assert result.rc != 0
    assert "The rollback failed too" in flat(result.output)
    load.check_nothing_lost()
    assert drive.outcomes()["web1"] == "failed"
    assert drive.maintenance().keys() == {"web1"}
    assert not drive.holds_lock()
    assert load.report.by_version.keys() == {OLD}


@pytest.mark.slow
def test_within_the_budget_the_others_are_done(drive: Drive) -> None:
    new = "3.0.0-brokenon-web3"
    with Load(drive.lab) as load:
        result = drive.run(new, kind="agent", failure_budget=1, batch_size=2)
    assert result.rc != 0
    assert result.red == {"web3"}, result.output
    load.check_nothing_lost()
    assert drive.running() == [new, new, OLD, new]


@pytest.mark.slow
@pytest.mark.parametrize("new", ["3.0.0-badafter6", "3.0.0-brokenon-web3"])
def test_what_a_failed_rollout_has_changed_goes_back(drive: Drive, new: str) -> None:
    """One that turns bad in traffic, and one that fails on its third host."""
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(new, kind="agent", bake_time=8)
    assert result.rc != 0, result.output
    assert drive.running() == [OLD] * 4, result.output
    failed, back = drive.record("deploy"), drive.record("rollback")
    assert (failed["state"], back["state"]) == ("failed", "successful"), result.output
    assert back["undoes"] == failed["id"]
    assert {row.version for row in load.report.lost} <= {new}, str(load.report)
    assert {row.status for row in load.report.lost} <= {500}, str(load.report)
    if "brokenon" in new:
        load.check_nothing_lost()
        assert watch.fewest >= 2, "the minimum"
        assert result.red == {"web3"}, result.output
    assert drive.is_settled()


@pytest.mark.slow
def test_aborted_during_the_command(drive: Drive) -> None:
    """Its machine ends its turn, and goes back with the one that was done before."""
    new = "3.0.0-deployslow4"
    with Load(drive.lab) as load, drive.start(new, kind="agent") as run:
        wait_until("web2 deploys", lambda: drive.status("web2") == "deploying", 60)
        drive.lab.consul.call("PUT", "kv/deploy/web/control", b"abort")
        done = run.wait()
    load.check_nothing_lost()
    assert done.rc != 0, done.output
    assert drive.running() == [OLD] * 4, done.output
    assert drive.outcomes("deploy") == {"web1": "ok", "web2": "ok", "web3": "pending", "web4": "pending"}
    assert "aborted it" in drive.record("deploy")["description"]
    assert [run.version for run in drive.lab.vm("web2").deploys()] == [new, OLD]
    assert drive.record("rollback")["state"] == "successful"
    assert drive.is_settled()


@pytest.mark.slow
def test_killed_on_the_way_back_the_same_command_ends_it(drive: Drive) -> None:
    new = "3.0.0-brokenon-web4"
    with Load(drive.lab) as load:
        with drive.start(new, kind="agent", drain_time=2) as run:
            run.wait_for("PLAY [Roll back]", 120)
            reaches(drive.lab.vm("web3"), "draining", "deploying", run=run)
            run.send(signal.SIGKILL, group=True)
            run.process.wait()
        again = drive.run(new, kind="agent", lock_wait=60)
    assert "was interrupted. It is ended first." in flat(again.output), again.output
    assert again.rc != 0, again.output
    load.check_nothing_lost()
    assert drive.running() == [OLD] * 4, again.output
    assert drive.record("rollback")["state"] == "successful"
    assert drive.is_settled()


@pytest.mark.slow
def test_an_operators_maintenance_is_left_and_back_by_hand(drive: Drive) -> None:
    drive.lab.vm("web3").operator_maintenance("disk is being replaced")
    wait_until("it shows", lambda: bool(drive.maintenance()))
    assert drive.run(NEW, kind="agent", batch_size=2).rc == 0
    assert drive.maintenance() == {"web3": "disk is being replaced"}
    assert drive.running() == [NEW, NEW, OLD, NEW]
    back = drive.run(None, name="rollback", kind="agent", batch_size=2)
    assert back.rc == 0, back.output
    assert drive.running() == [OLD] * 4
    assert drive.recorded("previous") == [None] * 4


# -- killed, restarted, gone --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_agent_killed_at_each_step(drive: Drive) -> None:
    version = "2.0.0-deployslow2"
    with Load(drive.lab) as load:
        run = drive.start(version, kind="agent", drain_time=2, min_healthy_time=2)
        with run:
            for vm, step in zip(drive.lab.vms, ("draining", "deploying", "verifying", "returning"), strict=True):
                reaches(vm, step, *(("done", "ok") if step == "returning" else ()), run=run)
                vm.deploy_agent.stop()
                vm.deploy_agent.start()
            result = run.wait()
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [version] * 4
    assert [len(vm.deploys()) for vm in drive.lab.vms] == [1] * 4
    assert drive.is_settled()


@pytest.mark.slow
def test_the_consul_agent_restarted_and_reloaded_in_the_middle(drive: Drive) -> None:
    version = "2.0.0-deployslow3"
    with Load(drive.lab) as load:
        run = drive.start(version, kind="agent", hosts="web1:web2", healthy_deadline=30)
        with run:
            first, second = drive.lab.vms[:2]
            reaches(first, "deploying", run=run)
            first.kill_agent()
            first.start_agent()
            reaches(second, "deploying", run=run)
            second.reload_agent()
            result = run.wait()
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [version] * 2 + [OLD] * 2
    assert drive.is_settled()


@pytest.mark.slow
def test_a_machine_that_dies_in_its_turn_is_lost_and_the_next_run_goes_on(drive: Drive) -> None:
    version = "2.0.0-deployslow5"
    vm = drive.lab.vm("web1")
    with Load(drive.lab) as load:
        run = drive.start(version, kind="agent", accept_deadline=3)
        with run:
            reaches(vm, "deploying", run=run)
            wait_until("the command runs", lambda: bool(vm.deploys()))
            vm.kill_agent()
            vm.deploy_agent.crash()
            result = run.wait()
        assert result.rc != 0
        assert drive.outcomes()["web1"] == "lost"
        assert not drive.holds_lock()
        vm.start_agent()
        vm.deploy_agent.start()
        time.sleep(3)
        assert drive.maintenance().keys() == {"web1"}, "which version it runs is not known"
        again = drive.run(version, kind="agent")
    assert again.rc == 0, again.output
    load.check_nothing_lost()
    assert drive.running() == [version] * 4
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["draining", "deploying", "verifying"])
def test_the_controller_killed_and_recover(drive: Drive, step: str) -> None:
    """What the agents have begun they end themselves; what recover meets before that is verified again."""
    version = "2.0.0-deployslow3"
    with Load(drive.lab) as load:
        run = drive.start(version, kind="agent", batch_size=2, drain_time=2, min_healthy_time=2)
        with run:
            for vm in drive.lab.vms[:2]:
                reaches(vm, step, run=run)
            run.send(signal.SIGKILL, group=True)
            run.process.wait()
        told = drive.run(None, "--check", name="recover", kind="agent")
        cleared = drive.run(None, name="recover", kind="agent", lock_wait=60, min_healthy_time=1)
        assert (told.rc, cleared.rc) == (0, 0), told.output + cleared.output
        assert drive.is_settled()
        assert drive.record()["state"] == "interrupted"
        if step != "draining":  # after which it depends on who is quicker
            assert drive.recorded()[:2] == [version] * 2
        again = drive.run(version, kind="agent", batch_size=2)
    assert again.rc == 0, again.output
    load.check_nothing_lost()
    assert drive.running() == drive.recorded() == [version] * 4
    assert [len(vm.deploys()) for vm in drive.lab.vms] == [1] * 4


@pytest.mark.slow
@pytest.mark.parametrize("step", ["draining", "deploying", "verifying"])
def test_the_controller_killed_and_the_same_again(drive: Drive, step: str) -> None:
    version = "2.0.0-deployslow3"
    vm = drive.lab.vm("web1")
    with Load(drive.lab) as load:
        run = drive.start(version, kind="agent", drain_time=2, min_healthy_time=2)
        with run:
            reaches(vm, step, run=run)
            run.send(signal.SIGKILL, group=True)
            run.process.wait()
        again = drive.run(version, kind="agent", lock_wait=60)
    assert again.rc == 0, again.output
    load.check_nothing_lost()
    assert drive.running() == [version] * 4
    assert drive.is_settled()
    runs = sorted((one.start, one.end or 0) for one in vm.deploys())
    assert all(before[1] <= after[0] for before, after in pairwise(runs)), runs


@pytest.mark.slow
def test_the_machines_restart_the_service_themselves(drive: Drive) -> None:
    before = [vm.app_pid() for vm in drive.lab.vms]
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(None, name="restart", kind="agent", batch_size=2)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert all(one != vm.app_pid() for one, vm in zip(before, drive.lab.vms, strict=True))
    assert drive.recorded() == [None] * 4
    assert drive.deployed() == []
    assert watch.fewest >= 2
    assert drive.is_settled()
    refused = drive.run(None, name="reboot", kind="agent")
    assert "A reboot is made over the hosts' connections, and rollout_mode is agent." in flat(refused.output)
