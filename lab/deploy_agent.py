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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .nodes import VM

PROGRAM = Path(__file__).resolve().parent.parent / "roles" / "deploy_agent" / "files" / "hitless_deploy"


def policy(node: str, service: str) -> str:
    """What docs/agent-mode.md gives the token of a machine's deploy agent, and no more."""
    return (
        f'key_prefix "nodes/{node}/" {{ policy = "write" }} key "deploy/{service}/lock" {{ policy = "read" }} '
        f'service "{service}" {{ policy = "write" }} node "{node}" {{ policy = "read" }}'
    )


class DeployAgent:
    """Of one VM."""

    def __init__(self, vm: VM) -> None:
        self.vm = vm
        self.config = vm.directory / "deploy-agent.json"
        self.state = vm.directory / "deploy-agent"
        self.log = vm.directory / "deploy-agent.log"
        self._unit = f"{vm.name}.deploy-agent"

    def configure(self, **settings: Any) -> None:
        """Write its configuration; `settings` replace the lab's own."""
        vm, lab = self.vm, self.vm.lab
        token_file = None
        token = lab.settings.tokens.get(f"deploy-{vm.name}", "")
        if token:
            token_file = vm.directory / "deploy-agent.token"
            token_file.write_text(token, encoding="utf-8")
        certificate = lab.node_certificate(vm)
        values = {
            "service": lab.settings.service,
            "node": vm.name,
            "command": [str(vm.directory / "deploy")],
            "url": vm.agent_url,
            "state_directory": str(self.state),
            "token_file": token_file and str(token_file),
            "ca_path": certificate and str(certificate.ca),
            "client_cert": certificate and str(certificate.certificate),
            "client_key": certificate and str(certificate.key),
            **settings,
        }
        self.config.write_text(json.dumps(values, indent=2), encoding="utf-8")

    def start(self) -> None:
        """Start it, as systemd would at boot."""
        program = [sys.executable, "-I", str(PROGRAM)]
        if self.vm.lab.settings.agent == "consul":
            lab = self.vm.lab
            key = f"nodes/{self.vm.name}/deployment/{lab.settings.service}/new"
            asked = ["-shell=false", f"-http-addr={self.vm.agent_url}", "-type=key", f"-key={key}"]
            watch = [lab.settings.consul, "watch", *asked]
            if (self.vm.directory / "deploy-agent.token").exists():
                watch.append(f"-token-file={self.vm.directory / 'deploy-agent.token'}")
            argv = [*watch, *program, "run", str(self.config)]
        else:
            argv = [*program, "watch", str(self.config)]
        self.vm.lab.start_unit(self._unit, argv, self.log)

    def runs(self) -> bool:
        """Whether its unit is there."""
        return self.vm.lab.unit_runs(self._unit)

    def stop(self) -> None:
        """kill -9 of all that belongs to it but the deployment command, as the unit's end would not do better."""
        if self.runs():
            self.vm.lab.stop_unit(self._unit, signal.SIGKILL)
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
