# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet on one machine: virtual machines on loopback addresses, Consul servers, a load balancer.

Addresses of lab number N: servers 127.0.N.1 to .3, the load balancer's machine .4, the controller's .5, VMs from .11.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from . import deploy, inventory
from .agents import Authority, Certificate, ConsulError, Http, LabError, quote
from .balancer import METHODS, SLOTS, Balancer
from .binaries import BinaryError, consul_version, find_consul, find_consul_template, find_tool
from .deploy_agent import policy as deploy_agent_policy
from .load import LoadGenerator
from .network import take_network
from .nodes import APP_PORT, SSH_PORT, VM, LoadBalancerNode, Node, Server, wait_until
from .supervisor import SOCKET_NAME

HERE = Path(__file__).resolve().parent


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
    balancer: str
    check_interval: str
    check_timeout: str
    deregister_after: str | None
    version_meta: bool
    tags: list[str]
    agent: str
    consul: str
    consul_version: str
    inventory_variables: dict[str, Any] = field(default_factory=dict)
    vms: list[int] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)  # per node name; "management", "dns"


class Lab:
    """A running fleet; a context manager. All arguments are keywords:

    vms, servers: how many (servers 1 to 3). service, version: what runs first. consul: None (any), a version, a path.
    ssh: an sshd on each VM. acl: default-deny with a token per agent. tls: HTTPS with client certificates.
    haproxy_retries: retries and redispatch, as a production load balancer would (they hide losses: off for counting).
    balancer: how the load balancer follows Consul, haproxy-dns, haproxy-template or nginx-template.
    directory: where its state goes (made, and removed at the end; None: a new one under /tmp). lifetime: seconds after
    which it ends by itself. check_interval, check_timeout, deregister_after: of the service's HTTP check.
    version_meta: the service's meta tells the first version. tags: of the service.
    agent: "" for none, or how the deploy agent of each VM watches: "watch" (itself) or "consul" (by `consul watch`).
    inventory_variables: for every VM,
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
        balancer: str = "haproxy-dns",
        directory: str | Path | None = None,
        lifetime: float = 1800,
        check_interval: str = "1s",
        check_timeout: str = "1s",
        deregister_after: str | None = None,
        version_meta: bool = True,
        tags: Sequence[str] = (),
        agent: str = "",
        inventory_variables: Mapping[str, Any] | None = None,
        keep: bool = False,
        detached: bool = False,
        state_file: Path | None = None,
    ) -> None:
        if not 1 <= vms <= SLOTS:
            raise LabError(f"vms is {vms}: a lab has 1 to {SLOTS}")
        if not 1 <= servers <= 3:
            raise LabError(f"servers is {servers}: a lab has 1 to 3")
        if balancer not in METHODS:
            raise LabError(f"balancer is {balancer}: it is one of {', '.join(METHODS)}")
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
                balancer=balancer,
                check_interval=check_interval,
                check_timeout=check_timeout,
                deregister_after=deregister_after,
                version_meta=version_meta,
                tags=list(tags),
                agent=agent,
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
        self.balancer = Balancer(self)
        self.url = self.controller.agent_url
        self.frontend = self.balancer.url

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
            find_tool(self.balancer.kind, self.balancer.kind)
            if self.balancer.by_template:
                find_consul_template()
            if self.settings.ssh:
                find_tool("sshd", "openssh-server")
                find_tool("ssh-keygen", "openssh-client")
            if self.settings.tls:
                find_tool("openssl", "openssl")
        except BinaryError as error:
            raise LabError(str(error)) from error
        lock, network = take_network(self.settings.tls, self.settings.vms)
        with lock:
            directory = self._make_directory()
            found = {"directory": directory, "network": network, "consul": str(consul)}
            self._setup(Settings(**{**asdict(self.settings), **found, "consul_version": consul_version(consul)}))
            self._start_supervisor(lock)
        try:
            self._start_fleet()
        except BaseException:
            # Also Ctrl-C: nothing may be left of a lab that did not come up.
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
        self._render([*self.vms], balancer=True)
        for node in nodes:
            node.start_agent(wait=False)
        self.balancer.start()
        for vm in self.vms:
            vm.start_app(self.settings.version)
            if self.settings.ssh:
                vm.start_sshd(wait=False)
            if self.settings.agent:
                vm.deploy_agent.start()
        self.write_inventory()
        self._save()
        for node in [*self.servers, *nodes]:
            node.wait_agent()
        if self.settings.ssh:
            self._write_known_hosts()
            for vm in self.vms:
                vm.wait_sshd()
        self.wait_passing()

    def _render(self, vms: Sequence[VM], balancer: bool = False) -> None:
        """Write what the roles write: the VMs' services, and the load balancer."""
        requests: list[dict[str, Any]] = [{"role": "consul_service", "variables": vm.role_variables()} for vm in vms]
        if balancer:
            variables, files = self.balancer.role_variables(), self.balancer.files()
            requests.append({"role": "consul_load_balancer", "variables": variables, "files": files})
        # What the user keeps in an ansible.cfg is not the lab's.
        config = self.directory / "ansible.cfg"
        config.write_text("[defaults]\n", encoding="utf-8")
        environment = {**os.environ, "ANSIBLE_CONFIG": str(config), "ANSIBLE_HOME": str(self.directory / "ansible")}
        command = [sys.executable, str(HERE / "render.py")]
        done = subprocess.run(
            command,
            env=environment,
            input=json.dumps(requests),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"the roles' templates could not be rendered:\n{done.stderr}")

    def wait_passing(self, count: int | None = None) -> None:
        """Return when `count` instances (all) get traffic and are passing, by a check of the process that runs now."""
        wanted = len(self.vms) if count is None else count
        wait_until(f"{wanted} instances are passing", lambda: len(self._passing()) == wanted)
        log = self.balancer.log
        wait_until(f"{wanted} instances get traffic", lambda: len(self.balancer.servers_up()) == wanted, log=log)

    def _passing(self) -> list[VM]:
        """The VMs whose running application has been checked and found passing."""
        try:
            names = {entry["Node"]["Node"] for entry in self.services(passing=True)}
            return [vm for vm in self.vms if vm.name in names and vm.checked()]
        except ConsulError:
            return []

    def stop(self) -> None:
        """End every process and remove the directory; harmless when it has ended already."""
        with contextlib.suppress(OSError, RuntimeError):
            self.ask({"op": "end"})
        if self._supervisor is not None:
            if self._supervisor.stdin is not None:
                self._supervisor.stdin.close()
            if self._supervisor.wait() != 0 and not self._keep:
                # It was killed: what it ran died with it, but nobody has tidied up.
                shutil.rmtree(self.directory, ignore_errors=True)
            self._supervisor = None

    def set_lifetime(self, seconds: float) -> None:
        """It ends by itself that many seconds from now."""
        self.ask({"op": "lifetime", "seconds": seconds})

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    def start_unit(
        self, name: str, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a long-running process of the lab; it ends with the lab."""
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
        request = {
            "op": "start",
            "unit": name,
            "argv": list(argv),
            "env": {**inherited, "LANG": "C.UTF-8", **(environment or {})},
            "log": str(log),
        }
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
        """The variables by which Ansible and the consul command find this lab: CONSUL_HTTP_ADDR and company.

        HITLESS_LAB, its directory, is for the lab.yml of the examples.
        """
        variables = {"CONSUL_HTTP_ADDR": self.url, "HITLESS_LAB": str(self.directory)}
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
            entry = self.consul_get(f"kv/{urllib.parse.quote(key)}?consistent")[0]
        except ConsulError as error:
            if error.status == 404:
                return None
            raise
        return base64.b64decode(entry["Value"] or "").decode()

    def services(self, passing: bool = False) -> list[dict[str, Any]]:
        """health/service entries of the lab's service, in order of their node's name."""
        entries = self.consul_get(
            f"health/service/{quote(self.settings.service)}?consistent{'&passing' if passing else ''}"
        )
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
            self._vm_tokens(vm.name)

    def _vm_tokens(self, name: str) -> None:
        self._node_token(name, service=True)
        if self.settings.agent:
            rules = deploy_agent_policy(name, self.settings.service)
            self.settings.tokens[f"deploy-{name}"] = self.create_token(rules, f"deploy-{name}")

    def _node_token(self, name: str, service: bool = False) -> str:
        rules = f'node "{name}" {{ policy = "write" }} agent "{name}" {{ policy = "write" }}'
        rules += ' node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }'
        if service:
            rules += f' service "{self.settings.service}" {{ policy = "write" }}'
        token = self.create_token(rules, f"agent-{name}")
        self.settings.tokens[name] = token
        return token

    # -- growth ----------------------------------------------------------------------------------------------------

    def add_vm(self, version: str | None = None, wait: bool = True, register: bool = True) -> VM:
        """One more VM, running `version` (the lab's first); with `wait` return when it is passing and gets traffic.

        Without `register` (nor `wait`) its services are still to be registered, by the role.
        """
        if len(self.vms) >= SLOTS:
            raise LabError(f"the lab has {SLOTS} VMs already, as many as the load balancer has slots")
        vm = VM(self, max((vm.number for vm in self.vms), default=0) + 1)
        if self.settings.acl:
            self._vm_tokens(vm.name)
        vm.configure()
        if register:
            self._render([vm])
        vm.start_agent(wait=False)
        vm.start_app(version or self.settings.version)
        if self.settings.ssh:
            vm.start_sshd(wait=False)
        if self.settings.agent:
            vm.deploy_agent.start()
        self.vms.append(vm)
        self.settings.vms = [one.number for one in self.vms]
        vm.wait_agent()
        if self.settings.ssh:
            self._write_known_hosts()
            vm.wait_sshd()
        self.write_inventory()
        self._save()
        if wait:
            wait_until(f"{vm.name} is passing", lambda: vm in self._passing())
            wait_until(f"{vm.name} gets traffic", lambda: f"{vm.address}:{APP_PORT}" in self.balancer.servers_up())
        return vm

    def remove_vm(self, name: str) -> None:
        """Take a VM away properly: its agent leaves, then everything on it stops."""
        vm = self.vm(name)
        vm.agent.call("PUT", "agent/leave", timeout=20)
        wait_until(f"{name} has left", lambda: not self.unit_runs(f"{name}.consul"), 20)
        vm.stop_app()
        vm.stop_units()
        if self.settings.agent:
            vm.deploy_agent.stop()
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

        static-local.yml, static-ssh.yml, static-agent.yml: hosts web1… in the group `web` (the service's name).
        local/web.consul.yml, ssh/…, agent/…: sources of hitless.consul.catalog with the connection in a
        group_vars/all.yml.
        """
        folder = self.directory / "inventory"
        if variables is not None:
            self.settings.inventory_variables = dict(variables)
        common = {"rollout_deploy_command": "{{ lab_vm_dir }}/deploy", **self.settings.inventory_variables}
        source = {"plugin": "hitless.consul.catalog", "url": self.url, "services": [self.settings.service]}
        also = (("ssh", self.settings.ssh), ("agent", bool(self.settings.agent)))
        for kind in ("local", *(kind for kind, there in also if there)):
            if kind == "agent":
                common = {"rollout_mode": "agent", **self.settings.inventory_variables}
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
            inventory.write(
                folder / kind / "group_vars" / "all.yml", {**host, **common}, f"Reached by {kind} connections."
            )
        machines = {vm.name: vm.role_variables() for vm in self.vms}
        machines["lb"] = self.balancer.role_variables()
        urls = {node.name: {"hitless_consul_agent_url": node.agent_url} for node in (*self.vms, self.load_balancer)}
        hosts = {name: {**inventory.local_connection(), **urls[name], **found} for name, found in machines.items()}
        inventory.write(folder / "machines.yml", {"all": {"hosts": hosts}}, "For the roles that set machines up.")
        return folder

    def _host(
        self, name: str, node: str | None, address: str, agent_url: str, kind: str, directory: Path | str
    ) -> dict[str, Any]:
        """Variables of one host; `node` only where the inventory does not say it itself."""
        ssh = self.directory / "ssh"
        if kind == "agent":
            # Whoever tries to log in all the same is refused.
            connection = inventory.ssh_connection(address, 1, _user(), ssh / "key", ssh / "config")
        elif kind == "ssh":
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
        self,
        *,
        rate: float = 100,
        seconds: float = 900,
        timeout: float = 5,
        keepalive_every: int = 5,
        path: str = "/",
        url: str = "",
    ) -> LoadGenerator:
        """Load through the load balancer (or another `url`); a context manager, see LoadGenerator."""
        self._loads += 1
        file = self.directory / f"load-{os.getpid()}-{self._loads}.jsonl"
        supervisor = self.directory / SOCKET_NAME
        return LoadGenerator(
            url or self.frontend,
            file,
            supervisor,
            rate=rate,
            seconds=seconds,
            timeout=timeout,
            keepalive_every=keepalive_every,
            path=path,
        )


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name
