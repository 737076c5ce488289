"""The plan, read from a real Consul."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import versions
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import WantedHost, read_fleet
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan_reader import read_plan
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server

pytestmark = pytest.mark.oldest

numbers = itertools.count(1)
TOLD = {"Interval": "1s", "Timeout": "1s"}
DEREGISTERS = {"Interval": "5s", "Timeout": "2s", "DeregisterCriticalServiceAfter": "60s"}


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    server = Server(CONSUL, 133)
    try:
        server.start()
        yield server
    finally:
        server.close()


class Fleet:
    """A service of one test alone, on nodes of its own."""

    def __init__(self, consul: Server) -> None:
        self.url = consul.url
        self.service = f"web{next(numbers)}"
        self.client = Client(Connection(consul.url))
        self.keys = Keys(self.service)

    def node(self, number: int) -> str:
        return f"{self.service}-n{number}"

    def add(self, number: int, *checks: dict[str, Any], version: str | None = None, **service: Any) -> None:
        """Register an instance with its checks (one that passes, where none is given), and record a version."""
        node = self.node(number)
        body = {
            "Node": node,
            "Address": "127.0.0.1",
            "Service": {"ID": self.service, "Service": self.service, "Port": 80, **service},
            "Checks": [
                {"Node": node, "Name": check["CheckID"], **check} for check in checks or [self.check("http", "passing")]
            ],
        }
        self.client.put("/v1/catalog/register", body=json.dumps(body))
        if version:
            versions.record_version(self.client, self.keys, node, version)

    def check(self, name: str, status: str, **more: Any) -> dict[str, Any]:
        return {"CheckID": name, "Status": status, "ServiceID": self.service, "Definition": TOLD, **more}

    def plan(
        self,
        *,
        hosts: list[WantedHost] | None = None,
        forks: int = 0,
        health_urls: list[str] | None = None,
        smoke_test: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """The plan as a run keeps it; its notes and its number of requests are kept."""
        asked = health_urls or []
        about = {**DEFAULTS, "service": self.service, "version": "2.0.0", **options}
        run = Run("id", about, health_urls=asked)
        task = Task({}, {"url": self.url}, Host(None))
        if hosts is None:
            nodes = read_fleet(task.consul, self.keys, run.options["tags"]).nodes
            version = run.options["version"]
            hosts = [WantedHost(node, node, version, health_url=node in asked, smoke_test=smoke_test) for node in nodes]
        before = task.consul.requests
        plan, self.notes = read_plan(task, run, hosts, forks)
        self.requests = task.consul.requests - before
        return plan.as_dict()

    def refused(self, **params: Any) -> str:
        with pytest.raises(HitlessError) as caught:
            self.plan(**params)
        return str(caught.value)


@pytest.fixture
def fleet(consul: Server) -> Fleet:
    return Fleet(consul)


def test_every_node_of_the_service(fleet: Fleet) -> None:
    fleet.add(1, version="1.0.0")
    fleet.add(2, version="2.0.0")
    fleet.add(3, fleet.check("http", "critical"), version="1.0.0")
    fleet.add(4, Meta={"version": "0.9"})
    fleet.add(5)
    found = fleet.plan(batch_size=2)
    assert found["batches"] == [[fleet.node(3), fleet.node(1)], [fleet.node(4), fleet.node(5)]]
    hosts = {name.rpartition("-")[2]: host for name, host in found["hosts"].items()}
    assert {name: (host["state"], host["from"], host["rollback_to"]) for name, host in hosts.items()} == {
        "n1": ("to_change", "1.0.0", "1.0.0"),
        "n2": ("current", "2.0.0", None),
        "n3": ("to_change", "1.0.0", "1.0.0"),
        "n4": ("to_change", "0.9", "0.9"),
        "n5": ("to_change", None, None),
    }
    assert found["health"] == {"registered": 5, "healthy": 4, "minimum": 3}
    assert fleet.notes == [
        f"No rollback possible on 1 host: {fleet.node(5)} (no version recorded): set rollout_previous_version."
    ]


def test_a_pause_after_the_last_batch_is_refused_unless_little_is_left(fleet: Fleet) -> None:
    for number in (1, 2, 3):
        fleet.add(number, version="1.0.0")
    assert fleet.plan(pause_after=[2])["batches"]
    assert "the plan has 3 batches; nothing was changed." in fleet.refused(pause_after=[2, 3])
    fleet.add(3, version="2.0.0")
    assert len(fleet.plan(pause_after=[2, 3])["batches"]) == 2


def test_requests_do_not_grow_with_the_hosts(fleet: Fleet) -> None:
    """One for the health, one for the versions of 64 nodes, one for sidecars."""
    for number in range(70):
        fleet.add(number, version="1.0.0")
    assert len(fleet.plan()["batches"]) == 70
    assert fleet.requests == 4


def test_hosts_of_the_inventory(fleet: Fleet) -> None:
    for number in (1, 2, 3):
        fleet.add(number, version="1.0.0")
    hosts = [
        WantedHost("b.example.com", fleet.node(2), "2.0.0"),
        WantedHost("a.example.com", fleet.node(1), "1.5"),
        WantedHost("c.example.com", fleet.node(3), "2.0.0", unreachable="timed out"),
    ]
    found = fleet.plan(hosts=hosts, unreachable="skip")
    assert found["batches"] == [["b.example.com"], ["a.example.com"]]
    assert found["hosts"]["a.example.com"]["to"] == "1.5"
    assert "c.example.com (timed out)" in fleet.refused(hosts=hosts)
    hosts[2] = WantedHost("d.example.com", "elsewhere", "2.0.0")
    assert "is not registered on 1 host: d.example.com" in fleet.refused(hosts=hosts)


def test_a_name_that_differs_in_case_alone_is_another_service(consul: Server, fleet: Fleet) -> None:
    fleet.add(1, version="1.0.0")
    fleet.add(2, version="1.0.0")
    other = Fleet(consul)
    other.service = fleet.service.upper()
    other.keys = Keys(other.service)
    assert other.refused() == (
        f"Consul has no service {other.service}: it is spelled {fleet.service} there; nothing was changed. "
        "Set rollout_service just so: names are compared exactly."
    )
    fleet.add(1, fleet.check("listens", "passing", ServiceID="legacy"), ID="legacy", Service=other.service)
    found = fleet.plan()
    assert (found["health"]["registered"], len(found["hosts"])) == (2, 2)
    (note,) = fleet.notes
    assert note.startswith(f"Consul also has the service {other.service}, which this rollout leaves alone")


def test_what_the_hosts_do_not_cover(fleet: Fleet) -> None:
    for number in (1, 2, 3):
        fleet.add(number, version="1.0.0")
    hosts = [WantedHost("a", fleet.node(1), "2.0.0"), WantedHost("b", fleet.node(3), "2.0.0")]
    assert fleet.plan(hosts=hosts)["uncovered"] == [fleet.node(2)]
    assert f"also runs on 1 node: {fleet.node(2)}; this rollout does not cover" in fleet.notes[0]


def test_a_version_that_cannot_be_deployed(fleet: Fleet) -> None:
    fleet.add(1, Meta={"version": "release/1.0.0"})
    fleet.add(2, Meta={"version": "1.0.0"})
    found = fleet.plan()
    assert [host["rollback_to"] for host in found["hosts"].values()] == [None, "1.0.0"]
    assert any("'release/1.0.0'" in note for note in fleet.notes)


def test_whose_maintenance_it_is(fleet: Fleet) -> None:
    reason = f"deploy:20261123T142233Z-2.0.0-7f3a {fleet.service}"
    maintenance = fleet.check(f"_service_maintenance:{fleet.service}", "critical", Notes=reason)
    fleet.add(1, maintenance, fleet.check("http", "passing"), version="1.0.0")
    fleet.add(2, fleet.check("_node_maintenance", "critical", ServiceID="", Notes="oncall disk"), version="1.0.0")
    fleet.add(3, version="1.0.0")
    found = fleet.plan(min_healthy=0)
    assert [host["state"] for host in found["hosts"].values()] == ["to_change", "other_owner", "to_change"]
    assert found["batches"][0] == [fleet.node(1)]
    assert f"{fleet.node(2)} is skipped: in maintenance set by someone else: oncall disk." in fleet.notes


def test_maintenance_of_a_service_that_goes_with_it(consul: Server, fleet: Fleet) -> None:
    worker = Fleet(consul)
    fleet.add(1)
    fleet.add(2)
    body = {
        "Node": fleet.node(1),
        "Address": "127.0.0.1",
        "Service": {"Service": worker.service},
        "Check": {
            "CheckID": f"_service_maintenance:{worker.service}",
            "Status": "critical",
            "ServiceID": worker.service,
            "Notes": "oncall queue",
        },
    }
    fleet.client.put("/v1/catalog/register", body=json.dumps(body))
    assert fleet.plan(maintenance=[fleet.service, worker.service])["hosts"][fleet.node(1)]["state"] == "other_owner"
    assert fleet.plan()["hosts"][fleet.node(1)]["state"] == "to_change"


def test_a_dead_agent(fleet: Fleet) -> None:
    fleet.add(1)
    fleet.add(2, fleet.check("serfHealth", "critical", ServiceID="", Output="Agent not live or unreachable"))
    assert "Agent not live or unreachable" in fleet.refused()
    assert fleet.plan(unreachable="skip", min_healthy=0)["hosts"][fleet.node(2)]["state"] == "unreachable"


def test_a_check_of_the_node_that_fails_is_named(fleet: Fleet) -> None:
    fleet.add(1)
    fleet.add(2, fleet.check("disk", "critical", ServiceID="", Output="97% full"))
    fleet.plan(min_healthy=0, previous_version="1.0.0")
    assert fleet.notes == [
        f"{fleet.node(2)} cannot become healthy as long as its node's own check fails: disk is critical (97% full)."
    ]


def test_a_check_that_warns(fleet: Fleet) -> None:
    fleet.add(1, fleet.check("http", "warning"), version="2.0.0")
    assert "rollout_accept_warning: true" in fleet.refused(min_healthy=0)
    assert fleet.plan(accept_warning=True)["nothing_to_do"]


def test_nothing_that_could_verify_a_host(fleet: Fleet) -> None:
    fleet.add(1, fleet.check("hb", "passing", Type="ttl", Definition={}), version="1.0.0")
    fleet.add(2, fleet.check("app", "passing", ServiceID=""), version="1.0.0")
    assert f"works on 1 host: {fleet.node(1)}: there is no rollout_health_url" in fleet.refused()
    fleet.plan(unverified=True)
    unverified, assumed = fleet.notes
    assert unverified == (
        f"Nothing verifies that a new version works on 1 host: {fleet.node(1)}: a broken one would stay unnoticed."
    )
    assert assumed.startswith("Consul does not tell how often these checks have a new result: hb (ttl). 30 s are ")
    fleet.plan(health_urls=[fleet.node(1)])
    assert fleet.notes == []
    fleet.plan(smoke_test=True, check_interval=7)
    assert [note.partition(". ")[2][:16] for note in fleet.notes] == ["7 s are assumed "]


def test_what_the_definitions_of_checks_tell(fleet: Fleet) -> None:
    fleet.add(1, fleet.check("http", "passing", Definition=DEREGISTERS), version="1.0.0")
    fleet.add(2, fleet.check("http", "passing", Definition=DEREGISTERS), version="1.0.0")
    fleet.plan()
    assert [note.partition(":")[0] for note in fleet.notes] == ["DANGER"]
    fleet.plan(deploy_timeout=10, drain_time=0, healthy_deadline=40)
    assert fleet.notes == []


def test_only_instances_with_the_tags_count(fleet: Fleet) -> None:
    fleet.add(1, Tags=["prod"])
    fleet.add(2, Tags=["prod", "blue"])
    fleet.add(3, Tags=["staging"])
    found = fleet.plan(tags=["prod"])
    assert found["batches"] == [[fleet.node(1)], [fleet.node(2)]]
    assert found["health"]["registered"] == 2
    assert "None of the 3 instances" in fleet.refused(tags=["green"])


def test_refusals(fleet: Fleet) -> None:
    assert fleet.refused(hosts=[]).startswith(
        f"No instance of {fleet.service} is registered, or the token lacks read permission (Consul returns "
        "an empty result for both); nothing was changed."
    )
    fleet.add(1)
    assert "Set rollout_min_healthy: 0 to accept the downtime." in fleet.refused()
    assert fleet.plan(min_healthy=0)["batches"] == [[fleet.node(1)]]


def test_more_hosts_than_forks(fleet: Fleet) -> None:
    for number in (1, 2, 3, 4):
        fleet.add(number, version="1.0.0")
    found = fleet.plan(batch_size=2, forks=1)
    assert found["description"] == (
        f"{fleet.service} 1.0.0 -> 2.0.0 on 4 hosts in 2 batches of 2; at least 2 of 4 stay healthy"
    )
    assert "The largest batch has 2 hosts, and Ansible works on 1 at once" in fleet.notes[0]
    fleet.plan(batch_size=2, forks=2)
    assert fleet.notes == []
