"""A rollout watches what it has changed; where it fails it puts all of it back, by the same run, under load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import seconds_between
from lab import Lab, wait_until
from lab.testkit.ansible_run import Ansible, Result, flat
from tests.fleet import CONSUL
from tests.rollout.drive import VARIABLES, Drive, Load, RotationWatch, once
from tests.rollout.test_killed import kill

OLD = "1.0.0"
BAD = "3.0.0-badafter6"
"""It is well for longer than a host's turn takes, and then answers 500."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=6, consul=CONSUL, inventory_variables=VARIABLES) as running:
        yield running


def had_it(drive: Drive, version: str) -> list[str]:
    """The VMs that the version was ever deployed to."""
    return [vm.name for vm in drive.lab.vms if any(run.version == version for run in vm.deploys())]


def check_back(drive: Drive, result: Result, version: str) -> None:
    """All that had the version are back, the lock is free, and who watches is told by the exit code."""
    assert result.rc not in (0, 4), result.output
    assert drive.running() == [OLD] * 6, result.output
    assert version not in drive.recorded()
    failed, back = drive.record("deploy"), drive.record("rollback")
    assert failed["state"] == "failed", result.output
    assert failed["version"] == version
    assert back["undoes"] == failed["id"]
    assert back["automatic"]
    assert back["state"] == "successful", result.output
    assert set(drive.outcomes("rollback").values()) <= {"ok", "current"}
    assert "web: 6 of 6 in rotation, all on 1.0.0." in result.output, result.output
    assert drive.is_settled()


def check_regressed(drive: Drive, result: Result, load: Load, watch: RotationWatch, version: str) -> None:
    """The record names the host that regressed and its check; no request was lost but those that it answered itself."""
    check_back(drive, result, version)
    assert watch.out == set(had_it(drive, version)), "the others were left alone"
    regressed = [name for name, outcome in drive.outcomes("deploy").items() if outcome == "regressed"]
    assert regressed
    for name in regressed:
        assert name in result.red
        told = drive.results("deploy")[name]["error"]
        assert "web answers is critical" in told
        assert "failing: version is broken" in told, told
        assert told in flat(result.output) or name != regressed[0], result.output
        assert name in drive.record("deploy")["description"]
    check_losses(load, watch, version)


def check_losses(load: Load, watch: RotationWatch, version: str) -> None:
    """HAProxy follows within 0.2 s that a host is out, by its check or by the drain on its way back."""
    for row in load.report.lost:
        assert (row.outcome, row.status, row.version) == ("status", 500, version), str(load.report)
        name = row.instance or ""
        out = min(watch.failing.get(name, float("inf")), watch.seen[name][0])
        assert row.sent < out + 0.5, str(load.report)


def check_nobody_began_within(drive: Drive, grace: float) -> None:
    """By what is recorded, in whole seconds: it was bad for the grace before that was sure, and nobody began then."""
    ended = drive.results("deploy").values()
    found = next(one["steps"][-1] for one in ended if one["outcome"] == "regressed")
    began = [seconds_between(one["started"], found["at"]) or 0.0 for one in ended if one["started"]]
    assert min(began) >= grace - 1


# -- a version that turns bad in traffic --------------------------------------------------------------------------


def test_it_turns_bad_while_others_have_their_turns(drive: Drive) -> None:
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(BAD, watch_grace=3)
    check_regressed(drive, result, load, watch, BAD)
    assert 1 < len(had_it(drive, BAD)) < 6
    check_nobody_began_within(drive, 3)


def test_a_canary_that_turns_bad_while_it_bakes_was_the_only_one(drive: Drive) -> None:
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(BAD, batch_size=[1, "100%"], bake_time=10)
    check_regressed(drive, result, load, watch, BAD)
    assert had_it(drive, BAD) == ["web1"]


@pytest.mark.slow
def test_it_turns_bad_after_the_last_host(drive: Drive) -> None:
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(BAD, batch_size=3, hosts="web1:web2:web3", bake_time=12)
    check_regressed(drive, result, load, watch, BAD)
    assert had_it(drive, BAD) == ["web1", "web2", "web3"]


# -- what is no regression ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_flap_is_none(drive: Drive) -> None:
    new = "2.0.0-badafter5-badfor2"
    with Load(drive.lab):
        result = drive.run(new, watch_grace=5, bake_time=8, hosts="web1:web2:web3")
    assert result.rc == 0, result.output
    assert drive.running() == [new] * 3 + [OLD] * 3
    assert "healthy again" in result.output
    assert drive.record()["state"] == "successful"


