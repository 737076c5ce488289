"""What options about pauses cannot mean together."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.pause_options import (
    longest_pause,
    refuse_beyond,
    refuse_contradictions,
)

pytestmark = pytest.mark.oldest


@pytest.mark.parametrize(
    ("options", "in_window", "why"),
    [
        ({"auto_promote": 60}, True, "nothing to promote"),
        ({"pause_after": [1]}, True, "rollout_batch_size makes one stage"),
        ({"pause_after": "each"}, True, "rollout_pause_after (each) names a stage that nothing comes after"),
        ({"pause_after": [1, 3], "batch_size": [1, 2, "50%"]}, True, "rollout_pause_after ([1, 3])"),
        ({"pause_after": [1, 2], "batch_size": [1, 2, "50%"]}, True, ""),
        ({"pause_after": "each", "batch_size": [1, "100%"]}, True, ""),
        ({"pause_after": [7]}, False, ""),  # how many batches there are is a matter of the hosts
        (
            {"pause_after": [1], "batch_size": [1, 2], "auto_promote": 10, "bake_time": 60},
            True,
            "rollout_auto_promote (10 s) is shorter than rollout_bake_time (60 s)",
        ),
        ({"pause_after": [1], "batch_size": [1, 2], "auto_promote": 60, "bake_time": 60}, True, ""),
        ({"pause_after": [1], "direction": "rollback"}, True, ""),
    ],
)
def test_contradictions(options: dict[str, Any], in_window: bool, why: str) -> None:
    values = {**DEFAULTS, **options}
    if not why:
        refuse_contradictions(values, in_window=in_window)
        return
    with pytest.raises(HitlessError) as caught:
        refuse_contradictions(values, in_window=in_window)
    assert why in str(caught.value)


def test_a_pause_after_the_last_batch_is_refused() -> None:
    """How many batches there are only the plan knows."""
    refuse_beyond({**DEFAULTS, "pause_after": [1, 4]}, 5)
    refuse_beyond({**DEFAULTS, "pause_after": "each"}, 1)
    refuse_beyond({**DEFAULTS, "pause_after": [9], "direction": "rollback"}, 5)
    with pytest.raises(HitlessError, match=r"rollout_pause_after \(\[1, 5\]\) names a batch that nothing comes after"):
        refuse_beyond({**DEFAULTS, "pause_after": [1, 5]}, 5)


def test_the_progress_deadline_has_to_cover_a_wait_in_place() -> None:
    assert longest_pause(DEFAULTS) == []
    assert longest_pause({**DEFAULTS, "pause_wait": 600}) == ["pause_wait"]
