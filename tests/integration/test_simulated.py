"""The simulated machines of the bench, held to what real agents do: figures and large rollouts rest on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_protocol import (
    DONE,
    FAILED,
    WITHDRAWN,
    Request,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from bench.simulated import FIRST, Behaviour, Fleet, Machine, simulated
from lab import ConsulError, wait_until
from lab.agents import Http
from tests.integration.services import ENDS, assignment

REASON = "deploy:20261123T142233Z-1.4.2-7f3a web"


OLD, BAD = FIRST, "2.0.0"
FAILS = ("", "command", "health", "later", "absent")
"""Of each machine, with the bad version."""


def behaviour(number: int) -> Behaviour:
    return Behaviour(fails=FAILS[number - 1], bad=frozenset({BAD}), good_for=0.5)


@pytest.fixture(scope="module", params=ENDS, ids=["oldest", "newest"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A machine of each kind; beside them the server's own agent, which is a real one, has the same service."""
    with simulated(len(FAILS), behaviour=behaviour, consul=request.param) as running:
        Http(running.consul.url).call("PUT", "agent/service/register", {"Name": "web", "Port": 8500})
        yield running


@pytest.fixture
def agents(fleet: Fleet) -> dict[str, Http]:
    """Node -> its agent: a real one, and a simulated one."""
    machine = fleet.machines[0]
    return {"server": Http(fleet.consul.url), machine.name: Http(f"http://{machine.address}:8500")}


def maintenance(fleet: Fleet, node: str) -> list[dict[str, Any]]:
    """What the catalog says of it, without what differs between any two nodes."""
    checks = fleet.consul.call("GET", f"/v1/health/node/{node}?consistent")
    kept = [one for one in checks if "maintenance" in one["CheckID"]]
    own = ("Node", "Type", "CreateIndex", "ModifyIndex")
    return [{name: value for name, value in one.items() if name not in own} for one in kept]


@pytest.mark.parametrize("path", ["agent/service/maintenance/web", "agent/maintenance"])
def test_maintenance_is_in_the_catalog_as_a_real_agent_puts_it_there(
    fleet: Fleet, agents: dict[str, Http], path: str
) -> None:
    shown: dict[str, list[dict[str, Any]]] = {}
    for node, agent in agents.items():
        agent.call("PUT", f"{path}?enable=true&reason={quote(REASON)}")
        # Both keep the first reason.
        agent.call("PUT", f"{path}?enable=true&reason=another")
        wait_until("the catalog shows it", lambda node=node: bool(maintenance(fleet, node)))
        shown[node] = maintenance(fleet, node)
        agent.call("PUT", f"{path}?enable=false")
        wait_until("it is gone again", lambda node=node: not maintenance(fleet, node))
    real, like = shown.values()
    assert [one["Notes"] for one in real] == [REASON]
    assert like == real


def test_the_agent_answers_what_hitless_asks_as_a_real_one(agents: dict[str, Http]) -> None:
    for node, agent in agents.items():
        agent.call("PUT", f"agent/service/maintenance/web?enable=true&reason={quote(REASON)}")
        config = agent.call("GET", "agent/self")["Config"]
        assert (config["NodeName"], config["Datacenter"]) == (node, "dc1")
        assert agent.call("GET", "agent/services")["web"]["Service"] == "web"
        check = agent.call("GET", "agent/checks")["_service_maintenance:web"]
        assert (check["Status"], check["Notes"], check["ServiceID"]) == ("critical", REASON, "web")
        agent.call("PUT", "agent/service/maintenance/web?enable=false")
        with pytest.raises(ConsulError) as raised:
            agent.call("PUT", "agent/service/maintenance/none?enable=true")
        assert raised.value.status == 404


def test_requests_of_the_machines_are_told_from_those_of_others(fleet: Fleet) -> None:
    url = f"/v1/kv/{fleet.machines[0].key('new')}"
    mine = {one.url for one in fleet.consul.requests()} - {one.url for one in fleet.asked_by_others()}
    assert url in mine
    Http(fleet.consul.url).call("GET", f"{url.removeprefix('/v1/')}?raw")
    wait_until("the log tells it", lambda: f"{url}?raw" in {one.url for one in fleet.asked_by_others()})


def asked(fleet: Fleet, machine: Machine, version: str) -> str:
    """What becomes of a request of the controller's: the state it ends in."""
    client = Client(Connection(fleet.consul.url))
    keys = Keys(machine.service)
    session: str = client.put("/v1/session/create", body=json.dumps({"LockDelay": "0s"})).data["ID"]
    assert client.set_key(keys.lock, "{}", acquire=session)
    url = f"http://{machine.address}:8500/health"
    quick = {"drain_time": 0, "min_healthy_time": 0, "healthy_deadline": 1}
    request = Request(client, keys, machine.name, assignment(version, health_url=url, **quick), session)
    request.submit()
    try:
        return request.follow(accept_deadline=2 if machine.behaviour.fails == "absent" else 60).state
    finally:
        client.set_key(keys.lock, "{}", release=session)


@pytest.mark.parametrize(
    ("fails", "ends", "runs", "out"),
    [
        ("", DONE, BAD, False),
        ("command", FAILED, OLD, True),
        ("health", FAILED, BAD, True),
        ("later", DONE, BAD, False),
        ("absent", WITHDRAWN, OLD, False),
    ],
)
def test_each_machine_fails_as_it_is_told(fleet: Fleet, fails: str, ends: str, runs: str, out: bool) -> None:
    machine = fleet.machines[FAILS.index(fails)]
    assert asked(fleet, machine, BAD) == ends
    assert machine.version == runs
    # What failed stays in maintenance, until the next request.
    assert bool(maintenance(fleet, machine.name)) == out
    if fails == "later":
        wait_until("it has turned bad", lambda: machine.health().status == 500)
    if ends != WITHDRAWN:
        assert asked(fleet, machine, OLD) == DONE
        assert (machine.version, machine.health().status, maintenance(fleet, machine.name)) == (OLD, 200, [])
