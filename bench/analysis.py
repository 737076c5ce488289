"""How many requests it takes to see that a new version makes more errors, by the product's own test of that."""

from __future__ import annotations

import random
import statistics
import sys
from pathlib import Path

from lab.testkit import link_tree

sys.path.insert(0, str(link_tree.make()))

from ansible_collections.hitless.consul.plugins.module_utils._rollout.evidence import (
    Count,
    Evidence,
)

ALPHA = 0.01
SHARES = (0.1, 0.25, 0.5)
"""Of all requests, what the new version gets: one host of ten, of four, of two."""
RATES = (0.0, 0.001, 0.01)
"""Share of the old version's requests that fail."""
MORE = (0.01, 0.02, 0.05, 0.2)
LOOK = 50
"""Requests between two looks."""
MOST = 500_000
RUNS = 100


def needed(rng: random.Random, share: float, rate: float, more: float) -> int:
    """Requests of both versions until the evidence is enough."""
    evidence = Evidence()
    for number in range(LOOK, MOST, LOOK):
        new = sum(rng.random() < share for _request in range(LOOK))
        counts = [
            Count(size, sum(rng.random() < chance for _request in range(size)))
            for size, chance in ((new, rate + more), (LOOK - new, rate))
        ]
        evidence.add(*counts)
        if evidence.e >= 1 / ALPHA:
            return number
    return MOST


def measure(_folder: Path, rounds: int) -> None:
    """Print the table; a round is :data:`RUNS` runs of each."""
    rng = random.Random(1)
    print(f"requests until more errors are seen, alpha {ALPHA:g}: median of {RUNS * rounds} runs (nine of ten)\n")
    print("| the new version gets | old errors | " + " | ".join(f"{more:.0%} more" for more in MORE) + " |")
    print("|---|---|" + "---|" * len(MORE))
    for share in SHARES:
        for rate in RATES:
            cells = []
            for more in MORE:
                found = sorted(needed(rng, share, rate, more) for _run in range(RUNS * rounds))
                cells.append(f"{statistics.median(found):,.0f} ({found[int(len(found) * 0.9)]:,})")
            print(f"| {share:.0%} | {rate:.1%} | " + " | ".join(cells) + " |", flush=True)
