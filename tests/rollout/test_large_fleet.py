"""Many machines: rollouts over the simulated fleet of the bench, each machine by its own deploy agent.

Three hundred machines take some minutes where two processors have more to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bench.simulated import Behaviour, Fleet, Machine, simulated
from lab.agents import Http
from lab.testkit.ansible_run import Ansible, Result
from tests.fleet import CONSUL

AT_ONCE = 30
BUDGET = 2
GOOD, BROKEN = "2.0.0", "3.0.0"


def behaviour(number: int) -> Behaviour:
    """The command of each fifth machine fails with the broken version."""
    return Behaviour(fails="command", bad=frozenset({BROKEN})) if number % 5 == 0 else Behaviour()


@pytest.fixture(scope="module", params=[30, pytest.param(300, marks=pytest.mark.slow)])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with simulated(request.param, behaviour=behaviour, consul=CONSUL) as running:
        yield running


def roll(ansible: Ansible, fleet: Fleet, version: str, **options: Any) -> Result:
    """A rollout over all of them."""
    common = {"hosts": "web", "service": "web", "version": version, "batch_size": AT_ONCE, "min_healthy": 0}
    quick = {"drain_time": 0, "min_healthy_time": 0, "accept_deadline": 240, "rollback": "host", "bake_time": 0}
    values = {f"rollout_{name}": value for name, value in {**common, **quick, **options}.items()}
    inventory = fleet.inventory(rollout_mode="agent")
    environment = {**fleet.environment, "ANSIBLE_FORKS": str(AT_ONCE)}
    arguments = ("-i", inventory, "hitless.consul.rollout", "-e", json.dumps(values))
    return ansible.playbook(*arguments, env=environment, timeout=280)


def recorded(fleet: Fleet, machine: Machine) -> str | None:
    return Http(fleet.consul.url).kv(machine.key("version"))


def out_of_rotation(fleet: Fleet) -> list[str]:
    """The machines with a check that does not pass, maintenance or other."""
    return sorted({one["Node"] for one in fleet.consul.call("GET", "/v1/health/state/critical?consistent")})


def record(fleet: Fleet) -> dict[str, Any]:
    """Of the last deployment."""
    keys = fleet.consul.call("GET", "/v1/kv/deploy/web/deployments/?keys&consistent")
    found: dict[str, Any] = json.loads(
        Http(fleet.consul.url).kv(max(key for key in keys if key.endswith("/record"))) or ""
    )
    return found


@pytest.mark.slow
def test_all_machines_end_on_the_new_version(ansible: Ansible, fleet: Fleet) -> None:
    result = roll(ansible, fleet, GOOD)
    assert result.rc == 0, result.output
    assert fleet.versions() == {GOOD: len(fleet.machines)}
    assert {recorded(fleet, machine) for machine in fleet.machines} == {GOOD}
    assert {len(machine.ran) for machine in fleet.machines} == {1}
    assert out_of_rotation(fleet) == []
    assert record(fleet)["state"] == "successful"


def test_a_broken_version_spends_the_budget_and_stops(ansible: Ansible, fleet: Fleet) -> None:
    before = {machine.name: (machine.version, len(machine.ran)) for machine in fleet.machines}
    # A fifth of those that are begun fails: as many at a time as spend the budget and no more.
    at_once = 5 * BUDGET
    result = roll(ansible, fleet, BROKEN, batch_size=at_once, failure_budget=BUDGET)
    assert result.rc != 0
    assert record(fleet)["state"] == "failed"
    begun = [machine for machine in fleet.machines if len(machine.ran) > before[machine.name][1]]
    failed = [machine for machine in begun if machine.behaviour.fails]
    assert len(failed) > BUDGET
    # Those that were under way end their turn.
    assert len(begun) <= 3 * at_once
    for machine in fleet.machines:
        old, ran = before[machine.name]
        expected = [] if machine not in begun else [("deploy", BROKEN)]
        expected += [("rollback", old)] if machine in failed else []
        assert machine.ran[ran:] == expected
        wanted = BROKEN if machine in begun and machine not in failed else old
        assert (machine.version, recorded(fleet, machine)) == (wanted, wanted)
    assert out_of_rotation(fleet) == []
