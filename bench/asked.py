"""(d) Requests to Consul for each host of a rollout, as Consul's own agents count them.

A rollout over few hosts and one over many: the difference is what each host more costs, what is left of the first is
what a run costs once. The renewals of the lock's session are a matter of time and not of hosts, and told apart.
"""

from __future__ import annotations

from pathlib import Path

from lab import Lab
from lab.request_log import RequestLog

from .runs import Runs

FEW, MANY = 4, 8


def measure(folder: Path, _rounds: int) -> None:
    """Print the figures."""
    with Lab(vms=MANY) as lab:
        runs = Runs(lab, folder)
        print(f"(d) requests to Consul, all agents together, rollouts over {FEW} and {MANY} hosts", flush=True)
        for kind, batch in (("local", 1), ("ssh", 2)):
            counted = [count(lab, runs, hosts, kind, batch) for hosts in (FEW, MANY)]
            (few, _), (many, renewals) = counted
            each = (many - few) / (MANY - FEW)
            shares = f"{few} and {many}, so {each:g} for each host and {few - each * FEW:g} once"
            print(f"    {kind:5} batch size {batch}: {shares}; beside them {renewals} renewals of the lock", flush=True)


def count(lab: Lab, runs: Runs, hosts: int, kind: str, batch: int) -> tuple[int, int]:
    """(Requests, and renewals of the session beside them) of one rollout."""
    with RequestLog([lab.controller, *lab.vms]) as log:
        runs.rollout(hosts, kind, batch)
    renewals = sum("/session/renew/" in one.url for one in log.requests)
    return len(log.requests) - renewals, renewals
