"""What watchers have found, as keys hold it, and what follows from that at a gate."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout import control
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import Control
from ansible_collections.hitless.consul.plugins.module_utils._rollout.findings import Finding, findings_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys

pytestmark = pytest.mark.oldest

KEYS, ID = Keys("web"), "d1"


def values(texts: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {
        key: {"Value": b64encode(text.encode()).decode(), "ModifyIndex": 7 + number}
        for number, (key, text) in enumerate(texts.items())
    }


def halt(word: str = "", direction: str = "deploy", **found: str) -> tuple[str, str] | None:
    """What a gate comes to.

    :param found: watcher -> ``bad`` or ``unsure``.
    """
    texts = {KEYS.findings(ID, name): json.dumps({"failure": how == "bad", "why": how}) for name, how in found.items()}
    one = Control.of(KEYS, ID, values({**texts, **({KEYS.control: word} if word else {})})).halt(direction, "")
    return (one.kind, one.why) if one else None


def test_failures_come_first() -> None:
    texts = {KEYS.findings(ID, "a"): '{"why": "x"}', KEYS.findings(ID, "b"): '{"failure": true}'}
    assert findings_of(KEYS, ID, values(texts)) == (Finding("b", True, "no reason given"), Finding("a", False, "x"))


def test_what_somebody_writes_by_hand_is_a_doubt() -> None:
    assert Finding.parse("the shop is slow\n", "anna") == Finding("anna", False, "the shop is slow")


def test_a_failure_stops_and_a_doubt_pauses() -> None:
    assert halt() is None
    assert halt(probe="bad", analysis="unsure") == (control.FAILURE, "bad")
    assert halt(probe="unsure") == (control.PAUSE, "unsure")


def test_it_is_nothing_to_a_rollback() -> None:
    assert halt(direction="rollback", probe="bad") is None


@pytest.mark.parametrize(
    ("word", "kind"), [("pause", "failure"), ("resume", "failure"), ("stop", "stop"), ("abort", "abort")]
)
def test_a_failure_is_stronger_than_a_pause(word: str, kind: str) -> None:
    found = halt(word, probe="bad")
    assert found is not None
    assert found[0] == kind


def test_resume_alone_does_not_end_a_doubt() -> None:
    assert halt("resume", probe="unsure") == (control.PAUSE, "unsure")
