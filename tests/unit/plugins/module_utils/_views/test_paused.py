"""What a paused deployment waits for, in one sentence with the commands."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import CLOSED, FREEZE, PAUSE, STAGE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Brief
from ansible_collections.hitless.consul.plugins.module_utils._views.paused import goes_on

pytestmark = pytest.mark.oldest

AGAIN = "the same start goes on with it (ansible-playbook hitless.consul.rollout -e rollout_service=web -e "
SAID = "(ansible-playbook hitless.consul.control -e rollout_service=web -e control_action="


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (STAGE, f"It waits for promote {SAID}promote); then {AGAIN}rollout_version=2)."),
        (PAUSE, f"It waits for resume {SAID}resume); then {AGAIN}rollout_version=2)."),
        (FREEZE, f"Once the freeze is over {AGAIN}rollout_version=2)."),
        (CLOSED, f"Within rollout_windows {AGAIN}rollout_version=2)."),
    ],
)
def test_it_names_the_commands(kind: str, sentence: str) -> None:
    assert goes_on(Brief("d1", "web", "2"), kind) == sentence


def test_a_run_that_waits_needs_no_start() -> None:
    assert (
        goes_on(Brief("d1", "web", "2"), STAGE, in_place=True)
        == f"It waits for promote {SAID}promote); then its run goes on."
    )


def test_a_rollback_is_started_by_its_own_playbook() -> None:
    told = goes_on(Brief("d1", "web", None, direction="rollback"), PAUSE)
    assert told.endswith("(ansible-playbook hitless.consul.rollback -e rollout_service=web).")
