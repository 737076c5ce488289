"""(g) How busy a window is kept: hosts whose deployments take uneven times, some in flight at once.

The rolling part, from the first deployment to the end of the last, against the ideal schedule of a list: the next host
begins as soon as one ends. Each host's own turn is taken to last as long as its drain and its deployment, so that what
the orchestration adds is in the figure.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Sequence
from pathlib import Path

from lab import Lab

from .runs import DRAIN, Runs, Taken

SECONDS = (1, 6, 2, 4, 1, 5, 3, 2)
"""Of each host's deployment."""
IN_FLIGHT = 2


def ideal(turns: Sequence[float], window: int) -> float:
    """Seconds that the turns take, in their order."""
    ends = [0.0] * window
    for one in turns:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def rolling(taken: Taken) -> float:
    """Seconds from the first maintenance to the end of the run's last deployment."""
    last = max(at + seconds for at, seconds in zip(taken.deployed, _in_order(), strict=True))
    return last - (taken.deployed[0] - DRAIN)


def _in_order() -> list[float]:
    """The seconds of the deployments in the order in which they begin, in the ideal schedule."""
    ends, begun = [(0.0, number) for number in range(IN_FLIGHT)], []
    for number, seconds in enumerate(SECONDS):
        at, worker = heapq.heappop(ends)
        begun.append((at, number, float(seconds)))
        heapq.heappush(ends, (at + DRAIN + seconds, worker))
    return [seconds for _at, _number, seconds in sorted(begun)]


def measure(folder: Path, rounds: int) -> None:
    """Print the figures."""
    best = ideal([DRAIN + one for one in SECONDS], IN_FLIGHT)
    with Lab(vms=len(SECONDS), ssh=False) as lab:
        runs = Runs(lab, folder)
        print(
            f"(g) a window of {IN_FLIGHT}, {len(SECONDS)} hosts, deployments of {SECONDS} s, {rounds} rounds",
            flush=True,
        )
        found = [rolling(runs.rollout(len(SECONDS), "local", IN_FLIGHT, SECONDS)) for _round in range(rounds)]
        wall = statistics.median(found)
        print(
            f"    {wall:.1f} s ({min(found):.1f} to {max(found):.1f}), ideal {best:.1f} s: {wall / best:.2f} times",
            flush=True,
        )
