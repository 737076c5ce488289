# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machines of a lab: what runs on a Consul server, on the load balancer's machine, on a VM."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import deploy
from .agents import (
    HTTP_PORT,
    HTTPS_PORT,
    AgentSettings,
    Certificate,
    ConsulError,
    Http,
    LabError,
    configuration,
    quote,
)
from .binaries import find_tool
from .deploy_agent import DeployAgent
from .supervisor import SOCKET_NAME

if TYPE_CHECKING:
    from .fleet import Lab

HERE = Path(__file__).resolve().parent
APP_PORT = 8080
SSH_PORT = 2222
START_SECONDS = 60


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


def wait_until(
    what: str, condition: Callable[[], bool], seconds: float = START_SECONDS, log: Path | None = None
) -> None:
    """Return when `condition` holds; it is asked every 50 ms. LabError with the end of `log` otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            end = ""
            if log is not None and log.exists():
                end = "\n" + "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise LabError(f"{what}: not within {seconds:.0f} s{end}")
        time.sleep(0.05)


class Node:
    """A machine with a Consul agent: what servers, VMs, the controller and the load balancer have in common."""

    def __init__(self, lab: Lab, name: str, address: str) -> None:
        self.lab = lab
        self.name = name
        self.address = address
        self.directory = lab.directory / name
        self.agent_log = self.directory / "consul.log"
        port, scheme = (HTTPS_PORT, "https") if lab.settings.tls else (HTTP_PORT, "http")
        self.agent_url = f"{scheme}://{address}:{port}"

    @property
    def token(self) -> str:
        """The agent's own token, "" without ACLs."""
        return self.lab.settings.tokens.get(self.name, "")

    @property
    def agent(self) -> Http:
        """Calls to this node's agent, with the management token where there are ACLs."""
        return Http(self.agent_url, self.lab.management_token, self.lab.certificate)

    def _settings(self) -> AgentSettings:
        return AgentSettings(
            name=self.name,
            address=self.address,
            directory=self.directory,
            join=[server.address for server in self.lab.servers],
            version=tuple(int(part) for part in self.lab.settings.consul_version.split(".")),
            certificate=self._certificate(),
            acl=self.lab.settings.acl,
            agent_token=self.token,
        )

    def _certificate(self) -> Certificate | None:
        return self.lab.node_certificate(self)

    def configure(self) -> None:
        """Write the agent's configuration (consul.d/agent.json)."""
        folder = self.directory / "consul.d"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(configuration(self._settings()), indent=2)
        (folder / "agent.json").write_text(text, encoding="utf-8")

    def start_agent(self, wait: bool = True) -> None:
        """Start the agent; with `wait` return when its HTTP API answers."""
        self.lab.start_unit(
            f"{self.name}.consul",
            [self.lab.settings.consul, "agent", "-config-dir", str(self.directory / "consul.d")],
            self.agent_log,
        )
        if wait:
            self.wait_agent()

    def wait_agent(self) -> None:
        """Return when the agent's HTTP API answers."""

        def answers() -> bool:
            if not self.lab.unit_runs(f"{self.name}.consul"):
                end = self.agent_log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
                raise LabError(f"the Consul agent of {self.name} ended:\n" + "\n".join(end))
            try:
                self.agent.call("GET", "status/leader")
            except ConsulError as error:
                return error.status != 0
            return True

        wait_until(f"the Consul agent of {self.name} answers", answers, log=self.agent_log)

    def kill_agent(self) -> None:
        """kill -9, as a crash of the machine would; the catalog notices by gossip some seconds later."""
        self.lab.stop_unit(f"{self.name}.consul", signal.SIGKILL)

    def reload_agent(self) -> None:
        """consul reload."""
        self.agent.call("PUT", "agent/reload")


