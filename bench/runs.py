"""Runs of ansible-playbook against a lab, for the parts of the bench: the same fleet, connection and waits for all.

Nothing is really deployed: the deployment command only notes the time. Every check passes all the time, so that nothing
has to be waited for but the drain, whose length is known. What is left between the deployment of one batch and that of
the next is what the orchestration of a batch costs, apart from what a run costs once: its start, its plan, its end.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab import Lab
from lab.testkit.ansible_run import Ansible, install_collection

DRAIN = 1
"""Seconds; Ansible's own `pause`, which the hand-written playbook drains with, knows no shorter one."""
HEALTH_URL = "http://{{ consul_address }}:8080/health"
HAND_WRITTEN = Path(__file__).with_name("handwritten.yml")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Taken:
    """One run: `wall` in seconds, and when it began and each host was deployed (epoch seconds, in order)."""

    wall: float
    deployed: tuple[float, ...]
    began: float = 0.0

    @property
    def first(self) -> float:
        """Seconds until the first host was in maintenance: all but the drain of the time until its deployment."""
        return self.deployed[0] - self.began - DRAIN

    def batches(self, size: int) -> list[float]:
        """Seconds that each batch took, but the last one: from its deployment to that of the next."""
        return [after - before for before, after in itertools.pairwise(self.deployed[::size])]


class Runs:
    """Runs playbooks over the first so many VMs of a lab."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        """Builds and installs the collection; `folder` becomes HOME (a short path: sockets of ssh are in there)."""
        self.lab = lab
        self.folder = folder
        self.ansible = Ansible(install_collection(), folder, folder / "logs")
        self._noted = folder / "deployed"
        self._deploy = folder / "deploy"
        self._deploy.write_text(f"#!/bin/sh\ndate +%s.%N >>{self._noted}\nsleep ${{1:-0}}\n", encoding="utf-8")
        self._deploy.chmod(0o755)

    def versions(self) -> str:
        """What runs here, for the reader of figures."""
        return f"ansible-core {version('ansible-core')}, Consul {self.lab.settings.consul_version}"

    def rollout(self, hosts: int, kind: str, batch: int, seconds: Sequence[float] = ()) -> Taken:
        """A rollout by this collection.

        :param seconds: that the deployment of each host takes; none where not given.
        """
        options = {
            "service": "web",
            "version": f"{next(_numbers)}.0",
            "hosts": self._pattern(hosts),
            "batch_size": batch,
            "drain_time": DRAIN,
            "min_healthy_time": 0,
            "bake_time": 0,
            "min_healthy": 0,
            "health_url": HEALTH_URL,
            "deploy_command": f"{self._deploy} {_of_host(seconds)}".strip(),
        }
        return self._run(kind, "hitless.consul.rollout", {f"rollout_{name}": value for name, value in options.items()})

    def by_hand(self, hosts: int, kind: str, batch: int) -> Taken:
        """The same by `bench/handwritten.yml`."""
        variables = {
            "hosts": self._pattern(hosts),
            "batch_size": batch,
            "version": f"{next(_numbers)}.0",
            "drain_time": DRAIN,
            "deploy_command": str(self._deploy),
            "health_url": HEALTH_URL,
            "consul_url": self.lab.url,
            "agent_url": "{{ hitless_consul_agent_url }}",
        }
        return self._run(kind, str(HAND_WRITTEN), variables)

    def _pattern(self, hosts: int) -> str:
        return ",".join(vm.name for vm in self.lab.vms[:hosts])

    def _run(self, kind: str, playbook: str, variables: Mapping[str, Any]) -> Taken:
        inventory = self.lab.directory / "inventory" / f"static-{kind}.yml"
        settings = {**self.lab.environment, "ANSIBLE_PIPELINING": "True"}
        self._noted.unlink(missing_ok=True)
        started, began = time.monotonic(), time.time()
        done = self.ansible.playbook("-i", inventory, playbook, "-e", json.dumps(variables), env=settings)
        wall = time.monotonic() - started
        if done.rc != 0:
            raise RuntimeError(f"{playbook} failed:\n{done.output}")
        noted = self._noted.read_text(encoding="utf-8").split()
        return Taken(wall, tuple(sorted(float(one) for one in noted)), began)


def _of_host(seconds: Sequence[float]) -> str:
    """A template for the number of each host, web1 the first."""
    if not seconds:
        return ""
    return f"{{{{ {list(seconds)}[inventory_hostname | regex_replace('[^0-9]', '') | int - 1] }}}}"


def home() -> tempfile.TemporaryDirectory[str]:
    """A folder for HOME and logs."""
    place = os.environ.get("TMPDIR", "/tmp")
    return tempfile.TemporaryDirectory(prefix="hitless-bench-", dir=place, ignore_cleanup_errors=True)
