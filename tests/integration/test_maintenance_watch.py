"""A host stays in maintenance from the beginning of its drain to its planned end, whoever ends that meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_read
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_watch import MaintenanceWatch
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from lab import wait_until
from tests.http_server import HttpServer, Reply
from tests.integration.consul_agent import Server
from tests.integration.services import Services, Swallowing, started


@pytest.fixture
def web(web: Services) -> Services:
    web.register()
    return web


@pytest.fixture
def out(web: Services) -> HostDeployment:
    """A host whose turn has begun: it is in maintenance."""
    return taken_out(web, web.rollout())


def taken_out(web: Services, run: Run) -> HostDeployment:
    host = web.host(run)
    host.leave()
    return host


def drain_until_end(host: HostDeployment, since: float) -> list[str]:
    notes: list[str] = host.wait_until_drained(since)["drain_notes"]
    return notes


def end_maintenance(web: Services, service_id: str = "") -> None:
    """As `consul maint -disable`, which waits for nothing."""
    web.server.put(f"agent/service/maintenance/{service_id or web.name}?enable=false")


def back(web: Services, reason: str) -> Callable[[], bool]:
    return lambda: set(web.reasons().values()) == {reason}


def has_lost_its_lock(watch: MaintenanceWatch) -> bool:
    try:
        watch.back_since()
    except LockLost:
        return True
    return False


def beside(act: Callable[[], object], after: float = 0.0) -> threading.Thread:
    def run() -> None:
        time.sleep(after)
        act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_what_a_person_ends_is_put_back_at_once(web: Services, out: HostDeployment) -> None:
    with out.watch() as watch:
        assert (watch.back_since(), watch.dropped) == (None, False)
        for _time in range(3):
            ended = time.monotonic()
            end_maintenance(web)
            wait_until("it is seen and put back", lambda after=ended: (watch.back_since() or 0) > after)
            assert (watch.back_since() or 0) < ended + 5
            assert watch.dropped
            assert web.reasons() == {web.name: out.reason}


def test_an_application_that_registers_itself_is_put_back(web: Services, out: HostDeployment) -> None:
    with out.watch():
        web.deregister()
        web.register()
        wait_until("it is put back", back(web, out.reason))
        # With another ID as well, without a check.
        web.server.put("agent/service/register", {"Name": web.name, "ID": f"{web.name}-b"})
        web.deregister()
        wait_until("the new one is in maintenance", back(web, out.reason), seconds=20)
    web.deregister(f"{web.name}-b")


def test_all_services_of_the_scope_are_looked_after(consul: Server) -> None:
    web, api = Services(consul), Services(consul)
    for one in (web, api):
        one.register()
    out = taken_out(web, web.rollout(maintenance=[web.name, api.name]))
    with out.watch():
        end_maintenance(api)
        wait_until("the other one is put back", back(api, out.reason))
    for one in (web, api):
        end_maintenance(one)


def test_the_whole_node(web: Services) -> None:
    out = taken_out(web, web.rollout(maintenance="node"))
    try:
        with out.watch():
            web.server.put("agent/maintenance?enable=false")
            wait_until("it is put back", lambda: web.node_reason() == out.reason)
    finally:
        out.end_maintenance()
    assert web.node_reason() is None


def test_nothing_is_put_back_after_the_planned_end(web: Services, out: HostDeployment) -> None:
    with out.watch():
        pass
    out.end_maintenance()
    time.sleep(1.0)
    assert web.reasons() == {web.name: None}


def test_somebody_elses_maintenance_is_left(web: Services, out: HostDeployment) -> None:
    """The agent keeps the first reason, so that it replaces ours only where ours has ended."""
    with out.watch():
        end_maintenance(web)
        web.server.put(f"agent/service/maintenance/{web.name}?enable=true&reason=disk")
        time.sleep(1.0)
        reason = web.reasons()[web.name]
    assert reason in ("disk", out.reason)
    if reason == "disk":
        with pytest.raises(HitlessError, match="set by someone else .reason: disk"):
            out.end_maintenance()
        assert web.reasons() == {web.name: "disk"}


def test_a_run_that_has_lost_its_lock_puts_nothing_back(web: Services, out: HostDeployment) -> None:
    """Another run may have deployed the host since, and returned it to rotation."""
    with out.watch() as watch:
        web.client().put(f"/v1/session/destroy/{out.run.session}")
        end_maintenance(web)
        wait_until("the catalog shows the end", lambda: web.reasons() == {web.name: None})
        wait_until("it is noticed", lambda: has_lost_its_lock(watch))
        time.sleep(1.0)
    assert web.reasons() == {web.name: None}


def test_it_is_sent_again_while_the_agent_loses_it(web: Services, out: HostDeployment) -> None:
    agent = Swallowing(web.server.url, 2)
    with MaintenanceWatch(web.client(), agent, out.targets, out.reason, [out.fence()]):
        end_maintenance(web)
        wait_until("it is put back", back(web, out.reason))
    assert agent.swallowed == 2


@pytest.fixture
def own_consul() -> Iterator[Server]:
    yield from started(None)


def test_a_consul_that_is_away_does_not_end_the_watch(own_consul: Server) -> None:
    web = Services(own_consul)
    web.register()
    out = taken_out(web, web.rollout())
    with out.watch():
        own_consul.kill()
        time.sleep(1.0)
        own_consul.start()
        wait_until("its service is back", lambda: bool(web.entries()))
        end_maintenance(web)
        wait_until("it is put back", back(web, out.reason))


# -- the steps that it stands beside ------------------------------------------------------------------------------


def test_a_drain_that_was_interrupted_begins_anew(web: Services) -> None:
    """In rotation it got new requests: all of them have their whole time to end."""
    host = taken_out(web, web.rollout(drain_time=2))
    began = time.monotonic()
    person = beside(lambda: end_maintenance(web), after=1.0)
    notes = drain_until_end(host, began)
    person.join()
    assert time.monotonic() - began >= 3.0
    assert any("maintenance ended while it was draining" in note for note in notes)
    assert web.reasons() == {web.name: host.reason}
    assert any("web1: Its maintenance ended" in warning for warning in web.warned)


def test_a_drain_that_nobody_interrupts_takes_its_time_and_no_more(web: Services) -> None:
    began = time.monotonic()
    assert drain_until_end(taken_out(web, web.rollout(drain_time=1)), began) == []
    assert 1.0 <= time.monotonic() - began < 2.5


def test_it_is_in_maintenance_while_its_application_is_asked(web: Services) -> None:
    host = web.host(web.rollout(healthy_deadline=10))
    host.drain()
    asked: list[Any] = []

    def answer(request: Any) -> Reply:
        """It registers itself long before it answers well."""
        asked.append(request)
        if len(asked) == 2:
            end_maintenance(web)
        if len(asked) > 2:
            return Reply(200 if back(web, host.reason)() else 503)
        return Reply(503)

    with HttpServer(answer=answer) as application:
        host.verify(application.url, "")
    assert web.reasons() == {web.name: host.reason}


def test_it_is_in_maintenance_while_its_command_runs(web: Services) -> None:
    host = web.host(web.rollout())
    host.drain()
    person = beside(lambda: end_maintenance(web), after=0.5)
    host.deploy("sleep 2")
    person.join()
    assert web.reasons() == {web.name: host.reason}


def test_a_host_without_a_lock_is_watched_too(web: Services, out: HostDeployment) -> None:
    with MaintenanceWatch(web.client(), web.client(), out.targets, out.reason):
        end_maintenance(web)
        wait_until("it is put back", back(web, out.reason))


# -- the end of a turn in which nothing was deployed --------------------------------------------------------------


def test_a_maintenance_that_the_catalog_never_showed_is_lifted(web: Services, own_consul: Server) -> None:
    """The agent belongs to another cluster than is asked, in which nodes and services have the same names."""
    ours = web.host(web.rollout()).reason
    agent = Client(Connection(own_consul.url))
    own_consul.put("agent/service/register", {"Name": web.name, "ID": web.name})

    def left(reason: str) -> list[str]:
        agent.put(f"/v1/agent/service/maintenance/{web.name}", [("enable", "true"), ("reason", reason)])
        maintenance.lift(agent, web.node, ours)
        return [check["Notes"] for check in agent.get("/v1/agent/checks").data.values()]

    assert left(ours) == []
    assert left("disk") == ["disk"]


def test_an_operator_who_is_quick_is_not_cleared(web: Services, out: HostDeployment) -> None:
    """Ours has ended, and theirs begins before the catalog was looked at again."""

    class Quick(Client):
        puts = 0

        def put(self, path: str, *args: Any, **kwargs: Any) -> Any:
            self.puts += 1
            answer = super().put(path, *args, **kwargs)
            super().put(path, [("enable", "true"), ("reason", "disk")])
            return answer

    agent = Quick(Connection(web.server.url))
    target = maintenance.Target(web.node, web.name)
    with pytest.raises(HitlessError, match="disk") as error:
        maintenance.disable(web.client(), agent, target, maintenance.set_by_deployment_of(web.name))
    assert error.value.details["other_owner"] is True
    assert agent.puts == 1
    assert web.reasons() == {web.name: "disk"}
    assert web.client().txn([kv_read(out.keys.lock)])
