"""New instances against old ones: what a load balancer tells of the nodes of a real catalog, beside a run."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_guard import Run as GuardedRun
from ansible_collections.hitless.consul.plugins.module_utils._errors import LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout import analyst, beside, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.alike import cannot_ask
from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import parse_analysis
from ansible_collections.hitless.consul.plugins.module_utils._rollout.analyst import Analyst
from ansible_collections.hitless.consul.plugins.module_utils._rollout.bake import bake
from ansible_collections.hitless.consul.plugins.module_utils._rollout.ending import conclude
from ansible_collections.hitless.consul.plugins.module_utils._rollout.haproxy import NoAnswer, Server, Statistics
from lab import wait_until
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server as Consul
from tests.integration.services import Servers
from tests.integration.window import HOSTS, Window

pytestmark = pytest.mark.oldest

LB = "http://lb1/"
PORT = 8000


@pytest.fixture(scope="module")
def consul(servers: Servers) -> Consul:
    return servers.get(CONSUL)


class Compared:
    """A rollout over ten nodes, and what a load balancer counts of them."""

    def __init__(self, consul: Consul, **settings: Any) -> None:
        analysis = parse_analysis({"load_balancers": settings}, "rollout_analysis")
        about = {"bake_time": 1, "load_balancers": [LB], "analysis": analysis}
        self.window = Window(consul, minimum=0, **about)
        for number, host in enumerate(HOSTS):
            service = {"Service": self.window.web.name, "ID": self.window.web.name, "Port": PORT + number}
            node = {"Node": self.window.nodes[host], "Address": "127.0.0.9", "SkipNodeUpdate": True}
            consul.put("catalog/register", {**node, "Service": service})
        self.counted = {host: [0, 0] for host in HOSTS}
        self.answers = True
        self.settings = analysis[0]["load_balancers"]
        self.analyst = Analyst(self.task, self.window.run, self.settings, self.ask)

    @property
    def task(self) -> Any:
        return self.window.host(HOSTS[9]).task

    def ask(self, url: str) -> Statistics:
        if not self.answers:
            raise NoAnswer(f"{url} does not answer (refused).")
        servers = {
            ("web", host): Server(f"127.0.0.9:{PORT + number}", "UP", 0, 0, *self.counted[host])
            for number, host in enumerate(HOSTS)
        }
        return Statistics(servers, 0)

    def serve(self, **errors: int) -> None:
        """Ten requests to each; so many errors on some."""
        for host, counts in self.counted.items():
            counts[0] += 10
            counts[1] += errors.get(host, 0)

    def change(self, *hosts: str) -> None:
        for host in hosts:
            assert self.window.admit(host) == ""
            self.window.end(host, "ok")

    def looks(self, number: int, **errors: int) -> bool:
        """Whether it has found what it looks for."""
        for _look in range(number):
            self.serve(**errors)
            if self.analyst.look():
                return True
        return False

    @property
    def told(self) -> str:
        return analyst.told(self.task, self.window.run)


def test_a_worse_version_is_stopped_at_the_next_gate(consul: Consul) -> None:
    one = Compared(consul)
    one.change(HOSTS[0])
    assert not one.looks(1)
    assert one.looks(10, web1=2)
    why = one.window.admit(HOSTS[1])
    assert why.startswith("analysis: ")
    assert " requests failed on new instances, 0 of " in why
    assert ": worse (e " in why
    assert conclude(one.window.web.client(), one.window.keys, one.window.run.id).control.noted.kind == "failure"
    assert one.told in why
    assert one.analyst.look(), "there is nothing to look for any more"


def test_a_host_in_its_turn_is_on_neither_side(consul: Consul) -> None:
    one = Compared(consul)
    one.change(HOSTS[0])
    one.looks(2)
    assert one.window.admit(HOSTS[1]) == ""
    assert not one.looks(5, web2=10)
    one.window.end(HOSTS[1], "rolled_back")
    assert not one.looks(5, web2=10)
    assert one.told.startswith("0 of 100 requests failed on new instances, 0 of ")


def test_what_an_old_instance_gets_wrong_is_no_fault_of_the_new_version(consul: Consul) -> None:
    one = Compared(consul)
    one.change(*HOSTS[:2])
    assert not one.looks(10, web9=3)
    assert "no worse" in one.told


def test_a_dry_run_only_tells(consul: Consul) -> None:
    one = Compared(consul, dry_run=True)
    one.change(HOSTS[0])
    assert not one.looks(10, web1=5)
    assert "worse (e" in one.told
    assert one.window.admit(HOSTS[1]) == ""


def test_it_goes_on_with_what_an_earlier_run_has_counted(consul: Consul) -> None:
    one = Compared(consul)
    one.change(HOSTS[0])
    one.looks(4)
    before = one.told
    one.analyst = Analyst(one.task, one.window.run, one.settings, one.ask)
    one.looks(3)
    assert before.startswith("0 of 20 requests failed on new instances, 0 of 180 on old ones")
    assert one.told.startswith("0 of 30 requests failed on new instances, 0 of 270 on old ones")


def test_a_load_balancer_that_does_not_answer_is_a_doubt_for_as_long_as_that(consul: Consul) -> None:
    one = Compared(consul, inconclusive_limit=2)
    one.change(HOSTS[0])
    one.looks(1)
    one.answers = False
    one.looks(2)
    one.change(HOSTS[1])
    one.looks(1)
    one.answers = True
    one.looks(1)
    one.change(HOSTS[2])
    one.answers = False
    one.looks(3)
    why = one.window.admit(HOSTS[3])
    assert why == f"analysis: nothing can be compared for 3 s: {LB} does not answer (refused)"
    assert conclude(one.window.web.client(), one.window.keys, one.window.run.id).record.state == "paused"


def test_what_it_cannot_do_is_a_doubt_too(consul: Consul) -> None:
    """Nobody sees its process."""
    one = Compared(consul, inconclusive_limit=2)

    def broken(_url: str) -> Statistics:
        raise ValueError("no number")

    looks = iter(range(3))
    Analyst(one.task, one.window.run, one.settings, broken).work(lambda _seconds: next(looks, None) is None)
    assert one.window.admit(HOSTS[0]) == "analysis: nothing can be compared for 3 s: ValueError: no number"


def test_a_bake_tells_what_it_has_come_to(consul: Consul) -> None:
    one = Compared(consul)
    one.change(HOSTS[0])
    one.looks(3)
    bake(one.task, one.window.run, cannot_ask)
    assert one.told
    assert store.require(one.window.web.client(), one.window.keys, one.window.run.id).stop == ""


def test_without_the_lock_it_ends(consul: Consul) -> None:
    one = Compared(consul)
    consul.put(f"session/destroy/{one.window.run.session}")
    with pytest.raises(LockLost):
        one.analyst.look()
    one.analyst.work(lambda _seconds: pytest.fail("it goes on"))


def test_the_process_beside_a_run_ends_with_it(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    log = tmp_path / "log"

    def work(ended: beside.Ended) -> None:
        log.write_text("began", encoding="utf-8")
        while not ended(0.05):
            pass
        log.write_text("ended", encoding="utf-8")

    with warnings.catch_warnings():  # pytest's own threads; in a task there are none
        warnings.simplefilter("ignore", DeprecationWarning)
        process = beside.start(GuardedRun(read_end, lambda: os.close(write_end)), work)
    wait_until("it works", log.exists)
    os.close(write_end)
    assert os.waitpid(process, 0)[1] == 0
    assert log.read_text(encoding="utf-8") == "ended"
    os.close(read_end)
