"""Whether one more host may begin, by what a worker has read."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import parse_instances
from ansible_collections.hitless.consul.plugins.module_utils._rollout.gate import Head, may_begin
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.window import room_for
from tests.unit.plugins.module_utils._consul.test_health import check, entry, maintenance

pytestmark = pytest.mark.oldest

OUT = [entry(check("critical"), node="web4"), entry(check(), maintenance(), node="web5")]
FIVE = [entry(node="web1"), entry(node="web2"), entry(check("warning"), node="web3"), *OUT]


def room(node: str, shown: list[dict[str, object]], progress: Progress, *, accept_warning: bool = True) -> Head:
    return room_for(node, parse_instances(shown), progress, accept_warning=accept_warning)


def test_what_is_not_served_and_its_own_tell_as_much_as_all() -> None:
    known = Progress(registered=5)
    for node in ("web1", "web4"):
        mine = [one for one in FIVE if one["Node"]["Node"] == node]
        few = [*[one for one in OUT if one not in mine], *mine]
        assert room(node, few, known) == room(node, FIVE, known)
    assert room("web1", FIVE, known) == Head(5, 3, 2)
    assert room("web1", FIVE, known).takes == 1
    assert room("web4", FIVE, known) == Head(5, 3, 3)
    assert room("web4", FIVE, known).takes == 0


def test_a_host_in_flight_is_out_whatever_the_catalog_shows() -> None:
    begun = Progress(registered=5, in_flight={"web2": 1})
    assert room("web1", FIVE, begun) == Head(5, 2, 1)
    assert room("web1", FIVE, begun).takes == 1
    # Already shown in maintenance: it is counted once.
    shown = room("web1", FIVE, Progress(registered=5, in_flight={"web5": 1}))
    assert shown == Head(5, 3, 2)
    assert shown.takes == 1


def test_what_takes_nothing_away_may_begin_below_the_minimum() -> None:
    known = Progress(registered=5)
    assert not may_begin(room("web1", FIVE, known), 3)
    assert may_begin(room("web1", FIVE, known), 2)
    assert may_begin(room("web4", FIVE, known), 5)


def test_a_host_whose_own_check_warns_waits() -> None:
    found = room("web3", FIVE, Progress(registered=5), accept_warning=False)
    assert found.warning
    assert not may_begin(found, 0)


@given(st.integers(1, 12), st.integers(0, 12), st.lists(st.tuples(st.booleans(), st.integers(0, 11)), max_size=60))
def test_whatever_begins_and_ends_the_minimum_holds(hosts: int, minimum: int, events: list[tuple[bool, int]]) -> None:
    """The catalog lags behind: it shows those in flight as served still, or as out."""
    progress, shown_out = Progress(registered=hosts), set()
    for begins, number in events:
        node = f"web{number % hosts}"
        if not begins:
            left = {one: takes for one, takes in progress.in_flight.items() if one != node}
            progress = Progress(registered=hosts, in_flight=left)
            shown_out.discard(node)
            continue
        out = [entry(check(), maintenance(), node=one) for one in shown_out if one != node]
        own = [entry(node=node)]
        found = room_for(node, parse_instances([*out, *own]), progress, accept_warning=False)
        if node not in progress.in_flight and may_begin(found, minimum):
            progress = Progress(registered=hosts, in_flight={**progress.in_flight, node: found.takes})
            assert hosts - len(progress.in_flight) >= minimum
            if number % 2:
                shown_out.add(node)


def ideal(times: Sequence[float], window: int) -> float:
    """How long the turns take where the next begins as soon as one ends, in their order."""
    ends = [0.0] * window
    for one in times:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def with_the_gate(times: Sequence[float], window: int, minimum: int) -> float:
    """The same where each has to be let in by what the catalog shows, which knows of none but those in flight."""
    waiting, flying, now = list(enumerate(times)), list[tuple[float, int]](), 0.0
    while waiting or flying:
        if waiting and len(flying) < window:
            number, takes = waiting[0]
            progress = Progress(registered=len(times), in_flight={f"web{one}": 1 for _end, one in flying})
            shown = parse_instances([entry(node=f"web{number}")])
            found = room_for(f"web{number}", shown, progress, accept_warning=False)
            if may_begin(found, minimum):
                waiting.pop(0)
                heapq.heappush(flying, (now + takes, number))
                continue
        now, _ended = heapq.heappop(flying)
    return now


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.integers(1, 8), st.data())
def test_a_window_is_kept_busy(times: list[float], window: int, data: st.DataObject) -> None:
    """Where the minimum leaves room for it, no host waits for anything but a place: the ideal schedule of a list."""
    window = min(window, len(times))
    minimum = data.draw(st.integers(0, len(times) - window))
    assert with_the_gate(times, window, minimum) <= 1.25 * ideal(times, window)
    # Where it leaves less, the window is as wide as it leaves.
    scarce = data.draw(st.integers(len(times) - window, len(times) - 1))
    assert with_the_gate(times, window, scarce) <= 1.25 * ideal(times, len(times) - scarce)
