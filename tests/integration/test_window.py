"""The gate of a window on a real Consul, with many workers at it at once."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout import looking
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import Servers
from tests.integration.window import HOSTS, Window

pytestmark = pytest.mark.oldest


@pytest.fixture(scope="module")
def consul(servers: Servers) -> Server:
    return servers.get(CONSUL)


@pytest.fixture(autouse=True, params=[500, 0], ids=["small", "large"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a small service is read, and as a large one."""
    monkeypatch.setattr(looking, "FEW", request.param)


def test_ten_workers_at_once_never_go_below_the_minimum(consul: Server) -> None:
    gate = Window(consul, minimum=7)
    answers = gate.all_at_once()
    begun = [name for name, why in answers.items() if not why]
    assert len(begun) == 3
    assert set(gate.progress.in_flight) == {gate.nodes[name] for name in begun}
    whys = {why for why in answers.values() if why}
    assert len(whys) == 1, "one worker stops the rollout, and the others say the same"
    assert "would leave 6, fewer than the minimum of 7" in whys.pop()


TWO_WAVES = {"eu-1": (4, HOSTS[:5]), "eu-2": (2, HOSTS[5:])}
"""At most one host of the first, and three of the second."""


def test_the_minimum_of_each_wave_holds_for_ten_workers_at_once(consul: Server) -> None:
    gate = Window(consul, minimum=0, waves=TWO_WAVES, healthy_deadline=30)
    most: Counter[str] = Counter()

    def turn(name: str) -> None:
        in_waves = Counter(
            "eu-1" if name in HOSTS[:5] else "eu-2" for name in HOSTS if gate.nodes[name] in gate.progress.in_flight
        )
        most.update({wave: max(0, number - most[wave]) for wave, number in in_waves.items()})
        time.sleep(0.05)
        gate.end(name, "ok")

    assert set(gate.all_at_once(turn).values()) == {""}
    assert most["eu-1"] == 1
    assert most["eu-2"] <= 3


def test_a_wave_waits_for_its_own_hosts_as_long_as_these_take(consul: Server) -> None:
    """Which is longer than others may take to become healthy: a rollback has hosts of all waves in flight."""
    gate = Window(consul, minimum=0, waves=TWO_WAVES, healthy_deadline=0.3)
    assert gate.admit("web1") == ""
    assert gate.admit("web6") == ""
    ends = threading.Timer(1.5, gate.end, ("web1", "ok"))
    ends.start()
    assert gate.admit("web2") == ""
    ends.join()


def test_too_few_in_its_wave_stop_it(consul: Server) -> None:
    gate = Window(consul, minimum=0, waves=TWO_WAVES)
    gate.set("web5", "critical")
    why = gate.admit("web1")
    assert "only 4 of 5 instances of wave eu-1 are healthy" in why
    assert "would leave 3, fewer than the minimum of 4 there (rollout_min_healthy)" in why
    assert gate.progress.stop == why


