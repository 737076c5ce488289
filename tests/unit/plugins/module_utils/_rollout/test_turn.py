"""What one step of a turn hands to the next."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    DEPLOYING,
    ROLLING_BACK,
)
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
