"""The probe of a run as a process of its own, on a real Consul."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import probing
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet_rollback import settle
from ansible_collections.hitless.consul.plugins.module_utils._rollout.probed import Probed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from lab import wait_until
from tests.fleet import CONSUL
from tests.http_server import HttpServer, Reply
from tests.integration.consul_agent import Server, processes
from tests.integration.services import Servers
from tests.integration.window import Window

pytestmark = pytest.mark.oldest


@pytest.fixture(scope="module")
def consul(servers: Servers) -> Server:
    return servers.get(CONSUL)


class Probing(Window):
    """A rollout with its probe."""

    def __init__(self, server: Server, address: str, **options: Any) -> None:
        given = {"probe_interval": 0.02, "probe_failures": 3, "bake_time": 0, **options}
        super().__init__(server, minimum=0, probe_url=address, **given)
        self.pipe, self.alive = os.pipe()
        self.task = self.host("web1").task
        controller = Controller("run-1", self.pipe, os.getpid())
        self.run: Run = probing.start(self.task, self.run, controller)

    def lives(self) -> bool:
        return bool(processes(str(probing.PROBER), self.web.name, self.run.id))


def test_it_counts_beside_the_run_and_ends_with_its_watch(consul: Server) -> None:
    with HttpServer() as server:
        rollout = Probing(consul, server.url)
        assert rollout.lives()
        wait_until("it has asked", lambda: len(server.asked) > 10, 20)
        run = settle(rollout.task, rollout.run, lambda _planned: None, list, 5)
        assert not rollout.lives()
        asked = len(server.asked)
    assert not Path(rollout.run.probing).exists()
    assert asked - 2 <= run.probed["count"] <= asked
    assert Probed.of(run.probed).failed == 0
    assert probing.end(run) == run


def test_more_failures_than_may_be_stop_it(consul: Server) -> None:
    """A gate hears it, in whichever process; and what is found at the very last counts as well."""
    with HttpServer(Reply(), Reply(), Reply(503)) as server:
        rollout = Probing(consul, server.url)
        wait_until("it is told", lambda: bool(rollout.progress.control.findings), 20)
        why = rollout.admit("web1")
        assert "probes have failed, more than rollout_probe_failures (3); the last one: it answered 503" in why
        assert probing.end(rollout.run).probed["failed"] > 3

        late = Probing(consul, server.url, probe_failures=0)
        wait_until("it is told", lambda: bool(late.progress.control.findings), 20)
        settle(late.task, late.run, lambda _planned: None, list, 5)
        assert "probes have failed" in late.progress.stop


def test_it_ends_with_the_run_however_that_ends(consul: Server) -> None:
    with HttpServer() as server:
        rollout = Probing(consul, server.url)
        assert rollout.lives()
        os.close(rollout.alive)
        wait_until("it has ended", lambda: not rollout.lives(), 20)
    assert not Path(rollout.run.probing).exists()
    assert probing.end(rollout.run).probed == Probed().as_dict()


def test_one_that_was_killed_has_its_account_until_then(consul: Server) -> None:
    with HttpServer() as server:
        rollout = Probing(consul, server.url)
        wait_until("it has asked", lambda: len(server.asked) > 10, 20)
        for pid in processes(str(probing.PROBER), rollout.web.name, rollout.run.id):
            os.kill(pid, 9)
        wait_until("it is gone", lambda: not rollout.lives(), 20)
        assert probing.end(rollout.run).probed["count"] > 0


def test_an_address_that_fails_before_anything_has_begun_is_refused(consul: Server) -> None:
    with HttpServer(Reply(404)) as server:
        run = Window(consul, minimum=0, probe_url=server.url).run
        with pytest.raises(
            HitlessError, match="The probe fails before anything has begun .*: it answered 404; nothing"
        ):
            probing.require_answer(run)
        asked = len(server.asked)
        probing.require_answer(run.undoing("d1"))
        assert len(server.asked) == asked, "a rollback goes on whatever clients see"
