"""What goes wrong on a host is put back by itself, without a lost request, and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rollout.drive import Drive, Load, flat

OLD = "1.0.0"
ALL = {"web1", "web2", "web3", "web4", "web5"}
# Between a version's own faults and ours there must be no doubt about what was asked of the health URL.
WITHOUT_URL = {"health_url": "", "health_match": "", "check_interval": 2}


def check_first_put_back(drive: Drive, load: Load, version: str) -> None:
    """The first host runs the old version again, and the budget of 0 kept the others out of it."""
    load.check_nothing_lost()
    assert drive.running() == [OLD] * 5
    assert version not in drive.recorded()
    assert drive.deployed() == ["web1"]
    assert drive.outcomes()["web1"] == "rolled_back"
    assert set(drive.outcomes().values()) <= {"rolled_back", "pending"}
    assert drive.record()["state"] == "failed"
    assert drive.is_settled()


@pytest.mark.parametrize(
    ("version", "options", "reason"),
    [
        pytest.param("3.0.0-broken", {}, "The new process did not answer", marks=pytest.mark.oldest),
        ("3.0.0-badafter3", {"min_healthy_time": 5}, "failing: version is broken"),
        ("3.0.0-slow30", {"healthy_deadline": 4}, "The new process did not answer"),
        ("3.0.0-deployfail", {}, "Unable to locate package app=3.0.0-deployfail"),
        ("3.0.0-deployhang", {"deploy_timeout": 2}, "was ended after 2 s"),
    ],
    ids=["broken", "bad after a while", "too slow", "deployment fails", "deployment hangs"],
)
def test_first_host_fails(drive: Drive, version: str, options: dict[str, object], reason: str) -> None:
    with Load(drive.lab) as load:
        result = drive.run(version, kind="ssh", **options)
    assert result.rc != 0
    assert reason in flat(result.output), result.output
    assert result.red == ALL, "hosts that were never reached are not done either"
    check_first_put_back(drive, load, version)
    assert load.report.by_version.keys() == {OLD}, "the version that failed got traffic"


def test_smoke_test_fails(drive: Drive, tmp_path: Path) -> None:
    smoke = tmp_path / "smoke.yml"
    smoke.write_text(
        "- name: Pages are there\n  ansible.builtin.fail:\n    msg: the front page is blank\n"
        "  when: deploy_reason == 'deploy'\n",
        encoding="utf-8",
    )
    with Load(drive.lab) as load:
        result = drive.run("3.0.0", smoke_tasks=str(smoke))
    assert result.rc != 0
    assert "the front page is blank" in flat(result.output)
    assert result.red == ALL, "hosts that were never reached are not done either"
    check_first_put_back(drive, load, "3.0.0")
    assert load.report.by_version.keys() == {OLD}


def test_within_the_budget_the_others_are_done(drive: Drive) -> None:
    new = "3.0.0-brokenon-web3"
    with Load(drive.lab) as load:
        result = drive.run(new, failure_budget=1, batch_size=2)
    assert result.rc != 0
    assert result.red == {"web3"}, result.output
    load.check_nothing_lost()
    assert drive.running() == [new, new, OLD, new, new]
    assert drive.recorded()[:2] == [new] * 2
    assert drive.recorded()[3:] == [new] * 2
    assert drive.outcomes() == {"web1": "ok", "web2": "ok", "web3": "rolled_back", "web4": "ok", "web5": "ok"}
    assert drive.record()["state"] == "failed"
    assert drive.is_settled()


def test_slow_start_gets_no_traffic_by_the_passing_of_before(drive: Drive) -> None:
    """Without a health URL only the age of a check's answer tells the old process from the new one."""
    with Load(drive.lab) as load:
        result = drive.run("3.0.0-slow3", hosts="web1:web2", batch_size=2, healthy_deadline=20, **WITHOUT_URL)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == ["3.0.0-slow3"] * 2 + [OLD] * 3
    assert drive.is_settled()


def test_rollback_fails_too(drive: Drive) -> None:
    """A broken instance gets no traffic; the rest keeps serving."""
    with Load(drive.lab) as load:
        result = drive.run("3.0.0-broken", deploy_command="{{ lab_vm_dir }}/deploy 3.0.0-broken")
    assert result.rc != 0
    assert result.red == ALL, "hosts that were never reached are not done either"
    assert "The rollback failed too" in flat(result.output)
    assert "stays in maintenance" in flat(result.output)
    load.check_nothing_lost()
    assert drive.outcomes()["web1"] == "failed"
    assert drive.maintenance().keys() == {"web1"}
    assert drive.running() == ["3.0.0-broken"] + [OLD] * 4
    assert not drive.holds_lock()
    assert load.report.by_version.keys() == {OLD}
