"""Whole playbooks in the lab, under load: what is promised of a rollout, and what it does when something fails."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lab import Lab
from tests.rollout.support import Ansible, Result

VARIABLES = {
    "rollout_health_url": "http://{{ consul_address }}:8080/health",
    "rollout_health_match": '"version": "{{ deploy_version }}"',
    "rollout_drain_time": 0.5,
    "rollout_min_healthy_time": 0.5,
    "rollout_healthy_deadline": 6,
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Lab]:
    with Lab(vms=4, inventory_variables=VARIABLES, lifetime=1200) as lab:
        yield lab


@pytest.fixture
def lab(fleet: Lab) -> Lab:
    """The fleet on 1.0.0, healthy, out of maintenance, and with nothing recorded."""
    fleet.consul_put("txn", [{"KV": {"Verb": "delete-tree", "Key": prefix}} for prefix in ("deploy/", "nodes/")])
    for vm in fleet.vms:
        if vm.maintenance_reason() is not None:
            vm.operator_maintenance("", enable=False)
        if vm.running_version() != "1.0.0":
            vm.stop_app()
            vm.start_app("1.0.0")
    fleet.wait_passing()
    return fleet


def playbook(ansible: Ansible, lab: Lab, *options: str, name: str = "rollout", kind: str = "local") -> Result:
    return ansible.playbook(*arguments(lab, *options, name=name, kind=kind), env=lab.environment)


def arguments(lab: Lab, *options: str, name: str = "rollout", kind: str = "local") -> list[str]:
    inventory = str(lab.directory / "inventory" / kind / "web.consul.yml")
    return ["-i", inventory, f"hitless.consul.{name}", "-e", "rollout_service=web", *options]


def version(text: str) -> tuple[str, str]:
    return "-e", f"rollout_version={text}"


def recorded(lab: Lab) -> list[str | None]:
    return [lab.kv(f"nodes/{vm.name}/deployment/web/version") for vm in lab.vms]


def running(lab: Lab) -> set[str | None]:
    return {vm.running_version() for vm in lab.vms}


def in_maintenance(lab: Lab) -> list[str]:
    return [vm.name for vm in lab.vms if vm.maintenance_reason() is not None]


def last_state(lab: Lab) -> str:
    keys = [key for key in lab.consul_get("kv/deploy/web/deployments/?keys") if key.endswith("/record")]
    return str(json.loads(lab.kv(max(keys)) or "{}")["state"])


def is_free(lab: Lab) -> bool:
    found = lab.consul_get("kv/deploy/web/lock") if lab.kv("deploy/web/lock") is not None else None
    return not found or not found[0].get("Session")


@pytest.mark.oldest
@pytest.mark.parametrize(("kind", "batch"), [("ssh", 2), ("local", 1)])
def test_a_new_version_without_a_lost_request(ansible: Ansible, lab: Lab, kind: str, batch: int) -> None:
    with lab.load(rate=100, seconds=200) as load:
        time.sleep(1)
        result = playbook(ansible, lab, *version("2.0.0"), "-e", f"rollout_batch_size={batch}", kind=kind)
        time.sleep(1)
    report = load.report()
    assert result.rc == 0, result.output
    assert not report.lost, str(report)
    assert report.by_version["2.0.0"] > 0
    assert recorded(lab) == ["2.0.0"] * 4
    assert last_state(lab) == "successful"
    assert is_free(lab)
    assert not in_maintenance(lab)


def test_without_draining_requests_are_lost(lab: Lab) -> None:
    with lab.load(rate=100, seconds=60) as load:
        time.sleep(1)
        lab.vms[0].stop_app()
        time.sleep(1)
    assert load.report().lost


@pytest.mark.oldest
def test_a_broken_version_is_put_back(ansible: Ansible, lab: Lab) -> None:
    with lab.load(rate=100, seconds=200) as load:
        time.sleep(1)
        result = playbook(ansible, lab, *version("3.0.0-broken"), kind="ssh")
    report = load.report()
    assert result.rc != 0
    assert "did not answer" in result.output
    assert not report.lost, str(report)
    assert "3.0.0-broken" not in report.by_version
    assert running(lab) == {"1.0.0"}
    assert "3 never reached (web2, web3, web4)" in result.output
    assert "web1" in result.red
    assert last_state(lab) == "failed"
    assert is_free(lab)
    assert not in_maintenance(lab)


def test_a_failure_within_the_budget_does_not_stop_the_others(ansible: Ansible, lab: Lab) -> None:
    result = playbook(ansible, lab, *version("3.1.0-brokenon-web2"), "-e", "rollout_failure_budget=1")
    assert result.rc != 0
    assert result.red == {"web2"}
    assert [vm.running_version() for vm in lab.vms] == ["3.1.0-brokenon-web2", "1.0.0", *["3.1.0-brokenon-web2"] * 2]


def test_a_deploy_command_that_fails_shows_what_it_printed(ansible: Ansible, lab: Lab) -> None:
    result = playbook(ansible, lab, *version("3.2.0-deployfail"), "-v")
    assert result.rc != 0
    assert "The deployment command exited with 3" in result.output
    assert running(lab) == {"1.0.0"}
    assert not in_maintenance(lab)


def test_a_deploy_command_that_hangs_is_ended(ansible: Ansible, lab: Lab) -> None:
    result = playbook(ansible, lab, *version("3.3.0-deployhang"), "-e", "rollout_deploy_timeout=3")
    assert result.rc != 0
    assert "was ended after 3 s" in result.output
    assert running(lab) == {"1.0.0"}


def test_where_the_rollback_fails_too_the_host_stays_out(ansible: Ansible, lab: Lab) -> None:
    with lab.load(rate=100, seconds=200) as load:
        result = playbook(ansible, lab, *version("3.4.0-broken-rollbackfail"), "-e", "rollout_deploy_command=false")
    assert result.rc != 0
    assert in_maintenance(lab) == ["web1"]
    assert "stays in maintenance" in result.output
    assert not load.report().lost


def test_a_slow_start_gets_no_traffic_by_the_old_passing(ansible: Ansible, lab: Lab) -> None:
    with lab.load(rate=100, seconds=200) as load:
        time.sleep(1)
        result = playbook(
            ansible,
            lab,
            *version("3.5.0-slow3"),
            *("-e", "rollout_health_url=", "-e", "rollout_health_match=", "-e", "rollout_check_interval=3"),
            *("-e", "rollout_hosts=web1", "-e", "rollout_healthy_deadline=20"),
        )
    assert result.rc == 0, result.output
    assert not load.report().lost, str(load.report())


def test_an_operators_maintenance_is_left_alone(ansible: Ansible, lab: Lab) -> None:
    lab.vms[2].operator_maintenance("disk")
    result = playbook(ansible, lab, *version("2.0.0"))
    assert result.rc == 0, result.output
    assert lab.vms[2].maintenance_reason() == "disk"
    assert lab.vms[2].running_version() == "1.0.0"
    assert "web3 is left out" in result.output.replace("\n", " ")


def test_check_mode_shows_the_plan_and_changes_nothing(ansible: Ansible, lab: Lab) -> None:
    result = playbook(ansible, lab, *version("2.0.0"), "--check")
    assert result.rc == 0, result.output
    assert "web 1.0.0 -> 2.0.0 on 4 hosts" in result.stdout
    assert lab.kv("deploy/web/lock") is None
    assert running(lab) == {"1.0.0"}
    assert recorded(lab) == [None] * 4


def test_back_by_hand_and_nothing_to_do(ansible: Ansible, lab: Lab) -> None:
    assert playbook(ansible, lab, *version("2.0.0"), "-e", "rollout_batch_size=2").rc == 0
    again = playbook(ansible, lab, *version("2.0.0"))
    assert again.rc == 0
    assert "nothing to do" in again.stdout
    back = playbook(ansible, lab, "-e", "rollout_batch_size=2", name="rollback")
    assert back.rc == 0, back.output
    assert recorded(lab) == ["1.0.0"] * 4
    status = playbook(ansible, lab, name="status")
    assert "successful" in status.stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_is_taken_over(ansible: Ansible, lab: Lab, number: signal.Signals) -> None:
    first = arguments(lab, *version("4.0.0-deployslow4"), kind="ssh")
    with lab.load(rate=100, seconds=200) as load, ansible.start(*first, env=lab.environment) as run:
        run.wait_for(": Deploy]")
        time.sleep(1)
        run.send(number)
        run.process.wait(30)
        again = playbook(ansible, lab, *version("4.0.0-deployslow4"), "-e", "rollout_lock_wait=60", kind="ssh")
    assert again.rc == 0, again.output
    assert running(lab) == {"4.0.0-deployslow4"}
    assert not in_maintenance(lab)
    assert is_free(lab)
    assert not load.report().lost, str(load.report())
    for vm in lab.vms:
        runs = sorted((one.start, one.end or 0) for one in vm.deploys())
        assert all(before[1] <= after[0] for before, after in pairwise(runs)), runs


def test_two_at_once_are_refused(ansible: Ansible, lab: Lab) -> None:
    with ansible.start(*arguments(lab, *version("4.1.0-deployslow4")), env=lab.environment) as run:
        run.wait_for(": Deploy]")
        second = playbook(ansible, lab, *version("4.2.0"))
        assert second.rc != 0
        assert "held by" in second.output
        assert run.wait().rc == 0
    assert running(lab) == {"4.1.0-deployslow4"}


REFUSALS = {
    "limit": (["--limit", "web1"], "--limit"),
    "tags": (["--tags", "x"], "--tags"),
    "unknown option": (["-e", "rollout_batch_sise=2"], "rollout_batch_size"),
    "number as version": (["-e", '{"rollout_version": 1.10}'], "must be a string"),
    "reserved name": (["-e", "deploy_version=9"], "deploy_version is set"),
    "unknown service": (["-e", "rollout_service=nobody"], "service_nobody"),
    "minimum": (["-e", "rollout_min_healthy=100%"], "rollout_min_healthy: 3"),
    "missing hook": (["-e", "rollout_smoke_tasks=missing.yml"], "missing.yml"),
    "two ways": (["-e", "rollout_deploy_tasks=deploy.yml"], "rollout_deploy_command"),
}


@pytest.mark.oldest
@pytest.mark.parametrize("name", REFUSALS)
def test_refused_before_anything_is_touched(ansible: Ansible, lab: Lab, name: str) -> None:
    options, sentence = REFUSALS[name]
    (ansible.home / "deploy.yml").write_text("---\n", encoding="utf-8")
    result = playbook(ansible, lab, *version("2.0.0"), *options)
    assert result.rc != 0, result.output
    assert sentence in " ".join(result.output.split()), result.output
    assert running(lab) == {"1.0.0"}
    assert not in_maintenance(lab)
    assert recorded(lab) == [None] * 4


@pytest.mark.parametrize("text", ["- name: x\n  no_such_module_here:\n", "- name: [x\n"])
def test_a_hook_that_cannot_be_parsed_is_refused(ansible: Ansible, lab: Lab, text: str, tmp_path: Path) -> None:
    hook = tmp_path / "smoke.yml"
    hook.write_text(text, encoding="utf-8")
    result = playbook(ansible, lab, *version("2.0.0"), "-e", f"rollout_smoke_tasks={hook}")
    assert result.rc != 0
    assert running(lab) == {"1.0.0"}
    assert not in_maintenance(lab)
    assert lab.kv("deploy/web/lock") is None