@pytest.mark.slow
def test_an_operators_maintenance_is_none(drive: Drive) -> None:
    web1 = drive.lab.vm("web1")
    with (
        Load(drive.lab) as load,
        once("web1 is done", lambda: drive.outcomes().get("web1") == "ok", lambda: web1.operator_maintenance("disk")),
    ):
        result = drive.run("2.0.0", hosts="web1:web2:web3", bake_time=3)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert set(drive.outcomes().values()) == {"ok"}
    assert drive.maintenance() == {"web1": "disk"}


@pytest.mark.slow
def test_a_host_whose_consul_agent_is_killed_is_lost(drive: Drive) -> None:
    web1 = drive.lab.vm("web1")
    with once("web1 is done", lambda: drive.outcomes().get("web1") == "ok", web1.kill_agent):
        result = drive.run("2.0.0", bake_time=20, check_interval=2, healthy_deadline=20)
    assert result.rc != 0, result.output
    assert drive.outcomes("deploy")["web1"] == "lost", result.output
    assert "regressed" not in drive.outcomes("deploy").values()
    assert "Its Consul agent is lost since it was changed" in flat(result.output)
    assert not drive.holds_lock()


@pytest.mark.slow
def test_where_old_and_new_fail_alike_it_pauses(drive: Drive) -> None:
    """What all of them depend on is gone: the new version is not the reason, and the old one would do no better."""
    options: dict[str, Any] = {"hosts": "web1:web2:web3", "batch_size": [1, "100%"], "bake_time": 12}
    with once("web1 is done", lambda: drive.outcomes().get("web1") == "ok", lambda: drive.lab.set_outage(True)):
        result = drive.run("2.0.0", **options)
    assert "so that the new version is not the reason" in flat(result.output), result.output
    assert "no database" in flat(result.output), result.output
    assert drive.record()["state"] == "paused"
    assert drive.running() == ["2.0.0", *[OLD] * 5]
    assert drive.outcomes()["web1"] == "ok"
    assert drive.is_settled()
    drive.lab.set_outage(False)
    drive.lab.wait_passing()
    assert drive.run(None, "-e", "control_action=resume", name="control").rc == 0
    again = drive.run("2.0.0", **options)
    assert again.rc == 0, again.output
    assert drive.running() == [*["2.0.0"] * 3, *[OLD] * 3]


@pytest.mark.slow
def test_where_it_meets_hosts_in_their_turns_these_wait_in_maintenance(drive: Drive) -> None:
    """Neither version would do better now, so that nothing goes back; the same start goes on once they are well."""
    with once("web3 is deployed", lambda: bool(drive.lab.vm("web3").deploys()), lambda: drive.lab.set_outage(True)):
        result = drive.run("2.0.0", batch_size=2, healthy_deadline=4)
    assert result.rc == 0, result.output
    assert "web3 failed in its turn" in flat(result.output), result.output
    assert "instances of web fails alike, so that the new version is not the reason" in flat(result.output)
    assert drive.record()["state"] == "paused"
    assert set(drive.outcomes().values()) == {"ok", "deferred", "pending"}
    assert drive.maintenance().keys() >= {"web3"}
    assert not any(run.reason == "rollback" for vm in drive.lab.vms for run in vm.deploys())
    assert not drive.holds_lock()
    assert drive.run(None, "-e", "control_action=resume", name="control").rc == 0
    again = drive.run("2.0.0", batch_size=2)
    assert "no instance of web is healthy yet" in flat(again.output), again.output
    drive.lab.set_outage(False)
    drive.lab.wait_passing(6 - len(drive.maintenance()))
    with Load(drive.lab) as load:
        again = drive.run("2.0.0", batch_size=2)
    load.check_nothing_lost()
    assert again.rc == 0, again.output
    assert drive.running() == ["2.0.0"] * 6
    assert set(drive.outcomes().values()) == {"ok"}
    assert drive.is_settled()


@pytest.mark.slow
def test_where_no_old_one_is_left_the_first_that_go_back_tell(drive: Drive) -> None:
    """They do not work on the old version either: the others are left alone, and serve once the trouble is over."""

    def all_done() -> bool:
        return list(drive.outcomes().values()) == ["ok"] * 6

    with once("all are done", all_done, lambda: drive.lab.set_outage(True)):
        result = drive.run("2.0.0", batch_size=3, bake_time=20, healthy_deadline=4)
    assert result.rc != 0, result.output
    assert "no instance of web works, on its old version neither" in flat(result.output), result.output
    assert drive.record("rollback")["state"] == "failed"
    assert len(drive.maintenance()) == 2
    drive.lab.set_outage(False)
    drive.lab.wait_passing(4)
    back = drive.run(None, name="rollback")
    assert back.rc == 0, back.output
    assert drive.running() == [OLD] * 6
    assert drive.is_settled()


