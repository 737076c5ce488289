"""What goes wrong on a host is put back by itself, without a lost request, and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import wait_until
from lab.testkit.ansible_run import Result, flat
from tests.rollout.drive import Drive, Load

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
        *(
            pytest.param(version, options, reason, marks=pytest.mark.slow)
            for version, options, reason in (
                ("3.0.0-badafter3", {"min_healthy_time": 5}, "failing: version is broken"),
                ("3.0.0-slow30", {"healthy_deadline": 4}, "The new process did not answer"),
                ("3.0.0-deployfail", {}, "Unable to locate package app=3.0.0-deployfail"),
                ("3.0.0-deployhang", {"deploy_timeout": 10}, "was ended after 10 s"),
            )
        ),
    ],
    ids=["broken", "bad after a while", "too slow", "deployment fails", "deployment hangs"],
)
def test_first_host_fails(drive: Drive, version: str, options: dict[str, object], reason: str) -> None:
    with Load(drive.lab) as load:
        result = drive.run(version, kind="ssh", **options)
    assert result.rc != 0
    assert reason in flat(result.output), result.output
    assert result.red == {"web1"}, "hosts that were not begun have no problem of their own"
    assert "goes back now" not in result.output, "what has failed is back already"
    check_first_put_back(drive, load, version)
    assert load.report.by_version.keys() == {OLD}, "the version that failed got traffic"


@pytest.mark.slow
def test_each_host_fails_in_its_own_way(drive: Drive) -> None:
    """At the same time, within a budget that lets all of them begin. Each has a run of its own in the slow cases."""
    ways = {
        "web1": ("-badafter3", "failing: version is broken"),
        "web2": ("-slow30", "The new process did not answer"),
        "web3": ("-deployfail", "Unable to locate package app=3.0.0-deployfail"),
        "web4": ("-deployhang", "was ended after 10 s"),
    }
    suffixes = {name: suffix for name, (suffix, _reason) in ways.items()}
    way = f"{{{{ {suffixes}[inventory_hostname] if deploy_version == '3.0.0' else '' }}}}"
    with Load(drive.lab) as load:
        result = drive.run(
            "3.0.0",
            kind="ssh",
            hosts=list(ways),
            batch_size=4,
            failure_budget=4,
            min_healthy=1,
            min_healthy_time=5,
            deploy_timeout=10,
            deploy_command=f"{{{{ lab_vm_dir }}}}/deploy {{{{ deploy_version }}}}{way}",
            health_match='"version": "{{ deploy_version }}',
        )
    assert result.rc != 0
    load.check_nothing_lost()
    told = {name: flat(f"{one['error']} {one.get('output')}") for name, one in drive.results().items()}
    for name, (_suffix, reason) in ways.items():
        assert reason in told[name], told
        assert reason in flat(result.output), result.output
    assert result.red == ways.keys()
    assert drive.outcomes() == dict.fromkeys(ways, "rolled_back")
    assert drive.running() == [OLD] * 5
    assert drive.record()["state"] == "failed"
    assert drive.is_settled()
    assert load.report.by_version.keys() == {OLD}, "a version that failed got traffic"


@pytest.mark.slow
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
    assert result.red == {"web1"}, "hosts that were not begun have no problem of their own"
    check_first_put_back(drive, load, "3.0.0")
    assert load.report.by_version.keys() == {OLD}


@pytest.mark.slow
def test_a_verdict_is_told_without_consul(drive: Drive, tmp_path: Path) -> None:
    at_end, gone = tmp_path / "at-end", tmp_path / "gone"
    hook = tmp_path / "after_batch.yml"
    hook.write_text(
        f"- name: Tell the test\n  ansible.builtin.file:\n    path: {at_end}\n    state: touch\n    mode: '0600'\n"
        f"- name: Wait for it\n  ansible.builtin.wait_for:\n    path: {gone}\n",
        encoding="utf-8",
    )
    agent = drive.lab.controller
    with drive.start("2.0.0", hosts="web1", batch_size="100%", after_batch_tasks=str(hook)) as run:
        wait_until("the batch has ended", at_end.exists, 120)
        agent.kill_agent()
        try:
            gone.touch()
            result = run.wait()
        finally:
            agent.start_agent()
    assert result.rc != 0
    assert result.red == {"localhost"}
    told = flat(result.output)
    assert "ended could not be read, and was not recorded: No answer from Consul at" in told, result.output
    assert "Then run hitless.consul.recover." in told
    assert "failed_when" not in told


def test_tasks_that_hang_are_ended_and_nothing_deprecated_is_read(drive: Drive, tmp_path: Path) -> None:
    """Ansible's own limit leaves a result, a part of which warns when it is looked at."""
    tasks = tmp_path / "deploy.yml"
    tasks.write_text("- name: Hang\n  ansible.builtin.command: sleep 600\n", encoding="utf-8")
    result = drive.run("3.0.0", deploy_tasks=str(tasks), deploy_command="", deploy_timeout=3, rollback="none")
    assert result.rc != 0
    assert "Timed out after 3 second(s)" in flat(result.output) or "exceeded the 3 second timeout" in flat(
        result.output
    )
    assert drive.outcomes()["web1"] == "failed"
    assert "DEPRECATION WARNING" not in result.output


