"""Virtual time: threads of which one runs at a time, and a clock that jumps to whatever comes next.

A strand is a real thread that holds the baton, or waits for it. Whenever it sleeps, or waits, it hands the baton to the
strand of the earliest event. Which of two events at the same moment comes first, the seed decides.
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
import threading
import time as real_time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone, tzinfo
from functools import partial
from types import ModuleType
from typing import Any

EPOCH = datetime(2026, 11, 23, 14, 0, 40, tzinfo=timezone.utc)
"""What a calendar shows as a simulation begins."""
START = 1000.0
"""Seconds on the monotonic clock then."""
LONGEST = 20_000.0
"""Seconds of virtual time after which a simulation has gone wrong."""
PRODUCT = "ansible_collections.hitless.consul.plugins.module_utils."


class Gone(BaseException):
    """The process of this strand was killed: whatever it does next does not happen."""


class Process:
    """What is killed as one: a controller with all its threads.

    :param dies_at: the number of the switch at which ``at_switch`` is called; 0 for never.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dies_at = 0
        self.at_switch: Callable[[], None] = lambda: None
        self.switches = 0
        self.is_dead = False


Waiter = tuple["Strand", int]
"""A strand in one of its waits: waking it later, when it waits for something else, does nothing."""


class Strand:
    """One thread, with the lock that it waits at for the baton."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.baton = threading.Lock()
        self.baton.acquire()
        self.ticket = 0
        """Of its next event; those with an earlier one are past."""
        self.woken = False
        self.target: Callable[[], object] | None = None
        """What it does with the baton; None for the end of its thread."""

    @property
    def waiter(self) -> Waiter:
        return self, self.ticket


class Scheduler:
    """Decides what comes next. All of its methods are for the strand that has the baton."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = START
        self.problem: BaseException | None = None
        self.world = Process("world")
        self.main = self.current = Strand(self.world)
        self._own = {threading.get_ident()}
        """The threads of its strands."""
        self._events: list[tuple[float, float, int, Strand | None, int, Callable[[], object] | None]] = []
        self._numbers = itertools.count()
        self._is_closing = False
        self._alive: dict[Strand, None] = {}
        self._idle: list[Strand] = []
        self._threads: list[threading.Thread] = []

    @property
    def date(self) -> datetime:
        """What a calendar shows."""
        return EPOCH + timedelta(seconds=self.now - START)

    # -- events -----------------------------------------------------------------------------------------------

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something then; it must not wait."""
        self._push(seconds, None, 0, call)

    def _push(self, seconds: float, strand: Strand | None, ticket: int, call: Callable[[], object] | None) -> None:
        event = (self.now + max(0.0, seconds), self.rng.random(), next(self._numbers), strand, ticket, call)
        heapq.heappush(self._events, event)

    def _next(self) -> Strand:
        """The strand whose turn it is, once all that comes before has been called."""
        while self._events:
            when, _tie, _number, strand, ticket, call = heapq.heappop(self._events)
            self.now = max(self.now, when)
            if strand is None:
                self._call(call)
            elif strand.ticket == ticket:
                strand.ticket += 1
                strand.woken = call is not None
                return strand
        self.problem = self.problem or RuntimeError("everybody waits, and nothing comes next")
        self.main.ticket += 1
        return self.main

    def _call(self, call: Callable[[], object] | None) -> None:
        try:
            if call:
                call()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Told by the main strand, and not by whichever happens to have the baton."""
        self.problem = self.problem or error
        self.wake(self.main.waiter)

    # -- waiting ----------------------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Others run meanwhile; raises :class:`Gone` where the process was killed."""
        self.wait(max(0.0, seconds))

    def wait(self, seconds: float | None) -> bool:
        """Until somebody wakes this strand -> whether that was it, and not the time."""
        if threading.get_ident() not in self._own:
            # A thread that a test before this one has left: it meets the clock that stands in for its module's.
            real_time.sleep(seconds or 0.1)
            return False
        me = self.current
        process = me.process
        process.switches += 1
        if process.switches == process.dies_at:
            process.at_switch()
        if process.is_dead:
            raise Gone
        if self.now > START + LONGEST and not self.problem:
            self._fail(TimeoutError(f"{process.name} still waits after {LONGEST:g} s"))
        if seconds is not None:
            self._push(seconds, me, me.ticket, None)
        following = self._next()
        if following is not me:
            self.current = following
            following.baton.release()
            me.baton.acquire()
        if process.is_dead:
            raise Gone
        if me is self.main and self.problem and not self._is_closing:
            raise self.problem
        return me.woken

    def wake(self, waiter: Waiter, after: float = 0.0) -> None:
        """End the wait of a strand; no wait of it that begins later."""
        self._push(after, *waiter, lambda: None)

    def kill(self, process: Process) -> None:
        """All that it was about to do does not happen."""
        if process.is_dead:
            return
        process.is_dead = True
        for strand in self._alive:
            if strand.process is process:
                self.wake(strand.waiter)

    # -- strands ----------------------------------------------------------------------------------------------

    def spawn(self, target: Callable[[], object], process: Process | None = None) -> Strand:
        """A strand that begins as soon as it gets the baton; of this one's process where none is given.

        The world's own strand is the main one alone.
        """
        process = process or self.current.process
        if process.is_dead:
            raise Gone
        if self._idle:
            strand = self._idle.pop()
            strand.process = process
        else:
            strand = Strand(process)
            thread = threading.Thread(target=self._live, args=(strand,), daemon=True)
            self._threads.append(thread)
            thread.start()
        strand.target = target
        self._alive[strand] = None
        self.wake(strand.waiter)
        return strand

    def _live(self, strand: Strand) -> None:
        self._own.add(threading.get_ident())
        while True:
            strand.baton.acquire()
            if strand.target is None:
                return
            try:
                if not strand.process.is_dead:
                    strand.target()
            except Gone:
                pass
            except BaseException as error:
                self._fail(error)
            del self._alive[strand]
            strand.ticket += 1  # whoever would still wake it means what has ended
            self._idle.append(strand)
            self.current = self._next()
            self.current.baton.release()

    def close(self) -> None:
        """End all strands but this one; raises what went wrong in one of them."""
        self._is_closing = True
        for process in dict.fromkeys(strand.process for strand in self._alive):
            self.kill(process)
        while self._alive:
            self.sleep(0)
        for strand in self._idle:
            strand.target = None
            strand.baton.release()
        for thread in self._threads:
            thread.join()
        if self.problem:
            raise self.problem


