"""(f) Processor time of the controller, for each host of a whole rollout: `python -m bench.controller`.

A simulated fleet (bench/simulated) is rolled over in push mode by local connections and in agent mode; beside both runs
a playbook of one empty `debug` task over the same hosts, with as many forks: what Ansible itself needs to visit a host.
The three take turns. Counted is the user and system time of ansible-playbook and all processes that it has waited for,
from its start to its end, so that all that a run costs once is shared out among the hosts as well. Not in it are
Consul, the machines, and the process that keeps the lock.

Processor time depends less on what else a machine does than wall time, and the ratio to the empty task less than both.
Requests are those of the controller, as Consul's log tells them, without the renewals of the lock's session; and in
push mode those to the machines' own agents. Consul's processor time is that of the one server there is, which answers
the machines as well.

Of a large fleet `--roll` takes some hosts alone, and `--only` some of the ways: `--hosts 10000 --roll 500 --only plan
agent` measures what the plan of all costs (a rollout with `--check`), and what a host of so many costs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab.binaries import consul_version, find_consul
from lab.testkit.ansible_run import Ansible, install_collection

from .runs import home
from .simulated import Behaviour, Fleet, simulated

HOSTS = 200
WINDOW = 20
EMPTY, PLAN = "debug", "plan"
WAYS = (EMPTY, "push", "agent")
PATIENCE = 3600.0


@dataclass(frozen=True)
class Figures:
    """Of one run: seconds of wall and processor time, those of Consul, requests to it and to the machines' agents, and
    the keys that it has left there."""

    wall: float
    processor: float
    of_consul: float
    to_consul: int
    to_agents: int
    keys: int


class Bench:
    """Runs over one fleet.

    :param window: hosts at a time, and forks.
    :param command_time: seconds that each deployment command takes.
    :param roll: hosts that are rolled; all where it is 0.
    """

    def __init__(self, fleet: Fleet, folder: Path, window: int, command_time: float, roll: int = 0) -> None:
        self.fleet = fleet
        self.roll = roll
        self.folder = folder
        self.window = window
        self.command_time = command_time
        self.ansible = Ansible(install_collection(), folder, folder / "logs")
        self._number = 1

    def run(self, way: str) -> Figures:
        """One run; RuntimeError where it fails."""
        asked, agents, keys = len(self._asked()), self.fleet.asked_of_agents(), self._keys()
        started, before, of_consul = time.monotonic(), processor_time(), self.fleet.consul.processor_time()
        self._playbook(*(self._empty() if way == EMPTY else self._rollout(way)))
        wall, processor = time.monotonic() - started, processor_time() - before
        return Figures(
            wall,
            processor,
            self.fleet.consul.processor_time() - of_consul,
            len(self._asked()) - asked,
            self.fleet.asked_of_agents() - agents,
            self._keys() - keys,
        )

    def hosts(self, way: str) -> int:
        """Hosts that a run takes."""
        return self.roll if self.roll and way not in (EMPTY, PLAN) else len(self.fleet.machines)

    def _keys(self) -> int:
        """Below those of the service, where nothing is before the first rollout."""
        with contextlib.suppress(RuntimeError):
            return len(self.fleet.consul.call("GET", "/v1/kv/deploy/web/?keys"))
        return 0

    def _empty(self) -> list[str]:
        playbook = self.folder / "empty.json"
        task = {"name": "Nothing", "ansible.builtin.debug": {"msg": ""}}
        playbook.write_text(json.dumps([{"hosts": "web", "gather_facts": False, "tasks": [task]}]), encoding="utf-8")
        return [str(self.fleet.inventory()), str(playbook)]

    def _rollout(self, way: str) -> list[str]:
        self._number += 1
        command = f"sleep {self.command_time:g}" if self.command_time else "true"
        push = {"rollout_deploy_command": command}
        how: dict[str, Any] = push if way == "push" else {"rollout_mode": "agent"}
        some = f"web[0:{self.roll - 1}]" if self.hosts(way) == self.roll else "web"
        options = {
            "service": "web",
            "version": f"{self._number}.0.0",
            "hosts": some,
            "batch_size": self.window,
            "min_healthy": 0,
            "drain_time": 0,
            "min_healthy_time": 0,
            "bake_time": 0,
        }
        values = {f"rollout_{name}": value for name, value in options.items()}
        check = ["--check"] if way == PLAN else []
        return [str(self.fleet.inventory(**how)), "hitless.consul.rollout", "-e", json.dumps(values), *check]

    def _playbook(self, inventory: str, *arguments: str) -> None:
        environment = {**self.fleet.environment, "ANSIBLE_FORKS": str(self.window)}
        done = self.ansible.playbook("-i", inventory, *arguments, env=environment, timeout=PATIENCE)
        if done.rc != 0:
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.output[-5000:]}")

    def _asked(self) -> list[str]:
        return [one.url for one in self.fleet.asked_by_others() if "/session/renew/" not in one.url]


def processor_time() -> float:
    """Seconds, of all children that have ended and those that they have waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(
    folder: Path,
    rounds: int,
    hosts: int = HOSTS,
    window: int = WINDOW,
    command_time: float = 0.0,
    roll: int = 0,
    ways: Sequence[str] = WAYS,
) -> None:
    """Print the figures."""
    binary = find_consul(None)
    behaviour = Behaviour(command_time=command_time)
    # In agent mode nobody asks a machine, and ten thousand that listen open more files than are allowed.
    listens = "push" in ways
    with simulated(
        hosts, behaviour=lambda _number: behaviour, consul=str(binary), listens=listens, at_once=window
    ) as fleet:
        bench = Bench(fleet, folder, window, command_time, roll)
        versions = f"ansible-core {version('ansible-core')}, Consul {consul_version(binary)}"
        rolled = f"{roll} of {hosts}" if roll else f"{hosts}"
        print(
            f"(f) the controller, {rolled} simulated hosts, {window} at a time, {rounds} rounds, {versions}", flush=True
        )
        found: dict[str, list[Figures]] = {way: [] for way in ways}
        for _round in range(rounds):
            for way in ways:
                found[way].append(bench.run(way))
        empty = statistics.median(one.processor for one in found[EMPTY]) / hosts if EMPTY in found else 0.0
        for way, runs in found.items():
            print(f"    {way:6}{told(runs, bench.hosts(way), empty)}", flush=True)


