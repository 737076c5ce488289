# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the event sources for ansible-rulebook share (a private helper of this collection).

A source reads by Consul's blocking queries, compares what it finds with what it has told of, and puts an event for each
difference on a queue. It never returns: a return ends the rulebook. What cannot be used is refused at the start; once
it runs, it outlives each fault of Consul.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    CLUSTER_SPEC,
    boolean,
    cluster_connection,
    connection_options,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError

T = TypeVar("T")

WAIT = 30.0
"""Seconds a read waits for a change."""
LEAST = 0.1
"""Seconds from one read to the next, at least: a key that does not exist yet wakes its reader with others' changes."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds after a first error, and after many in a row."""

CREATED, UPDATED, DELETED, EXISTING = "created", "updated", "deleted", "existing"

logger = logging.getLogger("hitless.consul")


class Queue(Protocol):
    """What ansible-rulebook takes the events from."""

    async def put(self, item: dict[str, Any], /) -> None:
        """Waits while the rulebook is busy."""


@dataclass(frozen=True)
class Found:
    """One thing as it stands.

    :param mark: by which a change is seen; plain JSON.
    :param event: what an event says of it.
    """

    mark: Any
    event: Mapping[str, Any]


class Watch(Protocol):
    """What a source watches."""

    @property
    def name(self) -> str:
        """For the log, and in what is remembered."""

    @property
    def query(self) -> tuple[str, list[tuple[str, object]]]:
        """Path and parameters of the read."""

    def found(self, data: Any) -> dict[str, Found]:
        """What the read has answered, by names that stay the same."""

    def same(self, old: Any, new: Any, rebuilt: bool) -> bool:
        """Whether two marks of one thing stand for no change; ``rebuilt`` where Consul's indexes began anew."""

    def told(self, change: str, name: str, found: Found | None, old: Any) -> dict[str, Any]:
        """The event."""


@dataclass(frozen=True)
class Position:
    """What has been told: name -> mark, as of Consul's ``index``."""

    index: int
    marks: Mapping[str, Any] = field(default_factory=dict)


# -- options ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """The options of a source, checked; ``own`` are those that only it has."""

    client: Client
    memory: Memory
    existing: bool
    own: Mapping[str, Any]


def read_options(args: Mapping[str, Any], own: Sequence[str], environment: Mapping[str, str] | None = None) -> Options:
    """The arguments of a source as the rulebook gives them; empty text stands for "not set".

    :raises HitlessError: one sentence; nothing has been asked yet.
    """
    shared = (*CLUSTER_SPEC, "existing", "remember_key", "remember_file")
    unknown = sorted(set(args) - {*shared, *own})
    if unknown:
        known = ", ".join(sorted({*shared, *own}))
        raise HitlessError(f"{unknown[0]} is not an option of this event source.", hint=f"It has {known}.")
    given = {name: value for name, value in args.items() if value not in (None, "")}
    if "remember_key" in given and "remember_file" in given:
        raise HitlessError("remember_key and remember_file are both set; one place to remember is enough.")
    # Retries are the source's own, so that it can be cancelled between them.
    client = Client(
        cluster_connection(connection_options(given, {}, os.environ if environment is None else environment)),
        retry_for=0,
    )
    memory: Memory = Memory()
    if "remember_key" in given:
        memory = KeyMemory(client, str(given["remember_key"]).strip("/"))
    elif "remember_file" in given:
        memory = FileMemory(Path(str(given["remember_file"])).expanduser())
    return Options(
        client, memory, boolean(given.get("existing", False), "existing"), {name: given.get(name) for name in own}
    )


# -- what has been told, kept from one run to the next ------------------------------------------------------------


class Memory:
    """Keeps what has been told of each watch. This one forgets it with the process."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()

    def load(self, name: str) -> Position | None:
        """What was told of a watch, None where nothing is remembered of it."""
        kept = self.read()
        if name not in kept:
            return None
        return Position(int(kept[name]["index"]), kept[name]["marks"])

    def save(self, name: str, position: Position) -> None:
        """Keep it, beside what is kept of other watches."""
        with self._one_at_a_time:
            kept = self.read()
            self.write({**kept, name: {"index": position.index, "marks": dict(position.marks)}})

    def read(self) -> dict[str, Any]:
        """All that is kept."""
        return {}

    def write(self, kept: Mapping[str, Any]) -> None:
        """Keep all of it."""


class KeyMemory(Memory):
    """In a key of Consul's KV store."""

    def __init__(self, client: Client, key: str) -> None:
        super().__init__()
        self.key = key
        self._client = client

    def read(self) -> dict[str, Any]:
        pair = self._client.key(self.key)
        return _remembered(pair.value if pair else "", f"The key {self.key}")

    def write(self, kept: Mapping[str, Any]) -> None:
        self._client.set_key(self.key, json.dumps(kept, separators=(",", ":")))


