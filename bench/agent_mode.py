"""Measures agent mode: `python -m bench.agent_mode`.

So many machines, each with its own Consul agent, its application and its deploy agent, all on this one. A version is
rolled over them in agent mode, and in push mode over local connections beside it. Nothing is really deployed: the
command prints a line. Of each run are printed the wall time, the processor time that the controller took (Ansible and
all its workers; not Consul, not the machines), and the requests that the controller's Consul agent and the machines'
own ones answered, by their own logs.

Wall time says little where forty machines share two processors; it is there to show that nothing waits in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import Lab
from lab.request_log import RequestLog
from lab.testkit.ansible_run import Ansible, install_collection

DRAIN = 1.0
"""Seconds."""


@dataclass(frozen=True)
class Figures:
    """Of one run; seconds, and requests of all machines together."""

    wall: float
    processor: float
    asked_by_controller: int
    asked_by_machines: int

    def row(self, kind: str, machines: int) -> str:
        return ROW.format(
            kind,
            f"{self.wall:.1f}",
            f"{self.processor:.1f}",
            f"{self.processor / machines:.3f}",
            f"{self.asked_by_controller / machines:.1f}",
            f"{self.asked_by_machines / machines:.1f}",
        )


ROW = "{:<6}{:>10}{:>16}{:>14}{:>16}{:>16}"
HEAD = (
    ROW.format("", "wall", "controller", "a machine", "requests to", "requests to"),
    ROW.format("mode", "(s)", "(processor, s)", "(s)", "Consul/machine", "its own agent"),
)


class Bench:
    """Rollouts over all machines of a lab."""

    def __init__(self, lab: Lab, ansible: Ansible, batch: int) -> None:
        self.lab = lab
        self.ansible = ansible
        self.batch = batch

    def run(self, kind: str, version: str) -> Figures:
        """One rollout; RuntimeError where it fails."""
        options = {
            "service": "web",
            "version": version,
            "batch_size": self.batch,
            "min_healthy": 0,
            "drain_time": DRAIN,
            "min_healthy_time": 0,
            "bake_time": 0,
            "health_url": "http://{{ consul_address }}:8080/health",
            "skip_current": False,
            "progress_deadline": 600,
        }
        if kind != "agent":
            options["deploy_command"] = "echo deployed $DEPLOY_VERSION"
        inventory = self.lab.directory / "inventory" / f"static-{kind}.yml"
        values = {f"rollout_{name}": value for name, value in options.items()} | {"rollout_hosts": "web"}
        environment = {**self.lab.environment, "ANSIBLE_FORKS": str(self.batch)}
        controller, machines = RequestLog([self.lab.controller]), RequestLog(self.lab.vms)
        with controller, machines:
            started, before = time.monotonic(), _processor()
            done = self.ansible.playbook(
                "-i", inventory, "hitless.consul.rollout", "-e", json.dumps(values), env=environment
            )
            wall, processor = time.monotonic() - started, _processor() - before
        if done.rc != 0:
            raise RuntimeError(done.output)
        return Figures(wall, processor, len(controller.requests), len(machines.requests))


def _processor() -> float:
    """Seconds of processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def fleet(machines: int) -> Iterator[Lab]:
    """A lab whose machines' deploy agents print a line and restart nothing."""
    with Lab(vms=machines, ssh=False, agent="watch", lifetime=3600) as lab:
        for vm in lab.vms:
            vm.deploy_agent.configure(command=["/bin/sh", "-c", 'echo "deployed $DEPLOY_VERSION"'])
            vm.deploy_agent.stop()
            vm.deploy_agent.start()
        yield lab


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--machines", type=int, default=40)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="of each mode, alternating")
    options = parser.parse_args()
    place = os.environ.get("TMPDIR", "/tmp")
    with (
        tempfile.TemporaryDirectory(prefix="hitless-bench-", dir=place, ignore_cleanup_errors=True) as folder,
        fleet(options.machines) as lab,
    ):
        home = Path(folder)
        bench = Bench(lab, Ansible(install_collection(), home, home / "logs"), options.batch)
        print(f"{options.machines} machines, batches of {options.batch}, Consul {lab.settings.consul_version}")
        print("\n".join(HEAD), flush=True)
        for number in range(options.rounds):
            for kind in ("agent", "local"):
                figures = bench.run(kind, f"{number + 1}.0-{kind}")
                print(figures.row("agent" if kind == "agent" else "push", options.machines), flush=True)


if __name__ == "__main__":
    main()
