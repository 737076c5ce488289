"""(e) How fast a load balancer follows Consul, for each of the three ways of the role consul_load_balancer.

Under load, one instance after the other is put into maintenance and back. A blocking read notes when the catalog shows
it; the load generator's account tells when the last request was sent that reached the instance, and the next one after
that. Then a machine joins: from "passing in the catalog" to its first request. All by the clock of one machine.
"""

from __future__ import annotations

import json
import statistics
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import VM, Lab, LabError, Report
from lab.balancer import METHODS

VMS = 5
RATE = 200
SETTLE = 1.0
"""Seconds that the load goes on after each change, more than any of the three needs."""
PATIENCE = 60


def measure(_folder: Path, rounds: int) -> None:
    """Print the figures."""
    print(
        f"(e) behind the catalog, {VMS} VMs, {RATE} requests a second, {rounds} rounds (new machines: {joins(rounds)})",
        flush=True,
    )
    for method in METHODS:
        with Lab(vms=VMS, ssh=False, balancer=method) as lab:
            changes: list[tuple[str, str, float, float]] = []
            with lab.load(rate=RATE) as load:
                time.sleep(SETTLE)
                for number in range(rounds):
                    changes += out_and_back(lab, lab.vms[number % VMS])
                for _number in range(joins(rounds)):
                    changes.append(join(lab))
        lags: dict[str, list[float]] = {"last": [], "first": [], "joined": []}
        for what, instance, shown, until in changes:
            lags[what].append(lag(load.report(), what, instance, shown, until))
        told = (f"{name} {spread(lags[key])}" for key, name in NAMES.items())
        print(f"    {method:17} {', '.join(told)}; {len(load.report().lost)} requests lost", flush=True)


NAMES = {"last": "last request after maintenance", "first": "first after its end", "joined": "first to a new machine"}


def joins(rounds: int) -> int:
    """How often a machine joins."""
    return max(1, rounds // 3)


def spread(lags: list[float]) -> str:
    return f"{statistics.median(lags):.2f} s (most {max(lags):.2f})"


def lag(report: Report, what: str, instance: str, shown: float, until: float) -> float:
    """Seconds from `shown` to the last or first request of the instance; 0 where it was quicker than our own read."""
    sent = [row.sent for row in report.of(instance).rows if row.sent <= until]
    if what == "last":
        return max(0.0, max(sent) - shown)
    first = min((at for at in sent if at > shown - SETTLE / 2), default=None)
    if first is None:
        raise RuntimeError(f"{instance} got no request within {until - shown:.1f} s")
    return max(0.0, first - shown)


def out_and_back(lab: Lab, vm: VM) -> list[tuple[str, str, float, float]]:
    """(What, the instance, when the catalog showed it, until when to look) for both changes."""
    found = []
    for what, enable in (("last", True), ("first", False)):
        vm.operator_maintenance("bench", enable)
        shown = wait_shown(lab, vm, lambda checks, out=enable: any(map(is_maintenance, checks)) == out)  # type: ignore[misc]
        time.sleep(SETTLE)
        found.append((what, vm.name, shown, time.time()))
    return found


def join(lab: Lab) -> tuple[str, str, float, float]:
    """A machine more, until it serves; then it goes."""
    vm = lab.add_vm(wait=False)
    try:
        shown = wait_shown(lab, vm, lambda checks: bool(checks) and all(one["Status"] == "passing" for one in checks))
        time.sleep(2 * SETTLE)
        until = time.time()
        vm.operator_maintenance("bench")
        time.sleep(SETTLE)
    finally:
        lab.remove_vm(vm.name)
    return "joined", vm.name, shown, until


def is_maintenance(check: dict[str, Any]) -> bool:
    return str(check["CheckID"]).startswith("_service_maintenance:")


def wait_shown(lab: Lab, vm: VM, holds: Callable[[list[dict[str, Any]]], bool]) -> float:
    """When (epoch seconds) the catalog showed the checks of the VM's instance so, by blocking reads."""
    path = f"{lab.url}/v1/health/service/{lab.settings.service}?wait=10s"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline, index = time.monotonic() + PATIENCE, "0"
    while time.monotonic() < deadline:
        with opener.open(f"{path}&index={index}", timeout=30) as answer:
            index, entries = answer.headers["X-Consul-Index"], json.load(answer)
        at = time.time()
        if any(entry["Node"]["Node"] == vm.name and holds(entry["Checks"]) for entry in entries):
            return at
    raise LabError(f"the catalog did not show the change of {vm.name} within {PATIENCE} s")
