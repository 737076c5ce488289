"""Hosts that were changed and turn bad, found at the gate and in the bake, by what a real catalog shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import read_instances
from ansible_collections.hitless.consul.plugins.module_utils._errors import LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store, window
from ansible_collections.hitless.consul.plugins.module_utils._rollout.alike import Ask, cannot_ask
from ansible_collections.hitless.consul.plugins.module_utils._rollout.bake import bake
from ansible_collections.hitless.consul.plugins.module_utils._rollout.ending import conclude
from ansible_collections.hitless.consul.plugins.module_utils._rollout.findings import Finding, withdraw
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet_rollback import settle, stopped_by_failure
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.regression import Found, look_back
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import Servers
from tests.integration.window import HOSTS, Window

pytestmark = pytest.mark.oldest

LONG = 600.0
"""Seconds that no test waits for."""


@pytest.fixture(scope="module")
def consul(servers: Servers) -> Server:
    return servers.get(CONSUL)


@pytest.fixture
def rollout(consul: Server) -> Window:
    """Two of ten hosts are changed; a check says all it has to say at once, unless a test says otherwise."""
    return changed(Window(consul, minimum=5, watch_grace=0.4, check_interval=0.4, bake_time=0))


def changed(made: Window) -> Window:
    for host in HOSTS[:2]:
        assert made.admit(host) == ""
        made.end(host, "ok")
    return made


def answers(text: str, of: Sequence[str] = HOSTS[:2]) -> Ask:
    """Health URLs that always say the same on those hosts, and answer well on the others."""
    return lambda planned: text if planned.host in of else ""


def look(made: Window, ask: Ask = cannot_ask) -> Found | None:
    task, run = made.host(HOSTS[9]).task, made.run
    instances, _answer = read_instances(task.consul, run.service)
    return look_back(task, run, ask, instances, (), {one.node for one in instances})


def outcomes(made: Window) -> dict[str, str]:
    found = store.require(made.web.client(), made.keys, made.run.id)
    return {host: one.outcome for host, one in found.outcomes.items()}


@contextmanager
def soon(*calls: object, after: float = 0.6) -> Iterator[None]:
    """Beside the test, a moment later."""

    def work() -> None:
        time.sleep(after)
        for call in calls:
            call()  # type: ignore[operator]

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_nothing_is_asked_while_all_are_well(rollout: Window) -> None:
    def ask(_planned: PlannedHost) -> str:
        raise AssertionError

    assert look(rollout, ask) is None


def test_one_whose_url_fails_has_regressed_and_nobody_begins_after_it(consul: Server) -> None:
    made = changed(Window(consul, minimum=5, watch_grace=0.4, check_interval=LONG))
    made.set(HOSTS[0], "critical")
    found = look(made, answers("it answered 500"))
    assert found is not None
    assert [(one.host, one.outcome) for one in found.regressed] == [(HOSTS[0], "regressed")]
    assert "alive is critical; its health URL: it answered 500" in found.regressed[0].error
    assert outcomes(made) == {HOSTS[0]: "regressed", HOSTS[1]: "ok"}
    assert "web1 regressed" in made.admit(HOSTS[2])


def test_the_gate_finds_it_by_itself(rollout: Window) -> None:
    rollout.set(HOSTS[1], "critical")
    host = rollout.host(HOSTS[2])
    why = window.admit(host, lambda *_given: pytest.fail("it has begun"), answers("it answered 500"))
    assert "web2 regressed" in why
    assert rollout.progress.stop == why
    assert list(rollout.progress.in_flight) == []


def test_a_url_that_answers_well_leaves_it_to_the_check(rollout: Window) -> None:
    rollout.set(HOSTS[0], "critical")
    found = look(rollout, answers(""))
    assert found is not None
    assert [one.outcome for one in found.regressed] == ["regressed"]


@pytest.mark.parametrize("ask", [cannot_ask, answers("")])
def test_a_flap_is_no_regression(consul: Server, ask: Ask) -> None:
    made = changed(Window(consul, minimum=5, watch_grace=LONG, check_interval=LONG))
    made.set(HOSTS[0], "critical")
    with soon(lambda: made.set(HOSTS[0], "passing")):
        assert look(made, ask) == Found()
    assert outcomes(made) == {HOSTS[0]: "ok", HOSTS[1]: "ok"}
    assert made.admit(HOSTS[2]) == ""


def test_an_operators_maintenance_is_none(consul: Server) -> None:
    """Neither one that is there already nor one that comes while it is looked at."""
    made = changed(Window(consul, minimum=5, watch_grace=LONG, check_interval=LONG))
    made.maintain(HOSTS[0])
    assert look(made, answers("it answered 500")) is None
    made.set(HOSTS[1], "critical")
    with soon(lambda: made.maintain(HOSTS[1])):
        assert look(made) == Found()


def test_one_whose_agent_is_lost_is_lost(rollout: Window) -> None:
    rollout.lose(HOSTS[0])
    found = look(rollout, answers("no"))
    assert found is not None
    assert [one.outcome for one in found.regressed] == ["lost"]
    assert "web1 lost" in rollout.admit(HOSTS[2])


def test_one_that_is_gone_from_the_catalog_has_regressed(rollout: Window) -> None:
    rollout.deregister(HOSTS[0])
    found = look(rollout)
    assert found is not None
    assert "no longer registered" in found.regressed[0].error


def test_one_that_was_changed_before_a_pause_is_watched_too(rollout: Window) -> None:
    """Where the deployment goes on it gets no turn any more."""
    plan, before = rollout.run.plan, rollout.run.plan["hosts"][HOSTS[0]]
    current = {"node": before["node"], "state": "current", "from": "2", "healthy": True}
    rollout.run = replace(rollout.run, plan={**plan, "hosts": {**plan["hosts"], HOSTS[0]: current}})
    rollout.set(HOSTS[0], "critical")
    found = look(rollout, lambda planned: f"{planned.to_version} answered 500" if planned.host == HOSTS[0] else "")
    assert found is not None
    assert [one.outcome for one in found.regressed] == ["regressed"]
    assert "It was healthy on 2" in found.regressed[0].error
    assert "its health URL: 2 answered 500" in found.regressed[0].error


def test_what_the_deployment_that_it_resumes_has_changed_is_watched_too(rollout: Window) -> None:
    """Where that left it as it is; one whose turn is still to come is the turn's business."""
    plan, earlier = rollout.run.plan, rollout.run.id
    current = {"node": rollout.nodes[HOSTS[0]], "state": "current", "from": "2", "healthy": True}
    hosts = {**plan["hosts"], HOSTS[0]: current}
    rollout.run = replace(rollout.run, id="20991231T000000Z-2-ffff", resumed=[earlier], plan={**plan, "hosts": hosts})
    for host in HOSTS[:2]:
        rollout.set(host, "critical")
    found = look(rollout, answers("it answered 500"))
    assert found is not None
    assert [(one.host, one.outcome, one.batch) for one in found.regressed] == [(HOSTS[0], "regressed", None)]


