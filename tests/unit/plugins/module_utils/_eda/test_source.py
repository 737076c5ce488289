"""How an event source follows Consul's answers, also those that a real Consul gives only now and then."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Answer
from ansible_collections.hitless.consul.plugins.module_utils._eda import source
from ansible_collections.hitless.consul.plugins.module_utils._eda.source import Memory, Options, Position
from ansible_collections.hitless.consul.plugins.module_utils._eda.watches import KeyWatch
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError

WATCH = KeyWatch("a/", recurse=True)


def answer(index: int, *, filtered: bool = False, **values: str) -> Answer:
    """Keys below a/ and their values, each changed at ``index``."""
    data = [
        {"Key": f"a/{key}", "Value": base64.b64encode(value.encode()).decode(), "ModifyIndex": index}
        for key, value in values.items()
    ]
    return Answer(data or None, index, 200 if data else 404, filtered)


class Scripted:
    """A client that gives these answers, then ends; ``asked`` holds index and consistency of each read."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, bool]] = []

    def get(self, path: str, params: Any, *, index: int = 0, wait: float = 0) -> Answer:
        self.asked.append((index, ("consistent", "") in params))
        if not self.answers:
            raise Exhausted
        given = self.answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


class Exhausted(Exception):
    """The script is at its end."""


class Kept(Memory):
    """In this process."""

    def __init__(self, position: Position | None = None) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}
        self.saved: list[dict[str, Any]] = []
        if position:
            self.save(WATCH.name, position)

    def read(self) -> dict[str, Any]:
        return self.kept

    def write(self, kept: Any) -> None:
        self.kept = dict(kept)
        self.saved.append(self.kept[WATCH.name]["marks"])


class Taken:
    """A queue that takes everything."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str | None]] = []

    async def put(self, item: dict[str, Any], /) -> None:
        self.events.append((item["change"], item["key"], item.get("value")))


def told(client: Scripted, memory: Memory | None = None, *, existing: bool = True) -> list[tuple[str, str, str | None]]:
    """The events of a source until the script ends."""
    queue = Taken()
    options = Options(client, memory or Memory(), existing, {})  # type: ignore[arg-type]

    async def scene() -> None:
        with pytest.raises(Exhausted):
            await source.follow(queue, WATCH, options)

    run(scene())
    return queue.events


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 30))


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it has waited each time; it does not really."""
    seconds: list[float] = []
    real = asyncio.sleep

    async def sleep(delay: float) -> None:
        seconds.append(delay)
        await real(0)

    monkeypatch.setattr(source.asyncio, "sleep", sleep)
    return seconds


def test_an_answer_that_is_empty_for_a_moment_deletes_nothing() -> None:
    client = Scripted(answer(5, b="1"), answer(6), answer(5, b="1"), answer(7, b="2"))
    assert told(client) == [("existing", "a/b", "1"), ("updated", "a/b", "2")]
    assert client.asked[2] == (0, True), "asked once more, and consistently"


def test_what_stays_away_is_deleted_once() -> None:
    client = Scripted(answer(5, b="1"), answer(6), answer(6), answer(6))
    assert told(client) == [("existing", "a/b", "1"), ("deleted", "a/b", None)]


def test_a_return_without_a_change_is_no_event() -> None:
    client = Scripted(answer(5, b="1"), answer(5, b="1"), Answer(answer(5, b="1").data, 9, 200))
    assert told(client) == [("existing", "a/b", "1")]
    assert [index for index, _consistent in client.asked] == [0, 5, 5, 9]


def test_an_index_that_goes_back_starts_over() -> None:
    client = Scripted(answer(500, b="1"), answer(3, b="1"), answer(4, b="2"))
    assert told(client) == [("existing", "a/b", "1"), ("updated", "a/b", "2")]
    assert [index for index, _consistent in client.asked] == [0, 500, 0, 4]


def test_an_index_below_one_would_not_block() -> None:
    client = Scripted(answer(0), answer(0))
    told(client)
    assert [index for index, _consistent in client.asked] == [0, 1, 0]


def test_what_is_hidden_is_not_taken_for_deleted(slept: list[float], caplog: pytest.LogCaptureFixture) -> None:
    client = Scripted(answer(5, b="1"), answer(6, filtered=True), answer(7, filtered=True), answer(8, b="2"))
    assert told(client) == [("existing", "a/b", "1"), ("updated", "a/b", "2")]
    assert caplog.text.count("Consul hides a part of a/* from this token") == 1


def test_it_backs_off_with_some_chance_and_starts_over(slept: list[float]) -> None:
    faults = [ConsulError("away") for _ in range(20)]
    client = Scripted(answer(5, b="1"), *faults, answer(9, b="2"))
    assert told(client) == [("existing", "a/b", "1"), ("updated", "a/b", "2")]
    waits = [seconds for seconds in slept if seconds > source.LEAST]
    assert 0.5 * source.FIRST_DELAY <= waits[0] <= 1.5 * source.FIRST_DELAY
    assert max(waits) > waits[0] * 20
    assert max(waits) <= 1.5 * source.LONGEST_DELAY
    assert len({round(seconds, 6) for seconds in waits[-8:]}) > 1
    assert client.asked[1] == (5, False)
    assert {index for index, _consistent in client.asked[2:22]} == {0}, "after a fault nothing is waited for"


def test_nothing_is_remembered_before_it_is_taken() -> None:
    """A rulebook that is busy when it is stopped gets the event again."""
    memory = Kept(Position(5, {"a/b": [5, "old"]}))
    before = dict(memory.kept)
    options = Options(Scripted(answer(6, b="2")), memory, True, {})  # type: ignore[arg-type]

    async def scene() -> None:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1)
        await queue.put({"event": "of another source"})
        task = asyncio.create_task(source.follow(queue, WATCH, options))
        while not options.client.asked:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scene())
    assert memory.kept == before


def test_only_news_is_written() -> None:
    memory = Kept()
    same = Answer(answer(5, b="1").data, 9, 200)
    told(Scripted(answer(5, b="1"), same, same, answer(10, b="2"), answer(10, b="2")), memory)
    assert [marks["a/b"][0] for marks in memory.saved] == [5, 10]


def test_a_memory_that_fails_later_is_waited_out(slept: list[float]) -> None:
    class Full(Kept):
        fails = 0

        def write(self, kept: Any) -> None:
            if self.fails:
                self.fails -= 1
                raise HitlessError("no space left")
            super().write(kept)

    memory = Full(Position(5, {}))
    memory.fails = 3
    assert told(Scripted(answer(6, b="1")), memory) == [("created", "a/b", "1")]
    assert list(memory.saved[-1]) == ["a/b"]


def test_a_read_is_left_behind_when_it_is_cancelled() -> None:
    """Consul holds a read for half a minute; nobody waits for that."""
    import threading

    held = threading.Event()

    async def scene() -> None:
        task = asyncio.create_task(source.in_thread(held.wait))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scene())
    assert not held.is_set()
    held.set()
