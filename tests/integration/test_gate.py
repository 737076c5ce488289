"""The gate of a batch on a real Consul: what it decides stands in the deployment's keys, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulUnavailable
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import gate, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import record_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.finishing import finish
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import Servers, Services

pytestmark = pytest.mark.oldest

HOSTS = ("a", "b", "c")


@pytest.fixture(scope="module")
def consul(servers: Servers) -> Server:
    return servers.get(CONSUL)


class Rollout:
    """A rollout of three hosts, one at a time, as far as gates and outcomes go."""

    def __init__(self, server: Server, **options: Any) -> None:
        self.web = Services(server)
        self.web.register()
        self.keys = Keys(self.web.name)
        hosts = {name: {"node": f"n-{name}", "from": "1", "to": "2", "rollback_to": "1"} for name in HOSTS}
        plan = {
            "batches": [[name] for name in HOSTS],
            "coordinators": [f"batch-{number}" for number in (1, 2, 3)],
            "hosts": hosts,
            "health": {"minimum": options.pop("minimum", 0)},
        }
        made = self.web.rollout(**options)
        self.run = Run.of({**made.as_dict(), "plan": plan, "steps": ["drain"]})
        store.create(self.web.client(), self.keys, record_of(self.run), self.run.session)
        self.task = Task({}, {"url": server.url}, Host(None), warn=self.web.warned.append)

    def gate(self, batch: int) -> dict[str, Any]:
        return gate.open_gate(self.task, self.run, f"batch-{batch}")

    def progress(self) -> tuple[int, str]:
        found = self.web.client().key(self.keys.progress(self.run.id))
        data = json.loads(found.value) if found else {"batch": 0, "stop": ""}
        return data["batch"], data["stop"]

    def drained(self, batch: int) -> None:
        """The first write to a host of the batch."""
        self.web.client().txn([Progress(batch=batch).op(self.keys, self.run.id)])

    def ended(self, host: str, outcome: str) -> None:
        one = Outcome(host, f"n-{host}", outcome, batch=HOSTS.index(host) + 1)
        self.web.client().txn(store.outcome_ops(self.keys, self.run.id, one))

    def results(self) -> dict[str, str]:
        found: dict[str, str] = finish(self.task, self.run)["hosts"]
        return found


@pytest.fixture
def rollout(consul: Server) -> Rollout:
    return Rollout(consul)


def test_a_batch_begins_with_the_first_write_to_a_host_of_it(rollout: Rollout) -> None:
    head = rollout.gate(1)
    assert (head["proceed"], head["stop"], head["coordinator"]) == (True, "", "batch-1")
    assert head["hosts"] == {"a": {"from": "1", "to": "2", "rollback_to": "1"}}
    assert (head["service"], head["steps"]) == (rollout.keys.service, ["drain"])
    assert "told" not in head
    assert rollout.progress() == (0, "")
    assert rollout.results() == dict.fromkeys(HOSTS, "pending")


@pytest.mark.parametrize("steps", [["facts", "drain"], ["deploy_by_agent"]])
def test_or_with_its_gate_where_something_else_comes_first(consul: Server, steps: list[str]) -> None:
    rollout = Rollout(consul)
    rollout.run = Run.of({**rollout.run.as_dict(), "steps": steps})
    assert rollout.gate(1)["proceed"]
    assert rollout.progress() == (1, "")
    assert rollout.results() == {"a": "lost", "b": "pending", "c": "pending"}


def test_or_after_its_hook(consul: Server) -> None:
    rollout = Rollout(consul, before_batch_tasks="before.yml")
    rollout.run = Run.of({**rollout.run.as_dict(), "steps": ["facts", "drain"]})
    head = rollout.gate(1)
    assert head["proceed"]
    assert head["told"] == {
        "id": rollout.run.id,
        "service": rollout.keys.service,
        "version": "2",
        "reason": "deploy",
        "operator": rollout.run.operator,
        "message": "",
        "hosts": {"a": {"from": "1", "to": "2", "outcome": "pending", "why": ""}},
    }
    assert rollout.progress() == (0, "")
    assert gate.begin_batch(rollout.task, rollout.run, "batch-1")["proceed"]
    assert rollout.progress() == (1, "")
    rollout.ended("a", "ok")
    assert rollout.gate(2)["proceed"]
    head = gate.stop_before(rollout.task, rollout.run, "batch-2", "the before_batch hook failed: no")
    assert (head["proceed"], rollout.progress()) == (False, (1, "the before_batch hook failed: no"))
    assert rollout.gate(3)["stop"] == "the before_batch hook failed: no", "none follows it"
    assert rollout.progress() == (1, "the before_batch hook failed: no")
    assert rollout.results() == {"a": "ok", "b": "pending", "c": "pending"}


def test_a_start_hook_that_failed(rollout: Rollout) -> None:
    assert not gate.stop_before(rollout.task, rollout.run, "localhost", "the start hook failed: no")["proceed"]
    assert rollout.progress() == (0, "the start hook failed: no")
    result = finish(rollout.task, rollout.run)
    assert result["hosts"] == dict.fromkeys(HOSTS, "pending")
    assert "It stopped because the start hook failed: no." in result["verdict"]


def test_what_spent_the_budget_stops_all_that_follow(rollout: Rollout) -> None:
    rollout.drained(1)
    rollout.ended("a", "untouched")
    stop = "the failure budget of 0 is spent (a untouched)"
    assert rollout.gate(2)["stop"] == stop
    assert rollout.progress() == (1, stop)
    assert rollout.gate(3)["stop"] == stop
    assert rollout.results() == {"a": "untouched", "b": "pending", "c": "pending"}


def test_a_host_without_an_outcome_is_recorded_as_lost(rollout: Rollout) -> None:
    rollout.drained(1)
    assert "(a lost)" in rollout.gate(2)["stop"]
    assert rollout.results() == {"a": "lost", "b": "pending", "c": "pending"}


def test_a_batch_that_nobody_began_is_not_lost_and_none_follows_it(rollout: Rollout) -> None:
    """Its gate could not even write why."""
    send = rollout.task.consul.txn

    def away(*_args: object) -> Any:
        raise ConsulUnavailable("No answer from Consul.")

    rollout.task.consul.txn = away  # type: ignore[method-assign]
    assert "No answer from Consul." in rollout.gate(1)["stop"]
    assert "stops before batch 1" in rollout.web.warned[0]
    rollout.task.consul.txn = send  # type: ignore[method-assign]
    assert rollout.gate(2)["stop"] == "batch 1 was not begun"
    assert rollout.results() == dict.fromkeys(HOSTS, "pending")


def test_without_the_lock_nothing_begins_and_nothing_is_written(rollout: Rollout) -> None:
    rollout.web.server.put(f"session/destroy/{rollout.run.session}")
    assert "is no longer held by this run" in rollout.gate(1)["stop"]
    assert rollout.progress() == (0, "")


def test_the_minimum_is_waited_for(consul: Server) -> None:
    rollout = Rollout(consul, minimum=1, healthy_deadline=0.5)
    node = rollout.web.node
    planned = {**rollout.run.plan["hosts"], "a": {**rollout.run.plan["hosts"]["a"], "node": node}}
    rollout.run = Run.of({**rollout.run.as_dict(), "plan": {**rollout.run.plan, "hosts": planned}})
    store.create(rollout.web.client(), rollout.keys, record_of(rollout.run), rollout.run.session)
    assert "fewer than the minimum of 1 (rollout_min_healthy)" in rollout.gate(1)["stop"]


def test_the_hook_after_a_batch_is_told_how_its_hosts_ended(consul: Server) -> None:
    rollout = Rollout(consul)
    plan = {**rollout.run.plan, "batches": [["a", "b"], ["c"]]}
    rollout.run = Run.of({**rollout.run.as_dict(), "plan": plan})
    rollout.ended("a", "ok")
    told = gate.read_batch(rollout.task, rollout.run, "batch-1")["told"]
    lost = "it could not be reached any more during its turn"
    assert told["hosts"] == {
        "a": {"from": "1", "to": "2", "outcome": "ok", "why": ""},
        "b": {"from": "1", "to": "2", "outcome": "lost", "why": lost},
    }
    assert (told["id"], told["version"]) == (rollout.run.id, "2")