def test_both_hooks_at_the_end_fail(drive: Drive, tmp_path: Path) -> None:
    """Neither hides the other, nor why the rollout failed, from who gets the result."""
    options: dict[str, str] = {}
    for name in ("on_failure", "finish"):
        hook = tmp_path / f"{name}.yml"
        hook.write_text(f"- ansible.builtin.fail:\n    msg: {name} could not be told\n", encoding="utf-8")
        options[f"{name}_tasks"] = str(hook)
    arguments = drive.arguments(
        "3.0.0-deployfail", name="rollout", kind="local", hosts="web1", min_healthy=0, **options
    )
    result = drive.ansible.playbook(*arguments, env={**drive.environment, "ANSIBLE_SHOW_CUSTOM_STATS": "1"})
    assert result.rc != 0
    assert result.red == {"web1", "localhost"}, result.output
    both = "on_failure hook failed: on_failure could not be told. The finish hook failed: finish could not be told"
    for said in (both, "1 rolled back (web1)"):
        assert said in flat(result.output), result.output
    assert not drive.holds_lock()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "ssh"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_third_host_fails(drive: Drive, kind: str, batch_size: int) -> None:
    """What was done stays done, what was not begun stays untouched; a window goes on until the failure is known."""
    new = "3.0.0-brokenon-web3"
    with Load(drive.lab) as load:
        result = drive.run(new, kind=kind, batch_size=batch_size, rollback="host")
    assert result.rc != 0
    done = {name for name, outcome in drive.outcomes().items() if outcome == "ok"}
    assert {"web1", "web2"} <= done <= ({"web1", "web2"} if batch_size == 1 else ALL - {"web3"})
    assert result.red == {"web3"}, result.output
    load.check_nothing_lost()
    versions = dict(zip(sorted(ALL), drive.running(), strict=True))
    assert versions == {name: new if name in done else OLD for name in ALL}
    assert set(drive.deployed()) == done | {"web3"}
    assert drive.outcomes()["web3"] == "rolled_back"
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.parametrize("budget", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_every_host_fails(drive: Drive, budget: int, batch_size: int) -> None:
    """Each host more than the budget stops it, but those in flight end their turn."""
    with Load(drive.lab) as load:
        result = drive.run("3.0.0-broken", kind="ssh", failure_budget=budget, batch_size=batch_size)
    assert result.rc != 0
    load.check_nothing_lost()
    assert drive.running() == [OLD] * 5
    deployed = drive.deployed()
    assert budget + 1 <= len(deployed) <= budget + batch_size
    assert deployed == [f"web{number}" for number in range(1, len(deployed) + 1)]
    assert result.red == set(deployed)
    assert load.report.by_version.keys() == {OLD}
    assert drive.is_settled()


@pytest.mark.slow
def test_slow_within_the_deadline(drive: Drive) -> None:
    with Load(drive.lab) as load:
        result = drive.run("3.0.0-slow5", kind="ssh", hosts="web1:web2", batch_size=2, healthy_deadline=40)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == ["3.0.0-slow5"] * 2 + [OLD] * 3


@pytest.mark.slow
@pytest.mark.oldest
def test_a_hook_that_includes_a_missing_file(drive: Drive, tmp_path: Path) -> None:
    """Ansible counts its host as failed for good; the rollback and the end come all the same."""
    smoke = tmp_path / "smoke.yml"
    smoke.write_text(
        "- ansible.builtin.include_tasks: missing.yml\n  when: deploy_reason == 'deploy'\n", encoding="utf-8"
    )
    with Load(drive.lab) as load:
        result = drive.run("3.0.0", smoke_tasks=str(smoke))
    assert result.rc != 0
    assert "missing.yml" in result.output
    assert "a hook that includes a missing file" in drive.results()["web1"]["error"]
    assert result.red == {"web1"}
    check_first_put_back(drive, load, "3.0.0")


@pytest.mark.slow
@pytest.mark.oldest
@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_handlers_of_the_deployment_run_before_traffic_returns(drive: Drive, tmp_path: Path, kind: str) -> None:
    """The role only notifies; its handler is what starts the new version. One that fails is a failed deployment."""
    role = tmp_path / "roles" / "install"
    for name, text in {
        "tasks": "- name: Put the files there\n  ansible.builtin.command: 'true'\n  notify: Restart\n",
        "handlers": "- name: Restart\n"
        "  ansible.builtin.command: '{{ lab_vm_dir }}/deploy {{ deploy_version }}'\n"
        "  environment: {DEPLOY_REASON: '{{ deploy_reason }}'}\n"
        "  failed_when: deploy_version is search('unlucky')\n",
    }.items():
        (role / name).mkdir(parents=True)
        (role / name / "main.yml").write_text(text, encoding="utf-8")
    site = tmp_path / "site.yml"
    site.write_text("- ansible.builtin.import_playbook: hitless.consul.rollout\n", encoding="utf-8")
    inventory = drive.lab.directory / "inventory" / kind / "web.consul.yml"

    def run(version: str) -> Result:
        options = ["rollout_service=web", f"rollout_version={version}", "rollout_deploy_role=install"]
        options += ["rollout_deploy_command=", "rollout_batch_size=2"]
        extra = [part for option in options for part in ("-e", option)]
        return drive.ansible.playbook("-i", inventory, site, *extra, cwd=tmp_path, env=drive.environment)

    with Load(drive.lab) as load:
        done = run("2.0.0-slow1")
        assert done.rc == 0, done.output
        assert drive.running() == ["2.0.0-slow1"] * 5
        failed = run("3.0.0-unlucky")
    load.check_nothing_lost()
    assert failed.rc != 0
    assert drive.running() == ["2.0.0-slow1"] * 5
    assert [drive.outcomes()[name] for name in ("web1", "web2")] == ["rolled_back"] * 2, failed.output
    assert load.report.by_version.keys() == {OLD, "2.0.0-slow1"}
    assert drive.is_settled()


@pytest.mark.slow
def test_within_the_budget_the_others_are_done(drive: Drive) -> None:
    new = "3.0.0-brokenon-web3"
    with Load(drive.lab) as load:
        result = drive.run(new, hosts="web2:web3:web4", failure_budget=1, batch_size=2)
    assert result.rc != 0
    assert result.red == {"web3"}, result.output
    load.check_nothing_lost()
    assert drive.running() == [OLD, new, OLD, new, OLD]
    assert (drive.recorded()[1], drive.recorded()[3]) == (new, new)
    assert drive.outcomes() == {"web2": "ok", "web3": "rolled_back", "web4": "ok"}
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


@pytest.mark.slow
def test_rollback_fails_too(drive: Drive) -> None:
    """A broken instance gets no traffic; the rest keeps serving."""
    with Load(drive.lab) as load:
        result = drive.run("3.0.0-broken", deploy_command="{{ lab_vm_dir }}/deploy 3.0.0-broken", healthy_deadline=4)
    assert result.rc != 0
    assert result.red == {"web1"}, "hosts that were not begun have no problem of their own"
    assert "The rollback failed too" in flat(result.output)
    assert "stays in maintenance" in flat(result.output)
    load.check_nothing_lost()
    assert drive.outcomes()["web1"] == "failed"
    assert drive.maintenance().keys() == {"web1"}
    assert drive.running() == ["3.0.0-broken"] + [OLD] * 4
    assert not drive.holds_lock()
    assert load.report.by_version.keys() == {OLD}
