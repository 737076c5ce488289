"""Measures the collection side by side with the alternatives: `python -m bench [PART ...]`, or `make bench`.

local, ssh  (a) orchestration per host of a rollout, against a playbook written by hand
waiting     (b) from "passing in Consul" until the task that waits has returned
inventory   (c) the inventory of 10,000 nodes, against a static file
requests    (d) requests to Consul per host
follow      (e) how fast a load balancer follows the catalog
controller  (f) processor time of the controller per host, over a simulated fleet, against an empty task
window      (g) how long a window takes over uneven hosts, against the ideal schedule
analysis    (h) requests until it is seen that a new version makes more errors than the old one
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import analysis, asked, controller, follow, inventory, overhead, waiting, window
from .runs import home


def measure_inventory(_folder: Path, rounds: int) -> None:
    inventory.main(["--rounds", str(rounds)])


PARTS: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "local": (functools.partial(overhead.measure, "local"), 2),
    "ssh": (functools.partial(overhead.measure, "ssh"), 2),
    "waiting": (waiting.measure, 10),
    "inventory": (measure_inventory, 2),
    "requests": (asked.measure, 1),
    "follow": (follow.measure, 9),
    "controller": (controller.measure, 1),
    "window": (window.measure, 2),
    "analysis": (analysis.measure, 1),
}
"""Part -> what measures and prints it, and how many rounds it takes."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # Without choices: argparse of some Pythons takes the empty default for a wrong one.
    parser.add_argument("parts", nargs="*", metavar="PART", help="all where none is given")
    parser.add_argument("--rounds", type=int, help="rounds of each part (default: 1 to 10, as each part needs)")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}: there are {', '.join(PARTS)}")
    print(conditions())
    started = time.monotonic()
    for name in given.parts or PARTS:
        measure, rounds = PARTS[name]
        with home() as folder:
            measure(Path(folder), given.rounds or rounds)
    print(f"measured in {(time.monotonic() - started) / 60:.1f} minutes; load now {load()}")
    return 0


def conditions() -> str:
    """Where this is measured."""
    return f"{os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}; load before {load()}"


def load() -> str:
    """Processes that want a processor, of the last 1, 5 and 15 minutes: figures are comparable where it is small."""
    return ", ".join(f"{one:.1f}" for one in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