def test_an_instance_of_its_wave_that_is_deregistered_is_missed(
    consul: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Window(consul, minimum=0, waves=TWO_WAVES)
    with monkeypatch.context() as now:
        now.setattr(looking, "COUNT_EVERY", 0.0)
        gate.deregister("web5")
        assert gate.admit("web6") == ""
    assert gate.progress.in_waves == {"eu-1": 4, "eu-2": 5}
    assert "only 4 of 4 instances of wave eu-1 are healthy" in gate.admit("web1")


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


def all_fail(gate: Window) -> None:
    for host in HOSTS:
        gate.set(host, "critical")


def test_where_nothing_works_one_goes_back_first(consul: Server) -> None:
    """With the first that works again the others follow at once."""
    gate = Window(consul, minimum=1, direction="rollback", healthy_deadline=30, failure_budget=10)
    all_fail(gate)
    beside: list[int] = []

    def turn(name: str) -> None:
        beside.append(len(gate.progress.in_flight))
        time.sleep(0.3)
        gate.set(name, "passing")
        gate.end(name, "ok")

    assert set(gate.all_at_once(turn).values()) == {""}
    assert beside[0] == 1
    assert max(beside) > 1


def test_where_the_old_version_does_not_work_either_the_others_are_left(consul: Server) -> None:
    gate = Window(consul, minimum=1, direction="rollback", healthy_deadline=30, failure_budget=10)
    all_fail(gate)
    answers = gate.all_at_once(lambda name: gate.end(name, "failed"))
    begun = [name for name, why in answers.items() if not why]
    assert len(begun) == 2
    assert "works, on its old version neither" in gate.progress.stop
    assert {why for why in answers.values() if why} == {gate.progress.stop}


def test_a_spent_budget_stops_those_that_wait(consul: Server) -> None:
    gate = Window(consul, minimum=9, healthy_deadline=30, failure_budget=0)
    answers = gate.all_at_once(lambda name: gate.end(name, "rolled_back"))
    begun = [name for name, why in answers.items() if not why]
    assert len(begun) == 1
    assert {why for why in answers.values() if why} == {f"the failure budget of 0 is spent ({begun[0]} rolled back)"}


def test_an_instance_that_is_deregistered_is_missed(consul: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "COUNT_EVERY", 0.0)
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


@pytest.mark.parametrize("direction", ["deploy", "rollback"])
def test_what_warns_stops_a_rollout_and_not_a_rollback(consul: Server, direction: str) -> None:
    made = Window(consul, minimum=5, direction=direction)
    made.set("web1", "warning")
    why = made.admit("web1")
    assert ("still warns" in why) is (direction == "deploy"), why


def test_all_instances_of_a_node_that_fails_are_missed(consul: Server) -> None:
    """Which the failing check of the node does not tell: they are counted anew, once."""
    gate = Window(consul, minimum=9)
    gate.second("web9")
    gate.second("web10")
    gate.count()
    assert gate.admit("web1") == ""
    gate.end("web1", "ok")
    gate.fail_node("web9")
    assert gate.admit("web2") == ""
    gate.end("web2", "ok")
    gate.fail_node("web10")
    assert "only 8 of 12 instances are healthy" in gate.admit("web3")


def test_a_node_that_fails_and_has_no_instance_is_none_of_its_own(consul: Server) -> None:
    gate = Window(consul, minimum=9)
    node = f"{gate.web.name}-db"
    check = {"Node": node, "CheckID": "disk", "Status": "critical"}
    consul.put("catalog/register", {"Node": node, "Address": "127.0.0.9", "Check": check})
    assert gate.admit("web1") == ""


def test_a_great_many_nodes_that_fail_are_not_remembered(consul: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MANY", 1)
    gate = Window(consul, minimum=7)
    gate.fail_node("web9")
    gate.fail_node("web10")
    gate.count()
    assert gate.admit("web1") == ""
    assert not gate.progress.failing
    gate.fail_node("web8")
    assert "only 6 of 10 instances are healthy" in gate.admit("web2")


def test_only_instances_with_the_tags_count(consul: Server) -> None:
    gate = Window(consul, minimum=9, tags=["blue"])
    for host in HOSTS:
        gate.set(host, "passing", tags=["blue"])
    gate.second("web2", "critical", tags=["green"])
    gate.count()
    assert gate.admit("web1") == ""
    gate.end("web1", "ok")
    gate.set("web3", "critical", tags=["blue"])
    assert "only 9 of 10 instances are healthy" in gate.admit("web4")


def test_tags_that_were_changed_from_outside_count(consul: Server) -> None:
    """Consul keeps the old ones with a check that has not changed since."""
    gate = Window(consul, minimum=9, tags=["blue"])
    for host in HOSTS:
        gate.set(host, "critical" if host == "web10" else "passing", tags=["green"])
        gate.retag(host, ["blue"])
    gate.count()
    assert "only 9 of 10 instances are healthy" in gate.admit("web1")


def test_a_worker_that_dies_while_it_counts_is_followed_by_another(
    consul: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Window(consul, minimum=8)
    begun = replace(gate.progress, counted=0.0, counting=time.time())
    gate.web.client().txn([begun.op(gate.keys, gate.run.id)])
    monkeypatch.setattr(looking, "COUNTS_WITHIN", 0.5)
    for host in HOSTS[7:]:
        gate.deregister(host)
    assert "only 7 of 7 instances are healthy" in gate.admit("web1")


def test_one_worker_counts_for_all(consul: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, counts = Window(consul, minimum=0), []
    client = gate.web.client()
    client.txn([replace(gate.progress, counted=0.0).op(gate.keys, gate.run.id)])
    count = looking._count
    monkeypatch.setattr(looking, "_count", lambda *given: counts.append(1) or count(*given))
    assert set(gate.all_at_once().values()) == {""}
    assert counts == [1]
