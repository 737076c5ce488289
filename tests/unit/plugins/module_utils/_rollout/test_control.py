"""What operators may have written, and what a deployment makes of it."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._rollout import control
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import (
    ABORT,
    CLOSED,
    FREEZE,
    PAUSE,
    PROMOTE,
    RESUME,
    STOP,
    USES,
    WORDS,
    Control,
    Controlled,
    Order,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys

pytestmark = pytest.mark.oldest

KEYS, ID = Keys("web"), "d1"
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=timezone.utc)


def item(text: str, index: int) -> dict[str, Any]:
    return {"Value": b64encode(text.encode()).decode(), "ModifyIndex": index}


def seen(word: str = "", freeze: str | None = None, everything: str | None = None, noted: str = "") -> Control:
    """Keys as they are read together."""
    texts = {KEYS.control: (word, 50), KEYS.freeze: (freeze, 40), KEYS.freeze_all: (everything, 41)}
    texts |= {KEYS.controlled(ID): (noted or None, 60)}
    return Control.of(KEYS, ID, {key: item(text, index) for key, (text, index) in texts.items() if text is not None})


def halt(found: Control, direction: str = "deploy", closed: str = "") -> tuple[str, str] | None:
    one = found.halt(direction, closed, NOW)
    return (one.kind, one.why) if one else None


@pytest.mark.parametrize("text", ["pause", " PAUSE\n", '{"word": "pause"}', '{"word": "Pause", "by": 7}'])
def test_a_word_by_hand_is_as_good_as_json(text: str) -> None:
    order = Order.of_control(text)
    assert order is not None
    assert order.word == PAUSE


def test_what_the_module_writes_is_read_again() -> None:
    order = Order(ABORT, "anna@ci", "ticket 17", "2026-11-28T12:00:00Z", "ci:/srv", index=7)
    assert Order.of_control(order.to_json(), 7) == order
    assert order.told == "anna@ci at 2026-11-28T12:00:00Z: ticket 17"


def test_an_empty_key_says_nothing() -> None:
    assert Order.of_control(" \n") is None
    assert seen("").order is None
    assert seen("").index == 50, "and is written by compare-and-set all the same"


@pytest.mark.parametrize("text", ["stopp", "[]", "{}", '{"word": null}', '{"word": "freeze"}', "7"])
def test_what_is_no_word_pauses(text: str) -> None:
    """Somebody means to intervene."""
    order = Order.of_control(text)
    assert order is not None
    assert order.word == PAUSE
    assert "none of pause, resume, promote, stop, abort" in order.why


@given(st.text(), st.text())
def test_whatever_is_there_can_be_read(word: str, freeze: str) -> None:
    found = seen(word, freeze, noted=word)
    assert found.halt("deploy", "", NOW), "a key of a freeze is one, whatever it holds, unless its end is over"


@pytest.mark.parametrize(
    ("word", "kind", "why"),
    [
        ("pause", PAUSE, "somebody (by hand) paused it"),
        ('{"word": "stop", "by": "anna", "why": "ticket"}', STOP, "anna stopped it: ticket"),
        ("abort", ABORT, "somebody (by hand) aborted it"),
    ],
)
def test_a_word_halts(word: str, kind: str, why: str) -> None:
    assert halt(seen(word)) == (kind, why)
    assert halt(seen(word), "rollback") == (kind, why), "a rollback hears it too"
    assert halt(seen(word, noted='{"used": 50}')) is None, "one that was carried out means nothing any more"


@pytest.mark.parametrize("word", [RESUME, PROMOTE])
def test_or_lets_it_go_on(word: str) -> None:
    assert halt(seen(word)) is None


@pytest.mark.parametrize(
    ("freeze", "why"),
    [
        ("", "rollouts are frozen by somebody (by hand)"),
        ("holidays", "rollouts are frozen by somebody (by hand): holidays"),
        (
            '{"by": "anna", "why": "sale", "until": "2026-11-28T12:00:01Z"}',
            "rollouts are frozen until 2026-11-28T12:00:01Z by anna: sale",
        ),
        ('{"until": "2026-11-28T13:00:01+01:00"}', "rollouts are frozen until 2026-11-28T13:00:01+01:00 by somebody"),
        ('{"until": "soon"}', "rollouts are frozen until soon by somebody (by hand)"),
    ],
)
def test_a_freeze_of_one_or_of_all(freeze: str, why: str) -> None:
    for found in (seen(freeze=freeze), seen(everything=freeze)):
        told = halt(found)
        assert told is not None
        assert told[0] == FREEZE
        assert told[1].startswith(why)
        assert halt(found, "rollback") is None, "a rollback is not frozen"


def test_a_freeze_that_is_over_is_none() -> None:
    over = '{"until": "2026-11-28T12:00:00Z"}'
    assert halt(seen(freeze=over, everything=over)) is None
    assert halt(seen(freeze=over, everything="x")) == (FREEZE, "rollouts are frozen by somebody (by hand): x")


def test_outside_of_the_windows() -> None:
    assert halt(seen(), closed="it is outside") == (CLOSED, "it is outside")
    assert halt(seen(), "rollback", "it is outside") is None


def test_a_use_is_noted_once() -> None:
    order = Order(PAUSE, index=50)
    noted = Controlled().heard(order).heard(order)
    assert [(one["word"], one["index"], bool(one["at"])) for one in noted.uses] == [(PAUSE, 50, True)]
    on = noted.halted(PAUSE, "why").going_on(Order(RESUME, "anna", index=60))
    assert (on.kind, on.why, on.used) == ("", "", 60)
    assert [one["word"] for one in on.uses] == [PAUSE, RESUME]
    assert on.heard(order) == on
    assert on.heard(Order(PROMOTE, at="x")).uses[-1] == {"word": PROMOTE, "at": "x"}, "nobody's has no key"


def test_a_stage_stays_promoted() -> None:
    assert Controlled().going_on(promoted=2).going_on(promoted=1).promoted == 2


def test_the_last_uses_are_kept() -> None:
    noted = Controlled()
    for index in range(1, USES + 11):
        noted = noted.heard(Order(PAUSE, index=index))
    assert [one["index"] for one in noted.uses] == list(range(11, USES + 11))


def test_it_is_read_as_it_was_written() -> None:
    noted = Controlled(PAUSE, "why", 7, 2, ({"word": PAUSE, "at": "x", "index": 7},))
    text = json.dumps({**json.loads(_text(noted.op(KEYS, ID))), "more": 1})
    assert Controlled.parse(text, 0) == noted


def _text(operation: dict[str, Any]) -> str:
    return control.kv_text(operation)


@given(st.sampled_from(WORDS), st.integers(0, 100), st.integers(1, 100))
def test_only_what_came_after_counts(word: str, used: int, index: int) -> None:
    found = Control(Order(word, index=index), noted=Controlled(used=used))
    assert (found.pending is not None) == (index > used)
