# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo`: a good version over five VMs under load, then a broken one and one that turns bad, which are put back.

Everything is real: Consul agents, HAProxy that follows them by DNS, SSH, requests. Retries are off in HAProxy,
so that each request that meets a stopped process counts as lost; the last act shows that they would be counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from .fleet import Lab
from .load import LoadGenerator, Report

CHECKOUT = Path(__file__).resolve().parents[1]
# HAProxy follows Consul within 0.2 s, and the checks run each second.
VARIABLES = {
    "rollout_health_url": "http://{{ consul_address }}:8080/health",
    "rollout_health_match": '"version": "{{ deploy_version }}"',
    "rollout_drain_time": 1,
    "rollout_min_healthy_time": 2,
    "rollout_bake_time": 2,
    "rollout_healthy_deadline": 15,
}
RATE = 100
"""Requests a second."""


class Demo:
    """Four acts in one lab; each says what it expects and whether that came."""

    def __init__(self, lab: Lab, collections: str) -> None:
        self.lab = lab
        # An empty one: what the user keeps in ansible.cfg is not the demo's.
        settings = lab.directory / "ansible.cfg"
        settings.write_text("[defaults]\n", encoding="utf-8")
        self.inventory = str(lab.directory / "inventory" / "ssh" / "web.consul.yml")
        self.environment = {
            **os.environ,
            **lab.environment,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "ANSIBLE_COLLECTIONS_PATH": collections,
            "ANSIBLE_CONFIG": str(settings),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "LC_ALL": "C.UTF-8",
        }
        self.failures: list[str] = []

    def playbook(self, name: str, *options: str) -> int:
        command = ["ansible-playbook", "-i", self.inventory, f"hitless.consul.{name}", *options]
        print(f"$ {' '.join(command)}\n", flush=True)
        return subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, check=False).returncode

    def expect(self, what: str, came: bool) -> None:
        print(f"  [{'ok' if came else 'NOT SO'}] {what}", flush=True)
        if not came:
            self.failures.append(what)

    def versions(self) -> set[str | None]:
        return {vm.running_version() for vm in self.lab.vms}

    def under_load(self, name: str, *options: str) -> tuple[int, Report]:
        with self.lab.load(rate=RATE, seconds=600) as load:
            _first_answers(load)
            rc = self.playbook(name, *options)
            time.sleep(1)
        return rc, load.report()

    def new_version(self) -> None:
        title(f"Version 2.0.0, two VMs at a time, by SSH, at {RATE} requests a second")
        rc, report = self.under_load(
            "rollout", "-e", "rollout_service=web", "-e", "rollout_version=2.0.0", "-e", "rollout_batch_size=2"
        )
        print(f"\n{report}")
        self.expect("the rollout succeeded", rc == 0)
        self.expect("all five VMs run 2.0.0", self.versions() == {"2.0.0"})
        self.expect(f"no request of {report.total} was lost", report.total > 0 and not report.lost)

    def broken_version(self) -> None:
        title("Version 3.0.0-broken, which starts and answers every request with 500")
        rc, report = self.under_load("rollout", "-e", "rollout_service=web", "-e", "rollout_version=3.0.0-broken")
        print(f"\n{report}")
        self.expect("the rollout failed, and said so with its exit code", rc != 0)
        self.expect("all five VMs run 2.0.0 again, or still", self.versions() == {"2.0.0"})
        self.expect("nobody was answered by the broken version", "3.0.0-broken" not in report.by_version)
        self.expect(f"no request of {report.total} was lost", report.total > 0 and not report.lost)

    def turns_bad(self) -> None:
        bad = "4.0.0-badafter6"
        title(f"Version {bad}, which answers well for six seconds, and then every request with 500")
        rc, report = self.under_load("rollout", "-e", "rollout_service=web", "-e", f"rollout_version={bad}")
        print(f"\n{report}")
        self.expect("the rollout failed, and said so with its exit code", rc != 0)
        self.expect("all five VMs run 2.0.0 again, or still", self.versions() == {"2.0.0"})
        self.expect("not all of them had it", 0 < len(self.had(bad)) < len(self.lab.vms))
        self.expect(
            f"all {len(report.lost)} that were lost of {report.total} met the bad version before its check failed",
            all(row.version == bad for row in report.lost),
        )

    def had(self, version: str) -> list[str]:
        """The VMs on which a version was deployed."""
        return [vm.name for vm in self.lab.vms if any(one.version == version for one in vm.deploys())]

    def control(self) -> None:
        title("The control: one VM restarted as it is, without taking it out of rotation")
        with self.lab.load(rate=RATE, seconds=60) as load:
            _first_answers(load)
            vm = self.lab.vms[0]
            vm.stop_app()
            time.sleep(1)
            vm.start_app("2.0.0")
            time.sleep(1)
        report = load.report()
        print(f"{report}")
        self.expect("the load generator counts losses where there are some", len(report.lost) > 0)

    def status(self) -> None:
        title("What Consul knows of it now")
        self.expect("the status is shown", self.playbook("status", "-e", "rollout_service=web") == 0)


def _first_answers(load: LoadGenerator) -> None:
    """Returns once requests are answered, so that the count begins before the rollout does."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and len(load.rows) < RATE // 2:
        time.sleep(0.1)


def title(text: str) -> None:
    print(f"\n=== {text} ===\n", flush=True)


def main() -> int:
    """The demo; its exit code says whether all came as expected."""
    collections = subprocess.run(
        [CHECKOUT / "scripts" / "install-built"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    title("Five VMs, each with its own Consul agent, behind HAProxy")
    with Lab(vms=5, version="1.0.0", inventory_variables=VARIABLES, lifetime=1200) as lab:
        for vm in lab.vms:
            print(f"  {vm.name}  {vm.address}  runs {vm.running_version()}")
        demo = Demo(lab, collections)
        demo.new_version()
        demo.broken_version()
        demo.turns_bad()
        demo.control()
        demo.status()
    title("Result")
    for what in demo.failures:
        print(f"  NOT SO: {what}")
    print("  All came as expected." if not demo.failures else "  Something did not come as expected; see above.")
    return 1 if demo.failures else 0


if __name__ == "__main__":
    sys.exit(main())
