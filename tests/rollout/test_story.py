"""A shorter telling of what the slow tests tell at length: a killed run is taken over, a rollback by hand goes back."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from lab import Lab
from lab.testkit.ansible_run import Ansible, Result

VARIABLES = {
    "rollout_health_url": "http://{{ consul_address }}:8080/health",
    "rollout_health_match": '"version": "{{ deploy_version }}"',
    "rollout_drain_time": 0.5,
    "rollout_min_healthy_time": 0.5,
    "rollout_bake_time": 0.5,
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


def is_free(lab: Lab) -> bool:
    found = lab.consul_get("kv/deploy/web/lock") if lab.kv("deploy/web/lock") is not None else None
    return not found or not found[0].get("Session")


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL])
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
