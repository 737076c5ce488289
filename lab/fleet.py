# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet on one machine: virtual machines on loopback addresses, Consul servers, a load balancer.

Addresses of lab number N: servers 127.0.N.1 to .3, the load balancer's machine .4, the controller's .5, VMs from .11.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from . import deploy, inventory
from .agents import DNS_PORT, HTTP_PORT, HTTPS_PORT, AgentSettings, Authority, Certificate, ConsulError, Http, LabError
from .agents import configuration, quote
from .binaries import BinaryError, consul_version, find_consul, find_tool
from .load import LoadGenerator
from .supervisor import SOCKET_NAME

HERE = Path(__file__).resolve().parent
APP_PORT = 8080
SSH_PORT = 2222
FRONTEND_PORT = 8000
STATS_PORT = 8404
SLOTS = 50
START_SECONDS = 60
NETWORKS = range(20, 200)


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


@dataclass
class Settings:
    """What a lab was asked to be, and what it became; kept in lab.json, so that another process can use the lab."""

    directory: str
    network: int
    service: str
    version: str
    servers: int
    ssh: bool
    acl: bool
    tls: bool
    haproxy_retries: bool
    check_interval: str
    check_timeout: str
    deregister_after: str | None
    version_meta: bool
    tags: list[str]
    consul: str
    consul_version: str
    inventory_variables: dict[str, Any] = field(default_factory=dict)
    vms: list[int] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)  # per node name; "management", "dns"


def wait_until(what: str, condition: Callable[[], bool], seconds: float = START_SECONDS, log: Path | None = None) -> None:
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
        settings = asdict(super()._settings())
        return AgentSettings(**{**settings, "servers": self.lab.settings.servers, "certificate": self._certificate()})

    def kill(self) -> None:
        """kill -9."""
        self.kill_agent()

    def start(self) -> None:
        """Start it (again)."""
        self.start_agent()


class LoadBalancerNode(Node):
    """The machine of the load balancer: its agent answers DNS questions about services."""

    def _settings(self) -> AgentSettings:
        settings = asdict(super()._settings())
        default = self.lab.settings.tokens.get("dns", "")
        return AgentSettings(**{**settings, "default_token": default, "certificate": self._certificate()})


class VM(Node):
    """A virtual machine: agent, service definition, application, sshd, and `deploy`, the user's real deployment."""

    def __init__(self, lab: Lab, number: int) -> None:
        prefix = lab.settings.service if re.fullmatch(r"[a-z][a-z0-9]*", lab.settings.service) else "vm"
        super().__init__(lab, f"{prefix}{number}", f"127.0.{lab.settings.network}.{10 + number}")
        self.number = number
        self.app_log = self.directory / "app.log"
        self.app_url = f"http://{self.address}:{APP_PORT}"
        self.deploys_log = self.directory / "deploys.log"
        self.ssh_port = SSH_PORT
        self._unit = f"{self.name}.app"

    def service_definition(self) -> dict[str, Any]:
        """The service as the agent's configuration has it (lower case keys)."""
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
            service["meta"] = {"version": settings.version}
        if self.token:
            service["token"] = self.token
        return service

    def configure(self) -> None:
        super().configure()
        service = self.service_definition()
        definition = json.dumps({"service": service}, indent=2)
        (self.directory / "consul.d" / "service.json").write_text(definition, encoding="utf-8")
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
            "Subsystem sftp internal-sftp\n",
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
    names = {"interval": "Interval", "timeout": "Timeout", "deregister_critical_service_after": "DeregisterCriticalServiceAfter"}
    return {api: check[key] for key, api in names.items() if key in check}