def test_hosts_that_it_has_not_changed_are_none_of_its_business(rollout: Window) -> None:
    rollout.set(HOSTS[5], "critical")
    assert look(rollout) is None
    assert rollout.admit(HOSTS[2]) == ""
    rollout.set(HOSTS[2], "critical")  # in flight
    assert look(rollout, answers("no")) is None


def test_old_and_new_that_fail_alike_are_not_the_versions_fault(rollout: Window) -> None:
    for host in HOSTS:
        rollout.set(host, "critical")
    found = look(rollout, answers("no database"))
    assert found is not None
    assert "on each of the 8 other instances alike" in found.alike
    assert outcomes(rollout) == {HOSTS[0]: "ok", HOSTS[1]: "ok"}
    why = rollout.admit(HOSTS[2])
    assert "alike" in why
    assert rollout.progress.stop == why


@pytest.mark.parametrize("well", [HOSTS[1], HOSTS[9]], ids=["new", "old"])
def test_one_instance_that_is_well_tells_them_apart(rollout: Window, well: str) -> None:
    """Also where few old ones are left, of which each may fall over by itself."""
    for host in HOSTS:
        if host != well:
            rollout.set(host, "critical")
    found = look(rollout)
    assert found is not None
    assert not found.alike
    assert [one.host for one in found.regressed] == [host for host in HOSTS[:2] if host != well]


def test_those_whose_checks_have_not_run_again_are_asked(consul: Server) -> None:
    """The check of one is a moment ahead of the others', and each is asked as its own version has to answer."""
    made = changed(Window(consul, minimum=5, watch_grace=0.4, check_interval=LONG))
    made.set(HOSTS[0], "critical")
    asked: dict[str, str | None] = {}

    def ask(planned: PlannedHost) -> str:
        asked[planned.host] = planned.to_version
        return "no database"

    found = look(made, ask)
    assert found is not None
    assert "on each of the 8 other instances alike" in found.alike
    assert asked == {host: "2" if host in HOSTS[:2] else "1" for host in HOSTS}


# -- the bake -----------------------------------------------------------------------------------------------------


def baked(made: Window, ask: Ask = cannot_ask) -> str:
    bake(made.host(HOSTS[9]).task, made.run, ask)
    return made.progress.stop


def test_a_bake_without_trouble_stops_nothing(rollout: Window) -> None:
    assert baked(rollout) == ""


def test_a_bake_looks_even_where_it_takes_no_time(rollout: Window) -> None:
    rollout.set(HOSTS[0], "critical")
    assert "web1 regressed" in baked(rollout)


def test_a_bake_ends_with_the_first_regression(consul: Server) -> None:
    made = changed(Window(consul, minimum=5, watch_grace=0.4, check_interval=0.4, bake_time=LONG))
    with soon(lambda: made.set(HOSTS[1], "critical")):
        assert "web2 regressed" in baked(made)


