"""Waiting for health on a real Consul, the oldest and the newest."""

from __future__ import annotations

import threading
import time

import pytest

from ansible_collections.hitless.consul.plugins.action import health_wait
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import parse_instances
from ansible_collections.hitless.consul.plugins.module_utils._errors import DeadlineExceeded
from lab import wait_until
from tests.http_server import HttpServer, Reply
from tests.integration.services import Services

pytestmark = pytest.mark.oldest


def test_what_is_so_already(web: Services) -> None:
    web.register()
    result = web.run(health_wait, service=web.name, deadline=5)
    assert result["instances"] == [{"node": web.node, "id": web.name, "status": "passing"}]
    assert result["changed"] is False


def test_it_waits_without_polling(web: Services) -> None:
    web.register(status="critical")
    task = web.task(health_wait, service=web.name, deadline=30)
    threading.Timer(1.5, web.set, ["passing"]).start()
    assert health_wait.perform(task)["instances"][0]["status"] == "passing"
    # The first read, the one that blocked, and one more where something else of the service moved.
    assert task.consul.requests <= 4


def test_the_failing_check_is_named_with_its_output(web: Services) -> None:
    web.register()
    web.set("critical", "connection\nrefused")
    wait_until("it is critical", lambda: "refused" in str(web.entries()))
    with pytest.raises(
        DeadlineExceeded, match=r"was not in rotation within 0.5 s: answers is critical .connection refu"
    ):
        web.run(health_wait, service=web.name, deadline=0.5)


def test_nobody_there(web: Services) -> None:
    with pytest.raises(DeadlineExceeded, match=f"No instance of {web.name} on {web.node} is registered after 0.2 s"):
        web.run(health_wait, service=web.name, deadline=0.2)
    assert web.run(health_wait, service=web.name, deadline=0.2, state="out_of_rotation")["instances"] == []


def test_a_service_that_comes_while_it_waits(web: Services) -> None:
    threading.Timer(0.5, web.register).start()
    assert web.run(health_wait, service=web.name, deadline=20)["instances"][0]["id"] == web.name


def test_states_in_maintenance(web: Services) -> None:
    web.register()
    with pytest.raises(DeadlineExceeded, match="still in rotation"):
        web.run(health_wait, service=web.name, state="out_of_rotation", deadline=0.2)
    web.operator("by hand")
    assert web.run(health_wait, service=web.name, state="out_of_rotation", deadline=5)
    told = web.run(health_wait, service=web.name, state="checks_passing", deadline=5)
    assert told["instances"][0]["status"] == "maintenance"
    with pytest.raises(DeadlineExceeded, match="Service Maintenance Mode is critical"):
        web.run(health_wait, service=web.name, deadline=0.2)
    web.set("critical")
    wait_until("it is critical", lambda: web.statuses()[web.name][f"check-{web.name}"] == "critical")
    with pytest.raises(DeadlineExceeded, match="answers is critical"):
        web.run(health_wait, service=web.name, state="checks_passing", deadline=0.2)


def test_warning(web: Services) -> None:
    web.register(status="warning")
    with pytest.raises(DeadlineExceeded, match="answers is warning"):
        web.run(health_wait, service=web.name, deadline=0.2)
    assert web.run(health_wait, service=web.name, deadline=5, accept_warning=True)
    # Consul's DNS serves it, and so do load balancers that follow that.
    with pytest.raises(DeadlineExceeded, match=f"still in rotation: {web.node}"):
        web.run(health_wait, service=web.name, deadline=0.2, state="out_of_rotation")


def test_a_break_starts_the_stable_time_anew(web: Services) -> None:
    web.register()
    broken_at: list[float] = []

    def breaks() -> None:
        web.set("critical")
        time.sleep(0.5)
        web.set("passing")
        broken_at.append(time.monotonic())

    threading.Timer(0.5, breaks).start()
    web.run(health_wait, service=web.name, stable_for=1.5, deadline=30)
    assert time.monotonic() - broken_at[0] >= 1.4


def test_several_instances_and_tags_and_a_number(web: Services) -> None:
    one = web.register(f"{web.name}-1", Tags=["prod"])
    web.register(f"{web.name}-2", status="critical", Tags=["staging"])
    with pytest.raises(DeadlineExceeded):
        web.run(health_wait, service=web.name, deadline=0.2)
    assert web.run(health_wait, service=web.name, service_id=one, deadline=5)["instances"][0]["id"] == one
    assert len(web.run(health_wait, service=web.name, tags=["prod"], deadline=5)["instances"]) == 1
    assert web.run(health_wait, service=web.name, count=1, deadline=5)
    with pytest.raises(DeadlineExceeded, match="on 2 instances"):
        web.run(health_wait, service=web.name, count=2, deadline=0.2)
    # Anywhere: the node of the task plays no part.
    assert web.run(health_wait, service=web.name, count=1, deadline=5, node="elsewhere")


