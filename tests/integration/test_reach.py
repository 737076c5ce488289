"""Whose agent answers on a host: asked of a real Consul before anything is planned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HostLost
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout.reach import known, reach
from tests.fleet import CONSUL
from tests.http_server import nobody
from tests.integration.consul_agent import Server
from tests.integration.services import started

pytestmark = pytest.mark.oldest


@pytest.fixture(scope="module")
def consul(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from started(CONSUL)


def reached(server: Server, host: Host | None = None, **options: Any) -> dict[str, str]:
    about = {"agent_url": server.url, **options}
    return reach(Task({}, about, host or Host(None, name="web1")))


def unreachable(command: str, data: bytes) -> tuple[int, bytes, bytes]:
    raise HostLost("The host cannot be reached: no route.")


def test_a_host_and_its_agent(consul: Server) -> None:
    expected = {"node": consul.node, "why": "", "problem": "", "datacenter": "dc1"}
    assert reached(consul) == expected
    assert reached(consul, node=consul.node, datacenter="DC1") == expected


def test_another_hosts_agent(consul: Server) -> None:
    problem = reached(consul, node="web9")["problem"]
    assert f"is that of the node {consul.node}, and the host is said to be the node web9" in problem


def test_a_host_out_of_reach_is_left_to_the_plan(consul: Server) -> None:
    lost = Host(unreachable, name="web1")
    why = "The host cannot be reached: no route."
    assert reached(consul, lost, node="n1") == {"node": "n1", "why": why, "problem": "", "datacenter": ""}
    assert reached(consul, lost)["node"] == "web1"


def test_a_host_without_an_agent(consul: Server) -> None:
    told = reached(consul, agent_url=nobody())
    assert (told["node"], told["why"]) == ("web1", "")
    assert told["problem"].startswith("web1: ")
    assert "Connection refused" in told["problem"]


def test_nothing_is_asked_where_the_machines_own_agents_do_the_work() -> None:
    assert known("web1", "n1") == {"node": "n1", "why": "", "problem": "", "datacenter": ""}
    assert known("web1", "")["node"] == "web1"