@pytest.mark.parametrize(("rollback", "second"), [("host", "regressed"), ("fleet", "ok")])
def test_where_the_others_stay_as_they_are_they_are_looked_at_once_more(
    consul: Server, rollback: str, second: str
) -> None:
    """It has stopped for the first one already; with ``fleet`` the second goes back in any case, and at once."""
    made = changed(Window(consul, minimum=5, watch_grace=0.4, check_interval=0.4, bake_time=LONG, rollback=rollback))
    made.set(HOSTS[0], "critical")
    look(made)
    made.set(HOSTS[1], "critical")
    assert "web1 regressed" in baked(made)
    assert outcomes(made) == {HOSTS[0]: "regressed", HOSTS[1]: second}


def test_within_the_budget_it_goes_on(consul: Server) -> None:
    made = changed(Window(consul, minimum=5, watch_grace=0.4, check_interval=0.4, bake_time=0, failure_budget=1))
    made.set(HOSTS[0], "critical")
    assert baked(made) == ""
    assert outcomes(made)[HOSTS[0]] == "regressed"
    assert made.admit(HOSTS[2]) == ""


def test_a_rollback_does_not_bake(consul: Server) -> None:
    made = changed(Window(consul, minimum=5, direction="rollback", bake_time=LONG))
    made.set(HOSTS[0], "critical")
    assert baked(made) == ""


def test_where_nothing_was_changed_there_is_nothing_to_bake(consul: Server) -> None:
    assert baked(Window(consul, minimum=5, bake_time=LONG)) == ""


# -- what watchers find -------------------------------------------------------------------------------------------


def finds(made: Window, *, is_failure: bool) -> None:
    """As a watcher beside the run does."""
    found = Finding("probe", is_failure, "3 of 10 probes failed")
    found.tell(made.web.client(), made.keys, made.run.id, made.run.session)


def ended(made: Window) -> store.Deployment:
    return conclude(made.web.client(), made.keys, made.run.id)


@pytest.mark.parametrize("at", ["gate", "bake"])
def test_what_a_watcher_finds_bad_stops_the_deployment_and_it_goes_back(consul: Server, at: str) -> None:
    made = changed(Window(consul, minimum=5, bake_time=LONG if at == "bake" else 0))
    with soon(lambda: finds(made, is_failure=True), after=0.2):
        if at == "bake":
            baked(made)
    if at == "gate":
        assert made.admit(HOSTS[2]) == "3 of 10 probes failed"
    assert made.progress.stop == "3 of 10 probes failed"
    found = ended(made)
    assert stopped_by_failure(found)
    assert "It stopped because 3 of 10 probes failed." in found.record.description


def test_what_a_watcher_cannot_tell_pauses_the_deployment(rollout: Window) -> None:
    finds(rollout, is_failure=False)
    assert rollout.admit(HOSTS[2]) == "3 of 10 probes failed"
    assert ended(rollout).record.state == "paused"


def test_so_it_does_where_only_the_last_bake_is_left(consul: Server) -> None:
    """Nothing is successful of which somebody says that it cannot be told."""
    made = Window(consul, minimum=0, bake_time=LONG)
    for host in HOSTS:
        assert made.admit(host) == ""
        made.end(host, "ok")
    finds(made, is_failure=False)
    assert baked(made) == "3 of 10 probes failed"
    assert ended(made).record.state == "paused"


def test_a_doubt_that_is_over_is_none(rollout: Window) -> None:
    finds(rollout, is_failure=False)
    withdraw(rollout.web.client(), rollout.keys, rollout.run.id, rollout.run.session, "probe")
    assert rollout.admit(HOSTS[2]) == ""


def test_a_watcher_without_the_lock_finds_nothing(rollout: Window, consul: Server) -> None:
    consul.put(f"session/destroy/{rollout.run.session}")
    with pytest.raises(LockLost):
        finds(rollout, is_failure=True)


# -- the end ------------------------------------------------------------------------------------------------------


def test_a_failure_that_all_share_is_not_rolled_back(consul: Server) -> None:
    """What met a host in its turn has all others too, so that the old version would do no better."""
    made = changed(Window(consul, minimum=0, watch_grace=0.4, check_interval=0.4, bake_time=0, rollback="fleet"))
    assert made.admit(HOSTS[2]) == ""
    made.end(HOSTS[2], "rolled_back")
    for host in HOSTS:
        made.set(host, "critical")
    assert settle(made.host(HOSTS[9]).task, made.run, cannot_ask, list, 5) == made.run
    assert f"What {made.run.id} has changed is not rolled back: each of the 7 other instances" in made.web.warned[-1]
    with soon(lambda: made.set(HOSTS[9], "passing"), after=0.2):
        settle(made.host(HOSTS[9]).task, made.run, cannot_ask, list, 5)
    assert "other instances" not in made.web.warned[-1], "one of them had only a moment of it"
