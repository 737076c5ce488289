"""Deployments of many hosts as Consul keeps them: written, listed, read, ended, pruned, and cut off at any write."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.action import deployment_info
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    VALUE_LIMIT,
    in_transactions,
    kv_check_session,
    kv_set,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    ConsulUnavailable,
    HitlessError,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.pruning import prune
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import record_version
from tests.integration.services import Services

ID = "20261123T142233Z-2-7f3a"
NEXT = "20261124T142233Z-3-0000"
BATCH = 50


class Watching(Client):
    """Remembers what transactions return, and ends like a killed process at the one with that number."""

    def __init__(self, url: str, ends_at: int = 0) -> None:
        super().__init__(Connection(url))
        self.seen: list[str] = []
        self.writes = 0
        self._ends_at = ends_at

    def txn(self, operations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        if any(one["Verb"] == "check-session" for one in operations):
            self.writes += 1
            if self.writes == self._ends_at:
                raise ConsulUnavailable("killed")
        found = super().txn(operations)
        self.seen += [item["Key"] for item in found]
        return found


class Fleet:
    """A service with many hosts, and the lock of a run of it."""

    def __init__(self, web: Services, size: int) -> None:
        self.web = web
        self.keys = Keys(web.name)
        self.client = web.client()
        self.session = self.lock(ID)
        hosts = {
            f"web-{number:05}.frontend.eu-central-1.example.org": PlannedHost(
                f"web-{number:05}.frontend.eu-central-1.example.org",
                f"web-{number:05}",
                batch=number // BATCH + 1,
                from_version="2026.11.23-rc1",
                to_version="2026.11.24-rc1",
                rollback_to="2026.11.23-rc1",
            )
            for number in range(size)
        }
        uncovered = tuple(f"other-{number:05}.example.org" for number in range(size // 4))
        started = "2026-11-23T14:22:33Z"
        self.record = Record(ID, web.name, "2", holder="anna@ci", hosts=hosts, uncovered=uncovered, started=started)

    def watching(self, ends_at: int = 0) -> Watching:
        return Watching(self.web.server.url, ends_at)

    def lock(self, deployment: str) -> str:
        session = self.web.session(self.keys.lock)
        value = json.dumps({"deployment": deployment, "holder": "anna@ci", "since": "", "message": ""})
        assert self.client.set_key(self.keys.lock, value, acquire=session)
        return session

    def relock(self, deployment: str) -> str:
        """The run has ended, and another one has begun."""
        self.client.put(f"/v1/session/destroy/{self.session}")
        self.session = self.lock(deployment)
        return self.session

    def create(self) -> None:
        store.create(self.client, self.keys, self.record, self.session)

    def end_hosts(self, number: int, first: int = 0) -> None:
        fence = kv_check_session(self.keys.lock, self.session)
        hosts = list(self.record.hosts.values())[first : first + number]
        outcomes = [Outcome(one.host, one.node, "ok", "1", "2", one.batch, output="x" * 500) for one in hosts]
        sets = (kv_set(self.keys.outcome(ID, one.node), one.to_json()) for one in outcomes)
        for part in in_transactions(fence, sets):
            self.client.txn(part)

    def sizes(self) -> dict[str, int]:
        """Key -> bytes of its value, of all that there is of the service's deployments."""
        found = self.client.get(f"/v1/kv/{self.keys.deployments}", [("recurse", "")]).data or []
        return {item["Key"]: len(b64decode(item["Value"] or "")) for item in found}


@pytest.fixture
def fleet(web: Services) -> Iterator[Fleet]:
    """Of 3,000 hosts, and nothing is left of it: others share this Consul."""
    made = Fleet(web, 3000)
    yield made
    made.client.delete_key(f"deploy/{web.name}/", recurse=True)


