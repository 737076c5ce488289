# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet on one machine: virtual machines on loopback addresses, Consul servers, a load balancer."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from . import acl, inventory, roles, ssh
from .agents import Certificate, Http, quote
from .balancer import METHODS, SLOTS, Balancer
from .binaries import BinaryError, consul_version, find_consul, find_consul_template, find_tool
from .errors import ConsulError, LabError
from .load import LoadGenerator
from .network import APP_PORT, take_network
from .nodes import Controller, LoadBalancerNode, Node, Server, leader
from .settings import Settings
from .site import Site, make_directory
from .units import start_supervisor
from .vm import VM
from .waiting import wait_until


class Lab:
    """A running fleet; a context manager. All arguments are keywords:

    vms, servers: how many (servers 1 to 3). service, version: what runs first. consul: None (any), a version, a path.
    ssh: an sshd on each VM. acl: default-deny with a token per agent. tls: HTTPS with client certificates.
    haproxy_retries: retries and redispatch, as in production (they hide losses: off for counting). balancer: how it
    follows Consul, see METHODS. directory: where its state goes (made, and removed at the end; None: a new one).
    lifetime: seconds until it ends. check_interval, check_timeout, deregister_after: of the service's HTTP check.
    version_meta: the service's meta tells the first version. tags: of the service. zones: that the VMs are in by turns.
    agent: "" for none, or how each deploy agent watches, "watch" (itself) or "consul". inventory_variables: for
    every VM, beside what is needed. keep: leave the directory. detached: it outlives this process. state_file: removed.
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
        zones: int = 0,
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
                zones=zones,
                inventory_variables=dict(inventory_variables or {}),
                consul="",
                consul_version="0.0.0",
                vms=list(range(1, vms + 1)),
            )
        )

    def _setup(self, settings: Settings) -> None:
        """Build the objects that `settings` describe."""
        self.settings = settings
        self._site = site = Site(settings)
        self.directory = site.directory
        self.servers = [Server(site, number) for number in range(1, settings.servers + 1)]
        self.load_balancer = LoadBalancerNode(site)
        self.controller = Controller(site)
        self.vms = [VM(site, number) for number in settings.vms]
        self.balancer = Balancer(self.load_balancer)
        self.url = self.controller.agent_url
        self.frontend = self.balancer.url

    @classmethod
    def attach(cls, directory: str | Path) -> Lab:
        """The lab that runs in `directory`, started by another process; LabError when none does."""
        lab = cls()
        lab._setup(Settings.load(directory))
        lab.units()
        return lab

    # -- start and stop --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; returns when all instances are passing and the load balancer serves them all."""
        try:
            consul = self._find_programs()
        except BinaryError as error:
            raise LabError(str(error)) from error
        lock, network = take_network(self.settings.tls, self.settings.vms)
        with lock:
            known = replace(self.settings, network=network, consul=str(consul), consul_version=consul_version(consul))
            self._setup(replace(known, directory=make_directory(known.directory)))
            self._supervisor = start_supervisor(
                self.directory,
                lifetime=self._lifetime,
                detached=self._detached,
                keep=self._keep,
                remove=[] if self._state_file is None else [str(self._state_file)],
                lock=lock,
            )
        try:
            self._start_fleet()
        except BaseException:
            # Also Ctrl-C: nothing may be left of a lab that did not come up.
            self.stop()
            raise

    def _find_programs(self) -> Path:
        """Consul; BinaryError names the program that is missing."""
        find_tool(self.balancer.kind, self.balancer.kind)
        if self.balancer.by_template:
            find_consul_template()
        if self.settings.ssh:
            find_tool("sshd", "openssh-server")
            find_tool("ssh-keygen", "openssh-client")
        if self.settings.tls:
            find_tool("openssl", "openssl")
        return find_consul(self._wanted_consul)

    def _start_fleet(self) -> None:
        if self.settings.ssh:
            ssh.prepare(self.directory / "ssh")
        for server in self.servers:
            server.configure()
            server.start_agent(wait=False)
        if self.settings.acl:
            acl.bootstrap(self._site, self.servers, [vm.name for vm in self.vms])
        nodes: list[Node] = [self.load_balancer, self.controller, *self.vms]
        for node in nodes:
            node.configure()
        roles.render(self.directory, self.vms, self.balancer)
        for node in (self.load_balancer, self.controller):
            node.start_agent(wait=False)
        for vm in self.vms:
            vm.start(self.settings.version)
        self.balancer.start()
        self._write()
        for node in (*self.servers, self.load_balancer, self.controller):
            node.wait_agent()
        for vm in self.vms:
            vm.wait_started()
        self.wait_passing()

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
            self._site.units.end()
        if self._supervisor is not None:
            if self._supervisor.stdin is not None:
                self._supervisor.stdin.close()
            if self._supervisor.wait() != 0 and not self._keep:
                # It was killed: what it ran died with it, but nobody has tidied up.
                shutil.rmtree(self.directory, ignore_errors=True)
            self._supervisor = None

    def set_lifetime(self, seconds: float) -> None:
        """It ends by itself that many seconds from now."""
        self._site.units.set_lifetime(seconds)

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write(self) -> None:
        """Write anew what names the VMs: inventories, known hosts, the settings."""
        self.settings.vms = [vm.number for vm in self.vms]
        if self.settings.ssh:
            ssh.write_known_hosts(self.directory / "ssh", self.vms)
        self.write_inventory()
        self.settings.save()

    # -- processes -------------------------------------------------------------------------------------------------

    def units(self) -> dict[str, dict[str, Any]]:
        """All processes of the lab: name -> pid, argv, started, exit_code (None while it runs)."""
        return self._site.units.listed()

    def unit_runs(self, name: str) -> bool:
        """Whether that process is running."""
        return self._site.units.runs(name)

    def start_unit(
        self, name: str, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a long-running process of the lab; it ends with the lab."""
        self._site.units.start(name, argv, log, environment)

    def stop_unit(self, name: str, number: signal.Signals) -> bool:
        """Send the signal and wait for the process to end (10 s, then by force)."""
        return self._site.units.stop(name, number)

    def set_outage(self, outage: bool) -> None:
        """What all applications depend on is gone, so that each answers 500 whatever its version; or is back."""
        self._site.outage.touch()
        if not outage:
            self._site.outage.unlink()

    # -- Consul ----------------------------------------------------------------------------------------------------

    @property
    def management_token(self) -> str:
        """The token that may do everything; "" without ACLs."""
        return self._site.management_token

    @property
    def certificate(self) -> Certificate | None:
        """The controller's client certificate, None without TLS."""
        return self._site.certificate

    @staticmethod
    def node_certificate(node: Node) -> Certificate | None:
        """The certificate of a node, made when first asked for; None without TLS."""
        return node.certificate

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which Ansible and the consul command find this lab: CONSUL_HTTP_ADDR and company."""
        return self._site.environment

    @property
    def consul(self) -> Http:
        """Calls to the controller's agent, with the management token where there are ACLs."""
        return self._site.consul

    def consul_get(self, path: str, token: str | None = None) -> Any:
        """Decoded answer of GET /v1/<path>; ConsulError with .status otherwise."""
        return self.consul.call("GET", path, token=token)

    def consul_put(self, path: str, body: Any = None, token: str | None = None) -> Any:
        """Decoded answer of PUT /v1/<path> with `body` (bytes as they are, else as JSON)."""
        return self.consul.call("PUT", path, body, token=token)

    def kv(self, key: str) -> str | None:
        """The text of a key, None when there is no such key."""
        return self.consul.kv(key)

    def services(self, passing: bool = False) -> list[dict[str, Any]]:
        """health/service entries of the lab's service, in order of their node's name."""
        entries = self.consul_get(
            f"health/service/{quote(self.settings.service)}?consistent{'&passing' if passing else ''}"
        )
        return sorted(entries, key=lambda entry: str(entry["Node"]["Node"]))

    def leader(self) -> Server | None:
        """The server that leads now; None while there is none."""
        return leader(self.servers)

    def create_token(self, rules: str, description: str = "lab") -> str:
        """A new token with one policy of these rules (HCL); its secret."""
        return acl.create_token(self._site, rules, description)

    # -- growth ----------------------------------------------------------------------------------------------------

    def add_vm(self, version: str | None = None, wait: bool = True, register: bool = True) -> VM:
        """One more VM, running `version` (the lab's first); with `wait` return when it is passing and gets traffic.

        Without `register` (nor `wait`) its services are still to be registered, by the role.
        """
        if len(self.vms) >= SLOTS:
            raise LabError(f"the lab has {SLOTS} VMs already, as many as the load balancer has slots")
        vm = VM(self._site, max((vm.number for vm in self.vms), default=0) + 1)
        if self.settings.acl:
            acl.vm_tokens(self._site, vm.name)
        vm.configure()
        if register:
            roles.render(self.directory, [vm])
        vm.start(version or self.settings.version)
        self.vms.append(vm)
        vm.wait_started()
        self._write()
        if wait:
            wait_until(f"{vm.name} is passing", lambda: vm in self._passing())
            wait_until(f"{vm.name} gets traffic", lambda: f"{vm.address}:{APP_PORT}" in self.balancer.servers_up())
        return vm

    def remove_vm(self, name: str) -> None:
        """Take a VM away properly: its agent leaves, then everything on it stops."""
        vm = self.vm(name)
        vm.agent.call("PUT", "agent/leave", timeout=20)
        wait_until(f"{name} has left", lambda: not vm.agent_runs(), 20)
        vm.stop()
        self.vms.remove(vm)
        self._write()
        shutil.rmtree(vm.directory, ignore_errors=True)

    def vm(self, name: str) -> VM:
        """The VM of that name."""
        for vm in self.vms:
            if vm.name == name:
                return vm
        raise LabError(f"no VM is called {name}: there are {', '.join(vm.name for vm in self.vms)}")

    # -- inventory, load -------------------------------------------------------------------------------------------

    def write_inventory(self, variables: Mapping[str, Any] | None = None) -> Path:
        """Write all inventories (again) and return their folder, see inventory.py.

        `variables` replace the lab's inventory_variables.
        """
        if variables is not None:
            self.settings.inventory_variables = dict(variables)
        return inventory.write_all(self._site, self.vms, self.load_balancer, self.balancer)

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
        return LoadGenerator(
            url or self.frontend,
            file,
            self._site.units.socket,
            rate=rate,
            seconds=seconds,
            timeout=timeout,
            keepalive_every=keepalive_every,
            path=path,
        )
