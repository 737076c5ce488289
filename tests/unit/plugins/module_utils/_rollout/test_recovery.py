"""What to do with a host that an interrupted deployment left in maintenance. Pure."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.recovery import END, LEAVE, VERIFY, advice
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    DEPLOYING,
    DRAINING,
    FAILED,
    LOST,
    OK,
    OUTCOMES,
    RETURNING,
    ROLLED_BACK,
    STATES,
    UNTOUCHED,
    VERIFYING,
    version_is_trusted,
)

pytestmark = pytest.mark.oldest


@pytest.mark.parametrize(
    ("outcome", "step", "what"),
    [
        # Known to be broken, whatever its status says.
        *((FAILED, step, LEAVE) for step in (None, DRAINING, DEPLOYING)),
        # Nothing was deployed.
        (UNTOUCHED, None, END),
        (None, DRAINING, END),
        (LOST, DRAINING, END),
        (None, UNTOUCHED, END),
        # Something may have been.
        *((None, step, VERIFY) for step in (None, DEPLOYING, VERIFYING, RETURNING)),
        (LOST, DEPLOYING, VERIFY),
        # It is well, and its maintenance stayed.
        (OK, OK, VERIFY),
        (ROLLED_BACK, ROLLED_BACK, VERIFY),
    ],
)
def test_what_to_do(outcome: str | None, step: str | None, what: str) -> None:
    assert advice(outcome, step)[0] == what


@pytest.mark.parametrize("outcome", [None, *OUTCOMES])
@pytest.mark.parametrize("step", [None, *STATES])
def test_a_maintenance_ends_unverified_only_where_nothing_can_have_been_deployed(
    outcome: str | None, step: str | None
) -> None:
    what, why = advice(outcome, step)
    assert why
    if what == END:
        assert UNTOUCHED in (outcome, step) or (step == DRAINING and version_is_trusted(step))