@pytest.mark.parametrize(
    "size", [pytest.param(3000, marks=pytest.mark.oldest), pytest.param(10_000, marks=pytest.mark.slow)]
)
def test_the_life_of_a_deployment_of_many_hosts(web: Services, size: int) -> None:
    fleet = Fleet(web, size)
    keys, client = fleet.keys, fleet.client
    fleet.create()
    written = fleet.sizes()
    assert max(written.values()) <= VALUE_LIMIT
    assert written[keys.record(ID)] < 2000
    # Each of them is full: no more keys than it takes.
    assert len(written) - 1 == -(-sum(written.values()) // VALUE_LIMIT)

    found = store.require(client, keys, ID)
    assert found.record == replace(fleet.record, chunks=len(written) - 1)
    assert list(found.record.hosts) == list(fleet.record.hosts)
    assert [len(batch) for batch in found.record.batches] == [BATCH] * (size // BATCH)
    assert (found.is_alive, found.outcomes, found.batch) == (True, {}, 0)

    # All hosts of half of the batches have had their turn, and ten of them have left no trace.
    half = size // 2
    fleet.end_hosts(half - 10)
    client.txn([Progress(batch=half // BATCH).op(keys, ID)])
    assert store.refresh(client, keys, found) == store.require(client, keys, ID)
    ended = ending.conclude(client, keys, ID)
    assert ended.record.summary == {"ok": half - 10, "pending": half, "lost": 10}
    assert ended.unwritten is not None
    assert len(ended.unwritten) == 10
    ending.write_end(client, keys, ended, fleet.session)
    again = store.require(client, keys, ID)
    assert again == replace(ended, unwritten=None)
    # Its plan is as it was: only the record and the hosts' own keys have changed.
    plan = {key: size for key, size in written.items() if key.startswith(keys.plan(ID))}
    assert plan.items() <= fleet.sizes().items()
    assert max(fleet.sizes().values()) <= VALUE_LIMIT

    session = fleet.relock(NEXT)
    # While it runs, the one before it is what a rollback by hand would undo.
    store.create(client, keys, Record(NEXT, web.name, "3"), session)
    assert prune(client, keys, session, keep=1) == []
    store.create(client, keys, ended_well(Record(NEXT, web.name, "3")), session)
    assert prune(client, keys, session, keep=1) == [ID]
    assert list(fleet.sizes()) == [keys.record(NEXT)]


def ended_well(record: Record) -> Record:
    return replace(record, state="successful", summary={"ok": 1})


def test_lists_read_no_plan_and_no_outcome(fleet: Fleet) -> None:
    fleet.create()
    fleet.end_hosts(100)
    client = fleet.watching()
    (listed,) = store.list_recent(client, fleet.keys, 5)
    assert (listed.state, listed.record.holder, listed.is_alive) == ("running", "anna@ci", True)
    assert store.find_interrupted(client, fleet.keys) == []
    assert set(client.seen) == {fleet.keys.record(ID), fleet.keys.lock}
    assert prune(client, fleet.keys, fleet.session, keep=1) == []
    assert set(client.seen) == {fleet.keys.record(ID), fleet.keys.lock}
    assert client.requests <= 6


def test_who_follows_a_deployment_reads_only_what_is_new(fleet: Fleet) -> None:
    fleet.create()
    fleet.end_hosts(100)
    client = fleet.watching()
    found = store.require(client, fleet.keys, ID)
    client.seen.clear()
    before = client.requests
    fleet.end_hosts(3, first=100)
    found = store.refresh(client, fleet.keys, found)
    assert len(found.outcomes) == 103
    assert set(client.seen) <= {fleet.keys.record(ID), fleet.keys.progress(ID), fleet.keys.lock}
    assert client.requests - before == 5
    assert found == store.require(client, fleet.keys, ID)
    fleet.relock(NEXT)
    assert store.refresh(client, fleet.keys, found).state == "interrupted"


def test_a_plan_that_was_cut_off_is_no_deployment_and_pruning_deletes_it(fleet: Fleet) -> None:
    client = fleet.watching(ends_at=2)
    with pytest.raises(ConsulUnavailable, match="killed"):
        store.create(client, fleet.keys, fleet.record, fleet.session)
    left = fleet.sizes()
    assert left
    assert {key.rpartition("/")[0] + "/" for key in left} == {fleet.keys.plan(ID)}

    session = fleet.relock(NEXT)
    assert store.read(fleet.client, fleet.keys, ID) is None
    assert store.list_recent(fleet.client, fleet.keys, 5) == []
    assert ending.mark_interrupted(fleet.client, fleet.keys, session) == []
    with pytest.raises(HitlessError, match="knows no deployment of web-"):
        fleet.web.run(deployment_info, service=fleet.web.name, id="last")
    earlier = Record("20261122T142233Z-1-0000", fleet.web.name, "1", state="failed")
    for one in (Record(NEXT, fleet.web.name, "3"), earlier):
        store.create(fleet.client, fleet.keys, one, session)
    # It takes no place in a list, and none of those that are kept.
    listed = store.list_recent(fleet.client, fleet.keys, 2)
    assert [one.record.id for one in listed] == [NEXT, earlier.id]
    assert prune(fleet.client, fleet.keys, session, keep=2) == [ID]
    assert set(fleet.sizes()) == {fleet.keys.record(NEXT), fleet.keys.record(earlier.id)}


class Blind(Watching):
    """Shows no key: a token that may read none, or a leader that changes, are answered so."""

    def txn(self, operations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        found = super().txn(operations)
        return [] if all(one["Verb"] == "get-tree" for one in operations) else found


def test_a_record_that_was_only_not_shown_is_never_deleted(fleet: Fleet) -> None:
    fleet.create()
    before = fleet.sizes()
    with pytest.raises(ConsulError, match="Consul refused a transaction"):
        prune(Blind(fleet.web.server.url), fleet.keys, fleet.session, keep=1)
    assert fleet.sizes() == before


def test_the_record_is_written_last_and_never_without_the_lock(fleet: Fleet) -> None:
    chunks = len(fleet.record.plan_values())
    writes = fleet.watching()
    store.create(writes, fleet.keys, fleet.record, fleet.session)
    for ends_at in range(1, writes.writes + 1):
        fleet.client.delete_key(fleet.keys.deployment(ID), recurse=True)
        with pytest.raises(ConsulUnavailable):
            store.create(fleet.watching(ends_at), fleet.keys, fleet.record, fleet.session)
        assert fleet.keys.record(ID) not in fleet.sizes()
        assert len(fleet.sizes()) < chunks or ends_at == writes.writes
    before = fleet.sizes()
    fleet.client.put(f"/v1/session/destroy/{fleet.session}")
    with pytest.raises(LockLost):
        fleet.create()
    assert fleet.sizes() == before


def test_an_end_that_was_cut_off_comes_to_the_same_when_it_is_written_again(fleet: Fleet) -> None:
    fleet.create()
    fleet.end_hosts(100)
    fleet.client.txn([Progress(batch=10).op(fleet.keys, ID)])
    ended = ending.conclude(fleet.client, fleet.keys, ID)
    assert ended.record.summary == {"ok": 100, "pending": 2500, "lost": 400}
    with pytest.raises(ConsulUnavailable):
        ending.write_end(fleet.watching(ends_at=4), fleet.keys, ended, fleet.session)
    again = ending.conclude(fleet.client, fleet.keys, ID)
    assert (again.record.summary, again.results) == (ended.record.summary, ended.results)
    assert again.unwritten is not None
    assert 0 < len(again.unwritten) < 400
    ending.write_end(fleet.client, fleet.keys, again, fleet.session)
    assert store.require(fleet.client, fleet.keys, ID).results == ended.results


def test_a_reason_that_names_every_host_makes_no_large_key(fleet: Fleet) -> None:
    fleet.create()
    stop = f"the failure budget of 0 is spent ({', '.join(fleet.record.hosts)})"
    fleet.client.txn([Progress(batch=1, stop=stop).op(fleet.keys, ID)])
    ended = ending.conclude(fleet.client, fleet.keys, ID)
    ending.write_end(fleet.client, fleet.keys, ended, fleet.session)
    assert "It stopped because the failure budget of 0 is spent (web-00000." in ended.record.description
    sizes = fleet.sizes()
    assert max(sizes[key] for key in (fleet.keys.record(ID), fleet.keys.progress(ID))) < 5000


def test_old_deployments_by_agents_go_with_their_logs_and_what_runs_somewhere_stays(fleet: Fleet) -> None:
    old = replace(fleet.record, options={"mode": "agent"}, state="failed")
    store.create(fleet.client, fleet.keys, old, fleet.session)
    nodes = [host.node for host in old.hosts.values()]
    for node in (nodes[0], nodes[-1]):
        fleet.client.set_key(f"{fleet.keys.agent_log(node, ID)}000001", "a line\n")
    store.create(fleet.client, fleet.keys, ended_well(Record(NEXT, fleet.web.name, "3")), fleet.session)
    record_version(fleet.client, fleet.keys, nodes[-1], "2", session=fleet.session)
    session = fleet.relock(NEXT)
    assert prune(fleet.client, fleet.keys, session, keep=1) == []
    record_version(fleet.client, fleet.keys, nodes[-1], "3", session=session)
    assert prune(fleet.client, fleet.keys, session, keep=1) == [ID]
    logs = [fleet.client.key_names(fleet.keys.agent_log(node, ID)) for node in (nodes[0], nodes[-1])]
    assert logs == [[], []]


def test_consul_takes_the_largest_transactions(web: Services) -> None:
    client = web.client()
    session = web.session(Keys(web.name).lock)
    fence = kv_check_session(Keys(web.name).lock, session)
    filled = [kv_set(f"filled/{number}", "x" * VALUE_LIMIT) for number in range(2)]
    small = [kv_set(f"filled/small{number}", "x" * 5000) for number in range(70)]
    for part in in_transactions(fence, [*filled, *small]):
        client.txn(part)
    assert sum(len(pair.value) for pair in client.keys("filled/")) == 2 * VALUE_LIMIT + 70 * 5000
    client.delete_key("filled/", recurse=True)
