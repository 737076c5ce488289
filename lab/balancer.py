# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load balancer of a lab, as the role consul_load_balancer makes it, in its foreground mode."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from .binaries import find_consul_template, find_tool
from .errors import LabError
from .network import CONTROLLER, DNS_PORT, FRONTEND_PORT, STATS_PORT
from .nodes import Node

SLOTS = 50
METHODS = ("haproxy-dns", "haproxy-template", "nginx-template")


class Balancer:
    """HAProxy or nginx, and consul-template where it follows by that."""

    def __init__(self, node: Node) -> None:
        """On the machine `node`, whose agent it follows; it listens at the controller's address."""
        self._node = node
        self._units = node.site.units
        self._settings = node.site.settings
        self._address = node.site.address(CONTROLLER)
        self.method = self._settings.balancer
        self.kind, _, self._follows = self.method.partition("-")
        self.folder = node.directory
        self.log = self.folder / f"{self.kind}.log"
        self.url = f"http://{self._address}:{FRONTEND_PORT}"
        self.stats_url = f"http://{self._address}:{STATS_PORT}/"
        self.config = self.folder / ("haproxy.cfg" if self.kind == "haproxy" else "nginx.conf")

    @property
    def by_template(self) -> bool:
        """Whether consul-template runs beside it."""
        return self._follows == "template"

    def role_variables(self) -> dict[str, Any]:
        """What the role is told."""
        variables: dict[str, Any] = {
            "method": self.method,
            "services": [{"name": self._settings.service}],
            "bind": [f"{self._address}:{FRONTEND_PORT}"],
            "stats": f"{self._address}:{STATS_PORT}",
            "slots": SLOTS,
            "retries": self._settings.haproxy_retries,
            "dns": f"{self._node.address}:{DNS_PORT}",
            "consul_url": self._node.agent_url,
            "token": self._node.site.token("dns"),
            "run": "foreground",
            "directory": str(self.folder),
            "program": str(find_tool(self.kind, self.kind)),
            "python": sys.executable,
        }
        if self.by_template:
            variables["consul_template"] = str(find_consul_template())
        if self.kind == "nginx":
            # nginx's workers would drop to nobody, who cannot enter a lab's folder.
            variables["extra_global"] = ["user root;"] if Path("/proc/self").stat().st_uid == 0 else []
        certificate = self._node.certificate
        if certificate is not None:
            names = (certificate.ca, certificate.certificate, certificate.key)
            variables |= dict(zip(("ca_path", "client_cert", "client_key"), map(str, names), strict=True))
        return {f"consul_load_balancer_{name}": value for name, value in variables.items()}

    def files(self) -> dict[str, tuple[str, str]]:
        """Template of the role -> path and mode, as its tasks have them."""
        folder = self.folder
        found = {"balancer.json.j2": (folder / "balancer.json", "600"), "run.j2": (folder / "run", "755")}
        template = f"{self.config.name}.j2"
        if self.by_template:
            found[template] = (folder / f"{self.config.name}.ctmpl", "640")
            found["follow.j2"] = (folder / "follow", "755")
            found |= {f"{name}.j2": (folder / name, "600") for name in ("consul.hcl", "follow.hcl")}
        else:
            found[template] = (self.config, "640")
        return {name: (str(path), mode) for name, (path, mode) in found.items()}

    def start(self) -> None:
        """Start it, and what keeps it current."""
        if self.by_template:
            self.start_following()
        self._units.start("balancer", [str(self.folder / "run")], self.log)

    def start_following(self) -> None:
        """Start consul-template."""
        self._units.start("consul-template", [str(self.folder / "follow")], self.folder / "consul-template.log")

    def kill_following(self) -> None:
        """kill -9 of consul-template."""
        self._units.stop("consul-template", signal.SIGKILL)

    def stop(self) -> None:
        """Stop it at once."""
        self._units.stop("balancer", signal.SIGTERM)

    def script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the role's balancer.py as a person would."""
        command = [sys.executable, "-IS", str(self.folder / "balancer.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def reload(self) -> None:
        """Read the configuration again, losing nothing."""
        done = self.script("reload")
        if done.returncode != 0:
            raise LabError(f"the load balancer did not reload: {done.stderr}")

    def command(self, text: str) -> str:
        """The answer of HAProxy's runtime API ("show stat", …)."""
        return self.ask(self.folder / "haproxy.sock", text)

    @staticmethod
    def ask(path: Path, text: str) -> str:
        """One command on a socket of HAProxy, its master's for example."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(text.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def servers_up(self) -> list[str]:
        """Addresses (with port) of the instances that get traffic now."""
        try:
            return self._haproxy_servers() if self.kind == "haproxy" else self._nginx_servers()
        except OSError:
            return []

    def _haproxy_servers(self) -> list[str]:
        lines = self.command("show stat").splitlines()
        names = lines[0].lstrip("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]
        service = self._settings.service
        servers = [row for row in rows if row["pxname"] == service and row["svname"] not in ("FRONTEND", "BACKEND")]
        return sorted(row["addr"] for row in servers if row["status"].startswith("UP"))

    def _nginx_servers(self) -> list[str]:
        if not self._units.runs("balancer"):
            return []
        words = [line.split() for line in self.config.read_text(encoding="utf-8").splitlines()]
        return sorted(line[1] for line in words if line[:1] == ["server"] and len(line) > 2 and line[-1] != "down;")
