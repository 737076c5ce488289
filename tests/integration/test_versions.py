"""Recorded versions, against a real Consul."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from ansible_collections.hitless.consul.plugins.action import version, version_info
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_set
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store, versions
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server

pytestmark = pytest.mark.oldest

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    server = Server(CONSUL, 34)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def client(consul: Server) -> Client:
    return Client(Connection(consul.url))


@pytest.fixture
def keys() -> Keys:
    """A service of this test alone."""
    return Keys(f"web-{next(numbers)}")


def session_with_lock(client: Client, keys: Keys) -> str:
    session: str = client.put("/v1/session/create", body=json.dumps({"LockDelay": "0s"})).data["ID"]
    assert client.set_key(keys.lock, "{}", acquire=session)
    return session


def task(consul: Server, keys: Keys, *, check_mode: bool = False, **params: object) -> Task:
    defaults = {"node": "n1", "version": None, "previous": None, "expect": None, "session": None, "state": "present"}
    options = {"url": consul.url, "node": params.get("node", "n1")}
    return Task({**defaults, "service": keys.service, **params}, options, Host(None), check_mode)


def recorded(client: Client, keys: Keys, node: str = "n1") -> tuple[str | None, str | None]:
    there = versions.read_version(client, keys, node)
    return there.version, there.previous


def test_a_new_version_makes_the_old_one_the_previous_one(consul: Server, client: Client, keys: Keys) -> None:
    first = version.perform(task(consul, keys, version="1"))
    again = version.perform(task(consul, keys, version="1"))
    second = version.perform(task(consul, keys, version="2"))
    third = version.perform(task(consul, keys, version="2"))
    assert [one["changed"] for one in (first, again, second, third)] == [True, False, True, False]
    assert second["diff"] == {
        "before": {"version": "1", "previous": None},
        "after": {"version": "2", "previous": "1"},
    }
    assert recorded(client, keys) == ("2", "1")


def test_check_mode_says_what_would_change_and_writes_nothing(consul: Server, client: Client, keys: Keys) -> None:
    told = version.perform(task(consul, keys, version="1", check_mode=True))
    assert (told["changed"], told["version"]) == (True, "1")
    assert recorded(client, keys) == (None, None)


def test_an_empty_previous_version_is_forgotten(consul: Server, client: Client, keys: Keys) -> None:
    version.perform(task(consul, keys, version="2", previous="1"))
    told = version.perform(task(consul, keys, version="1", previous=""))
    assert (told["version"], told["previous"]) == ("1", None)
    assert recorded(client, keys) == ("1", None)


def test_absent_deletes_both_and_is_idempotent(consul: Server, client: Client, keys: Keys) -> None:
    version.perform(task(consul, keys, version="2", previous="1"))
    assert version.perform(task(consul, keys, state="absent", expect="2"))["changed"]
    assert not version.perform(task(consul, keys, state="absent"))["changed"]
    assert recorded(client, keys) == (None, None)


@pytest.mark.parametrize("more", [{"version": "1"}, {"state": "absent"}])
def test_told_by_hand_it_is_trusted_whatever_a_deployment_left(
    consul: Server, client: Client, keys: Keys, more: dict[str, str]
) -> None:
    version.perform(task(consul, keys, version="1"))
    client.txn([kv_set(keys.status("n1"), json.dumps({"deployment": "d1", "state": "deploying"}))])
    assert not versions.read_version(client, keys, "n1").version_is_trusted
    assert version.perform(task(consul, keys, **more))["changed"]
    assert versions.read_version(client, keys, "n1").version_is_trusted
    assert not version.perform(task(consul, keys, **more))["changed"]


@pytest.mark.parametrize(("there", "expect"), [("1", "0"), ("1", ""), (None, "1")])
def test_expecting_another_version_fails_and_says_what_is_there(
    consul: Server, client: Client, keys: Keys, there: str | None, expect: str
) -> None:
    if there:
        version.perform(task(consul, keys, version=there))
    with pytest.raises(HitlessError, match=f"is {there or 'not set'}, and not {expect or 'unset'}") as error:
        version.perform(task(consul, keys, version="2", expect=expect))
    assert error.value.details == {"version": there, "previous": None}
    assert recorded(client, keys) == (there, None)


def test_a_change_between_read_and_write_is_not_overwritten(client: Client, keys: Keys) -> None:
    before = versions.read_version(client, keys, "n1")
    versions.record_version(client, keys, "n1", "1")
    with pytest.raises(HitlessError, match="is 1, and not unset as expected"):
        versions.record_version(client, keys, "n1", "2", expect=before)
    seen = versions.read_version(client, keys, "n1")
    versions.record_version(client, keys, "n1", "1.1")
    with pytest.raises(HitlessError, match=r"is 1\.1, and not 1 as expected"):
        versions.forget_version(client, keys, "n1", expect=seen)
    assert recorded(client, keys) == ("1.1", None)


def test_our_own_write_that_was_sent_twice_is_no_conflict(client: Client, keys: Keys) -> None:
    before = versions.read_version(client, keys, "n1")
    versions.record_version(client, keys, "n1", "2", expect=before)
    versions.record_version(client, keys, "n1", "2", expect=before)
    assert recorded(client, keys) == ("2", None)


def test_without_the_lock_nothing_of_the_transaction_is_written(client: Client, keys: Keys) -> None:
    session = session_with_lock(client, keys)
    extra = [kv_set(f"{keys.node('n1')}status", "{}")]
    versions.record_version(client, keys, "n1", "1", session=session, extra_ops=extra)
    client.set_key(keys.lock, "{}", release=session)
    with pytest.raises(LockLost, match="no longer held by this run"):
        versions.record_version(client, keys, "n1", "2", previous="1", session=session)
    with pytest.raises(LockLost):
        versions.forget_version(client, keys, "n1", session=session)
    there = versions.read_version(client, keys, "n1")
    assert (there.version, there.previous, there.status) == ("1", None, {})


def test_more_nodes_than_fit_into_one_request(client: Client, keys: Keys) -> None:
    nodes = [f"n{number}" for number in range(150)]
    for number in range(0, 150, 50):
        client.txn([kv_set(keys.version(node), node) for node in nodes[number : number + 50]])
    sent = client.requests
    found = versions.read_versions(client, keys, [*nodes, "unknown"])
    assert client.requests - sent == 3
    assert {node: there.version for node, there in found.items()} == {**{node: node for node in nodes}, "unknown": None}


def test_node_names_that_begin_alike_are_kept_apart(client: Client, keys: Keys) -> None:
    versions.record_version(client, keys, "n1", "1")
    versions.record_version(client, keys, "n10", "10")
    assert recorded(client, keys, "n1") == ("1", None)
    assert list(versions.read_versions(client, keys, ["n1"])) == ["n1"]


def test_other_keys_below_a_node_do_no_harm(client: Client, keys: Keys) -> None:
    versions.record_version(client, keys, "n1", "1")
    client.set_key(f"{keys.node('n1')}more/version", "9")
    client.set_key(f"{keys.node('n1')}status", "not JSON")
    there = versions.read_version(client, keys, "n1")
    assert (there.version, there.previous, there.status) == ("1", None, None)


@pytest.mark.parametrize("given", [1.1, 2, "1 2", "", "x" * 129])
def test_what_is_no_version_is_refused(consul: Server, client: Client, keys: Keys, given: object) -> None:
    with pytest.raises(HitlessError, match="version"):
        version.perform(task(consul, keys, version=given))
    assert recorded(client, keys) == (None, None)


def test_info_reads_all_nodes_that_the_catalog_has(consul: Server, client: Client, keys: Keys) -> None:
    node = consul.get("agent/self")["Config"]["NodeName"]
    for number, told in enumerate(["1.0", "1.0"]):
        body = {"Name": keys.service, "ID": f"{keys.service}-{number}", "Meta": {"version": told}}
        consul.put("agent/service/register", body)
    versions.record_version(client, keys, node, "1", previous="0")
    params = {"service": keys.service, "nodes": None, "meta_key": "version"}
    found = version_info.perform(Task(params, {"url": consul.url}, Host(None)))["nodes"]
    assert found == {node: {"version": "1", "previous": "0", "meta_version": "1.0", "status": None}}
    body = {"Name": keys.service, "ID": f"{keys.service}-0", "Meta": {"version": "1.1"}}
    consul.put("agent/service/register", body)
    params["nodes"] = [node, "elsewhere"]
    found = version_info.perform(Task(params, {"url": consul.url}, Host(None)))["nodes"]
    assert found[node]["meta_version"] is None
    assert found["elsewhere"] == {"version": None, "previous": None, "meta_version": None, "status": None}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"steps": 5},
        {"steps": ["x"]},
        {"deployment": None},
        {"state": ["ok"]},
        {"state": {}, "at": 1},
        {"message": 1},
    ],
)
def test_a_machine_may_have_put_anything_into_its_status(client: Client, keys: Keys, status: dict[str, object]) -> None:
    client.set_key(keys.status("n1"), json.dumps({"deployment": "d1", **status}))
    there = versions.read_version(client, keys, "n1")
    assert there.status is not None
    assert all(isinstance(one, list if name == "steps" else str) for name, one in there.status.items())
    assert there.version_is_trusted
    assert [list(step) for step in store.steps_of(there.status)] == [["state", "at"]]
