"""Runs of ansible-playbook against a lab, for the parts of the bench: the same fleet, connection and waits for all.

Nothing is really deployed (`true` is the deployment command) and every check passes all the time, so that nothing has
to be waited for but the drain, which is known: what is left is what the orchestration itself costs.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import Lab
from tests.rollout.support import Ansible, install_collection

DRAIN = 1
"""Seconds; Ansible's own `pause`, which the hand-written playbook drains with, knows no shorter one."""
HEALTH_URL = "http://{{ consul_address }}:8080/health"
HAND_WRITTEN = Path(__file__).with_name("handwritten.yml")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Taken:
    """Seconds of one run: by the clock, and of processor time by all its processes."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Runs:
    """Runs playbooks over the first so many VMs of a lab."""

    ansible: Ansible
    lab: Lab

    @classmethod
    def on(cls, lab: Lab, folder: Path) -> Runs:
        """Builds and installs the collection; `folder` becomes HOME (a short path: sockets of ssh are in there)."""
        return cls(Ansible(install_collection(), folder, folder / "logs"), lab)

    def rollout(self, hosts: int, kind: str, batch: int, **more: Any) -> Taken:
        """A rollout by this collection; `more` are further options, and `environment`."""
        options = {
            "service": "web",
            "version": f"{next(_numbers)}.0",
            "hosts": self._pattern(hosts),
            "batch_size": batch,
            "drain_time": DRAIN,
            "min_healthy_time": 0,
            "min_healthy": 0,
            "health_url": HEALTH_URL,
            "deploy_command": "true",
        }
        environment = more.pop("environment", {})
        variables = more.pop("variables", {})
        values = {f"rollout_{name}": value for name, value in {**options, **more}.items()} | variables
        return self._run(kind, "hitless.consul.rollout", values, environment)

    def by_hand(self, hosts: int, kind: str, batch: int) -> Taken:
        """The same by `bench/handwritten.yml`."""
        variables = {
            "hosts": self._pattern(hosts),
            "batch_size": batch,
            "version": f"{next(_numbers)}.0",
            "drain_time": DRAIN,
            "deploy_command": "true",
            "health_url": HEALTH_URL,
            "consul_url": self.lab.url,
            "agent_url": "{{ hitless_consul_agent_url }}",
        }
        return self._run(kind, str(HAND_WRITTEN), variables, {})

    def _pattern(self, hosts: int) -> str:
        return ",".join(vm.name for vm in self.lab.vms[:hosts])

    def _run(self, kind: str, playbook: str, variables: Mapping[str, Any], environment: Mapping[str, str]) -> Taken:
        inventory = self.lab.directory / "inventory" / f"static-{kind}.yml"
        settings = {**self.lab.environment, "ANSIBLE_PIPELINING": "True", **environment}
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = self.ansible.playbook("-i", inventory, playbook, "-e", json.dumps(variables), env=settings)
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.rc != 0:
            over = variables.get("hosts", variables.get("rollout_hosts"))
            raise RuntimeError(f"{playbook} over {over}:\n{done.output}")
        return Taken(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def home() -> tempfile.TemporaryDirectory[str]:
    """A folder for HOME and logs."""
    place = os.environ.get("TMPDIR", "/tmp")
    return tempfile.TemporaryDirectory(prefix="hitless-bench-", dir=place, ignore_cleanup_errors=True)
