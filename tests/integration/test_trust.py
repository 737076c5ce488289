"""Which version a host may be trusted to run, after a turn in which nothing was deployed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import recovery
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_protocol import Request
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import WantedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan_reader import read_plan
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import outcome_ops, status_op
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_version
from tests.http_server import nobody
from tests.integration.services import ID, Services, assignment

BEFORE, AFTER = "20251123T142233Z-1.4.1-aaaa", "20261124T142233Z-1.4.2-bbbb"
TRUSTED, OPEN = ("ok", "rolled_back", "untouched"), ("deploying", "returning", "failed", "lost")
BROKE = {"msg": "It broke."}


@pytest.fixture
def web(web: Services) -> Services:
    web.register()
    return web


def planned(web: Services, run: Run) -> HostDeployment:
    """The host as a plan made now has it."""
    task = web.host(run).task
    wanted = WantedHost("web1", web.node, "2", health_url=True)
    return web.host(run, unsure=read_plan(task, run, [wanted])[0].as_dict()["hosts"]["web1"]["unsure"])


def version_is_trusted(web: Services) -> bool:
    return read_version(web.client(), Keys(web.name), web.node).version_is_trusted


def left_at(web: Services, state: str) -> None:
    """An earlier deployment was the last, and came to this."""
    web.client().txn([status_op(Keys(web.name), web.node, BEFORE, state)])


@pytest.mark.parametrize("before", [*TRUSTED, *OPEN])
def test_a_host_that_was_only_drained_is_as_trusted_as_before(web: Services, before: str) -> None:
    trusted = before in TRUSTED
    left_at(web, before)
    host = planned(web, web.rollout(min_healthy=0))
    host.leave()
    assert version_is_trusted(web) is trusted
    host.on_failure(BROKE, "Drain")
    assert host.turn.decision == "end_maintenance"
    assert version_is_trusted(web) is trusted


def test_what_an_earlier_deployment_left_open_stays_open_until_something_is_known(web: Services) -> None:
    left_at(web, "failed")
    run = web.rollout(min_healthy=0)
    for deployment in (ID, AFTER):
        host = planned(web, Run.of({**run.as_dict(), "id": deployment}))
        host.leave()
        host.on_failure(BROKE, "Drain")
        assert not version_is_trusted(web)
    # And through one that nobody took.
    request = Request(web.client(), Keys(web.name), web.node, assignment(), run.session)
    request.submit()
    assert request.follow(0.1).state == "withdrawn"
    assert not version_is_trusted(web)
    # Until something is known of it again.
    web.client().txn(outcome_ops(Keys(web.name), ID, Outcome("web1", web.node, "ok")))
    assert version_is_trusted(web)


@pytest.mark.parametrize("before", ["ok", "failed"])
def test_another_owners_maintenance_in_the_way_leaves_it_as_it_was(web: Services, before: str) -> None:
    """It began between the plan and the host's turn."""
    left_at(web, before)
    host = planned(web, web.rollout(min_healthy=0))
    web.operator("disk")
    with pytest.raises(HitlessError, match="disk") as error:
        host.leave()
    host.on_failure({"msg": str(error.value), **error.value.details}, "Drain")
    status = read_version(web.client(), Keys(web.name), web.node).status or {}
    assert status["state"] == "skipped"
    assert version_is_trusted(web) is (before == "ok")


@pytest.mark.parametrize("before", ["ok", "failed"])
def test_a_deployment_that_never_began_leaves_it_as_it_was(web: Services, before: str) -> None:
    """Its first task failed before it was sent to the host."""
    left_at(web, before)
    run = web.rollout(min_healthy=0)
    run = Run.of({**run.as_dict(), "first_tasks": [{"name": "Install", "action": "command"}]})
    host = planned(web, run)
    host.drain()
    assert not version_is_trusted(web), "it may be half deployed now"
    host.on_failure({"failed": True, "msg": "'x' is undefined"}, "Install", "command")
    assert (host.turn.decision, web.reasons()) == ("end_maintenance", {web.name: None})
    assert version_is_trusted(web) is (before == "ok")


@pytest.mark.parametrize("before", ["ok", "failed"])
def test_a_recovered_host_that_was_only_drained_is_as_trusted_as_before(web: Services, before: str) -> None:
    left_at(web, before)
    # There is nothing to verify: no health URL is asked, and no check has to run anew.
    run = web.rollout(min_healthy=0, check_interval=600, healthy_deadline=5)
    planned(web, run).leave()  # and the run is interrupted
    remains = recovery.find_remains(web.client(), Keys(web.name))
    assert [one.advice for one in remains.left] == [recovery.END]
    again = Run.of({**run.as_dict(), "leftovers": [one.as_dict() for one in remains.left]})
    left = recovery.left_of(again, web.node)
    host = recovery.host_of(web.host(again).task, again, left)
    found = recovery.verify(host, left, lambda *_about: nobody())
    assert recovery.return_to_rotation(host, found)
    assert web.reasons() == {web.name: None}
    status = read_version(web.client(), Keys(web.name), web.node).status or {}
    assert status["state"] == "untouched"
    assert version_is_trusted(web) is (before == "ok")


@pytest.mark.parametrize(
    ("touched", "unsure", "trusted"),
    [(False, None, True), (False, True, False), (True, None, False), (True, False, True), (True, True, False)],
)
def test_what_its_deploy_agent_tells_of_a_failed_request(
    web: Services, touched: bool, unsure: bool | None, trusted: bool
) -> None:
    """That of a restart says how it is, whatever it touched."""
    status = {"state": "failed", "touched": touched, **({} if unsure is None else {"unsure": unsure})}
    web.client().set_key(Keys(web.name).status(web.node), json.dumps(status))
    assert version_is_trusted(web) is trusted


def whole(host: HostDeployment) -> dict[str, Any]:
    host.drain()
    _result, seen = host.verify("", "")
    return host.return_to_rotation(seen)


def test_what_was_deployed_and_verified_is_trusted(web: Services) -> None:
    left_at(web, "failed")
    whole(planned(web, web.rollout(min_healthy=0)))
    assert version_is_trusted(web)
