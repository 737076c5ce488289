"""A host's deployment through all its states, without Consul and without Ansible; with Consul: tests/integration."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulUnavailable, HitlessError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import OPTIONS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    DEPLOYING,
    DRAINING,
    OK,
    PENDING,
    RETURNING,
    ROLLED_BACK,
    UNTOUCHED,
    VERIFYING,
    Turn,
)

pytestmark = pytest.mark.oldest

FENCE = {"Verb": "check-session", "Key": "deploy/web/lock", "Session": "s"}
PHASES = (DRAINING, DEPLOYING, VERIFYING, RETURNING)


class Recorder:
    """Takes transactions for Consul's."""

    connection = Connection()

    def __init__(self) -> None:
        self.transactions: list[list[dict[str, Any]]] = []
        self.fail: Exception | None = None

    def txn(self, operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.fail:
            raise self.fail
        self.transactions.append([one.get("KV", one) for one in operations])
        return []

    def written(self, key: str) -> list[Any]:
        """All values that were written to a key."""
        values = [one["Value"] for operations in self.transactions for one in operations if one.get("Key") == key]
        return [json.loads(base64.b64decode(value)) for value in values]


@pytest.fixture
def consul() -> Recorder:
    return Recorder()


@pytest.fixture
def host(consul: Recorder) -> HostDeployment:
    values = {option.name: option.default for option in OPTIONS} | {"service": "web", "version": "2", "drain_time": 0}
    task = Task({}, {}, Host(None))
    task.__dict__["consul"] = consul
    planned = PlannedHost("web1", "n1", batch=1, from_version="1", to_version="2", rollback_to="1")
    return HostDeployment(task, Run("d1", values, session="s"), planned, Turn("d1"))


def test_every_write_is_fenced(host: HostDeployment, consul: Recorder) -> None:
    for phase in PHASES:
        host.enter(phase)
    host.end_well()
    assert [operations[0] for operations in consul.transactions] == [FENCE] * 5
    told = [status["state"] for status in consul.written("nodes/n1/deployment/web/status")]
    assert told == [*PHASES, OK]
    (outcome,) = consul.written("deploy/web/deployments/d1/nodes/n1")
    assert [step["state"] for step in outcome["steps"]] == [*PHASES, OK]


def test_a_rollback_takes_the_same_phases_and_keeps_its_state(host: HostDeployment, consul: Recorder) -> None:
    host.enter(DRAINING)
    host.enter(DEPLOYING)
    host.on_failure({"msg": "It broke."}, "Deploy")
    for phase in PHASES:
        host.enter(phase)
    host.end_well()
    told = [status["state"] for status in consul.written("nodes/n1/deployment/web/status")]
    assert told == [DRAINING, DEPLOYING, *["rolling_back"] * 5, ROLLED_BACK]
    (outcome,) = consul.written("deploy/web/deployments/d1/nodes/n1")
    assert [step["state"] for step in outcome["steps"]] == [DRAINING, DEPLOYING, "rolling_back", *PHASES, ROLLED_BACK]


@pytest.mark.parametrize("before", [PENDING, *PHASES])
@pytest.mark.parametrize("rolling_back", [False, True])
def test_a_phase_follows_the_one_before_and_no_other(
    host: HostDeployment, consul: Recorder, before: str, rolling_back: bool
) -> None:
    order = (PENDING, *PHASES)
    for after in PHASES:
        host.turn = Turn("d1", before, rolling_back)
        if order.index(after) - order.index(before) in (0, 1):
            host.enter(after)
            assert host.turn.phase == after
        else:
            written = len(consul.transactions)
            with pytest.raises(HitlessError, match=f"A host that is {before} cannot become {after}"):
                host.enter(after)
            assert len(consul.transactions) == written


@pytest.mark.parametrize(
    ("turn", "outcome"),
    [
        (Turn("d1", DRAINING), OK),
        (Turn("d1", DEPLOYING), OK),
        (Turn("d1", DEPLOYING), UNTOUCHED),
        (Turn("d1", RETURNING), ROLLED_BACK),
        (Turn("d1", RETURNING, rolling_back=True), OK),
        (Turn("d1"), ROLLED_BACK),
    ],
)
def test_outcomes_that_must_not_be(host: HostDeployment, consul: Recorder, turn: Turn, outcome: str) -> None:
    host.turn = turn
    with pytest.raises(HitlessError, match="cannot become"):
        host.end(outcome)
    assert consul.transactions == []


def test_what_is_written_after_a_rollback_by_hand_names_no_previous_version(
    host: HostDeployment, consul: Recorder
) -> None:
    """A second one would go back to the version that was just rolled back."""
    host.run = Run.of({**host.run.as_dict(), "options": {**host.run.options, "direction": "rollback"}})
    host.turn = Turn("d1", RETURNING)
    host.end_well()
    verbs = {one.get("Key"): one["Verb"] for one in consul.transactions[-1]}
    assert verbs["nodes/n1/deployment/web/previous"] == "delete"


@pytest.mark.parametrize(
    ("error", "decision"),
    [(LockLost("The lock is gone."), "stop"), (ConsulUnavailable("No answer."), "hold")],
    ids=["lock lost", "Consul away"],
)
def test_a_failure_is_told_whatever_consul_says(
    host: HostDeployment, consul: Recorder, error: Exception, decision: str
) -> None:
    told: list[str] = []
    host.task.warn = told.append
    host.turn = Turn("d1", DEPLOYING)
    consul.fail = error
    host.on_failure({"msg": "It broke."}, "Deploy")
    assert host.turn.decision == decision
    assert f"web1: Deploy: It broke. And {error}" in told


def steps_of(host: HostDeployment) -> dict[str, Callable[[], object]]:
    return {
        "drain": host.drain,
        "wait": host.wait_until_drained,
        "verify": lambda: host.verify("", ""),
        "restore": host.begin_restore,
        "return": host.return_to_rotation,
    }


@pytest.mark.parametrize("step", ["wait", "verify", "restore", "return"])
def test_a_step_out_of_its_turn_is_refused(host: HostDeployment, consul: Recorder, step: str) -> None:
    with pytest.raises(HitlessError, match="A host that is pending cannot become"):
        steps_of(host)[step]()
    assert consul.transactions == []