class Server(Node):
    """One of the Consul servers."""

    def _settings(self) -> AgentSettings:
        return replace(super()._settings(), servers=self.lab.settings.servers)

    def kill(self) -> None:
        """kill -9."""
        self.kill_agent()

    def start(self) -> None:
        """Start it (again)."""
        self.start_agent()


class LoadBalancerNode(Node):
    """The machine of the load balancer: its agent answers DNS questions about services."""

    def _settings(self) -> AgentSettings:
        return replace(super()._settings(), default_token=self.lab.settings.tokens.get("dns", ""))


class VM(Node):
    """A virtual machine: agent, service definition, application, sshd, and `deploy`, the user's real deployment."""

    def __init__(self, lab: Lab, number: int) -> None:
        prefix = lab.settings.service if re.fullmatch(r"[a-z][a-z0-9]*", lab.settings.service) else "vm"
        super().__init__(lab, f"{prefix}{number}", f"127.0.{lab.settings.network}.{10 + number}")
        self.number = number
        self.app_log = self.directory / "app.log"
        self.app_url = f"http://{self.address}:{APP_PORT}"
        self.deploys_log = self.directory / "deploys.log"
        self.units_directory = self.directory / "units"
        self.ssh_port = SSH_PORT
        self._unit = f"{self.name}.app"
        self.deploy_agent = DeployAgent(self)

    def service_definition(self) -> dict[str, Any]:
        """The service as the role consul_service is told of it."""
        settings = self.lab.settings
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
            service["version"] = settings.version
        return service

    def role_variables(self) -> dict[str, Any]:
        """What the role consul_service is told."""
        variables: dict[str, Any] = {
            "services": [self.service_definition()],
            "token": self.token,
            "config_dir": str(self.directory / "consul.d"),
            "owner": "",
            "group": "",
            "consul": self.lab.settings.consul,
            "drain_time": 1,
        }
        return {f"consul_service_{name}": value for name, value in variables.items()}

    def configure(self) -> None:
        super().configure()
        self.units_directory.mkdir(exist_ok=True)
        service = self.service_definition()
        certificate = self._certificate()
        check = service["checks"][0]
        registration = {
            "ID": service["id"],
            "Name": service["name"],
            "Address": service["address"],
            "Port": service["port"],
            "Tags": service["tags"],
            "Checks": [{"Name": check["name"], "HTTP": check["http"], **_duration(check)}],
        }
        facts = {
            "name": self.name,
            "address": self.address,
            "port": APP_PORT,
            "directory": str(self.directory),
            "supervisor": str(self.lab.directory / SOCKET_NAME),
            "unit": self._unit,
            "app": [sys.executable, "-I", str(HERE / "app.py"), str(self.directory / "vm.json")],
            "app_log": str(self.app_log),
            "deploys_log": str(self.deploys_log),
            "agent_url": self.agent_url,
            "token": self.token,
            "ca": str(certificate.ca) if certificate else "",
            "certificate": str(certificate.certificate) if certificate else "",
            "key": str(certificate.key) if certificate else "",
            "service": registration,
        }
        (self.directory / "vm.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
        script = self.directory / "deploy"
        text = (HERE / "deploy.py").read_text(encoding="utf-8")
        script.write_text(f"#!{sys.executable} -I\n{text}", encoding="utf-8")
        script.chmod(0o755)
        if self.lab.settings.agent:
            self.deploy_agent.configure()
        if self.lab.settings.ssh:
            self._configure_sshd()

    def _configure_sshd(self) -> None:
        key = self.directory / "ssh_host_ed25519_key"
        if not key.exists():
            self.lab.generate_key(key, self.name)
        (self.directory / "sshd_config").write_text(
            f"# Only for this VM of the lab: its own port, host key and one authorized key; works without root.\n"
            f"ListenAddress {self.address}:{SSH_PORT}\nHostKey {key}\n"
            f"AuthorizedKeysFile {self.lab.directory}/ssh/authorized_keys\nStrictModes no\nPidFile none\n"
            "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nUseDNS no\nPrintMotd no\nMaxStartups 200\nMaxSessions 100\n"
            "Subsystem sftp internal-sftp\n"
            # Else bash reads the ~/.bashrc of whoever runs the lab, for each command.
            "SetEnv SHLVL=1\n",
            encoding="utf-8",
        )

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
        unit = self.lab.units().get(self._unit)
        return None if unit is None or unit["exit_code"] is not None else unit["pid"]

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

    # -- units -----------------------------------------------------------------------------------------------------

    def start_units(self) -> list[str]:
        """Start (again) what the unit files in `units` describe, as systemd does at boot -> their names.

        Of a unit file it follows ExecStart and Environment: the process runs as the user of the lab.
        """
        names = []
        for file in sorted(self.units_directory.glob("*.service")):
            argv, environment = _unit_file(file.read_text(encoding="utf-8"))
            name = f"{self.name}.{file.stem}"
            self.lab.stop_unit(name, signal.SIGTERM)
            self.lab.start_unit(name, argv, self.directory / f"{file.stem}.log", environment)
            names.append(file.stem)
        return names

    def stop_units(self) -> None:
        """Stop them."""
        for file in self.units_directory.glob("*.service"):
            self.lab.stop_unit(f"{self.name}.{file.stem}", signal.SIGTERM)

    # -- sshd and the operator -------------------------------------------------------------------------------------

    def start_sshd(self, wait: bool = True) -> None:
        """Start the VM's sshd; with `wait` return when it accepts."""
        sshd = str(find_tool("sshd", "openssh-server"))
        log = self.directory / "sshd.log"
        self.lab.start_unit(f"{self.name}.sshd", [sshd, "-D", "-e", "-f", str(self.directory / "sshd_config")], log)
        if wait:
            self.wait_sshd()

    def wait_sshd(self) -> None:
        """Return when the sshd accepts connections."""
        log = self.directory / "sshd.log"
        wait_until(f"the sshd of {self.name} accepts", lambda: _accepts(self.address, SSH_PORT), 10, log)

    def stop_sshd(self) -> None:
        """The VM is out of reach: sshd and its open sessions are killed; commands they run on the VM live on."""
        self.lab.stop_unit(f"{self.name}.sshd", signal.SIGKILL, also="sshd")

    def operator_maintenance(self, reason: str, enable: bool = True) -> None:
        """What an operator does by hand: `consul maint -service web -reason …`, or -disable."""
        query = urllib.parse.urlencode({"enable": str(enable).lower(), "reason": reason})
        self.agent.call("PUT", f"agent/service/maintenance/{quote(self.lab.settings.service)}?{query}")

    def maintenance_reason(self) -> str | None:
        """The Notes of the service's maintenance check as the catalog shows it, None when there is none."""
        for check in self.lab.consul_get(f"health/node/{quote(self.name)}"):
            if check["CheckID"] == f"_service_maintenance:{self.lab.settings.service}":
                return str(check["Notes"])
        return None


def _duration(check: Mapping[str, Any]) -> dict[str, str]:
    """Interval, timeout and deregistration of a check in the spelling of the agent's API."""
    names = {
        "interval": "Interval",
        "timeout": "Timeout",
        "deregister_critical_service_after": "DeregisterCriticalServiceAfter",
    }
    return {api: check[key] for key, api in names.items() if key in check}


def _unit_file(text: str) -> tuple[list[str], dict[str, str]]:
    """ExecStart and Environment of a unit file; systemd splits both much as a shell does."""
    settings = [line.partition("=")[::2] for line in text.splitlines() if "=" in line and not line.startswith("#")]
    argv = next(shlex.split(value) for name, value in settings if name == "ExecStart")
    pairs = [pair.partition("=") for name, value in settings if name == "Environment" for pair in shlex.split(value)]
    return argv, {name: value for name, _, value in pairs}


def _accepts(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False
