"""A sleep that an abort ends."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections import deque
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import abort_listener
from ansible_collections.hitless.consul.plugins.module_utils._rollout.abort_listener import Aborted, AbortListener

pytestmark = pytest.mark.oldest


class Key:
    """A client of one key: each read gets the next value, and the last one blocks until the test ends."""

    def __init__(self, *values: tuple[str, int] | ConsulError) -> None:
        self.values = list(values)
        self.asked: list[int] = []
        self.ends = threading.Event()

    def get(self, _path: str, *, wait: float, index: int) -> Answer:
        self.asked.append(index)
        if not self.values:
            self.ends.wait(wait)
            return Answer([], index, 200)
        found = self.values.pop(0)
        if isinstance(found, ConsulError):
            raise found
        text, modified = found
        return Answer([{"Value": b64encode(text.encode()).decode(), "ModifyIndex": modified}], modified, 200)


def listener(key: Key, used: int = 0) -> AbortListener:
    return AbortListener(key, "deploy/web/control", used)  # type: ignore[arg-type]


def test_an_abort_ends_a_long_sleep() -> None:
    key, began = Key(("", 5), ("pause", 6), ("abort", 7)), time.monotonic()
    with listener(key) as one, pytest.raises(Aborted) as heard:
        one.sleep(60)
    assert heard.value.order.index == 7
    assert time.monotonic() - began < 30
    assert key.asked[:3] == [1, 5, 6]


def test_one_that_was_for_an_earlier_deployment_does_not() -> None:
    key = Key(("abort", 5))
    with listener(key, used=5) as one:
        one.sleep(1.2)
    key.ends.set()


def test_a_short_sleep_asks_nobody() -> None:
    key = Key(("abort", 5))
    with listener(key) as one:
        one.sleep(0.1)
    assert not key.asked


def test_many_short_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abort_listener, "SHORT", 0.2)
    with listener(Key(("abort", 5))) as one, pytest.raises(Aborted):
        deque((one.sleep(0.05) for _time in range(100)), maxlen=0)


def test_consul_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abort_listener, "SHORT", 0.1)
    with listener(Key(ConsulError("no leader"), ("abort", 5))) as one, pytest.raises(Aborted):
        one.sleep(30)


def test_a_key_that_is_missing_is_not_asked_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abort_listener, "SHORT", 0.2)

    class Missing(Key):
        def get(self, _path: str, *, wait: float, index: int) -> Any:
            self.asked.append(index)
            return Answer(None, 9, 404)

    key = Missing()
    with listener(key) as one:
        one.sleep(1)
    assert len(key.asked) < 10
