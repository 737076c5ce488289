# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load balancer of a lab: HAProxy, which follows Consul by DNS."""

from __future__ import annotations

import signal
import socket
import string
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from .agents import DNS_PORT, LabError
from .binaries import find_tool

if TYPE_CHECKING:
    from .fleet import Lab

TEMPLATE = Path(__file__).with_name("haproxy.cfg.template")
FRONTEND_PORT = 8000
STATS_PORT = 8404
SLOTS = 50


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
            retries = "    # Nothing is tried again, so that a missing drain shows. Not for production.\n    retries 0"
        template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
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
        command = [program, "-c", "-f", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise LabError(f"HAProxy refuses {self.config}:\n{done.stderr}")
        # Only a reload may begin with what was known before: what a stopped one knew may be wrong by now.
        (self.lab.directory / "haproxy.state").unlink(missing_ok=True)
        self.lab.start_unit("haproxy", [program, "-W", "-f", str(self.config)], self.log)

    def stop(self) -> None:
        """Stop it at once."""
        self.lab.stop_unit("haproxy", signal.SIGTERM)

    def reload(self) -> None:
        """Read the configuration file again; the new process starts with the servers that the old one knew."""
        (self.lab.directory / "haproxy.state").write_text(self.command("show servers state"), encoding="utf-8")
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