# -- what stands in for Python's own modules ------------------------------------------------------------------------


class Time:
    """``time``, as far as the collection needs it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.sleep = scheduler.sleep

    def monotonic(self) -> float:
        return self._scheduler.now

    def time(self) -> float:
        return EPOCH.timestamp() + self._scheduler.now - START

    def gmtime(self) -> real_time.struct_time:
        return real_time.gmtime(self.time())

    def strftime(self, shape: str, at: real_time.struct_time | None = None) -> str:
        return real_time.strftime(shape, at or self.gmtime())


class Lock:
    """``threading.Lock``."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_held = False
        self._waiting: list[Waiter] = []

    def __enter__(self) -> Lock:
        while self._is_held:
            self._waiting.append(self._scheduler.current.waiter)
            self._scheduler.wait(None)
        self._is_held = True
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_held = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            self._scheduler.wake(one)


class Event:
    """``threading.Event``."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False
        self._waiting: list[Waiter] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            self._scheduler.wake(one)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            self._waiting.append(self._scheduler.current.waiter)
            self._scheduler.wait(timeout)
        return self._is_set


class Thread:
    """``threading.Thread``."""

    def __init__(
        self, scheduler: Scheduler, target: Callable[..., object], args: tuple[Any, ...] = (), daemon: bool = True
    ) -> None:
        self._scheduler = scheduler
        self._run: Callable[[], object] = partial(target, *args)
        self._ended = Event(scheduler)
        self.daemon = daemon

    def start(self) -> None:
        self._scheduler.spawn(self._live)

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def is_alive(self) -> bool:
        return not self._ended.is_set()

    def _live(self) -> None:
        self._run()
        self._ended.set()


class Threading:
    """``threading``; a whole turn is no main thread's."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def Lock(self) -> Lock:  # noqa: N802 - as Python calls it
        return Lock(self._scheduler)

    def Event(self) -> Event:  # noqa: N802
        return Event(self._scheduler)

    def Thread(self, target: Callable[..., object], args: tuple[Any, ...] = (), daemon: bool = True) -> Thread:  # noqa: N802
        return Thread(self._scheduler, target, args, daemon)


class Secrets:
    """``secrets``, which are none here."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token_hex(self, size: int) -> str:
        return f"{self._rng.getrandbits(8 * size):0{2 * size}x}"


def datetime_of(scheduler: Scheduler) -> type[datetime]:
    """``datetime.datetime`` whose ``now`` is that of a scheduler."""

    class Simulated(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return scheduler.date.astimezone(tz)

    return Simulated


@contextmanager
def installed(scheduler: Scheduler) -> Iterator[None]:
    """The collection takes time, threads and chance from a scheduler."""
    stand_ins: dict[int, object] = {
        id(real_time): Time(scheduler),
        id(threading): Threading(scheduler),
        id(random): scheduler.rng,
        id(sys.modules["secrets"]): Secrets(scheduler.rng),
        id(datetime): datetime_of(scheduler),
    }
    before: list[tuple[ModuleType, str, object]] = []
    for name, module in list(sys.modules.items()):
        if name.startswith(PRODUCT):
            before += [(module, key, value) for key, value in vars(module).items() if id(value) in stand_ins]
    for module, key, value in before:
        setattr(module, key, stand_ins[id(value)])
    try:
        yield
    finally:
        for module, key, value in before:
            setattr(module, key, value)
