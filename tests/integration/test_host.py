"""A host's part of a deployment on a real Consul, the oldest and the newest: drain, verify, return, and what fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import ConsulUnavailable
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    DeadlineExceeded,
    HitlessError,
    HostLost,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import drain
from ansible_collections.hitless.consul.plugins.module_utils._rollout.abort_listener import AbortListener
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn, read_turn
from lab import wait_until
from tests.http_server import HttpServer, Reply, nobody
from tests.integration.services import ENDS, ID, Services, started

pytestmark = pytest.mark.oldest

EARLIER = "20251123T142233Z-1.4.1-aaaa"


@pytest.fixture
def run(web: Services) -> Run:
    """A run of the service of the test."""
    web.register()
    return web.rollout()


def ours(web: Services, deployment: str = ID) -> str:
    return f"deploy:{deployment} {web.name}"


def with_options(run: Run, **options: Any) -> Run:
    return Run.of({**run.as_dict(), "options": {**run.options, **options}})


def lose_lock(web: Services, run: Run) -> None:
    web.server.put(f"session/destroy/{run.session}")


def state(web: Services) -> str:
    """As the status of the host tells it."""
    found = web.client().key(Keys(web.name).status(web.node))
    return str(json.loads(found.value)["state"]) if found else ""


def outcome(web: Services) -> dict[str, Any]:
    found = web.client().key(Keys(web.name).outcome(ID, web.node))
    return dict(json.loads(found.value)) if found else {}


def drained(web: Services, run: Run, **planned: Any) -> HostDeployment:
    host = web.host(run, **planned)
    host.drain()
    return host


def verify_and_return(host: HostDeployment, url: str = "", match: str = "") -> dict[str, Any]:
    result, seen = host.verify(url, match)
    return {**result, **host.return_to_rotation(seen)}


# -- a turn -------------------------------------------------------------------------------------------------------


def test_a_turn_that_goes_well(web: Services, run: Run) -> None:
    host = web.host(run)
    told = host.drain()
    assert (told["changed"], told["instances"]) == (True, [web.name])
    assert web.reasons() == {web.name: ours(web)}
    assert state(web) == "deploying", "from here on the host may be half deployed"
    # Each step is a process of its own: what it leaves is plain data.
    host = web.host(run, json.loads(json.dumps(asdict(host.turn))))
    assert verify_and_return(host)["changed"]
    assert web.reasons() == {web.name: None}
    keys, client = Keys(web.name), web.client()
    found = [client.key(key) for key in (keys.version(web.node), keys.previous(web.node))]
    assert [one.value if one else None for one in found] == ["2", "1"]
    assert state(web) == "ok"
    ended = outcome(web)
    assert (ended["outcome"], ended["batch"], ended["from"], ended["to"]) == ("ok", 1, "1", "2")
    assert [step["state"] for step in ended["steps"]] == ["draining", "deploying", "verifying", "returning", "ok"]
    progress = client.key(keys.progress(ID))
    assert progress is not None
    assert json.loads(progress.value).items() >= {"batch": 1, "stop": ""}.items()


def test_the_command_runs_with_what_it_is_for(web: Services, run: Run) -> None:
    host = drained(web, run)
    command = "echo $DEPLOY_SERVICE $DEPLOY_VERSION $DEPLOY_PREVIOUS_VERSION $DEPLOY_REASON $DEPLOY_ID"
    assert host.deploy(command)["stdout"].split() == [web.name, "2", "1", "deploy", ID]
    with pytest.raises(HitlessError, match="The deployment command exited with 3.") as error:
        host.deploy("echo because; exit 3")
    assert error.value.details["stdout"] == "because\n"


def test_a_rollback_is_part_of_the_turn_that_began_earlier(web: Services, run: Run) -> None:
    host = drained(web, run)
    began = host.turn.started
    host.on_failure({"msg": "It broke.", "stdout": "why"}, "Deploy")
    assert (host.turn.decision, host.turn.state, state(web)) == ("roll_back", "rolling_back", "rolling_back")
    assert web.reasons() == {web.name: ours(web)}
    assert outcome(web) == {}, "it is not over"
    host = web.host(run, asdict(host.turn))
    # Also where its maintenance was lost: what is half deployed is not told as only drained.
    web.operator("x", enable=False)
    host.leave()
    assert state(web) == "rolling_back"
    host.drain()
    assert (host.version, host.replaced_version, host.why) == ("1", "2", "rollback")
    verify_and_return(host)
    ended = outcome(web)
    assert (ended["outcome"], ended["error"], ended["output"]) == ("rolled_back", "Deploy: It broke.", "why")
    assert ended["started"] == began
    assert state(web) == "rolled_back"
    assert web.client().key(Keys(web.name).previous(web.node)) is None, "as it was before the deployment"


def test_the_second_rollout_of_one_run_begins_anew(web: Services, run: Run) -> None:
    """Neither when its turn began nor its steps are those of the first."""
    left = asdict(Turn(EARLIER, "returning", started="2025-11-23T14:22:40Z", steps=[{"state": "draining", "at": "x"}]))
    host = web.host(run, left)
    assert host.turn == Turn(ID)
    host.on_failure({"msg": "It broke."}, "Prepare")
    ended = outcome(web)
    assert (ended["outcome"], ended["started"], [step["state"] for step in ended["steps"]]) == (
        "untouched",
        None,
        ["untouched"],
    )


def test_the_drain_counts_from_when_the_catalog_showed_it_and_once_per_deployment(web: Services, run: Run) -> None:
    run = with_options(run, drain_time=7)
    slept: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbortListener, "sleep", lambda _listener, seconds: slept.append(seconds))
        drained(web, run)
        drained(web, run)
        # What an earlier, interrupted deployment had taken out is drained again: nobody knows what it did since.
        drained(web, Run.of({**run.as_dict(), "id": "20261124T142233Z-1.4.3-aaaa"}))
    drains = [seconds for seconds in slept if seconds > 1]
    assert [round(seconds) for seconds in drains] == [7, 7]
    assert web.reasons() == {web.name: ours(web)}


def test_out_and_drained_in_two_halves(web: Services, run: Run) -> None:
    """What stands between them may take its time, and nothing can have been deployed meanwhile."""
    run = with_options(run, drain_tasks="drain.yml", restore_tasks="restore.yml")
    host = web.host(run)
    host.leave()
    assert web.reasons() == {web.name: ours(web)}
    assert state(web) == "draining"
    # The drain hook fails.
    host = web.host(run, asdict(host.turn))
    host.on_failure({"msg": "It broke."}, "Drain at the load balancer")
    assert (host.turn.decision, web.reasons()) == ("undo_drain", {web.name: ours(web)})
    assert outcome(web) == {}, "it is not over"
    host = web.host(run, asdict(host.turn))
    host.after_undrain({}, "")
    assert (host.turn.decision, web.reasons()) == ("end_maintenance", {web.name: None})
    assert outcome(web)["outcome"] == "untouched"


def test_neither_the_drain_hook_nor_the_restore_hook_works(web: Services, run: Run) -> None:
    run = with_options(run, drain_tasks="drain.yml", restore_tasks="restore.yml")
    host = web.host(run)
    host.leave()
    host.on_failure({"msg": "It broke."}, "Drain at the load balancer")
    host.after_undrain({"msg": "And again."}, "Restore at the load balancer")
    assert (host.turn.decision, web.reasons()) == ("hold", {web.name: ours(web)})
    assert "It was not restored either: Restore at the load balancer: And again." in outcome(web)["error"]


def test_a_restore_hook_that_fails_keeps_the_host_out_and_one_that_works_does_not(web: Services, run: Run) -> None:
    run = with_options(run, drain_tasks="drain.yml", restore_tasks="restore.yml")
    host = web.host(run)
    host.leave()
    host.wait_until_drained()
    host.verify("", "")
    host.begin_restore()
    before = asdict(host.turn)
    host.on_failure({"msg": "It broke."}, "Restore at the load balancer")
    assert (host.turn.decision, host.turn.restored) == ("hold", False)
    assert "2 runs and is healthy, but it was not restored" in outcome(web)["error"]
    host = web.host(run, before)
    host.return_to_rotation()
    assert (host.turn.restored, web.reasons()) == (True, {web.name: None})


def test_the_servers_of_a_host_are_found_by_the_address_of_its_instances(web: Services) -> None:
    web.register(Address="10.1.2.3", Port=8080)
    head = "# pxname,svname,qcur,scur,stot,status,type,addr,\n"
    pages = [f"{head}web,a,0,1,5,UP,2,10.1.2.3:8080,\n", f"{head}web,a,0,0,6,MAINT,2,10.1.2.3:8080,\n"]
    with HttpServer(*(Reply(body=page) for page in pages)) as balancer:
        host = web.host(web.rollout(load_balancers=[f"{balancer.url}/"], drain_min_time=0, drain_time=100))
        host.leave()
        host = web.host(host.run, json.loads(json.dumps(asdict(host.turn))))
        assert host.wait_until_drained()["drain_notes"] == []
    assert host.turn.watched[0]["servers"] == [["web", "a"]]


def test_the_maintenance_of_another_owner_is_left_alone(web: Services, run: Run) -> None:
    web.operator("by hand")
    host = web.host(run)
    with pytest.raises(HitlessError, match="reason: by hand") as error:
        host.drain()
    assert error.value.details["other_owner"] is True
    host.on_failure({"msg": str(error.value), **error.value.details}, "Drain")
    assert web.reasons() == {web.name: "by hand"}
    assert outcome(web)["outcome"] == "skipped"
    with pytest.raises(HitlessError, match="by hand"):
        web.host(run).end_maintenance()
    assert web.reasons() == {web.name: "by hand"}


def test_a_deployment_of_another_service_is_another_owner(web: Services, run: Run) -> None:
    web.operator("deploy:20261123T142233Z-1-aaaa other")
    with pytest.raises(HitlessError, match="is in .*maintenance"):
        drained(web, run)


def test_tags_choose_the_instances(web: Services) -> None:
    prod, staging = web.register(f"{web.name}-p", Tags=["prod"]), web.register(f"{web.name}-s", Tags=["staging"])
    host = web.host(web.rollout(tags=["prod"]))
    assert host.drain()["instances"] == [prod]
    assert web.reasons() == {prod: ours(web), staging: None}
    # The other one's state does not matter.
    web.set("critical", service_id=staging)
    verify_and_return(host)
    assert web.reasons() == {prod: None, staging: None}


def test_the_node_as_a_whole(web: Services, run: Run) -> None:
    try:
        host = drained(web, with_options(run, maintenance="node"))
        assert web.node_reason() == ours(web)
        assert web.reasons() == {web.name: None}
        verify_and_return(host)
        assert web.node_reason() is None
    finally:
        web.server.put("agent/maintenance?enable=false")


def test_a_list_of_services(web: Services, run: Run) -> None:
    other = Services(web.server)
    other.register()
    host = drained(web, with_options(run, maintenance=[web.name, other.name]))
    assert (web.reasons(), other.reasons()) == ({web.name: ours(web)}, {other.name: ours(web)})
    verify_and_return(host)
    assert (web.reasons(), other.reasons()) == ({web.name: None}, {other.name: None})


def test_a_list_of_services_without_the_service_is_refused_before_anything(web: Services, run: Run) -> None:
    host = web.host(with_options(run, maintenance=["other"]))
    with pytest.raises(HitlessError, match="not among the services that go into maintenance .other.*rollout_maint"):
        host.leave()
    assert (web.reasons(), state(web)) == ({web.name: None}, "")
    with pytest.raises(HitlessError, match="not among the services that go into maintenance .other"):
        host.end_maintenance()


def test_a_lost_lock_stops_each_step_before_it_changes_anything(web: Services, run: Run) -> None:
    lose_lock(web, run)
    with pytest.raises(LockLost):
        web.host(run).drain()
    assert web.reasons() == {web.name: None}
    again = web.rollout()
    host = drained(web, again)
    lose_lock(web, again)
    steps = {"draining": "wait_until_drained", "deploying": "verify", "verifying": "return_to_rotation"}
    for phase, step in steps.items():
        host.turn = Turn(ID, phase)
        with pytest.raises(LockLost):
            getattr(host, step)(*(("", "") if step == "verify" else ()))
    assert web.reasons() == {web.name: ours(web)}


@pytest.mark.parametrize(
    ("before", "told"),
    [(None, "draining"), (ID, "deploying"), (EARLIER, "deploying")],
    ids=["fresh", "out already", "taken over"],
)
def test_draining_is_told_only_while_nothing_can_have_been_deployed(
    web: Services, run: Run, before: str | None, told: str
) -> None:
    """A later run returns what was only drained without any verification."""
    if before:
        web.operator(ours(web, before))
    host = web.host(run)
    assert host.leave()["changed"] is (before is None)
    assert state(web) == told
    assert host.turn.state == "draining"


def test_a_turn_that_nobody_handed_on_is_read_from_the_status(web: Services, run: Run) -> None:
    """Ansible's own timeout of a task leaves no result of ours; what is half deployed is not taken for untouched."""
    host = web.host(run)
    assert read_turn(host.task, run, host.planned) == Turn(ID)
    host.leave()
    assert read_turn(host.task, run, host.planned).state == "draining"
    host.wait_until_drained()
    assert read_turn(host.task, run, host.planned).state == "deploying"
    host.on_failure({"msg": "It broke."}, "Deploy")
    lost = read_turn(host.task, run, host.planned)
    assert (lost.state, lost.error) == ("rolling_back", "Deploy: It broke.")


