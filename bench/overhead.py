"""(a) What the orchestration of a rollout costs for each host, against a playbook written by hand.

Both run over the same VMs with the same drain and a deployment that takes no time; see `runs.py` for how a host's share
is told from the rest. The two take turns, so that whatever else the machine has to do meets both. The ratio is that of
the two medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from lab import Lab

from .runs import DRAIN, Runs, Taken

HOSTS = 6


def measure(kind: str, folder: Path, rounds: int) -> None:
    """Print the figures of one way to connect, local or ssh."""
    with Lab(vms=HOSTS, ssh=kind == "ssh") as lab:
        runs = Runs(lab, folder)
        print(f"(a) overhead per host, {kind}: {HOSTS} hosts, {rounds} rounds in turn, {runs.versions()}", flush=True)
        ways: dict[str, Callable[[int, str, int], Taken]] = {"by hand": runs.by_hand, "rollout": runs.rollout}
        for batch in (1, 2):
            found: dict[str, list[Taken]] = {name: [] for name in ways}
            for _round in range(rounds):
                for name, run in ways.items():
                    found[name].append(run(HOSTS, kind, batch))
            report(f"batch size {batch}", batch, found)
            report_start(found)


def report(what: str, batch: int, found: dict[str, list[Taken]]) -> None:
    """One line: seconds per host of both (median, least and most), their ratio, and what a run costs once."""
    told, medians = [], []
    for name, runs in found.items():
        shares = [(seconds - DRAIN) / batch for one in runs for seconds in one.batches(batch)]
        once = statistics.median(one.wall - statistics.median(one.batches(batch)) * HOSTS / batch for one in runs)
        medians.append(statistics.median(shares))
        told.append(f"{name} {medians[-1]:.2f} s ({min(shares):.2f} to {max(shares):.2f}; once per run {once:.1f})")
    print(f"    {what}: {', '.join(told)}: {medians[0] / medians[1]:.1f} times less", flush=True)


def report_start(found: dict[str, list[Taken]]) -> None:
    """One line: seconds from the start to the first maintenance of both, and of the whole run for each host."""
    first = {name: statistics.median(one.first for one in runs) for name, runs in found.items()}
    # Waits that both have, the drains, are nobody's overhead.
    whole = {name: statistics.median(one.wall for one in runs) / HOSTS - DRAIN for name, runs in found.items()}
    by_hand, ours = first["by hand"], first["rollout"]
    print(
        f"        first maintenance after {ours:.1f} s, by hand {by_hand:.1f} s: {ours / by_hand:.2f} times as late; "
        f"over the whole run {whole['rollout']:.2f} s a host, by hand {whole['by hand']:.2f} s",
        flush=True,
    )