def _accepts(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False


class HAProxy:
    """The load balancer, as in haproxy.cfg.template."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.config = lab.directory / "haproxy.cfg"
        self.log = lab.directory / "haproxy.log"
        self.url = f"http://{lab.controller.address}:{FRONTEND_PORT}"
        self.stats_url = f"http://{lab.controller.address}:{STATS_PORT}/"

    def configure(self) -> None:
        """Write the configuration file."""
        if self.lab.settings.haproxy_retries:
            retries = (
                "    # A request that no instance has seen goes to another one. Only GET is sent again after that.\n"
                "    option redispatch 1\n    retries 3\n    retry-on conn-failure empty-response\n"
                "    http-request disable-l7-retry if ! METH_GET"
            )
        else:
            retries = "    # Nothing is tried again, so that a missing drain shows. In production: retries and redispatch on.\n"
            retries += "    retries 0"
        template = string.Template((HERE / "haproxy.cfg.template").read_text(encoding="utf-8"))
        text = template.substitute(
            directory=self.lab.directory,
            dns=f"{self.lab.load_balancer.address}:{DNS_PORT}",
            service=self.lab.settings.service,
            frontend=f"{self.lab.controller.address}:{FRONTEND_PORT}",
            stats=f"{self.lab.controller.address}:{STATS_PORT}",
            slots=SLOTS,
            retries=retries,
        )
        self.config.write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Start it (in master-worker mode, so that it can reload)."""
        program = str(find_tool("haproxy", "haproxy"))
        done = subprocess.run([program, "-c", "-f", str(self.config)], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise LabError(f"HAProxy refuses {self.config}:\n{done.stderr}")
        self.lab.start_unit("haproxy", [program, "-W", "-f", str(self.config)], self.log)

    def stop(self) -> None:
        """Stop it at once."""
        self.lab.stop_unit("haproxy", signal.SIGTERM)

    def reload(self) -> None:
        """Read the configuration file again without losing connections."""
        self.lab.ask({"op": "signal", "unit": "haproxy", "signal": int(signal.SIGUSR2)})

    def command(self, text: str) -> str:
        """The answer of HAProxy's runtime API ("show stat", …)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(str(self.lab.directory / "haproxy.sock"))
            connection.sendall(text.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def servers_up(self) -> list[str]:
        """Addresses (with port) of the instances that get traffic now."""
        try:
            lines = self.command("show stat").splitlines()
        except OSError:
            return []
        names = lines[0].lstrip("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]
        service = self.lab.settings.service
        servers = [row for row in rows if row["pxname"] == service and row["svname"] not in ("FRONTEND", "BACKEND")]
        return sorted(row["addr"] for row in servers if row["status"].startswith("UP"))


class Lab:
    """A running fleet; a context manager. All arguments are keywords:

    vms, servers: how many (servers 1 to 3). service, version: what runs first. consul: None (any), a version, a path.
    ssh: an sshd on each VM. acl: default-deny with a token per agent. tls: HTTPS with client certificates.
    haproxy_retries: retries and redispatch, as a production load balancer would (they hide losses: off for counting).
    directory: where its state goes (made, and removed at the end; None: a new one under /tmp). lifetime: seconds after
    which it ends by itself. check_interval, check_timeout, deregister_after: of the service's HTTP check.
    version_meta: the service's meta tells the first version. tags: of the service. inventory_variables: for every VM,
    beside what is needed. keep: leave the directory for a look.
    detached: it outlives this process (until stop() or the lifetime). state_file: removed when the lab ends.
    """

    def __init__(
        self,
        *,
        vms: int = 5,
        servers: int = 1,
        service: str = "web",
        version: str = "1.0.0",
        consul: str | None = None,
        ssh: bool = True,
        acl: bool = False,
        tls: bool = False,
        haproxy_retries: bool = False,
        directory: str | Path | None = None,
        lifetime: float = 1800,
        check_interval: str = "1s",
        check_timeout: str = "1s",
        deregister_after: str | None = None,
        version_meta: bool = True,
        tags: Sequence[str] = (),
        inventory_variables: Mapping[str, Any] | None = None,
        keep: bool = False,
        detached: bool = False,
        state_file: Path | None = None,
    ) -> None:
        if not 1 <= vms <= SLOTS:
            raise LabError(f"vms is {vms}: a lab has 1 to {SLOTS}")
        if not 1 <= servers <= 3:
            raise LabError(f"servers is {servers}: a lab has 1 to 3")
        self._wanted_consul = consul
        self._lifetime = lifetime
        self._keep = keep or bool(os.environ.get("HITLESS_LAB_KEEP"))
        self._detached = detached
        self._state_file = state_file
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._loads = 0
        self._setup(
            Settings(
                directory="" if directory is None else str(Path(directory).resolve()),
                network=0,
                service=service,
                version=version,
                servers=servers,
                ssh=ssh,
                acl=acl,
                tls=tls,
                haproxy_retries=haproxy_retries,
                check_interval=check_interval,
                check_timeout=check_timeout,
                deregister_after=deregister_after,
                version_meta=version_meta,
                tags=list(tags),
                inventory_variables=dict(inventory_variables or {}),
                consul="",
                consul_version="0.0.0",
                vms=list(range(1, vms + 1)),
            )
        )

    def _setup(self, settings: Settings) -> None:
        """Build the objects that `settings` describe."""
        self.settings = settings
        self.directory = Path(settings.directory)
        network = f"127.0.{settings.network}"
        self.servers = [Server(self, f"server{n}", f"{network}.{n}") for n in range(1, settings.servers + 1)]
        self.load_balancer = LoadBalancerNode(self, "lb", f"{network}.4")
        self.controller = Node(self, "controller", f"{network}.5")
        self.vms = [VM(self, number) for number in settings.vms]
        self.haproxy = HAProxy(self)
        self.url = self.controller.agent_url
        self.frontend = self.haproxy.url

    @classmethod
    def attach(cls, directory: str | Path) -> Lab:
        """The lab that runs in `directory`, started by another process; LabError when none does."""
        file = Path(directory) / "lab.json"
        try:
            settings = Settings(**json.loads(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise LabError(f"no lab runs in {directory}") from error
        lab = cls()
        lab._setup(settings)
        lab.units()
        return lab

    # -- start and stop --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; returns when all instances are passing and the load balancer serves them all."""
        try:
            consul = find_consul(self._wanted_consul)
            find_tool("haproxy", "haproxy")
            if self.settings.ssh:
                find_tool("sshd", "openssh-server")
                find_tool("ssh-keygen", "openssh-client")
            if self.settings.tls:
                find_tool("openssl", "openssl")
        except BinaryError as error:
            raise LabError(str(error)) from error
        lock, network = _take_network(self.settings)
        with lock:
            directory = self._make_directory()
            found = {"directory": directory, "network": network, "consul": str(consul)}
            self._setup(Settings(**{**asdict(self.settings), **found, "consul_version": consul_version(consul)}))
            self._start_supervisor(lock)
        try:
            self._start_fleet()
        except BaseException:
            self.stop()
            raise

    def _make_directory(self) -> str:
        wanted = self.settings.directory
        if not wanted:
            return tempfile.mkdtemp(prefix="hitless-lab-", dir="/tmp")
        path = Path(wanted)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise LabError(f"{wanted} is not empty: a lab removes its directory at the end, so it must start with none")
        if len(wanted) > 80:
            raise LabError(f"{wanted} is too long a path for Unix sockets: take one below 80 characters")
        return wanted

    def _start_supervisor(self, lock: socket.socket) -> None:
        settings = {
            "directory": str(self.directory),
            "lifetime": self._lifetime,
            "owner": None if self._detached else os.getpid(),
            "keep": self._keep,
            "remove": [] if self._state_file is None else [str(self._state_file)],
        }
        with (self.directory / "supervisor.log").open("wb") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", str(HERE / "supervisor.py"), json.dumps(settings)],
                stdin=subprocess.DEVNULL if self._detached else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock.fileno()],  # it holds the network as long as it lives
            )
        assert self._supervisor.stdout is not None
        ready = self._supervisor.stdout.readline()
        self._supervisor.stdout.close()
        if ready != b"ready\n":
            raise LabError(f"the supervisor did not start: {(self.directory / 'supervisor.log').read_text()}")

    def _start_fleet(self) -> None:
        if self.settings.ssh:
            self._prepare_ssh()
        for server in self.servers:
            server.configure()
            server.start_agent(wait=False)
        if self.settings.acl:
            self._bootstrap_acl()
        nodes: list[Node] = [self.load_balancer, self.controller, *self.vms]
        for node in nodes:
            node.configure()
            node.start_agent(wait=False)
        self.haproxy.configure()
        self.haproxy.start()
        for vm in self.vms:
            vm.start_app(self.settings.version)
            if self.settings.ssh:
                vm.start_sshd(wait=False)
        self.write_inventory()
        self._save()
        for node in [*self.servers, *nodes]:
            node.wait_agent()
        if self.settings.ssh:
            self._write_known_hosts()
            for vm in self.vms:
                vm.wait_sshd()
        self.wait_passing()

    def wait_passing(self, count: int | None = None) -> None:
        """Return when `count` instances (all) are passing in the catalog and get traffic."""
        wanted = len(self.vms) if count is None else count
        wait_until(f"{wanted} instances are passing", lambda: len(self._passing()) == wanted)
        wait_until(f"{wanted} instances get traffic", lambda: len(self.haproxy.servers_up()) == wanted, log=self.haproxy.log)

    def _passing(self) -> list[str]:
        try:
            return [entry["Node"]["Node"] for entry in self.services(passing=True)]
        except ConsulError:
            return []

    def stop(self) -> None:
        """End every process and remove the directory; harmless when it has ended already."""
        with contextlib.suppress(OSError, RuntimeError):
            self.ask({"op": "end"})
        if self._supervisor is not None:
            if self._supervisor.stdin is not None:
                self._supervisor.stdin.close()
            self._supervisor.wait()
            self._supervisor = None

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _save(self) -> None:
        text = json.dumps(asdict(self.settings), indent=2)
        temporary = self.directory / "lab.json.new"
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(self.directory / "lab.json")

    # -- the supervisor --------------------------------------------------------------------------------------------

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request to the supervisor."""
        return deploy.ask(str(self.directory / SOCKET_NAME), request)

    def units(self) -> dict[str, dict[str, Any]]:
        """All processes of the lab: name -> pid, argv, started, exit_code (None while it runs)."""
        try:
            units: dict[str, dict[str, Any]] = self.ask({"op": "list"})["units"]
        except OSError as error:
            raise LabError(f"the lab in {self.directory} does not run any more") from error
        return units

    def unit_runs(self, name: str) -> bool:
        """Whether that process is running."""
        unit = self.units().get(name)
        return unit is not None and unit["exit_code"] is None

    def start_unit(self, name: str, argv: Sequence[str], log: Path) -> None:
        """Start a long-running process of the lab; it ends with the lab."""
        environment = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
        request = {"op": "start", "unit": name, "argv": list(argv), "env": {**environment, "LANG": "C.UTF-8"}, "log": str(log)}
        try:
            self.ask(request)
        except RuntimeError as error:
            raise LabError(f"{name} does not start: {error}") from error

    def stop_unit(self, name: str, number: signal.Signals, also: str | None = None) -> bool:
        """Send the signal and wait for the process to end (10 s, then by force)."""
        return bool(self.ask({"op": "stop", "unit": name, "signal": int(number), "also": also})["stopped"])

    # -- Consul ----------------------------------------------------------------------------------------------------

    @property
    def management_token(self) -> str:
        """The token that may do everything; "" without ACLs."""
        return self.settings.tokens.get("management", "")

    @property
    def certificate(self) -> Certificate | None:
        """The controller's client certificate, None without TLS."""
        return self.node_certificate(self.controller)

    def node_certificate(self, node: Node) -> Certificate | None:
        """The certificate of a node, made when first asked for; None without TLS."""
        if not self.settings.tls:
            return None
        folder = self.directory / "tls"
        certificate = Certificate(folder / "ca.pem", folder / f"{node.name}.pem", folder / f"{node.name}.key")
        if not certificate.certificate.exists():
            authority = Authority(find_tool("openssl", "openssl"), folder)
            authority.issue(node.name, node.address, isinstance(node, Server))
        return certificate

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which Ansible and the consul command find this lab: CONSUL_HTTP_ADDR and company."""
        variables = {"CONSUL_HTTP_ADDR": self.url}
        if self.settings.acl:
            variables["CONSUL_HTTP_TOKEN"] = self.management_token
        certificate = self.certificate
        if certificate is not None:
            variables |= {
                "CONSUL_HTTP_SSL": "true",
                "CONSUL_CACERT": str(certificate.ca),
                "CONSUL_CLIENT_CERT": str(certificate.certificate),
                "CONSUL_CLIENT_KEY": str(certificate.key),
            }
        return variables

    @property
    def consul(self) -> Http:
        """Calls to the controller's agent, with the management token where there are ACLs."""
        return self.controller.agent

    def consul_get(self, path: str, token: str | None = None) -> Any:
        """Decoded answer of GET /v1/<path>; ConsulError with .status otherwise."""
        return self.consul.call("GET", path, token=token)

    def consul_put(self, path: str, body: Any = None, token: str | None = None) -> Any:
        """Decoded answer of PUT /v1/<path> with `body` (bytes as they are, else as JSON)."""
        return self.consul.call("PUT", path, body, token=token)

    def kv(self, key: str) -> str | None:
        """The text of a key, None when there is no such key."""
        try:
            value = self.consul.call("GET", f"kv/{urllib.parse.quote(key)}?raw&consistent")
        except ConsulError as error:
            if error.status == 404:
                return None
            raise
        return value.decode() if isinstance(value, bytes) else json.dumps(value) if value is not None else "null"

    def services(self, passing: bool = False) -> list[dict[str, Any]]:
        """health/service entries of the lab's service, in order of their node's name."""
        entries = self.consul_get(f"health/service/{quote(self.settings.service)}?consistent{'&passing' if passing else ''}")
        return sorted(entries, key=lambda entry: str(entry["Node"]["Node"]))

    def leader(self) -> Server | None:
        """The server that leads now, as one of the running servers says; None while there is none."""
        for server in self.servers:
            with contextlib.suppress(ConsulError):
                address = str(server.agent.call("GET", "status/leader")).rpartition(":")[0]
                found = next((one for one in self.servers if one.address == address), None)
                # A server that has not noticed yet may still name one that was killed.
                if found is not None and self.unit_runs(f"{found.name}.consul"):
                    return found
        return None

    def create_token(self, rules: str, description: str = "lab") -> str:
        """A new token with one policy of these rules (HCL); its secret."""
        name = f"{description}-{os.urandom(4).hex()}"
        leader = self.servers[0].agent
        policy = leader.call("PUT", "acl/policy", {"Name": name, "Rules": rules})
        token = leader.call("PUT", "acl/token", {"Description": description, "Policies": [{"ID": policy["ID"]}]})
        return str(token["SecretID"])

    def _bootstrap_acl(self) -> None:
        first = self.servers[0]
        first.wait_agent()
        found: dict[str, str] = {}

        def bootstrap() -> bool:
            try:
                found["management"] = first.agent.call("PUT", "acl/bootstrap")["SecretID"]
            except ConsulError:  # no leader yet, or the ACL system is not ready
                return False
            return True

        wait_until("the ACL system is ready", bootstrap, log=first.agent_log)
        self.settings.tokens |= found
        for server in self.servers:
            server.wait_agent()
            token = self._node_token(server.name)
            server.agent.call("PUT", "agent/token/agent", {"Token": token})
        self._node_token("lb")
        self._node_token("controller")
        # HAProxy asks without a token: the agent of the load balancer's machine answers by this one.
        reads = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'
        self.settings.tokens["dns"] = self.create_token(reads, "dns")
        for vm in self.vms:
            self._node_token(vm.name, service=True)

    def _node_token(self, name: str, service: bool = False) -> str:
        rules = f'node "{name}" {{ policy = "write" }} agent "{name}" {{ policy = "write" }}'
        rules += ' node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }'
        if service:
            rules += f' service "{self.settings.service}" {{ policy = "write" }}'
        token = self.create_token(rules, f"agent-{name}")
        self.settings.tokens[name] = token
        return token

    # -- growth ----------------------------------------------------------------------------------------------------

    def add_vm(self, version: str | None = None, wait: bool = True) -> VM:
        """One more VM, running `version` (the lab's first); with `wait` return when it is passing and gets traffic."""
        if len(self.vms) >= SLOTS:
            raise LabError(f"the lab has {SLOTS} VMs already, as many as the load balancer has slots")
        vm = VM(self, max((vm.number for vm in self.vms), default=0) + 1)
        if self.settings.acl:
            self._node_token(vm.name, service=True)
        vm.configure()
        vm.start_agent(wait=False)
        vm.start_app(version or self.settings.version)
        if self.settings.ssh:
            vm.start_sshd(wait=False)
        self.vms.append(vm)
        self.settings.vms = [one.number for one in self.vms]
        vm.wait_agent()
        if self.settings.ssh:
            self._write_known_hosts()
            vm.wait_sshd()
        self.write_inventory()
        self._save()
        if wait:
            wait_until(f"{vm.name} is passing", lambda: vm.name in self._passing())
            wait_until(f"{vm.name} gets traffic", lambda: f"{vm.address}:{APP_PORT}" in self.haproxy.servers_up())
        return vm

    def remove_vm(self, name: str) -> None:
        """Take a VM away properly: its agent leaves, then everything on it stops."""
        vm = self.vm(name)
        vm.agent.call("PUT", "agent/leave", timeout=20)
        wait_until(f"{name} has left", lambda: not self.unit_runs(f"{name}.consul"), 20)
        vm.stop_app()
        if self.settings.ssh:
            vm.stop_sshd()
        self.vms.remove(vm)
        self.settings.vms = [one.number for one in self.vms]
        shutil.rmtree(vm.directory, ignore_errors=True)
        self.write_inventory()
        self._save()

    def vm(self, name: str) -> VM:
        """The VM of that name."""
        for vm in self.vms:
            if vm.name == name:
                return vm
        raise LabError(f"no VM is called {name}: there are {', '.join(vm.name for vm in self.vms)}")

    # -- SSH, inventory, load --------------------------------------------------------------------------------------

    def generate_key(self, path: Path, comment: str) -> None:
        """A new key pair without a passphrase."""
        keygen = str(find_tool("ssh-keygen", "openssh-client"))
        command = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)

    def _prepare_ssh(self) -> None:
        folder = self.directory / "ssh"
        folder.mkdir(mode=0o700)
        self.generate_key(folder / "key", "lab")
        shutil.copyfile(folder / "key.pub", folder / "authorized_keys")
        if os.geteuid() == 0:
            # Privilege separation of an sshd that root starts; Debian's unit makes it, a container has none.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        (folder / "config").write_text(
            f"Host *\n    User {_user()}\n    Port {SSH_PORT}\n    IdentityFile {folder}/key\n    IdentitiesOnly yes\n"
            f"    UserKnownHostsFile {folder}/known_hosts\n    GlobalKnownHostsFile /dev/null\n"
            "    StrictHostKeyChecking yes\n",
            encoding="utf-8",
        )

    def _write_known_hosts(self) -> None:
        lines = []
        for vm in self.vms:
            kind, key = (vm.directory / "ssh_host_ed25519_key.pub").read_text(encoding="utf-8").split()[:2]
            lines.append(f"[{vm.address}]:{SSH_PORT} {kind} {key}\n")
        (self.directory / "ssh" / "known_hosts").write_text("".join(lines), encoding="utf-8")

    def write_inventory(self, variables: Mapping[str, Any] | None = None) -> Path:
        """Write all inventories (again) and return their folder; `variables` replace the lab's inventory_variables.

        static-local.yml and static-ssh.yml: hosts web1… in the group `web` (the service's name). local/web.consul.yml
        and ssh/web.consul.yml: sources of hitless.consul.catalog with the connection in a group_vars/all.yml.
        """
        folder = self.directory / "inventory"
        if variables is not None:
            self.settings.inventory_variables = dict(variables)
        common = {"rollout_deploy_command": "{{ lab_vm_dir }}/deploy", **self.settings.inventory_variables}
        source = {"plugin": "hitless.consul.catalog", "url": self.url}
        for kind in ("local", "ssh") if self.settings.ssh else ("local",):
            hosts = {
                vm.name: self._host(vm.name, vm.name, vm.address, vm.agent_url, kind, vm.directory) for vm in self.vms
            }
            static = {"all": {"children": {self.settings.service: {"hosts": hosts, "vars": common}}}}
            inventory.write(folder / f"static-{kind}.yml", static, f"The lab's VMs, {kind} connections.")
            inventory.write(folder / kind / "web.consul.yml", source, "Who is there, Consul knows.")
            address = "{{ consul_address }}"
            agent_url = self.controller.agent_url.replace(self.controller.address, address)
            node_directory = f"{self.directory}/{{{{ consul_node }}}}"
            host = self._host("{{ consul_node }}", None, address, agent_url, kind, node_directory)
            inventory.write(folder / kind / "group_vars" / "all.yml", {**host, **common}, f"Reached by {kind} connections.")
        return folder

    def _host(
        self, name: str, node: str | None, address: str, agent_url: str, kind: str, directory: Path | str
    ) -> dict[str, Any]:
        """Variables of one host; `node` only where the inventory does not say it itself."""
        ssh = self.directory / "ssh"
        if kind == "ssh":
            connection = inventory.ssh_connection(address, SSH_PORT, _user(), ssh / "key", ssh / "config")
        else:
            connection = inventory.local_connection()
        variables = {} if node is None else {"consul_node": node, "consul_address": address}
        variables |= {**connection, "hitless_consul_agent_url": agent_url, "lab_vm_dir": str(directory)}
        if self.settings.tls:
            variables |= {
                "hitless_consul_agent_ca_path": f"{self.directory}/tls/ca.pem",
                "hitless_consul_agent_client_cert": f"{self.directory}/tls/{name}.pem",
                "hitless_consul_agent_client_key": f"{self.directory}/tls/{name}.key",
            }
        return variables

    def load(
        self, *, rate: float = 100, seconds: float = 900, timeout: float = 5, keepalive_every: int = 5, path: str = "/"
    ) -> LoadGenerator:
        """Load through the load balancer; a context manager, see LoadGenerator."""
        self._loads += 1
        file = self.directory / f"load-{os.getpid()}-{self._loads}.jsonl"
        return LoadGenerator(
            self.frontend, file, rate=rate, seconds=seconds, timeout=timeout, keepalive_every=keepalive_every, path=path
        )


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _take_network(settings: Settings) -> tuple[socket.socket, int]:
    """A number N whose 127.0.N.0/24 is nobody else's, and the lock on it.

    The lock is a name in the abstract socket namespace: as wide as the loopback addresses themselves (one network
    namespace, all users), gone with its last holder, and no file to leave behind.
    """
    taken = ""
    for number in NETWORKS:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(f"\0hitless-lab-{number}")
        except OSError:
            lock.close()
            continue
        taken = _used(number, settings)
        if not taken:
            return lock, number
        lock.close()
    raise LabError(f"no free range of loopback addresses{f' (the last one: {taken} is in use)' if taken else ''}")


def _used(number: int, settings: Settings) -> str:
    """The first address that something without the lock uses in that range, "" when all are free."""
    agent_port = HTTPS_PORT if settings.tls else HTTP_PORT
    places = [(5, FRONTEND_PORT), (5, STATS_PORT), (1, agent_port), (4, DNS_PORT), (5, agent_port)]
    for vm in settings.vms:
        places += [(10 + vm, agent_port), (10 + vm, APP_PORT), (10 + vm, SSH_PORT)]
    for host, port in places:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((f"127.0.{number}.{host}", port))
            except OSError:
                return f"127.0.{number}.{host}:{port}"
    return ""
