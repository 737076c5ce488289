"""What a person sees of a host's turn."""

from __future__ import annotations

import re
import time

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout import telling
from ansible_collections.hitless.consul.plugins.module_utils._rollout.telling import Telling

pytestmark = pytest.mark.oldest


def test_a_line_says_when_who_and_where_among_the_others() -> None:
    lines: list[str] = []
    Telling(lines.append, "web1", 3, 40).tell("draining")
    Telling(lines.append, "web1").tell("what \x1b[31mit\nsaid")
    assert re.fullmatch(r"\d\d:\d\d:\d\d web1 \[3/40\] draining", lines[0])
    assert lines[1].endswith(" web1 what ?[31mit said")


def test_a_wait_is_told_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "EVERY", 0.01)
    lines: list[str] = []
    with Telling(lines.append, "web1").waiting(lambda passed: f"waiting {passed:.0f} s"):
        until = time.monotonic() + 10
        while len(lines) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    told = len(lines)
    assert told >= 2
    assert lines[0].endswith("web1 waiting 0 s")
    time.sleep(0.1)
    assert len(lines) <= told + 1
