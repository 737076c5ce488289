"""A host's whole turn on a real Consul: one call, which never fails, whatever becomes of the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulUnavailable, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import drain, store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import record_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress, begun_op, read_progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
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
        self.run = Run.of({**made.as_dict(), "plan": plan, "steps": ["turn"]})
        self.host: HostDeployment = web.host(self.run)
        store.create(web.client(), self.host.keys, record_of(self.run), self.run.session)

    def take(self, command: Callable[[HostDeployment], str]) -> dict[str, Any]:
        return WholeTurn(self.host, lambda host: Way(command(host), "", "")).take()

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
        web.operator("", enable=False)
        wait_until("it is put back", lambda: web.reasons() == {web.name: ours(web)})
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
