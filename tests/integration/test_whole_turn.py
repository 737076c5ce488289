"""A host's whole turn on a real Consul: one call, which never fails, whatever becomes of the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulUnavailable, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import (
    alike,
    drain,
    ending,
    orders,
    paused,
    store,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import record_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import Order
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import read_history
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress, begun_op, read_progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import outcome_ops
from ansible_collections.hitless.consul.plugins.module_utils._rollout.undo import undo
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_versions
from ansible_collections.hitless.consul.plugins.module_utils._rollout.whole_turn import Way, WholeTurn
from lab import wait_until
from tests.integration.services import Services
from tests.integration.test_host import ours, outcome, state

pytestmark = pytest.mark.oldest


class Deployment:
    """A run over the one node of a service."""

    def __init__(self, web: Services, **options: Any) -> None:
        self.web = web
        web.register()
        hosts = {"web1": {"node": web.node, "batch": 1, "from": "1", "to": "2", "rollback_to": "1"}}
        plan = {"batches": [["web1"]], "windows": [1], "hosts": hosts, "health": {"minimum": 0}}
        made = web.rollout(unverified=True, **options)
        self.run = Run.of({**made.as_dict(), "hosts": ["web1"], "plan": plan, "steps": ["turn"]})
        self.host: HostDeployment = web.host(self.run)
        store.create(web.client(), self.host.keys, record_of(self.run), self.run.session)

    def take(self, command: Callable[[HostDeployment], str]) -> dict[str, Any]:
        return WholeTurn(self.host, lambda host: Way(command(host), "", "")).take()

    def goes_on(self) -> paused.Claim:
        """What a further run of the same makes of it."""
        task, keys = self.host.task, self.host.keys
        claim = paused.look(task, self.run, read_history(task.consul, keys))
        if claim.does == paused.GO_ON:
            paused.go_on(task, self.run, claim)
            self.host = self.web.host(self.run)
        return claim

    @property
    def progress(self) -> Progress:
        return read_progress(self.web.client(), self.host.keys, self.run.id)


@pytest.fixture
def deployment(web: Services) -> Deployment:
    return Deployment(web)


def test_a_good_one(deployment: Deployment, web: Services) -> None:
    result = deployment.take(lambda host: f"test $DEPLOY_VERSION = {host.version}")
    assert result == {"changed": True, "begun": True, "why": ""}
    assert (outcome(web)["outcome"], state(web)) == ("ok", "ok")
    assert [step["state"] for step in outcome(web)["steps"]] == [
        "draining",
        "deploying",
        "verifying",
        "returning",
        "ok",
    ]
    assert web.reasons() == {web.name: None}
    assert deployment.progress.ended_at
    assert deployment.progress.in_flight == {}


def test_one_that_fails_goes_back_by_the_same_steps(deployment: Deployment, web: Services) -> None:
    result = deployment.take(lambda host: "true" if host.version == "1" else "echo because; exit 3")
    assert result["why"] == "Deploy: The deployment command exited with 3."
    found = outcome(web)
    assert (found["outcome"], found["output"]) == ("rolled_back", "because")
    assert web.reasons() == {web.name: None}
    assert list(deployment.progress.spent) == ["web1 rolled back"]


def test_one_that_cannot_go_back_stays_out(deployment: Deployment, web: Services) -> None:
    deployment.take(lambda host: "exit 3")
    assert outcome(web)["outcome"] == "failed"
    assert web.reasons() == {web.name: ours(web)}
    assert dict(deployment.progress.in_flight) == {}


def test_what_cannot_be_resolved_costs_no_rotation(deployment: Deployment, web: Services) -> None:
    def command(_host: HostDeployment) -> str:
        raise HitlessError("'jar' is undefined.")

    deployment.take(command)
    assert (outcome(web)["outcome"], outcome(web)["steps"][:-1]) == ("untouched", [])
    assert web.reasons() == {web.name: None}
    assert list(deployment.progress.spent) == ["web1 untouched"]


def test_a_fault_of_ours_is_a_failure_of_the_host(deployment: Deployment, web: Services) -> None:
    def deploy(_command: str) -> dict[str, Any]:
        raise KeyError("oops")

    deployment.host.deploy = deploy  # type: ignore[method-assign]
    result = deployment.take(lambda host: "true")
    assert "itself stopped it (KeyError: 'oops')" in result["why"]
    assert outcome(web)["outcome"] == "failed"
    assert web.reasons() == {web.name: ours(web)}


def test_one_that_may_not_begin_is_not_touched(deployment: Deployment, web: Services) -> None:
    stopped = Progress(stop="the operator said so").op(deployment.host.keys, deployment.run.id)
    web.client().txn([stopped])
    assert deployment.take(lambda host: "true") == {"changed": False, "begun": False, "why": "the operator said so"}
    assert (outcome(web), state(web)) == ({}, "")


def test_one_whose_beginning_was_not_answered_goes_on_and_keeps_what_is_known(deployment: Deployment) -> None:
    """Its key in flight is there, by a request whose answer was lost."""
    keys, identity = deployment.host.keys, deployment.run.id
    known = Progress(registered=3, turns=2).op(keys, identity)
    deployment.web.client().txn([known, begun_op(keys, identity, deployment.web.node, 1)])
    assert deployment.take(lambda host: "true")["why"] == ""
    assert outcome(deployment.web)["outcome"] == "ok"
    assert (deployment.progress.registered, deployment.progress.turns) == (3, 2)
    assert deployment.progress.in_flight == {}


def test_one_that_got_requests_meanwhile_is_drained_before_it_goes_back(
    deployment: Deployment, web: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maintenance was ended while it was verified; one that was out all the time is not drained a second time."""
    drains: list[object] = []
    monkeypatch.setattr(drain, "wait_as_set", lambda *given: drains.append(given) or [])
    verify = deployment.host.verify

    def ended_and_failed(*_given: str) -> Any:
        deployment.host.verify = verify  # type: ignore[method-assign]
        web.drop()
        with deployment.host.watched() as watch:
            wait_until("it is put back", lambda: watch.dropped and web.reasons() == {web.name: ours(web)})
        raise HitlessError("It did not answer.")

    deployment.host.verify = ended_and_failed  # type: ignore[method-assign]
    deployment.take(lambda host: "true")
    assert outcome(web)["outcome"] == "rolled_back"
    assert len(drains) == 2


