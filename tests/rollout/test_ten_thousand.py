"""Ten thousand machines: such a deployment is planned, recorded, interrupted, gone on with and told.

Only some of them have their turns: all would take hours. That each of many has its turn is shown by
test_large_fleet.py.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from bench.simulated import Fleet, simulated
from lab import wait_until
from lab.testkit.ansible_run import Ansible, Result, Run
from tests.fleet import CONSUL

HOSTS = 10_000
AT_ONCE = 5
SOME = 20
"""Machines that have their turns before something happens."""
LARGEST_KEY = 256 * 1024
"""Bytes: more makes Consul's replication slow, and half a MiB it refuses."""
NEW = "2.0.0"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with simulated(HOSTS, consul=CONSUL, listens=False, at_once=AT_ONCE) as running:
        yield running


def arguments(fleet: Fleet, name: str, **variables: Any) -> list[str]:
    return ["-i", str(fleet.inventory(rollout_mode="agent")), f"hitless.consul.{name}", "-e", json.dumps(variables)]


def start(ansible: Ansible, fleet: Fleet) -> Run:
    """The start button, pressed once more after each interruption."""
    options = {"hosts": "web", "service": "web", "version": NEW, "batch_size": AT_ONCE, "min_healthy": 0}
    quick = {"drain_time": 0, "min_healthy_time": 0, "check_interval": 0.1, "accept_deadline": 240, "bake_time": 0}
    values = {f"rollout_{key}": value for key, value in {**options, **quick, "lock_wait": 60}.items()}
    environment = {**fleet.environment, "ANSIBLE_FORKS": str(AT_ONCE)}
    return ansible.start(*arguments(fleet, "rollout", **values), env=environment)


def say(ansible: Ansible, fleet: Fleet, name: str, **variables: Any) -> Result:
    values = {"rollout_service": "web", **variables}
    done = ansible.playbook(*arguments(fleet, name, **values), env=fleet.environment, timeout=240)
    assert done.rc == 0, done.output
    return done


def wait_for(fleet: Fleet, changed: int) -> None:
    wait_until(f"{changed} are changed", lambda: fleet.versions().get(NEW, 0) >= changed, 280)


def record(fleet: Fleet) -> dict[str, Any]:
    """Of the last deployment."""
    keys = fleet.consul.call("GET", "/v1/kv/deploy/web/deployments/?keys&consistent")
    last = max(key for key in keys if key.endswith("/record"))
    found: dict[str, Any] = fleet.consul.call("GET", f"/v1/kv/{last}?raw&consistent")
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_deployment_of_so_many_goes_on_and_is_told(ansible: Ansible, fleet: Fleet) -> None:
    """It is killed and not stopped: each host that is not begun then would still cost Ansible an empty task."""
    deployments = []
    for _ in range(2):
        wanted = fleet.versions().get(NEW, 0) + SOME
        with start(ansible, fleet) as run:
            wait_for(fleet, wanted)
            run.process.send_signal(signal.SIGKILL)
            run.process.wait(60)
        deployments.append(record(fleet)["id"])
        assert f" -> {NEW} on " in run.stdout
    assert deployments[0] != deployments[1]
    # Machines that were asked go on by themselves, so that some more than these are left alone.
    assert re.search(rf"{NEW} on 9,?9\d\d hosts", run.stdout), run.stdout
    assert "already" in run.stdout

    told = say(ansible, fleet, "status")
    assert deployments[1] in told.stdout, told.stdout
    assert "interrupted" in told.stdout
    assert deployments[0] in say(ansible, fleet, "status", status_id=deployments[0]).stdout
    kept = fleet.consul.call("GET", "/v1/kv/deploy?recurse")
    assert max(len(one["Value"] or "") * 3 // 4 for one in kept) <= LARGEST_KEY