class FileMemory(Memory):
    """In a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def read(self) -> dict[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise HitlessError(f"remember_file {self.path} cannot be read: {error}.") from None
        return _remembered(text, f"The file {self.path}")

    def write(self, kept: Mapping[str, Any]) -> None:
        try:
            handle, fresh = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(kept, file)
                os.replace(fresh, self.path)
            except BaseException:
                os.unlink(fresh)
                raise
        except OSError as error:
            raise HitlessError(f"remember_file {self.path} cannot be written: {error}.") from None


def _remembered(text: str, where: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        kept = json.loads(text)
        usable = all(isinstance(one["index"], int) and isinstance(one["marks"], dict) for one in kept.values())
    except (AttributeError, KeyError, TypeError, ValueError):
        usable = False
    if not usable:
        raise HitlessError(
            f"{where} is to remember what an event source has told, and holds something else.",
            hint="Name another one, or delete it.",
        )
    return dict(kept)


# -- following ----------------------------------------------------------------------------------------------------


async def follow(queue: Queue, watch: Watch, options: Options) -> None:
    """Put an event on the queue for each change, for ever.

    What is told is remembered right after the queue has taken it: a process that dies in between tells it again, and
    never leaves it out.

    :raises HitlessError: what is remembered cannot be read or written (at the start only).
    """
    follower = _Follower(queue, watch, options)
    await follower.start()
    while True:
        began = time.monotonic()
        await follower.step()
        await asyncio.sleep(max(0.0, LEAST - (time.monotonic() - began)))


class _Follower:
    def __init__(self, queue: Queue, watch: Watch, options: Options) -> None:
        self._queue = queue
        self._watch = watch
        self._options = options
        self._position: Position | None = None
        self._kept: Position | None = None
        self._index = 0

    async def start(self) -> None:
        """Recall what was told before."""
        self._position = self._kept = await self._outlast(self._recall)

    async def step(self) -> None:
        """One read, and what comes of it."""
        answer = await self._outlast(self._read)
        found = self._watch.found(answer.data)
        if self._position is not None and set(self._position.marks) - set(found):
            # Consul answers empty also for a moment while its leader changes: what is gone is asked for once more.
            answer = await self._outlast(self._read_consistent)
            found = self._watch.found(answer.data)
        await self._tell(found, answer.index)
        self._position = Position(answer.index, {name: one.mark for name, one in found.items()})
        if self._is_news(self._kept, self._position):
            await self._outlast(self._keep)
        # An index that goes back starts over, and one below 1 would not block (Consul's rules of blocking queries).
        self._index = max(1, answer.index) if answer.index >= self._index else 0

    async def _tell(self, found: Mapping[str, Found], index: int) -> None:
        before = self._position
        if before is None:
            if self._options.existing:
                for name, one in found.items():
                    await self._queue.put(self._watch.told(EXISTING, name, one, None))
            return
        rebuilt = index < before.index
        for name, one in found.items():
            if name not in before.marks:
                await self._queue.put(self._watch.told(CREATED, name, one, None))
            elif not self._watch.same(before.marks[name], one.mark, rebuilt):
                await self._queue.put(self._watch.told(UPDATED, name, one, before.marks[name]))
        for name in before.marks.keys() - found.keys():
            await self._queue.put(self._watch.told(DELETED, name, None, before.marks[name]))

    @staticmethod
    def _is_news(kept: Position | None, now: Position) -> bool:
        """Whether a restart has to know it: an index that only grows tells nothing."""
        return kept is None or dict(kept.marks) != dict(now.marks) or now.index < kept.index

    # -- in a thread ----------------------------------------------------------------------------------------------

    def _recall(self) -> Position | None:
        return self._options.memory.load(self._watch.name)

    def _keep(self) -> None:
        position = self._position
        if position is not None:
            self._options.memory.save(self._watch.name, position)
            self._kept = position

    def _read(self) -> Answer:
        path, params = self._watch.query
        return self._checked(self._options.client.get(path, params, index=self._index, wait=WAIT))

    def _read_consistent(self) -> Answer:
        path, params = self._watch.query
        return self._checked(self._options.client.get(path, [*params, ("consistent", "")]))

    def _checked(self, answer: Answer) -> Answer:
        if answer.filtered:
            raise ConsulError(
                f"Consul hides a part of {self._watch.name} from this token.",
                hint="Set token (CONSUL_HTTP_TOKEN) to one that may read it.",
            )
        return answer

    async def _outlast(self, call: Callable[[], T]) -> T:
        """What the call returns, tried again for ever, at growing intervals."""
        delay, logged = FIRST_DELAY, ""
        while True:
            try:
                done = await in_thread(call)
            except HitlessError as error:
                # What is to be remembered is no fault of Consul's, and said at the start.
                if self._kept is None and not isinstance(error, ConsulError):
                    raise
                if str(error) != logged:
                    logged = str(error)
                    logger.warning("%s: %s It is tried again.", self._watch.name, logged)
            else:
                if logged:
                    logger.warning("%s: It works again.", self._watch.name)
                return done
            self._index = 0
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, LONGEST_DELAY)


async def in_thread(call: Callable[[], T]) -> T:
    """``asyncio.to_thread`` for reads that take long: nobody waits for the thread when the task is cancelled.

    The threads of a pool are few, so that sources would wait for each other, and are joined at the end of the program,
    which would wait for a read.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = call()
        except Exception as error:  # for the one who waits
            failed = error
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, daemon=True, name="hitless.consul event source").start()
    return await future