# -- the way back -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_fifth_of_six_fails(drive: Drive) -> None:
    new = "3.0.0-brokenon-web5"
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(new)
    load.check_nothing_lost()
    check_back(drive, result, new)
    assert result.red == {"web5"}, result.output
    assert watch.fewest >= 3
    assert drive.outcomes("deploy") == {
        **{f"web{number}": "ok" for number in range(1, 5)},
        "web5": "rolled_back",
        "web6": "pending",
    }
    assert drive.record()["plan"]["batches"] == [["web4", "web3", "web2", "web1"]]
    assert drive.lab.vm("web6").deploys() == []
    again = drive.run(None, name="rollback")
    assert again.rc == 0
    assert "nothing to undo: all 6 hosts run 1.0.0" in flat(again.output), again.output


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_third_failure_spends_a_budget_of_two(drive: Drive, batch_size: int) -> None:
    new = "3.0.0-brokenon-web2-brokenon-web3-brokenon-web5"
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(new, failure_budget=2, batch_size=batch_size)
    load.check_nothing_lost()
    check_back(drive, result, new)
    assert result.red == {"web2", "web3", "web5"}, result.output
    assert watch.fewest >= 3


@pytest.mark.slow
def test_one_that_cannot_go_back_stays_out_and_is_named(drive: Drive) -> None:
    """The version that web2 had does not start there any more."""
    new = "3.0.0-brokenon-web4"
    command = (
        "{{ lab_vm_dir }}/deploy {{ '1.0.0-broken' if inventory_hostname == 'web2' and deploy_reason == 'rollback' "
        "else deploy_version }}"
    )
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(new, deploy_command=command)
    load.check_nothing_lost()
    assert result.rc != 0
    assert result.red == {"web2", "web4"}, result.output
    assert drive.running() == [OLD, "1.0.0-broken", *[OLD] * 4]
    assert drive.outcomes("rollback") == {"web1": "ok", "web2": "failed", "web3": "ok"} | {
        name: "current" for name in ("web4", "web5", "web6") if name in drive.results("rollback")
    }
    assert drive.maintenance().keys() == {"web2"}
    assert "Out of rotation: web2" in result.output
    assert not drive.holds_lock()
    assert watch.fewest >= 3


@pytest.mark.slow
def test_one_that_cannot_be_reached_any_more_is_named(drive: Drive) -> None:
    new = "3.0.0-brokenon-web4"
    web2 = drive.lab.vm("web2")
    with (
        Load(drive.lab) as load,
        once("web2 is done", lambda: drive.outcomes().get("web2") == "ok", web2.stop_sshd),
    ):
        result = drive.run(new, kind="ssh")
    load.check_nothing_lost()
    assert result.rc != 0
    assert drive.running() == [OLD, new, *[OLD] * 4], result.output
    assert {"web2", "web4"} <= result.red, result.output
    assert drive.outcomes("rollback")["web2"] in ("untouched", "lost", "skipped"), result.output
    assert not drive.holds_lock()
    web2.start_sshd()
    again = drive.run(None, name="rollback", kind="ssh")
    assert again.rc == 0, again.output
    assert drive.running() == [OLD] * 6
    assert drive.is_settled()


def rolls_back(drive: Drive) -> bool:
    """Whether the way back is under way, and no host has ended its turn."""
    return any(run.reason == "rollback" and run.end is None for vm in drive.lab.vms for run in vm.deploys())


SLOW_BACK = "{{ lab_vm_dir }}/deploy {{ deploy_version }} && sleep {{ 2 if deploy_reason == 'rollback' else 0 }}"
"""Time to meet the way back in."""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "everything"])
@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_killed_on_the_way_back_the_same_command_ends_it(drive: Drive, how: str, kind: str) -> None:
    new = "3.0.0-brokenon-web4"
    options: dict[str, Any] = {"deploy_command": f"sh -c '{SLOW_BACK}'", "lock_wait": 60}
    with Load(drive.lab) as load, drive.start(new, kind=kind, **options) as run:
        wait_until("it rolls back", lambda: bool(drive.record("rollback").get("id")), 120)
        wait_until(
            "a host goes back",
            lambda: any(name in drive.maintenance() for name in ("web1", "web2", "web3")),
            30,
        )
        kill(drive, run, how)
        cut = drive.record("rollback")["id"]
        result = drive.run(new, kind=kind, **options)
    load.check_nothing_lost()
    assert "was interrupted. It is ended first." in flat(result.output), result.output
    assert drive.record("rollback")["id"] != cut
    check_back(drive, result, new)
    assert drive.lab.vm("web5").deploys() == []
    forth = drive.run(new, hosts="web1", kind=kind)
    assert forth.rc == 0, forth.output
    assert "is ended first" not in forth.output


