"""Reads that do not grow with a service, on a real Consul and on that of the simulation, which has to answer alike."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import service_query
from ansible_collections.hitless.consul.plugins.module_utils._consul.node_health import (
    Query,
    critical_query,
    node_query,
    read_node,
)
from tests.integration.consul_agent import Server
from tests.integration.services import ENDS, Servers, Services, started
from tests.simulation.clock import Scheduler
from tests.simulation.consul import SERVICE, Consul

WEB1, WEB2 = "web1-of-node-health", "web2-of-node-health"
# Not serfHealth: each minute the leader removes what it is on where no agent gossips for it.
ALIVE, DISK = "alive", "disk"
WAIT = 20.0
"""Seconds, more than a busy machine takes."""
ALL_CRITICAL = critical_query(SERVICE)
LISTED: Query = (f"/v1/catalog/node/{WEB1}", [("filter", f'Service == "{SERVICE}"')])


class Cluster(Protocol):
    """A Consul with two nodes, and an instance on each."""

    def set(self, node: str, check_id: str, status: str, output: str = "") -> None:
        """A check of the node, or of its instance."""

    def read(self, query: Query) -> tuple[Any, int]:
        """Data and index."""

    def wait(self, query: Query, index: int, changes: Sequence[Callable[[], object]]) -> Any:
        """What wakes a blocking read from that index on, while the changes happen one after the other."""


class Real:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.client = Services(server).client()
        for node in (WEB1, WEB2):
            self.set(node, ALIVE, "passing")
            self.set(node, DISK, "passing")

    def set(self, node: str, check_id: str, status: str, output: str = "") -> None:
        service = {"Service": SERVICE, "ID": SERVICE}
        check = {"Node": node, "CheckID": check_id, "Name": check_id, "Status": status, "Output": output}
        check |= {"ServiceID": SERVICE} if check_id == ALIVE else {}
        about = {"Node": node, "Address": "127.0.0.9", "Service": service, "Check": check}
        self.server.put("catalog/register", about)

    def read(self, query: Query) -> tuple[Any, int]:
        answer = self.client.get(*query)
        return answer.data, answer.index

    def wait(self, query: Query, index: int, changes: Sequence[Callable[[], object]]) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(self.client.get(*query, index=index, wait=WAIT).data))
        began = time.monotonic()
        thread.start()
        for change in changes:
            time.sleep(0.5)
            change()
        thread.join()
        assert time.monotonic() - began < WAIT, "nothing has woken it"
        return found[0]

    def close(self) -> None:
        for node in (WEB1, WEB2):
            self.server.put("catalog/deregister", {"Node": node})


class Made:
    """A machine of the simulation, with the checks that a test gives it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.of: dict[str, dict[str, Any]] = {}

    def checks(self) -> list[dict[str, Any]]:
        return list(self.of.values())

    def entry(self) -> dict[str, Any]:
        node = {"Node": self.name, "Address": "127.0.0.9", "Datacenter": "dc1"}
        service = {"ID": SERVICE, "Service": SERVICE, "Tags": [], "Meta": None, "Port": 0, "Address": ""}
        return {"Node": node, "Service": service, "Checks": self.checks()}


class Simulated:
    def __init__(self) -> None:
        self.scheduler = Scheduler(random.Random(1))
        self.consul = Consul(self.scheduler, lambda: False)
        self.made = {node: Made(node) for node in (WEB1, WEB2)}
        self.consul.machines = dict(self.made)
        for node in self.made:
            self.set(node, ALIVE, "passing")
            self.set(node, DISK, "passing")

    def set(self, node: str, check_id: str, status: str, output: str = "") -> None:
        name = SERVICE if check_id == ALIVE else ""
        about = {"Node": node, "CheckID": check_id, "Name": check_id, "Status": status, "Notes": "", "Output": output}
        self.made[node].of[check_id] = {**about, "ServiceID": name, "ServiceName": name}
        self.consul.machine_changed(node)

    def read(self, query: Query) -> tuple[Any, int]:
        return self._ask(query, {})

    def _ask(self, query: Query, more: Mapping[str, object]) -> tuple[Any, int]:
        response = self.consul.answer("GET", query[0], {**dict(query[1]), **more}, "")
        return json.loads(response.body), int(response.headers["X-Consul-Index"])

    def wait(self, query: Query, index: int, changes: Sequence[Callable[[], object]]) -> Any:
        found: list[Any] = []
        self.scheduler.spawn(
            lambda: found.append(self._ask(query, {"index": index, "wait": f"{1000 * WAIT:.0f}ms"})[0])
        )
        for change in changes:
            self.scheduler.sleep(0.5)
            change()
        self.scheduler.sleep(1)
        return found[0]

    def close(self) -> None:
        self.scheduler.close()


@pytest.fixture(params=[*ENDS, "simulated"], ids=["oldest", "newest", "simulated"])
def cluster(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Cluster]:
    made = Simulated() if request.param == "simulated" else Real(servers.get(request.param))
    yield made
    made.close()


