# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The deploy agent of a lab's VM: the program of the role deploy_agent, as its systemd unit would run it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from .nodes import Node

PROGRAM = Path(__file__).resolve().parent.parent / "roles" / "deploy_agent" / "files" / "hitless_deploy"


class DeployAgent:
    """Of one VM."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.config = node.directory / "deploy-agent.json"
        self.state = node.directory / "deploy-agent"
        self.log = node.directory / "deploy-agent.log"
        self._token_file = node.directory / "deploy-agent.token"
        self._unit = f"{node.name}.deploy-agent"

    def configure(self, **settings: Any) -> None:
        """Write its configuration; `settings` replace the lab's own."""
        node = self._node
        token = node.site.token(f"deploy-{node.name}")
        if token:
            self._token_file.write_text(token, encoding="utf-8")
        certificate = node.certificate
        values = {
            "service": node.site.settings.service,
            "node": node.name,
            "command": [str(node.directory / "deploy")],
            "restart_command": [str(node.directory / "restart")],
            "url": node.agent_url,
            "state_directory": str(self.state),
            "token_file": str(self._token_file) if token else None,
            "ca_path": certificate and str(certificate.ca),
            "client_cert": certificate and str(certificate.certificate),
            "client_key": certificate and str(certificate.key),
            **settings,
        }
        self.config.write_text(json.dumps(values, indent=2), encoding="utf-8")

    def start(self) -> None:
        """Start it, as systemd would at boot."""
        program = [sys.executable, "-I", str(PROGRAM)]
        node, settings = self._node, self._node.site.settings
        if settings.agent == "consul":
            key = f"nodes/{node.name}/deployment/{settings.service}/new"
            asked = ["-shell=false", f"-http-addr={node.agent_url}", "-type=key", f"-key={key}"]
            watch = [settings.consul, "watch", *asked]
            if self._token_file.exists():
                watch.append(f"-token-file={self._token_file}")
            argv = [*watch, *program, "run", str(self.config)]
        else:
            argv = [*program, "watch", str(self.config)]
        node.site.units.start(self._unit, argv, self.log)

    def runs(self) -> bool:
        """Whether its unit is there."""
        return self._node.site.units.runs(self._unit)

    def stop(self) -> None:
        """kill -9 of all that belongs to it but the deployment command, as the unit's end would not do better."""
        if self.runs():
            self._node.site.units.stop(self._unit, signal.SIGKILL)
        for pid in self.processes("run", "watch"):
            _kill(pid)

    def crash(self) -> None:
        """The machine's end: the deployment command and all of it, without a word. The application is not touched."""
        self.stop()
        for pid in self.processes("command"):
            _kill(pid)
        for file in self.state.glob("*/process.json"):
            with contextlib.suppress(OSError, ValueError):
                os.killpg(json.loads(file.read_text(encoding="utf-8"))["pid"], signal.SIGKILL)

    def reset(self) -> None:
        """As on a new machine, and running."""
        self.crash()
        shutil.rmtree(self.state, ignore_errors=True)
        self.configure()
        self.start()

    def processes(self, *modes: str) -> list[int]:
        """The pids of its processes that were started in one of the modes."""
        wanted = [[b"hitless_deploy", mode.encode(), str(self.config).encode()] for mode in modes]
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    arguments = Path(f"/proc/{entry}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                    if len(arguments) >= 3 and [arguments[-3].rpartition(b"/")[2], *arguments[-2:]] in wanted:
                        found.append(int(entry))
        return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