def told(runs: list[Figures], hosts: int, empty: float) -> str:
    """One line; medians.

    :param empty: seconds of the empty task, for each host; 0 where it was not run.
    """
    processor = [one.processor for one in runs]
    middle = statistics.median(processor)
    times = f"{1000 * middle / hosts:4.0f} ms a host ({1000 * min(processor) / hosts:.0f} to "
    times += f"{1000 * max(processor) / hosts:.0f})"
    times += f", {middle / hosts / empty:4.1f} times the empty task" if empty else ""
    times += f"; Consul {1000 * statistics.median(one.of_consul for one in runs) / hosts:.0f} ms a host"
    wall = statistics.median(one.wall for one in runs)
    to_consul = statistics.median(one.to_consul for one in runs) / hosts
    to_agents = statistics.median(one.to_agents for one in runs) / hosts
    asked = f"requests a host: {to_consul:.1f} to Consul, {to_agents:.1f} to its own agent"
    keys = statistics.median(one.keys for one in runs)
    return f"{times}; {middle:.0f} s in all; wall {wall:.0f} s; {asked}; {keys:.0f} more keys"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--window", type=int, default=WINDOW, help="hosts at a time, and forks")
    parser.add_argument("--rounds", type=int, default=1, help="of all three, in turn")
    parser.add_argument("--command-time", type=float, default=0.0, help="seconds that a deployment command takes")
    parser.add_argument("--roll", type=int, default=0, help="hosts that a rollout takes (default: all)")
    parser.add_argument("--only", nargs="+", choices=(*WAYS, PLAN), default=WAYS, help="what is run")
    given = parser.parse_args(arguments)
    with home() as folder:
        measure(
            Path(folder), given.rounds, given.hosts, given.window, given.command_time, given.roll, tuple(given.only)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
