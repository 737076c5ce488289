"""The gate of a window on a real Consul, with many workers at it at once."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_check_session
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store, window
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import record_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress, read_progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.recorded_host import RecordedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import Servers, Services

pytestmark = pytest.mark.oldest

HOSTS = [f"web{number}" for number in range(1, 11)]


@pytest.fixture(scope="module")
def consul(servers: Servers) -> Server:
    return servers.get(CONSUL)


class Window:
    """A rollout over ten nodes of the catalog, as far as its gate goes."""

    def __init__(self, server: Server, *, minimum: int, **options: Any) -> None:
        self.web, self.server = Services(server), server
        self.keys = Keys(self.web.name)
        self.nodes = {host: f"{self.web.name}-{host}" for host in HOSTS}
        for host in HOSTS:
            self.set(host, "passing")
        hosts = {host: {"node": self.nodes[host], "batch": 1, "from": "1", "to": "2"} for host in HOSTS}
        plan = {"batches": [HOSTS], "windows": [10], "hosts": hosts, "health": {"minimum": minimum}}
        made = self.web.rollout(**{"healthy_deadline": 2, **options})
        self.run = Run.of({**made.as_dict(), "plan": plan, "steps": ["turn"]})
        store.create(self.web.client(), self.keys, record_of(self.run), self.run.session)

    def set(self, host: str, status: str) -> None:
        node = self.nodes[host]
        service = {"Service": self.web.name, "ID": self.web.name}
        check = {"Node": node, "CheckID": "alive", "Name": "alive", "Status": status, "ServiceID": self.web.name}
        body = {"Node": node, "Address": "127.0.0.9", "Service": service, "Check": check}
        self.server.put("catalog/register", body)

    def host(self, name: str) -> RecordedHost:
        task = Task({}, {"url": self.server.url}, Host(None), warn=self.web.warned.append)
        return RecordedHost(task, self.run, self.run.host(name), Turn(self.run.id))

    def admit(self, name: str) -> str:
        host = self.host(name)
        fence = kv_check_session(self.keys.lock, self.run.session)
        return window.admit(host, lambda operations, _seen: host.task.consul.txn([fence, *operations]))

    def end(self, name: str, outcome: str) -> None:
        host = self.host(name)
        host.turn = Turn(self.run.id, "returning" if outcome == "ok" else "rolling_back", outcome != "ok")
        assert host.end(outcome) == ""

    @property
    def progress(self) -> Progress:
        return read_progress(self.web.client(), self.keys, self.run.id)

    def all_at_once(self, then: Any = None) -> dict[str, str]:
        """Ten workers at the gate -> host -> why it may not begin."""
        barrier, answers = threading.Barrier(len(HOSTS)), {}

        def work(name: str) -> None:
            barrier.wait()
            answers[name] = self.admit(name)
            if then and not answers[name]:
                then(name)

        workers = [threading.Thread(target=work, args=(name,)) for name in HOSTS]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return answers


def test_ten_workers_at_once_never_go_below_the_minimum(consul: Server) -> None:
    gate = Window(consul, minimum=7)
    answers = gate.all_at_once()
    begun = [name for name, why in answers.items() if not why]
    assert len(begun) == 3
    assert set(gate.progress.in_flight) == {gate.nodes[name] for name in begun}
    whys = {why for why in answers.values() if why}
    assert len(whys) == 1, "one worker stops the rollout, and the others say the same"
    assert "would leave 6, fewer than the minimum of 7" in whys.pop()


def test_where_one_ends_the_next_begins(consul: Server) -> None:
    gate = Window(consul, minimum=8, healthy_deadline=30)
    most: list[int] = []

    def turn(name: str) -> None:
        most.append(len(gate.progress.in_flight))
        time.sleep(0.05)
        gate.end(name, "ok")

    assert set(gate.all_at_once(turn).values()) == {""}
    assert max(most) <= 2
    assert gate.progress.in_flight == {}


def test_a_spent_budget_stops_those_that_wait(consul: Server) -> None:
    gate = Window(consul, minimum=9, healthy_deadline=30, failure_budget=0)
    answers = gate.all_at_once(lambda name: gate.end(name, "rolled_back"))
    begun = [name for name, why in answers.items() if not why]
    assert len(begun) == 1
    assert {why for why in answers.values() if why} == {f"the failure budget of 0 is spent ({begun[0]} rolled back)"}


def test_an_instance_that_is_deregistered_is_missed(consul: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "COUNT_EVERY", 0.0)
    gate = Window(consul, minimum=8)
    for host in HOSTS[7:]:
        consul.put("catalog/deregister", {"Node": gate.nodes[host]})
    assert "only 7 of 7 instances are healthy" in gate.admit("web1")


def test_an_instance_that_breaks_is_seen_between_two_counts(consul: Server) -> None:
    gate = Window(consul, minimum=8)
    assert gate.admit("web1") == ""
    for host in HOSTS[8:]:
        gate.set(host, "critical")
    assert "only 7 of 10 instances are healthy" in gate.admit("web2")


def test_a_host_that_is_broken_takes_nothing_away(consul: Server) -> None:
    gate = Window(consul, minimum=9)
    gate.set("web5", "critical")
    assert gate.admit("web5") == ""
    assert gate.progress.in_flight == {gate.nodes["web5"]: 0}


def test_it_waits_for_a_repair(consul: Server) -> None:
    gate = Window(consul, minimum=9, healthy_deadline=30)
    gate.set("web5", "critical")
    repair = threading.Timer(0.5, gate.set, ("web5", "passing"))
    repair.start()
    assert gate.admit("web1") == ""
    repair.join()


def test_nothing_begins_without_the_lock(consul: Server) -> None:
    gate = Window(consul, minimum=0)
    consul.put(f"session/destroy/{gate.run.session}")
    assert "no longer held by this run" in gate.admit("web1")
    assert not gate.progress.in_flight


def test_a_stop_is_heard_within_a_second(consul: Server) -> None:
    gate = Window(consul, minimum=10, healthy_deadline=60)
    client = gate.web.client()

    def stop() -> None:
        client.set_key(gate.keys.progress(gate.run.id), json.dumps({"stop": "the operator said so"}))

    timer = threading.Timer(0.5, stop)
    timer.start()
    began = time.monotonic()
    assert gate.admit("web1") == "the operator said so"
    assert time.monotonic() - began < 20  # and not the minute of the deadline
