"""An operator's words on a real Consul: written once, heard at the gates, and noted in the deployment."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.action import control as module
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import gate, halting, orders, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import record_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import ABORT, PROMOTE, Order
from ansible_collections.hitless.consul.plugins.module_utils._rollout.finishing import finish
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import clear_order
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import Servers
from tests.integration.window import HOSTS, Window

pytestmark = pytest.mark.oldest


@pytest.fixture(scope="module")
def consul(servers: Servers) -> Server:
    return servers.get(CONSUL)


class Rollout(Window):
    """Ten hosts in two stages, the first of one."""

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(server, minimum=0, **options)
        hosts = {name: {**host, "batch": min(number, 2)} for number, (name, host) in enumerate(self._planned(), 1)}
        plan = {**self.run.plan, "batches": [HOSTS[:1], HOSTS[1:]], "windows": [1, 5], "hosts": hosts}
        self.run = Run.of({**self.run.as_dict(), "plan": plan})
        client = self.web.client()
        store.create(client, self.keys, record_of(self.run), self.run.session)
        client.set_key(self.keys.lock, json.dumps({"deployment": self.run.id}), acquire=self.run.session)

    def _planned(self) -> list[tuple[str, dict[str, Any]]]:
        return list(self.run.plan["hosts"].items())

    def put(self, text: str, key: str = "") -> None:
        """As ``consul kv put`` does."""
        self.web.client().set_key(key or self.keys.control, text)

    def say(self, action: str, **more: Any) -> dict[str, Any]:
        """The module."""
        return self.web.run(module, service=self.web.name, action=action, **more)

    def refused(self, action: str, **more: Any) -> str:
        with pytest.raises(HitlessError) as caught:
            self.say(action, **more)
        return str(caught.value)

    def stage(self, number: int) -> dict[str, Any]:
        return gate.open_stage(self.host("web1").task, self.run, HOSTS[number - 1])

    def uses(self) -> list[str]:
        return [str(one["word"]) for one in self.progress.control.noted.uses]

    def in_a_moment(self, then: Any) -> threading.Thread:
        timer = threading.Timer(0.5, then)
        timer.start()
        return timer


def test_a_pause_lets_nobody_begin_and_leaves_it_paused(consul: Server) -> None:
    rollout = Rollout(consul)
    assert rollout.admit("web1") == ""
    said = rollout.say("pause", reason="ticket 17")
    assert said["changed"]
    assert not rollout.say("pause")["changed"]
    assert "paused it: ticket 17" in rollout.admit("web2")
    rollout.end("web1", "ok")
    result = finish(rollout.host("web1").task, rollout.run)
    assert (result["result"], result["failed_hosts"]) == ("paused", [])
    assert "control_action=resume" in result["verdict"]
    assert rollout.uses() == ["pause"]
    found = store.require(rollout.web.client(), rollout.keys, rollout.run.id)
    assert found.as_dict()["control"][0]["why"] == "ticket 17"


def test_it_waits_in_place_and_goes_on(consul: Server) -> None:
    rollout = Rollout(consul, pause_wait=60)
    rollout.put("pause")
    timer = rollout.in_a_moment(lambda: rollout.put('{"word": "resume", "by": "anna"}'))
    began = time.monotonic()
    assert rollout.all_at_once() == dict.fromkeys(HOSTS, "")
    assert time.monotonic() - began < 30  # and not the minute
    timer.join()
    assert rollout.uses() == ["pause", "resume"]
    assert not rollout.progress.control.noted.is_waiting


def test_a_stage_waits_for_its_promotion(consul: Server) -> None:
    rollout = Rollout(consul, pause_after=[1], pause_wait=60)
    assert rollout.stage(1)["proceed"]
    assert "is running and not paused" in rollout.refused("promote")
    timer = rollout.in_a_moment(lambda: rollout.say("promote"))
    assert rollout.stage(2)["proceed"]
    timer.join()
    assert rollout.progress.control.noted.promoted == 1
    assert rollout.stage(2)["proceed"], "once is enough"
    assert rollout.uses() == ["promote"]
    assert rollout.admit("web2") == "", "the word is used up"


@pytest.mark.parametrize("before", [None, "", "pause"])
def test_a_word_wakes_a_run_that_waits(consul: Server, monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.setattr(halting, "LOOK_EVERY", 60.0)
    rollout = Rollout(consul, pause_after=[1], pause_wait=60)
    if before is not None:
        rollout.put(before)
    timer = rollout.in_a_moment(lambda: rollout.put("promote"))
    began = time.monotonic()
    assert rollout.stage(2)["proceed"]
    assert time.monotonic() - began < 30
    timer.join()


def test_or_promotes_itself_once_it_was_healthy_for_so_long(consul: Server) -> None:
    rollout = Rollout(consul, pause_after="each", auto_promote=1)
    rollout.admit("web1")
    rollout.end("web1", "ok")
    rollout.set("web1", "critical")
    assert not rollout.stage(2)["proceed"]
    assert rollout.progress.control.noted.kind == "stage"
    healthy = Rollout(consul, pause_after="each", auto_promote=1)
    healthy.admit("web1")
    healthy.end("web1", "ok")
    assert healthy.stage(2)["proceed"]
    assert healthy.uses() == ["promote"]


def test_a_stop_and_an_abort_end_it(consul: Server) -> None:
    for word in ("stop", "abort"):
        rollout = Rollout(consul, pause_after=[1], pause_wait=60)
        timer = rollout.in_a_moment(lambda there=rollout, said=word: there.say(said))
        assert not rollout.stage(2)["proceed"]
        timer.join()
        assert rollout.progress.control.noted.kind == word
        assert "is ending already" in rollout.refused("promote")
        assert finish(rollout.host("web1").task, rollout.run)["result"] == "failed"


@pytest.mark.parametrize("of_all", [False, True])
def test_a_freeze_pauses(consul: Server, *, of_all: bool) -> None:
    rollout = Rollout(consul)
    who = {"all_services": True} if of_all else {"service": rollout.web.name}
    try:
        said = rollout.web.run(module, action="freeze", reason="sale", until="1h", **who)
        assert said["changed"]
        assert "sale" in rollout.admit("web1")
        assert finish(rollout.host("web1").task, rollout.run)["result"] == "paused"
    finally:
        assert rollout.web.run(module, action="unfreeze", **who)["changed"]
    assert not rollout.web.run(module, action="unfreeze", **who)["changed"]


def test_a_worker_that_waits_for_the_minimum_hears_it(consul: Server) -> None:
    rollout = Rollout(consul, healthy_deadline=60)
    rollout.run = Run.of({**rollout.run.as_dict(), "plan": {**rollout.run.plan, "health": {"minimum": 10}}})
    timer = rollout.in_a_moment(lambda: rollout.say("stop"))
    began = time.monotonic()
    assert "stopped it" in rollout.admit("web1")
    assert time.monotonic() - began < 20  # and not the minute
    timer.join()


def test_what_was_said_to_an_earlier_deployment_means_nothing_to_the_next(consul: Server) -> None:
    rollout = Rollout(consul)
    rollout.put("abort")
    order = rollout.progress.control.order
    assert order is not None
    later = Run.of({**rollout.run.as_dict(), "id": "20261124T142233Z-1.4.2-7f3b"})
    store.create(rollout.web.client(), rollout.keys, record_of(later), later.session, 10, order.index)
    rollout.run = later
    assert rollout.admit("web1") == ""
    clear_order(rollout.web.client(), rollout.keys, order.index)
    rollout.put("abort")
    assert "aborted it" in rollout.admit("web2"), "the same word again is another one"


def test_of_two_at_once_one_wins_and_the_other_is_told(consul: Server) -> None:
    rollout = Rollout(consul, pause_after=[1])
    assert not rollout.stage(2)["proceed"]
    finish(rollout.host("web1").task, rollout.run)
    client, barrier, told = rollout.web.client(), threading.Barrier(2), {}

    class Meeting(Client):
        """Both have read before either writes."""

        def set_key(self, key: str, value: str, **params: object) -> bool:
            barrier.wait()
            return super().set_key(key, value, **params)

    def say(word: str) -> None:
        try:
            told[word] = orders.give(Meeting(client.connection), rollout.keys, Order(word, f"by-{word}")).text
        except HitlessError as error:
            told[word] = str(error)

    workers = [threading.Thread(target=say, args=(word,)) for word in (PROMOTE, ABORT)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    order = rollout.progress.control.order
    assert order is not None
    loser = ABORT if order.word == PROMOTE else PROMOTE
    assert told[order.word].startswith(f"{rollout.web.name}: {order.word} is said to {rollout.run.id}.")
    assert f"in the same moment: {order.word} by by-{order.word}" in told[loser]
    assert f"Your {loser} was not written." in told[loser]


def test_in_check_mode_nothing_is_written(consul: Server) -> None:
    rollout = Rollout(consul)
    task = rollout.web.task(module, service=rollout.web.name, action="abort", check_mode=True)
    assert module.perform(task)["changed"]
    assert rollout.progress.control.order is None


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"action": "pause"}, "Either a service is named"),
        ({"action": "pause", "service": "x", "all_services": True}, "Either a service is named"),
        ({"action": "pause", "service": "x", "until": "1h"}, "until is the end of a freeze"),
        ({"action": "freeze", "service": "x", "until": "soon"}, "is no moment"),
        ({"action": "freeze", "service": "freezer"}, "the key that freezes all services"),
        ({"action": "stop", "service": "nothing-there"}, "nothing to stop"),
    ],
)
def test_what_cannot_be_said_is_refused(consul: Server, params: dict[str, Any], why: str) -> None:
    rollout = Rollout(consul)
    with pytest.raises(HitlessError) as caught:
        rollout.web.run(module, **params)
    assert why in str(caught.value)


def test_a_word_is_said_to_every_rollout_that_it_means_something_to(consul: Server) -> None:
    rollouts = [Rollout(consul), Rollout(consul)]
    said = rollouts[0].web.run(module, all_services=True, action="pause")
    assert {one.run.id for one in rollouts} <= set(said["deployments"])
    for one in rollouts:
        assert json.loads(one.web.client().key(one.keys.control).value)["word"] == "pause"  # type: ignore[union-attr]
