# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A virtual machine of a lab: agent, service, application, sshd, and `deploy`, the user's real deployment."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import deploy
from .agents import AgentSettings, quote
from .deploy_agent import DeployAgent
from .network import APP_PORT, vm_address
from .nodes import Node
from .site import Site
from .ssh import Sshd

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Deploy:
    """One run of a VM's deploy script. `end` and `code` are None while it runs, or when it was killed with -9."""

    start: float
    version: str
    reason: str
    deployment: str
    pid: int
    end: float | None = None
    code: int | None = None


class VM(Node):
    """One of a lab's virtual machines; all of them share the file system of this one."""

    def __init__(self, site: Site, number: int) -> None:
        service = site.settings.service
        prefix = service if re.fullmatch(r"[a-z][a-z0-9]*", service) else "vm"
        super().__init__(site, f"{prefix}{number}", vm_address(site.settings.network, number))
        self.number = number
        self.app_log = self.directory / "app.log"
        self.app_url = f"http://{self.address}:{APP_PORT}"
        self.deploys_log = self.directory / "deploys.log"
        self.units_directory = self.directory / "units"
        self._unit = f"{self.name}.app"
        self._boot_id_file = self.directory / "boot_id"
        self._sshd = Sshd(self)
        self.deploy_agent = DeployAgent(self)

    @property
    def zone(self) -> str:
        """The zone that it is in; empty where there are none."""
        zones = self.site.settings.zones
        return f"zone{(self.number - 1) % zones + 1}" if zones else ""

    def _settings(self) -> AgentSettings:
        return replace(super()._settings(), node_meta={"zone": self.zone} if self.zone else None)

    def service_definition(self) -> dict[str, Any]:
        """The service as Consul's configuration has it, which is how the role consul_service is told of it."""
        settings = self.site.settings
        check: dict[str, Any] = {
            "name": f"{settings.service} answers",
            "http": f"{self.app_url}/health",
            "interval": settings.check_interval,
            "timeout": settings.check_timeout,
        }
        if settings.deregister_after is not None:
            check["deregister_critical_service_after"] = settings.deregister_after
        service: dict[str, Any] = {
            "id": settings.service,
            "name": settings.service,
            "address": self.address,
            "port": APP_PORT,
            "tags": settings.tags,
            "checks": [check],
        }
        if settings.version_meta:
            service["meta"] = {"version": settings.version}
        return service

    def role_variables(self) -> dict[str, Any]:
        """What the role consul_service is told."""
        variables: dict[str, Any] = {
            "services": [self.service_definition()],
            "token": self.token,
            "config_dir": str(self.directory / "consul.d"),
            "owner": "",
            "group": "",
            "consul": self.site.settings.consul,
            "drain_time": 1,
        }
        return {f"consul_service_{name}": value for name, value in variables.items()}

    def configure(self) -> None:
        """Write what the machine starts with, but its service definition."""
        super().configure()
        self.units_directory.mkdir(exist_ok=True)
        (self.directory / "vm.json").write_text(json.dumps(self._description(), indent=2), encoding="utf-8")
        text = (HERE / "deploy.py").read_text(encoding="utf-8")
        for name in ("deploy", "restart", "reboot"):
            script = self.directory / name
            script.write_text(f"#!{sys.executable} -I\n{text}", encoding="utf-8")
            script.chmod(0o755)
        self._boot_id_file.write_text("1\n", encoding="utf-8")
        if self.site.settings.agent:
            self.deploy_agent.configure()
        if self.site.settings.ssh:
            self._sshd.configure()

    def _description(self) -> dict[str, Any]:
        """vm.json: what the deploy script and the application know."""
        certificate = self.certificate
        return {
            "name": self.name,
            "zone": self.zone,
            "address": self.address,
            "port": APP_PORT,
            "directory": str(self.directory),
            "supervisor": str(self.site.units.socket),
            "boot_id": str(self._boot_id_file),
            "version": self.site.settings.version,
            "unit": self._unit,
            "outage": str(self.site.outage),
            "app": [sys.executable, "-I", str(HERE / "app.py"), str(self.directory / "vm.json")],
            "app_log": str(self.app_log),
            "deploys_log": str(self.deploys_log),
            "agent_url": self.agent_url,
            "token": self.token,
            "ca": str(certificate.ca) if certificate else "",
            "certificate": str(certificate.certificate) if certificate else "",
            "key": str(certificate.key) if certificate else "",
            "service": _registration(self.service_definition()),
        }

    def start(self, version: str) -> None:
        """Start all but the deploy agent, without waiting for anything."""
        self.start_agent(wait=False)
        self.start_app(version)
        if self.site.settings.ssh:
            self.start_sshd(wait=False)

    def wait_started(self) -> None:
        """Return when Consul agent and sshd answer, and the deploy agent has begun: `consul watch` needs the former."""
        self.wait_agent()
        if self.site.settings.agent:
            self.deploy_agent.start()
        if self.site.settings.ssh:
            self.wait_sshd()

    def stop(self) -> None:
        """Stop what runs beside the Consul agent."""
        self.stop_app()
        self.stop_units()
        if self.site.settings.agent:
            self.deploy_agent.stop()
        if self.site.settings.ssh:
            self.stop_sshd()

    # -- the application -------------------------------------------------------------------------------------------

    @property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.directory / "vm.json").read_text(encoding="utf-8"))
        return facts

    def start_app(self, version: str) -> None:
        """Stop the running application gracefully and start `version`, as the deploy script does but unlogged."""
        deploy.restart(self._facts, version)

    def stop_app(self) -> bool:
        """Stop the application gracefully; False when none ran."""
        return deploy.stop(self._facts)

    def running_version(self) -> str | None:
        """The version of the running process, None without one. Says nothing about its health."""
        return deploy.running_version(self._facts)

    def app_pid(self) -> int | None:
        """The application's pid, None when none runs."""
        return self.site.units.pid(self._unit)

    def checked(self) -> bool:
        """Whether the agent's check has reached the process that runs now: its output holds what that one said.

        The agent has the output of the last run, the catalog only that of the last change.
        """
        pid = self.app_pid()
        checks = self.agent.call("GET", "agent/checks").values()
        return pid is not None and any(f'"pid": {pid},' in check["Output"] for check in checks)

    def deploy(self, version: str, reason: str = "deploy") -> subprocess.CompletedProcess[str]:
        """Run the deploy script here and now, without draining anything."""
        environment = {**os.environ, "DEPLOY_VERSION": version, "DEPLOY_REASON": reason, "DEPLOY_ID": "by-hand"}
        command = [str(self.directory / "deploy")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)

    def deploys(self) -> list[Deploy]:
        """All runs of the deploy script, in order of their start."""
        runs: dict[tuple[int, float], dict[str, Any]] = {}
        if self.deploys_log.exists():
            for line in self.deploys_log.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                runs.setdefault((entry["pid"], entry["start"]), {}).update(entry)
        return sorted((Deploy(**run) for run in runs.values()), key=lambda run: run.start)

    def boot_id(self) -> str:
        """Another one after each reboot: all VMs share the kernel's own."""
        return self._boot_id_file.read_text(encoding="utf-8").strip()

    # -- units -----------------------------------------------------------------------------------------------------

    def start_units(self) -> list[str]:
        """Start (again) what the unit files in `units` describe, as systemd does at boot -> their names.

        Of a unit file it follows ExecStart and Environment: the process runs as the user of the lab.
        """
        names = []
        for file in sorted(self.units_directory.glob("*.service")):
            argv, environment = _unit_file(file.read_text(encoding="utf-8"))
            name = f"{self.name}.{file.stem}"
            self.site.units.stop(name, signal.SIGTERM)
            self.site.units.start(name, argv, self.directory / f"{file.stem}.log", environment)
            names.append(file.stem)
        return names

    def stop_units(self) -> None:
        """Stop them."""
        for file in self.units_directory.glob("*.service"):
            self.site.units.stop(f"{self.name}.{file.stem}", signal.SIGTERM)

    # -- sshd and the operator -------------------------------------------------------------------------------------

    def start_sshd(self, wait: bool = True) -> None:
        """Start the VM's sshd; with `wait` return when it accepts."""
        self._sshd.start(wait)

    def wait_sshd(self) -> None:
        """Return when the sshd accepts connections."""
        self._sshd.wait()

    def stop_sshd(self) -> None:
        """The VM is out of reach: sshd and its open sessions are killed; commands they run on the VM live on."""
        self._sshd.stop()

    def operator_maintenance(self, reason: str, enable: bool = True) -> None:
        """What an operator does by hand: `consul maint -service web -reason …`, or -disable."""
        query = urllib.parse.urlencode({"enable": str(enable).lower(), "reason": reason})
        self.agent.call("PUT", f"agent/service/maintenance/{quote(self.site.settings.service)}?{query}")

    def maintenance_reason(self) -> str | None:
        """The Notes of the service's maintenance check as the catalog shows it, None when there is none."""
        for check in self.site.consul.call("GET", f"health/node/{quote(self.name)}"):
            if check["CheckID"] == f"_service_maintenance:{self.site.settings.service}":
                return str(check["Notes"])
        return None


def _registration(service: Mapping[str, Any]) -> dict[str, Any]:
    """The same service in the spelling of the agent's API, as an application that registers itself sends it."""
    names = {
        "name": "Name",
        "http": "HTTP",
        "interval": "Interval",
        "timeout": "Timeout",
        "deregister_critical_service_after": "DeregisterCriticalServiceAfter",
    }
    checks = [{api: check[key] for key, api in names.items() if key in check} for check in service["checks"]]
    return {
        "ID": service["id"],
        "Name": service["name"],
        "Address": service["address"],
        "Port": service["port"],
        "Tags": service["tags"],
        "Checks": checks,
    }


def _unit_file(text: str) -> tuple[list[str], dict[str, str]]:
    """ExecStart and Environment of a unit file; systemd splits both much as a shell does."""
    settings = [line.partition("=")[::2] for line in text.splitlines() if "=" in line and not line.startswith("#")]
    argv = next(shlex.split(value) for name, value in settings if name == "ExecStart")
    pairs = [pair.partition("=") for name, value in settings if name == "Environment" for pair in shlex.split(value)]
    return argv, {name: value for name, _, value in pairs}
