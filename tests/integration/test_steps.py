"""The steps of a host on a real Consul, the oldest and the newest: take_out, bring_back, rescue, reach, gate."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    DeadlineExceeded,
    HitlessError,
    HostLost,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._host import Host
from ansible_collections.hitless.consul.plugins.module_utils._keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rotation import Turn
from ansible_collections.hitless.consul.plugins.modules import bring_back, reach, rescue, take_out
from lab.fleet import wait_until
from tests.integration.consul_agent import Server
from tests.integration.services import ENDS, Services, started
from tests.unit.http_server import HttpServer, Reply, nobody

pytestmark = pytest.mark.oldest

ID = "20261123T142233Z-1.4.2-7f3a"
QUICK = {"min_healthy_time": 0, "check_interval": 0, "healthy_deadline": 20}


@pytest.fixture(scope="module", params=ENDS, ids=["oldest", "newest"])
def consul(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from started(request.param)


@pytest.fixture
def web(consul: Server) -> Services:
    return Services(consul)


def ours(web: Services, deployment: str = ID) -> str:
    return f"deploy:{deployment} {web.name}"


def out(web: Services, **more: Any) -> dict[str, Any]:
    return web.run(take_out, **{"service": web.name, "deployment": ID, "drain_time": 0, **more})


def back(web: Services, **more: Any) -> dict[str, Any]:
    return web.run(bring_back, **{"service": web.name, "deployment": ID, **QUICK, **more})


# -- out ----------------------------------------------------------------------------------------------------------


def test_out_and_back(web: Services) -> None:
    web.register()
    told = out(web)
    assert (told["changed"], told["instances"], told["deployment"]) == (True, [web.name], ID)
    assert web.reasons() == {web.name: ours(web)}
    again = out(web)
    assert not again["changed"]
    told = back(web, version="1.4.2", previous="1.4.1")
    assert told["changed"]
    assert web.reasons() == {web.name: None}
    client, keys = web.client(), Keys(web.name)
    found = [client.key(key) for key in (keys.version(web.node), keys.previous(web.node))]
    assert [one.value if one else None for one in found] == ["1.4.2", "1.4.1"]


def test_a_rollback_is_part_of_the_turn_that_began_earlier(web: Services) -> None:
    web.register()
    out(web)
    earlier = "2026-11-23T14:22:40Z"
    assert out(web, attempt="rollback", started=earlier)["started"] == earlier
    assert out(web, started=earlier)["started"] != earlier


def test_the_drain_counts_from_when_the_catalog_showed_it_and_once_per_deployment(web: Services) -> None:
    web.register()
    slept: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ansible_collections.hitless.consul.plugins.module_utils._rotation.time.sleep", slept.append)
        out(web, drain_time=7)
        out(web, drain_time=7)
        # What an earlier, dead deployment had taken out is drained again: nobody knows what it did since.
        out(web, drain_time=7, deployment="20261124T142233Z-1.4.3-aaaa")
    drains = [seconds for seconds in slept if seconds > 1]
    assert [round(seconds) for seconds in drains] == [7, 7]
    assert web.reasons() == {web.name: ours(web)}


def test_out_and_drained_in_two_halves(web: Services) -> None:
    """What stands between them may take its time, and nothing can have been deployed meanwhile."""
    web.register()
    keys, client = Keys(web.name), web.client()
    session = web.session(keys.lock)

    def state() -> str:
        found = client.key(keys.status(web.node))
        assert found is not None
        return str(json.loads(found.value)["state"])

    left = out(web, session=session, phase="out")
    assert web.reasons() == {web.name: ours(web)}
    assert state() == "draining"
    told = out(web, session=session, phase="drain", left=left)
    assert state() == "deploying"
    assert [told[name] == left[name] for name in ("started", "deployment", "instances")] == [True] * 3
    with pytest.raises(HitlessError, match="left is needed"):
        out(web, phase="drain")
    again = rescued(web, session=session, drained=True)
    assert (again["verdict"], web.reasons()) == ("restore", {web.name: ours(web)})
    assert client.key(keys.outcome(ID, web.node)) is None, "it is not over"
    ended = rescued(web, session=session, attempt="restore", failed={}, error="It broke.")
    assert (ended["verdict"], web.reasons()) == ("cleared", {web.name: None})


def test_the_servers_of_a_host_are_found_by_the_address_of_its_instances(web: Services) -> None:
    web.register(Address="10.1.2.3", Port=8080)
    head = "# pxname,svname,qcur,scur,stot,status,type,addr,\n"
    pages = [f"{head}web,a,0,1,5,UP,2,10.1.2.3:8080,\n", f"{head}web,a,0,0,6,MAINT,2,10.1.2.3:8080,\n"]
    with HttpServer(*(Reply(body=page) for page in pages)) as balancer:
        told = out(web, drain_observe=[f"{balancer.url}/"], drain_least=0, drain_time=100)
    assert told["drain_notes"] == []
    assert told["watched"][0]["servers"] == [("web", "a")]


def test_anothers_maintenance_is_left_alone(web: Services) -> None:
    web.register()
    web.operator("by hand")
    with pytest.raises(HitlessError, match="set by someone else .reason: by hand") as error:
        out(web)
    assert error.value.details["foreign"] is True
    with pytest.raises(HitlessError, match="by hand"):
        back(web)
    assert web.reasons() == {web.name: "by hand"}


def test_a_deployment_of_another_service_is_another(web: Services) -> None:
    web.register()
    web.operator("deploy:20261123T142233Z-1-aaaa other")
    with pytest.raises(HitlessError, match="someone else"):
        out(web)


def test_tags_choose_the_instances(web: Services) -> None:
    prod, staging = web.register(f"{web.name}-p", Tags=["prod"]), web.register(f"{web.name}-s", Tags=["staging"])
    assert out(web, tags=["prod"])["instances"] == [prod]
    assert web.reasons() == {prod: ours(web), staging: None}
    # The other one's state does not matter.
    web.set("critical", service_id=staging)
    back(web, tags=["prod"])
    assert web.reasons() == {prod: None, staging: None}


def test_the_node_as_a_whole(web: Services) -> None:
    web.register()
    try:
        out(web, scope=["node"])
        assert web.node_reason() == ours(web)
        assert web.reasons() == {web.name: None}
        back(web, scope=["node"])
        assert web.node_reason() is None
    finally:
        web.server.put("agent/maintenance?enable=false")


def test_a_list_of_services(web: Services) -> None:
    other = Services(web.server)
    web.register()
    other.register()
    out(web, scope=[web.name, other.name])
    assert (web.reasons(), other.reasons()) == ({web.name: ours(web)}, {other.name: ours(web)})
    back(web, scope=[web.name, other.name])
    assert (web.reasons(), other.reasons()) == ({web.name: None}, {other.name: None})
    with pytest.raises(HitlessError, match="not among the services that go into maintenance"):
        back(web, scope=[other.name])


def test_check_mode_changes_nothing(web: Services) -> None:
    web.register()
    told = out(web, check_mode=True, drain_time=600)
    assert told["changed"]
    assert back(web, check_mode=True)["changed"]
    assert web.reasons() == {web.name: None}


def test_a_lost_lock_stops_each_step_before_it_changes_anything(web: Services) -> None:
    web.register()
    session = web.session(Keys(web.name).lock)
    web.server.put(f"session/destroy/{session}")
    with pytest.raises(LockLost):
        out(web, session=session)
    assert web.reasons() == {web.name: None}
    out(web)
    with pytest.raises(LockLost):
        back(web, session=session)
    assert web.reasons() == {web.name: ours(web)}


def test_a_held_lock_lets_each_step_through_and_status_is_told(web: Services) -> None:
    web.register()
    keys, client = Keys(web.name), web.client()
    session = web.session(keys.lock)
    out(web, session=session)
    status = client.key(keys.status(web.node))
    assert status is not None
    assert '"deploying"' in status.value, "from here on the host may be half deployed"
    back(web, session=session, version="2", previous="1", host="web1", batch=1)
    outcome = client.key(keys.outcome(ID, web.node))
    assert outcome is not None
    assert '"ok"' in outcome.value


@pytest.mark.parametrize(
    ("before", "more", "told"),
    [
        (None, {}, ["draining", "deploying"]),
        (ID, {}, ["deploying", "deploying"]),
        ("20261122T142233Z-1.4.1-7f3a", {}, ["deploying", "deploying"]),
        (None, {"attempt": "rollback"}, ["deploying", "deploying"]),
    ],
    ids=["fresh", "out already", "taken over", "rollback that lost its maintenance"],
)
def test_draining_is_told_only_while_nothing_can_have_been_deployed(
    web: Services, monkeypatch: pytest.MonkeyPatch, before: str | None, more: dict[str, str], told: list[str]
) -> None:
    """A later run brings back what was only drained without any proof."""
    web.register()
    if before:
        web.operator(ours(web, before))
    seen: list[str] = []
    monkeypatch.setattr(Turn, "begin", lambda turn, state, **_more: seen.append(state))
    out(web, **more)
    assert seen == told


def test_the_batch_is_begun_with_the_first_write_to_a_host_of_it(web: Services) -> None:
    web.register()
    keys, client = Keys(web.name), web.client()
    session = web.session(keys.lock)
    out(web, session=session)
    assert client.key(keys.batch(ID)) is None
    out(web, session=session, batch=2)
    begun = client.key(keys.batch(ID))
    assert begun is not None
    assert '"batch":2' in begun.value


# -- back ---------------------------------------------------------------------------------------------------------


def test_what_fails_is_not_brought_back(web: Services) -> None:
    web.register()
    out(web)
    web.set("critical", "it is broken")
    with pytest.raises(
        DeadlineExceeded, match="was not healthy within 1 s: answers is critical .it is broken"
    ) as error:
        back(web, healthy_deadline=1)
    assert error.value.details["failing_checks"]
    assert web.reasons() == {web.name: ours(web)}


def test_a_maintenance_that_the_deployment_dropped_is_put_back(web: Services) -> None:
    """An application that deregisters and registers itself while it is being proven."""
    web.register()
    out(web)
    web.deregister()
    wait_until("it is gone", lambda: not web.entries())
    seen: list[str | None] = []

    def comes_back() -> None:
        web.register(status="critical")
        wait_until("it is out again", lambda: web.reasons()[web.name] is not None)
        seen.append(web.reasons()[web.name])
        web.set("passing")

    thread = threading.Timer(0.5, comes_back)
    thread.start()
    assert back(web, healthy_deadline=30)["changed"]
    thread.join()
    assert seen == [ours(web)]
    assert web.reasons() == {web.name: None}


def test_a_service_that_never_comes_back(web: Services) -> None:
    web.register()
    out(web)
    web.deregister()
    wait_until("it is gone", lambda: not web.entries())
    with pytest.raises(DeadlineExceeded, match=f"No instance of {web.name} on {web.node} is registered"):
        back(web, healthy_deadline=0.5)


def test_an_old_passing_is_no_proof_without_a_health_url(web: Services) -> None:
    """The new process fails, which its check sees only at its next run."""
    with HttpServer(Reply(200, "ok")) as app:
        check = {"Name": "answers", "HTTP": app.url, "Interval": "2s", "Timeout": "1s", "Status": "passing"}
        web.server.put("agent/service/register", {"Name": web.name, "Check": check})
        web.shown(web.name)
        wait_until("the check has run", lambda: bool(app.asked))
        out(web)
        app._answer = lambda asked: Reply(500, "broken")
        with pytest.raises(DeadlineExceeded, match="answers is critical"):
            back(web, min_healthy_time=0, check_interval=3, healthy_deadline=1)
    assert web.reasons() == {web.name: ours(web)}


def test_the_health_url_proves_the_new_process(web: Services) -> None:
    web.register()
    out(web)
    replies = [Reply(200, "version 1"), Reply(503, ""), Reply(200, "version 2")]
    with HttpServer(*replies) as app:
        back(web, health_url=f"{app.url}/health", health_match="version 2", check_interval=600)
        assert len(app.asked) == 3
    assert web.reasons() == {web.name: None}


@pytest.mark.parametrize("min_healthy_time", [0, 1])
def test_what_passed_before_the_health_url_answered_must_pass_after_it(web: Services, min_healthy_time: int) -> None:
    """Its check fails as soon as the new process is there."""
    web.register()
    out(web)
    check = f"check-{web.name}"

    def answer(_asked: object) -> Reply:
        web.set("critical", "the new process is broken")
        wait_until("the catalog shows it", lambda: web.statuses()[web.name][check] == "critical")
        return Reply(200, "version 2")

    with HttpServer(answer=answer) as app, pytest.raises(DeadlineExceeded, match="the new process is broken"):
        back(web, health_url=app.url, min_healthy_time=min_healthy_time, healthy_deadline=2)
    assert web.reasons() == {web.name: ours(web)}


def test_a_new_process_that_never_answers(web: Services) -> None:
    web.register()
    out(web)
    url = nobody()
    with pytest.raises(HitlessError, match=f"did not answer at {url} within 0.3 s: .*refused") as error:
        back(web, health_url=url, healthy_deadline=0.3)
    assert error.value.details["health_url"] == url
    assert web.reasons() == {web.name: ours(web)}


def test_what_was_only_drained_comes_back_as_it_is(web: Services) -> None:
    web.register()
    keys, client = Keys(web.name), web.client()
    session = web.session(keys.lock)
    out(web, session=session)
    # There is nothing to prove: no health URL is asked, no check has to run anew.
    told = back(web, session=session, deployed=False, health_url="http://127.0.0.1:9/", healthy_deadline=5)
    assert told["changed"]
    assert "proven_after" not in told
    assert web.reasons() == {web.name: None}
    status = client.key(keys.status(web.node))
    assert status is not None
    assert '"cleared"' in status.value


def test_in_two_halves(web: Services) -> None:
    web.register()
    out(web)
    assert back(web, phase="prove")["changed"] is False
    assert web.reasons() == {web.name: ours(web)}
    assert "proven_after" not in back(web, phase="return")
    assert web.reasons() == {web.name: None}


def test_what_cannot_be_recorded_is_told_and_no_failure(web: Services) -> None:
    web.register()
    out(web)
    warned: list[str] = []
    task = web.task(bring_back, service=web.name, deployment=ID, version="1.4.2", previous="1", **QUICK)
    task.warn = warned.append
    put = task.consul.txn

    def lost(*_args: object, **_kwargs: object) -> Any:
        raise LockLost("The lock is gone.")

    task.consul.txn = lost  # type: ignore[method-assign]
    told = bring_back.perform(task)
    assert put is not None
    assert "The lock is gone." in told["unrecorded"]
    assert "could not be recorded" in warned[0]
    assert web.reasons() == {web.name: None}


# -- rescue -------------------------------------------------------------------------------------------------------


def rescued(web: Services, **more: Any) -> dict[str, Any]:
    defaults = {"service": web.name, "deployment": ID, "failed": {"msg": "It broke."}, "to_version": "2"}
    return web.run(rescue, **{**defaults, **more})


def test_a_host_that_was_never_touched_is_put_back(web: Services) -> None:
    web.register()
    out(web)
    told = rescued(web)
    assert (told["verdict"], told["error"]) == ("cleared", "It broke. Nothing was deployed.")
    assert web.reasons() == {web.name: None}


def test_a_started_one_is_rolled_back_and_stays_out_until_then(web: Services) -> None:
    web.register()
    out(web)
    assert rescued(web, started="2026-11-23T14:22:40Z", rollback_to="1")["verdict"] == "roll_back"
    assert web.reasons() == {web.name: ours(web)}


def test_what_cannot_be_rolled_back_is_put_back_into_maintenance(web: Services) -> None:
    """Also where the deployment dropped it: a broken instance never gets traffic."""
    web.register(status="critical")
    assert rescued(web, started="2026-11-23T14:22:40Z")["verdict"] == "kept"
    assert web.reasons() == {web.name: ours(web)}


def test_what_an_earlier_deployment_left_out_stays_out(web: Services) -> None:
    web.register()
    web.operator(ours(web, "20251123T142233Z-1.4.1-aaaa"))
    out(web)
    told = rescued(web)
    assert told["verdict"] == "kept"
    assert web.reasons() == {web.name: ours(web, "20251123T142233Z-1.4.1-aaaa")}


def test_anothers_maintenance_in_the_way_is_left_and_what_we_took_out_is_put_back(web: Services) -> None:
    other = Services(web.server)
    web.register()
    other.register()
    other.operator("by hand")
    scope = [web.name, other.name]
    with pytest.raises(HitlessError, match="by hand") as error:
        out(web, scope=scope)
    session = web.session(Keys(web.name).lock)
    failed = {"msg": str(error.value), **error.value.details}
    assert rescued(web, failed=failed, scope=scope, session=session)["verdict"] == "cleared"
    assert (web.reasons(), other.reasons()) == ({web.name: None}, {other.name: "by hand"})
    outcome = web.client().key(Keys(web.name).outcome(ID, web.node))
    assert outcome is not None
    assert '"left_out"' in outcome.value


def test_without_the_lock_nothing_is_done(web: Services) -> None:
    web.register()
    out(web)
    session = web.session(Keys(web.name).lock)
    web.server.put(f"session/destroy/{session}")
    assert rescued(web, session=session)["verdict"] == "stopped"
    assert rescued(web, failed={"msg": "x", "lock_lost": True})["verdict"] == "stopped"
    assert web.reasons() == {web.name: ours(web)}


def unreachable(command: str, data: bytes) -> tuple[int, bytes, bytes]:
    raise HostLost("The host cannot be reached: no route.")


def test_a_host_that_is_lost_is_recorded_so(web: Services) -> None:
    web.register()
    out(web)
    session = web.session(Keys(web.name).lock)
    task = web.task(rescue, on=Host(unreachable), service=web.name, deployment=ID, session=session, failed={"msg": "x"})
    told = rescue.perform(task)
    assert told["verdict"] == "lost"
    assert "cannot be reached" in told["error"]
    outcome = web.client().key(Keys(web.name).outcome(ID, web.node))
    assert outcome is not None
    assert '"lost"' in outcome.value


# -- reach --------------------------------------------------------------------------------------------------------


def reached(web: Services, host: Host | None = None, **options: str) -> dict[str, Any]:
    task = web.task(reach, on=host)
    task.params["node"] = options.pop("node", None)
    task.options.update(options)
    result: dict[str, Any] = reach.perform(task)
    return result


def test_a_host_and_its_agent(web: Services) -> None:
    assert reached(web) == {
        "changed": False,
        "found": {"host": "the host", "node": web.node, "reachable": True, "why": "", "datacenter": "dc1"},
        "problem": "",
    }
    assert reached(web, node=web.node)["problem"] == ""


def test_another_hosts_agent(web: Services) -> None:
    problem = reached(web, node="web9")["problem"]
    assert f"is that of the node {web.node}, and the host is said to be the node web9" in problem


def test_a_host_out_of_reach(web: Services) -> None:
    found = reached(web, Host(unreachable, name="web1"), node="n1")["found"]
    assert found == {"host": "web1", "node": "n1", "reachable": False, "why": "The host cannot be reached: no route."}


def test_a_host_without_an_agent(web: Services) -> None:
    told = reached(web, agent_url=nobody())
    assert told["found"]["reachable"] is True
    assert "Connection refused" in told["problem"]