@pytest.fixture(params=[*ENDS, "simulated"], ids=["oldest", "newest", "simulated"])
def alone(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Where nobody else has checks."""
    if request.param == "simulated":
        made = Simulated()
        yield made
        made.close()
    else:
        yield from map(Real, started(request.param))


def told(data: Any) -> list[tuple[str, ...]]:
    """What matters of checks."""
    fields = ("Node", "CheckID", "Status", "ServiceID", "ServiceName", "Output")
    return sorted(tuple(str(one[name]) for name in fields) for one in data if one["Node"] in (WEB1, WEB2))


def test_all_that_is_critical_and_nothing_else(cluster: Cluster) -> None:
    assert told(cluster.read(ALL_CRITICAL)[0]) == []
    cluster.set(WEB1, ALIVE, "critical", "refused")
    cluster.set(WEB2, ALIVE, "warning")
    cluster.set(WEB2, DISK, "critical")
    of_service = (WEB1, ALIVE, "critical", SERVICE, SERVICE, "refused")
    assert told(cluster.read(ALL_CRITICAL)[0]) == [of_service, (WEB2, DISK, "critical", "", "", "")]


def test_the_checks_and_the_instances_of_a_node(cluster: Cluster) -> None:
    cluster.set(WEB1, ALIVE, "warning")
    both = [(WEB1, ALIVE, "warning", SERVICE, SERVICE, ""), (WEB1, DISK, "passing", "", "", "")]
    assert told(cluster.read(node_query(WEB1))[0]) == both
    found, _index = cluster.read(LISTED)
    assert found["Node"]["Node"] == WEB1
    assert [(one["ID"], one["Service"]) for one in found["Services"].values()] == [(SERVICE, SERVICE)]


QUERIES = [ALL_CRITICAL, node_query(WEB1)]


@pytest.mark.parametrize("query", QUERIES, ids=["critical", "node"])
def test_a_change_of_any_check_passes_the_index(cluster: Cluster, query: Query) -> None:
    """So that a blocking read which begins after it returns at once, with nothing new."""
    before, index = cluster.read(query)
    cluster.set(WEB2, ALIVE, "passing", "changed")
    assert cluster.wait(query, index, []) == before
    assert cluster.read(query)[1] > index


@pytest.mark.parametrize("query", QUERIES, ids=["critical", "node"])
def test_one_that_waits_is_woken_by_its_own_alone(cluster: Cluster, query: Query) -> None:
    cluster.set(WEB2, DISK, "critical")
    for number in range(5):  # where the machine is so busy that it did not wait yet, it returns at once
        cluster.set(WEB1, ALIVE, "passing")
        _before, index = cluster.read(query)
        other = partial(cluster.set, WEB2, ALIVE, "passing", f"changed {number}")
        data = cluster.wait(query, index, [other, partial(cluster.set, WEB1, ALIVE, "critical")])
        if (WEB1, ALIVE, "critical", SERVICE, SERVICE, "") in told(data):
            return
    pytest.fail("it is woken by what is none of its own")


def test_where_nothing_is_critical_anything_wakes_it(alone: Cluster) -> None:
    """Consul waits at the place in its index where the first one will be, which is that of all checks."""
    before, index = alone.read(ALL_CRITICAL)
    assert alone.wait(ALL_CRITICAL, index, [partial(alone.set, WEB2, ALIVE, "passing", "changed")]) == before == []


@pytest.mark.parametrize("alone", ENDS[:1], indirect=True)
def test_that_nothing_wakes_it_is_noticed(alone: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "WAIT", 1.0)
    alone.set(WEB2, DISK, "critical")
    _before, index = alone.read(ALL_CRITICAL)
    with pytest.raises(AssertionError, match="nothing has woken it"):
        alone.wait(ALL_CRITICAL, index, [])


def test_a_node_is_read_as_by_its_service(consul: Server) -> None:
    web = Services(consul)
    web.register("one", Tags=["blue"], Port=80)
    web.register("two", "critical", Meta={"version": "1"})
    consul.put("agent/service/register", {"Name": web.name, "ID": "unchecked"})
    web.shown("unchecked")
    web.operator("disk", service_id="one")
    client = web.client()
    (by_service, by_node) = (client.get(*service_query(web.name, web.node)), read_node(client, web.name, web.node))
    assert [told_of(one) for one in sorted(by_node.data, key=by_id)] == [
        told_of(one) for one in sorted(by_service.data, key=by_id)
    ]
    assert len(by_node.data) == 3


def told_of(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Node, service and checks, in whatever order Consul tells these."""
    return entry["Node"], entry["Service"], sorted(entry["Checks"], key=lambda check: str(check["CheckID"]))


def by_id(entry: Mapping[str, Any]) -> str:
    return str(entry["Service"]["ID"])


def test_a_node_that_is_not_there_has_no_instance(consul: Server) -> None:
    assert read_node(Services(consul).client(), "web", "nowhere").data == []
