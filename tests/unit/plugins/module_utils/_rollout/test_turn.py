"""What one step of a turn hands to the next."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    DEPLOYING,
    DRAINING,
    OK,
    ROLLING_BACK,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import seconds_between
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn

pytestmark = pytest.mark.oldest


def test_a_turn_goes_on_within_its_own_deployment_only() -> None:
    left = {
        "deployment": "d1",
        "phase": DEPLOYING,
        "started": "2026-11-23T14:22:40Z",
        "msg": "It broke.",
        "failed": True,
    }
    assert Turn.of(left, "d1") == Turn("d1", DEPLOYING, started="2026-11-23T14:22:40Z")
    assert Turn.of(left, "d2") == Turn("d2"), "the second rollout of a run begins anew"
    assert Turn.of({"failed": True}, "d1") == Turn.of(None, "d1") == Turn("d1")
    assert Turn("d1", DEPLOYING, rolling_back=True).state == ROLLING_BACK


def test_a_step_is_noted_once_and_the_next_one_behind_it() -> None:
    turn = Turn("d1").at(DRAINING)
    assert turn.at(DRAINING) is turn
    assert [step["state"] for step in turn.at(DEPLOYING).at(DRAINING).steps] == [DRAINING, DEPLOYING, DRAINING]


@pytest.mark.parametrize(("by_agent", "steps"), [(False, [DRAINING, OK]), (True, [DRAINING])])
def test_how_a_host_ended(by_agent: bool, steps: list[str]) -> None:
    """A machine's own agent tells the end of its steps itself."""
    planned = PlannedHost("web1", "n1", batch=2, from_version="1", to_version="2")
    turn = Turn("d1", started="2026-11-23T14:22:40Z", error="e", output="o").at(DRAINING)
    told = turn.ended(planned, OK, by_agent=by_agent)
    assert [step["state"] for step in told.steps] == steps
    assert told.finished is not None
    assert told == Outcome(
        "web1",
        "n1",
        OK,
        from_version="1",
        to_version="2",
        batch=2,
        started=turn.started,
        finished=told.finished,
        seconds=seconds_between(turn.started, told.finished),
        error="e",
        output="o",
        steps=told.steps,
    )