def test_check_mode_tells_how_things_stand(web: Services) -> None:
    web.register(f"{web.name}-1", status="critical")
    web.register(f"{web.name}-2")
    told = web.run(health_wait, service=web.name, check_mode=True, service_id=f"{web.name}-1")
    assert told["instances"] == [{"node": web.node, "id": f"{web.name}-1", "status": "critical"}]


def test_an_old_passing_does_not_count_as_fresh(web: Services) -> None:
    """The trap: after a restart the check is still passing, until it runs anew."""
    with HttpServer(Reply(200, "ok")) as app:
        check = {"CheckID": f"check-{web.name}", "Name": "answers", "HTTP": app.url, "Interval": "2s", "Timeout": "1s"}
        web.server.put("agent/service/register", {"Name": web.name, "Check": {**check, "Status": "passing"}})
        web.shown(web.name)
        wait_until("the check has run", lambda: bool(app.asked))
        # A new process that does not answer; its check will only see that at its next run.
        app._answer = lambda asked: Reply(500, "broken")
        assert web.run(health_wait, service=web.name, deadline=5)["seconds"] < 1
        with pytest.raises(DeadlineExceeded, match="answers is critical"):
            web.run(health_wait, service=web.name, fresh=True, check_interval=3, deadline=1)


def test_an_old_passing_of_the_node_does_not_either(web: Services) -> None:
    """Where only a check of the node covers the application."""
    web.server.put("agent/service/register", {"Name": web.name})
    web.shown(web.name)
    with HttpServer(Reply(200, "ok"), address=web.server.address) as app:
        check = {"ID": "app", "Name": "app answers", "HTTP": app.url, "Interval": "2s", "Timeout": "1s"}
        web.server.put("agent/check/register", check)
        try:
            web.run(health_wait, service=web.name, deadline=10)
            app._answer = lambda asked: Reply(500, "broken")
            assumed = 3 if web.server.version < (1, 20) else 0
            with pytest.raises(DeadlineExceeded, match="app answers is critical"):
                web.run(health_wait, service=web.name, fresh=True, check_interval=assumed, deadline=1)
        finally:
            web.server.put("agent/check/deregister/app")


def test_what_consul_tells_of_checks(web: Services) -> None:
    with HttpServer(Reply(200, "ok")) as app:
        checks = [
            {"Name": "answers", "HTTP": app.url, "Interval": "90s", "Timeout": "5s", "Status": "passing"},
            {"Name": "beats", "TTL": "60s", "Status": "passing"},
            {"Name": "follows", "AliasNode": web.node},
        ]
        web.server.put("agent/service/register", {"Name": web.name, "Checks": checks})
        web.shown(web.name)
        (instance,) = parse_instances(web.entries())
    told = {check.name: check for check in instance.checks}
    assert {name: told[name].type for name in ("answers", "beats", "follows")} == {
        "answers": "http",
        "beats": "ttl",
        "follows": "alias",
    }
    assert [name for name, check in told.items() if check.runs_anew] == ["answers"]
    assert told["answers"].delay(30) == (30 if web.server.version < (1, 20) else 95)
    assert told["beats"].delay(30) == 30
    assert instance.freshness(30) == (30 if web.server.version < (1, 20) else 95)


def test_a_name_that_differs_in_case_alone_is_another_service(web: Services) -> None:
    """Consul's own health API gives the instances of both for either name."""
    other = web.name.capitalize()
    web.register()
    web.server.put("agent/service/register", {"Name": other, "ID": f"legacy-{web.name}"})
    wait_until("the catalog shows it", lambda: len(web.entries()) == 2)
    assert [one["id"] for one in web.run(health_wait, service=web.name, deadline=5)["instances"]] == [web.name]
    assert [one["id"] for one in web.run(health_wait, service=other, deadline=5)["instances"]] == [f"legacy-{web.name}"]
    with pytest.raises(DeadlineExceeded, match=f"No instance of {web.name.upper()} on {web.node} is registered"):
        web.run(health_wait, service=web.name.upper(), deadline=0.2)