@pytest.mark.slow
def test_killed_as_it_had_failed_the_same_command_takes_all_back(drive: Drive) -> None:
    """Before its rollback was even planned: no further host gets the version meanwhile."""
    new = "3.0.0-brokenon-web4"
    with Load(drive.lab) as load:
        with drive.start(new) as run:
            wait_until("it has failed", lambda: drive.outcomes("deploy").get("web4") == "rolled_back", 120)
            kill(drive, run, "everything")
        result = drive.run(new, lock_wait=60)
    load.check_nothing_lost()
    assert "was interrupted. It is ended first." in flat(result.output), result.output
    assert result.rc != 0, result.output
    assert drive.running() == [OLD] * 6, result.output
    assert drive.lab.vm("web5").deploys() == []
    assert drive.is_settled()
    assert drive.run(new, hosts="web1").rc == 0, "it is ended once"


@pytest.mark.slow
def test_in_batches(drive: Drive, tmp_path: Path) -> None:
    """With tasks of the user's between the steps, hosts go in batches, forth and back."""
    tasks = tmp_path / "deploy.yml"
    tasks.write_text(
        "- name: Install\n"
        "  ansible.builtin.command: '{{ lab_vm_dir }}/deploy {{ deploy_version }}'\n"
        "  environment:\n    DEPLOY_REASON: '{{ deploy_reason }}'\n    DEPLOY_ID: '{{ deploy_id }}'\n",
        encoding="utf-8",
    )
    new = "3.0.0-brokenon-web5"
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(new, deploy_command="", deploy_tasks=str(tasks), batch_size=2, kind="ssh")
    load.check_nothing_lost()
    check_back(drive, result, new)
    assert result.red == {"web5"}, result.output
    assert watch.fewest >= 3


@pytest.mark.slow
def test_in_batches_it_turns_bad(drive: Drive, tmp_path: Path) -> None:
    tasks = tmp_path / "deploy.yml"
    tasks.write_text(
        "- name: Install\n  ansible.builtin.command: '{{ lab_vm_dir }}/deploy {{ deploy_version }}'\n",
        encoding="utf-8",
    )
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(
            BAD, deploy_command="", deploy_tasks=str(tasks), batch_size=[1, "100%"], bake_time=10, kind="ssh"
        )
    check_regressed(drive, result, load, watch, BAD)
    assert had_it(drive, BAD) == ["web1"]


@pytest.mark.slow
def test_what_an_interrupted_run_had_changed_goes_back_too(drive: Drive) -> None:
    new = "3.0.0-brokenon-web5-deployslow1"
    with Load(drive.lab) as load:
        with drive.start(new) as run:
            wait_until("web3 begins", lambda: bool(drive.lab.vm("web3").deploys()), 120)
            kill(drive, run, "SIGKILL")
        cut = drive.record()["id"]
        result = drive.run(new, lock_wait=60)
    load.check_nothing_lost()
    check_back(drive, result, new)
    assert drive.record("deploy")["resumes"] == cut
    assert {name for name, outcome in drive.outcomes("rollback").items() if outcome == "ok"} == {
        "web1",
        "web2",
        "web3",
        "web4",
    }


@pytest.mark.slow
def test_how_long_the_way_back_takes(ansible: Ansible) -> None:
    """One at a time over eight hosts, whose deployments take a second; the ninth fails. For figures run it with -s."""
    old, new = "1.0.0-deployslow1", "3.0.0-deployslow1-brokenon-web9"
    with Lab(vms=9, version=old, consul=CONSUL, inventory_variables=VARIABLES) as lab:
        drive = Drive(ansible, lab)
        with Load(lab) as load, RotationWatch(lab) as watch:
            result = drive.run(new)
        load.check_nothing_lost()
        assert drive.running() == [old] * 9, result.output
        assert watch.fewest >= 5, "the minimum"
        began = [vm.deploys()[0].start for vm in lab.vms]
        forth = began[-1] - began[0]
        seen = [watch.seen[vm.name] for vm in lab.vms[:-1]]
        back = max(one[1] for one in seen) - min(one[0] for one in seen)
    print(f"\neight hosts: forth {forth:.1f} s, back {back:.1f} s ({back / forth:.2f}); {watch.fewest} of 9 at least")
