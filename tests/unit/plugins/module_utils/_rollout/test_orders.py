"""What an order means to a deployment, and when it is refused. tests/integration/test_control.py writes them."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Held, Holder
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import (
    ABORT,
    PAUSE,
    PROMOTE,
    RESUME,
    STAGE,
    STOP,
    WORDS,
    Control,
    Controlled,
    Order,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.orders import refusal, until_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PAUSED, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment

pytestmark = pytest.mark.oldest

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=timezone.utc)


def running(*, kind: str = "", stop: str = "", said: str = "", state: str = "running") -> Deployment:
    held = Held(Holder("d1", "anna", ""), "s1", True) if state == "running" else None
    order = Order(said, "anna", index=50) if said else None
    noted = Controlled(kind, f"{kind} says so" if kind else "")
    return Deployment(Record("d1", "web", "2", state=state), held, stop=stop, control=Control(order, noted=noted))


def allowed(found: Deployment | None) -> list[str]:
    return [word for word in WORDS if not refusal(word, found)]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, []),
        (running(state="successful"), []),
        (running(), [PAUSE, STOP, ABORT]),
        (running(kind=STAGE), [RESUME, PROMOTE, STOP, ABORT]),
        (running(kind=PAUSE, said=PAUSE), [RESUME, PROMOTE, STOP, ABORT]),
        (running(kind=PAUSE, stop="paused", state=PAUSED), [RESUME, PROMOTE, STOP, ABORT]),
        (running(said=PAUSE), [PAUSE, RESUME, PROMOTE, STOP, ABORT]),  # which no gate has heard yet
        (running(kind=STAGE, said=PROMOTE), [RESUME, PROMOTE, STOP, ABORT]),
        (running(kind=STAGE, said=ABORT), [ABORT]),
        (running(said=STOP), [STOP, ABORT]),
        (running(stop="the failure budget is spent"), []),
    ],
)
def test_what_means_something(found: Deployment | None, words: list[str]) -> None:
    assert allowed(found) == words


@pytest.mark.parametrize(
    ("word", "found", "why"),
    [
        (STOP, None, "No rollout is running or paused, so that there is nothing to stop."),
        (
            ABORT,
            running(state="failed"),
            "No rollout is running or paused (the last one, d1, is failed), so that there is nothing to abort.",
        ),
        (PROMOTE, running(), "d1 is running and not paused, so that there is nothing to promote."),
        (PAUSE, running(kind=STAGE), "d1 is paused already, since stage says so."),
        (PAUSE, running(stop="a hook failed."), "d1 is ending already, since a hook failed: there is nothing left to"),
        (PROMOTE, running(kind=STAGE, said=ABORT), "abort by anna stands, and is stronger than promote."),
    ],
)
def test_what_means_nothing_is_refused_with_a_sentence(word: str, found: Deployment | None, why: str) -> None:
    assert refusal(word, found).startswith(why)


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("2026-12-27T06:00:00Z", "2026-12-27T06:00:00Z"),
        ("2026-12-27 06:00", "2026-12-27T06:00:00Z"),
        ("2026-12-27T06:00:00+01:00", "2026-12-27T05:00:00Z"),
        ("90m", "2026-11-28T13:30:00Z"),
        ("72h", "2026-12-01T12:00:00Z"),
    ],
)
def test_the_end_of_a_freeze(text: str, until: str) -> None:
    assert until_of(text, NOW) == until


@pytest.mark.parametrize("text", ["soon", "", "2026-11-28T12:00:00Z", "2020-01-01", "0s"])
def test_what_is_no_end_is_refused(text: str) -> None:
    with pytest.raises(HitlessError, match="until"):
        until_of(text, NOW)