def test_one_whose_agent_does_not_answer_is_lost(
    deployment: Deployment, web: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whether it is in maintenance: here it goes on to serve."""

    def asked(*_given: object) -> None:
        raise ConsulUnavailable("No answer from the agent.")

    monkeypatch.setattr(maintenance, "send", asked)
    monkeypatch.setattr(maintenance, "lift", asked)
    deployment.take(lambda host: "true")
    assert outcome(web)["outcome"] == "lost"
    assert web.reasons() == {web.name: None}


def test_maintenance_of_somebody_else_is_left_alone(deployment: Deployment, web: Services) -> None:
    web.operator("disk is being replaced")
    deployment.take(lambda host: "true")
    assert outcome(web)["outcome"] == "skipped"
    assert web.reasons() == {web.name: "disk is being replaced"}
    assert (list(deployment.progress.spent), dict(deployment.progress.in_flight)) == ([], {})
    web.operator("", enable=False)


def test_one_watch_is_over_all_of_it(deployment: Deployment, web: Services) -> None:
    """An application that registers itself in the moment between deployment and verification is put back as well."""
    verify, seen = deployment.host.verify, []

    def ended_before(*args: str) -> Any:
        web.server.put(f"agent/service/maintenance/{web.name}?enable=false")
        return verify(*args)

    deployment.host.verify = ended_before  # type: ignore[method-assign]
    deployment.take(lambda host: seen.append(host.version) or "true")  # type: ignore[func-returns-value]
    assert seen == ["2"]
    assert outcome(web)["outcome"] == "ok"
    assert any("its maintenance" in note and "was put back" in note for note in web.warned)


# -- what is nobody's own fault -----------------------------------------------------------------------------------


@pytest.fixture
def outage(web: Services) -> Deployment:
    """It fails, be it on the new version or on the old one, and so does the instance beside it."""
    made = Deployment(web, watch_grace=0.2)
    web.beside("critical")
    made.take(lambda host: f"echo no database for {host.version}; exit 3")
    return made


def test_where_all_fail_alike_nothing_goes_back_and_its_turn_is_to_come_again(
    outage: Deployment, web: Services
) -> None:
    found = outcome(web)
    assert (found["outcome"], found["output"]) == ("deferred", "no database for 2"), "the old one was not tried"
    assert "the other instance fails alike, so that the new version is not the reason" in found["error"]
    assert web.reasons()[web.name] == ours(web)
    assert dict(outage.progress.in_flight) == {}
    assert list(outage.progress.spent) == []
    ended = ending.conclude(web.client(), outage.host.keys, outage.run.id)
    assert (ended.record.state, ended.failed_hosts) == ("paused", ["web1"])
    assert "1 deferred (web1). It is paused because web1 failed in its turn: Deploy: The deployment" in (
        ended.record.description
    )
    ending.write_end(web.client(), outage.host.keys, ended, outage.run.session)
    assert outage.goes_on().does == paused.WAIT
    orders.give(web.client(), outage.host.keys, Order("resume"))
    assert "no instance of" in outage.goes_on().why
    web.beside("passing")
    assert outage.goes_on().does == paused.GO_ON
    outage.take(lambda host: "true")
    assert outcome(web)["outcome"] == "ok"
    assert web.reasons()[web.name] is None


def test_where_it_is_given_up_the_host_goes_back_with_the_others(outage: Deployment, web: Services) -> None:
    """A rollback by hand takes along what the deployment has left in maintenance."""
    ended = ending.conclude(web.client(), outage.host.keys, outage.run.id)
    ending.write_end(web.client(), outage.host.keys, ended, outage.run.session)
    history = read_history(web.client(), outage.host.keys)
    known = read_versions(web.client(), outage.host.keys, [web.node])
    found = undo(history, ended, {web.node: replace(known[web.node], version="1")}, out=[web.node])
    assert [(one.host, one.target, one.in_rotation) for one in found.back] == [("web1", "1", False)]


def test_where_no_old_one_is_left_its_own_way_back_tells(web: Services) -> None:
    """The others have the new version, and were well on it; here the old one fails as well."""
    made = Deployment(web, watch_grace=0.2)
    web.beside("critical")
    other = Outcome("web2", f"{web.name}-2", "ok", "1", "2")
    web.client().txn(outcome_ops(made.host.keys, made.run.id, other))
    made.take(lambda host: "exit 3")
    found = outcome(web)
    assert found["outcome"] == "deferred"
    assert "The rollback failed too" in found["error"]
    assert "the other instance fails alike" in found["error"]


def test_one_instance_that_works_tells_them_apart(web: Services) -> None:
    made = Deployment(web, watch_grace=0.2)
    web.beside("passing")
    made.take(lambda host: "true" if host.version == "1" else "exit 3")
    assert outcome(web)["outcome"] == "rolled_back"


def test_whoever_aborts_has_looked(web: Services) -> None:
    """Its host goes back, also while all of them fail."""
    made = Deployment(web, watch_grace=0.2)
    web.beside("critical")
    web.client().set_key(made.host.keys.control, "abort")
    assert alike.trouble_of_all(made.host.task, made.run, went_back=False) == ""
