"""Single Consul agents for tests that need no fleet: servers on 127.0.32.x, each on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lab import ConsulError, wait_until
from lab.agents import Certificate, Http
from lab.binaries import consul_version, find_consul

PORTS = ("http", "server", "serf_lan", "serf_wan", "dns")


class Server:
    """A Consul server whose sessions may have a TTL of a second, so that tests see them expire.

    ``number`` is the last part of its address, ``of`` the addresses of its cluster.
    """

    def __init__(
        self,
        consul: str | None,
        number: int = 1,
        cluster: dict[str, int] | None = None,
        certificate: Certificate | None = None,
        token: str = "",
        *,
        dns: bool = False,
        datacenter: str = "dc1",
        limits: dict[str, Any] | None = None,
        node: str = "",
    ) -> None:
        self.address = f"127.0.32.{number}"
        self.certificate = certificate
        self.token = token
        self.dns = dns
        self.datacenter = datacenter
        self.limits = limits
        self.binary = find_consul(consul)
        self.version = tuple(int(part) for part in consul_version(self.binary).split("."))
        self._folder = tempfile.TemporaryDirectory(prefix="hitless-consul-")
        self.node = node or f"server{number}"
        self.ports = free_ports(self.address)
        self._cluster = cluster or {self.address: self.ports["serf_lan"]}
        if cluster is not None:
            self.ports["serf_lan"] = cluster[self.address]
        self.log = Path(self._folder.name) / "log"
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://{self.address}:{self.ports['http']}"
        self.http = Http(self.url, token, certificate)
        self.process: subprocess.Popen[bytes] | None = None

    def _configuration(self) -> dict[str, Any]:
        api = {"http": -1, "https": self.ports["http"]} if self.certificate else {"http": self.ports["http"]}
        config: dict[str, Any] = {
            "node_name": self.node,
            "datacenter": self.datacenter,
            "data_dir": f"{self._folder.name}/data",
            "server": True,
            "bootstrap_expect": len(self._cluster),
            "retry_join": [f"{address}:{port}" for address, port in self._cluster.items()],
            "retry_interval": "1s",
            "bind_addr": self.address,
            "client_addr": self.address,
            "performance": {"raft_multiplier": 1},
            "session_ttl_min": "1s",
            "disable_update_check": True,
            "ports": {**self.ports, **api, "grpc": -1},
        }
        if self.limits:
            config["limits"] = self.limits
        if not self.dns:
            config["ports"]["dns"] = -1
        if self.version >= (1, 14):
            config["ports"]["grpc_tls"] = -1
        if self.token:
            name = "initial_management" if self.version >= (1, 11) else "master"
            config["acl"] = {"enabled": True, "default_policy": "deny", "tokens": {name: self.token}}
        if self.certificate:
            files = {
                "ca_file": str(self.certificate.ca),
                "cert_file": str(self.certificate.certificate),
                "key_file": str(self.certificate.key),
                "verify_incoming": True,
            }
            config.update({"tls": {"https": files}} if self.version >= (1, 12) else files)
        return config

    def start(self, *, wait: bool = True) -> None:
        file = Path(self._folder.name) / "agent.json"
        file.write_text(json.dumps(self._configuration()), encoding="utf-8")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binary), "agent", f"-config-file={file}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if wait:
            self.wait()

    def answers(self) -> bool:
        """Whether it takes writes, and knows itself: before that it makes no session for its own node."""
        try:
            written = bool(self.http.call("PUT", "kv/ready", b""))
            return written and bool(self.http.call("GET", f"catalog/node/{self.node}"))
        except ConsulError:
            return False

    def wait(self) -> None:
        """Return when it does."""
        wait_until(f"Consul at {self.address} is ready", self.answers, log=self.log)

    def kill(self) -> None:
        """As kill -9 does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        self._folder.cleanup()

    def get(self, path: str) -> Any:
        """The decoded answer, None for 404."""
        try:
            return self.http.call("GET", path)
        except ConsulError as error:
            if error.status == 404:
                return None
            raise

    def join(self, other: Server) -> None:
        """Make two datacenters know each other."""
        self.put(f"agent/join/{other.address}:{other.ports['serf_wan']}?wan=1")
        wait_until("each datacenter knows the other", lambda: len(self.get("catalog/datacenters")) > 1)
        wait_until("it answers for the other", lambda: bool(self.get(f"catalog/nodes?dc={other.datacenter}")))

    def put(self, path: str, body: Any = None) -> Any:
        return self.http.call("PUT", path, body)


def free_ports(address: str) -> dict[str, int]:
    """Ports that nothing uses at that address now; held open together, so that they differ."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in PORTS:
            probe = stack.enter_context(socket.socket())
            probe.bind((address, 0))
            ports[name] = probe.getsockname()[1]
    return ports


def cluster(consul: str | None, numbers: tuple[int, ...]) -> list[Server]:
    """Servers that form one cluster, started and ready."""
    places = {f"127.0.32.{number}": free_ports(f"127.0.32.{number}")["serf_lan"] for number in numbers}
    servers = [Server(consul, number, places) for number in numbers]
    for server in servers:
        server.start(wait=False)
    for server in servers:
        server.wait()
    return servers


def processes(*words: str) -> list[int]:
    """Processes whose command line has all these words as arguments."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if all(word in arguments for word in words):
                    found.append(int(folder.name))
    return found


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end(pid: int) -> None:
    """kill -9, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