# -- verified -----------------------------------------------------------------------------------------------------


def test_what_fails_is_not_returned(web: Services, run: Run) -> None:
    host = drained(web, with_options(run, healthy_deadline=1))
    web.set("critical", "it is broken")
    with pytest.raises(
        DeadlineExceeded, match="was not healthy within 1 s: answers is critical .it is broken"
    ) as error:
        host.verify("", "")
    assert error.value.details["failing_checks"]
    assert (web.reasons(), state(web)) == ({web.name: ours(web)}, "verifying")


def test_a_maintenance_that_the_deployment_dropped_is_put_back(web: Services, run: Run) -> None:
    """An application that deregisters and registers itself while it is being verified."""
    host = drained(web, with_options(run, healthy_deadline=30))
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
    assert verify_and_return(host)["changed"]
    thread.join()
    assert seen == [ours(web)]
    assert web.reasons() == {web.name: None}


def test_one_that_got_requests_meanwhile_is_drained_before_it_goes_back(
    web: Services, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is a process of its own; one whose maintenance never ended is not drained a second time."""
    drains: list[object] = []
    monkeypatch.setattr(drain, "wait_as_set", lambda *given: drains.append(given) or [])
    for number, is_dropped in enumerate([False, True]):
        host = drained(web, run)
        with host.watched() as watch:
            if is_dropped:
                web.drop()
                wait_until("it is put back", lambda: watch.dropped and web.reasons() == {web.name: ours(web)})
        failed = web.host(run, asdict(host.turn))
        failed.on_failure({"msg": "It did not answer."}, "Verify")
        back = web.host(run, asdict(failed.turn))
        back.drain()
        assert (back.turn.rolling_back, len(drains)) == (True, [1, 3][number])
        back.end_maintenance()


def test_a_service_that_never_comes_back(web: Services, run: Run) -> None:
    host = drained(web, with_options(run, healthy_deadline=0.5))
    web.deregister()
    wait_until("it is gone", lambda: not web.entries())
    with pytest.raises(DeadlineExceeded, match=f"No instance of {web.name} on {web.node} is registered"):
        host.verify("", "")


@pytest.fixture(params=[ENDS[0], pytest.param(ENDS[1], marks=pytest.mark.newest_consul)], ids=["oldest", "newest"])
def alone(request: pytest.FixtureRequest) -> Iterator[Services]:
    """A service on an agent of its own, which runs no other checks."""
    for server in started(request.param):
        yield Services(server)


def test_an_old_passing_is_no_proof_without_a_health_url(alone: Services) -> None:
    """The new process fails, which its check sees only at its next run."""
    web = alone
    with HttpServer(Reply(200, "ok")) as app:
        check = {"Name": "answers", "HTTP": app.url, "Interval": "2s", "Timeout": "3s", "Status": "passing"}
        web.server.put("agent/service/register", {"Name": web.name, "Check": check})
        web.shown(web.name)
        wait_until("the check has run", lambda: bool(app.asked))
        host = drained(web, web.rollout(check_interval=15, healthy_deadline=1))
        app._answer = lambda asked: Reply(500, "broken")
        with pytest.raises(DeadlineExceeded, match="answers is critical"):
            host.verify("", "")
    assert web.reasons() == {web.name: ours(web)}


def test_the_health_url_verifies_the_new_process(web: Services, run: Run) -> None:
    host = drained(web, with_options(run, check_interval=600))
    replies = [Reply(200, "version 1"), Reply(503, ""), Reply(200, "version 2")]
    with HttpServer(*replies) as app:
        verify_and_return(host, f"{app.url}/health", "version 2")
        assert len(app.asked) == 3
    assert web.reasons() == {web.name: None}


@pytest.mark.parametrize("min_healthy_time", [0, 1])
def test_what_passed_before_the_health_url_answered_must_pass_after_it(
    web: Services, run: Run, min_healthy_time: int
) -> None:
    """Its check fails as soon as the new process is there."""
    host = drained(web, with_options(run, min_healthy_time=min_healthy_time, healthy_deadline=2))
    check = f"check-{web.name}"

    def answer(_asked: object) -> Reply:
        web.set("critical", "the new process is broken")
        wait_until("the catalog shows it", lambda: web.statuses()[web.name][check] == "critical")
        return Reply(200, "version 2")

    with HttpServer(answer=answer) as app, pytest.raises(DeadlineExceeded, match="the new process is broken"):
        host.verify(app.url, "")
    assert web.reasons() == {web.name: ours(web)}


def test_a_new_process_that_never_answers(web: Services, run: Run) -> None:
    host = drained(web, with_options(run, healthy_deadline=0.3))
    url = nobody()
    with pytest.raises(HitlessError, match=f"did not answer at {url} within 0.3 s: .*refused") as error:
        host.verify(url, "")
    assert error.value.details["health_url"] == url
    assert web.reasons() == {web.name: ours(web)}


def test_what_cannot_be_recorded_is_told_and_no_failure(web: Services, run: Run) -> None:
    host = drained(web, run)
    host.verify("", "")
    send = host.task.consul.txn

    def lost_at_the_end(operations: list[dict[str, Any]]) -> Any:
        if any(one.get("KV", one).get("Key", "").endswith("/version") for one in operations):
            raise LockLost("The lock is gone.")
        return send(operations)

    host.task.consul.txn = lost_at_the_end  # type: ignore[method-assign]
    told = host.return_to_rotation()
    assert "The lock is gone." in told["unrecorded"]
    assert "could not be recorded" in web.warned[0]
    assert web.reasons() == {web.name: None}


# -- what fails ---------------------------------------------------------------------------------------------------

BROKE = {"msg": "It broke."}


def failed(host: HostDeployment, result: dict[str, Any] | None = None, **turn: Any) -> str:
    host.turn = Turn(**{**asdict(host.turn), **turn})
    host.on_failure(BROKE if result is None else result, "")
    return host.turn.decision


def test_a_host_that_was_only_drained_is_put_back(web: Services, run: Run) -> None:
    host = drained(web, run)
    assert failed(host, phase="draining") == "end_maintenance"
    assert host.turn.error == "It broke. Nothing was deployed."
    assert web.reasons() == {web.name: None}
    assert (outcome(web)["outcome"], state(web)) == ("untouched", "untouched")


def test_a_host_without_the_service_is_untouched(web: Services, run: Run) -> None:
    """There is no instance whose maintenance could end; what was taken out beside it is put back."""
    host = web.host(with_options(run, maintenance=[web.name, "absent"]))
    with pytest.raises(HitlessError, match="No instance of absent") as error:
        host.drain()
    assert web.reasons() == {web.name: ours(web)}
    assert failed(host, {"msg": str(error.value)}) == "end_maintenance"
    assert (web.reasons(), outcome(web)["outcome"]) == ({web.name: None}, "untouched")
    assert outcome(web)["error"].count("No instance of absent") == 1


def test_what_cannot_be_rolled_back_is_put_back_into_maintenance(web: Services, run: Run) -> None:
    """Also where the deployment dropped it: a broken instance never gets traffic."""
    assert failed(web.host(run, rollback_to=None), phase="deploying") == "hold"
    assert web.reasons() == {web.name: ours(web)}
    assert outcome(web)["outcome"] == "failed"


def test_what_an_earlier_deployment_left_out_stays_out(web: Services, run: Run) -> None:
    web.operator(ours(web, EARLIER))
    host = web.host(run)
    host.leave()
    assert failed(host) == "hold"
    assert web.reasons() == {web.name: ours(web, EARLIER)}
    assert outcome(web)["outcome"] == "failed"


def test_another_owners_maintenance_is_left_and_what_we_took_out_is_put_back(web: Services, run: Run) -> None:
    other = Services(web.server)
    other.register()
    other.operator("by hand")
    host = web.host(with_options(run, maintenance=[web.name, other.name]))
    with pytest.raises(HitlessError, match="by hand") as error:
        host.drain()
    assert failed(host, {"msg": str(error.value), **error.value.details}) == "end_maintenance"
    assert (web.reasons(), other.reasons()) == ({web.name: None}, {other.name: "by hand"})
    assert outcome(web)["outcome"] == "skipped"


def test_another_owners_maintenance_after_the_deployment_is_no_reason_to_call_it_skipped(
    web: Services, run: Run
) -> None:
    """Something was deployed there, and nobody knows whether it works."""
    host = drained(web, run)
    web.operator("x", enable=False)
    web.operator("by hand")
    with pytest.raises(HitlessError, match="by hand") as error:
        host.end_maintenance()
    result = {"msg": str(error.value), **error.value.details}
    assert failed(host, result) == "roll_back"
    with pytest.raises(HitlessError, match="by hand"):
        host.drain()
    assert failed(host, result) == "hold"
    assert (outcome(web)["outcome"], web.reasons()) == ("failed", {web.name: "by hand"})


def test_without_the_lock_nothing_is_done(web: Services, run: Run) -> None:
    host = drained(web, run)
    before = state(web)
    assert failed(host, {"msg": "x", "lock_lost": True}) == "stop"
    lose_lock(web, run)
    for phase in ("draining", "deploying"):
        assert failed(host, phase=phase) == "stop"
    assert (web.reasons(), state(web), outcome(web)) == ({web.name: ours(web)}, before, {})


def unreachable(command: str, data: bytes) -> tuple[int, bytes, bytes]:
    raise HostLost("The host cannot be reached: no route.")


def test_a_host_that_is_lost_is_recorded_so(web: Services, run: Run) -> None:
    left = asdict(drained(web, run).turn)
    host = web.host(run, left, on=Host(unreachable))
    assert failed(host, phase="draining") == "give_up"
    assert "cannot be reached" in host.turn.error
    assert outcome(web)["outcome"] == "lost"


def test_a_failure_is_shown_also_where_consul_is_away(web: Services, run: Run) -> None:
    host = drained(web, run)

    def away(*_args: object) -> Any:
        raise ConsulUnavailable("No answer from Consul.")

    host.task.consul.txn = away  # type: ignore[method-assign]
    assert failed(host) == "hold"
    assert "It broke. And No answer from Consul." in " ".join(web.warned)
    assert "what became of it could not be recorded" in " ".join(web.warned)
