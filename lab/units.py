# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The processes of a lab, asked of its supervisor: what systemctl is to systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import deploy
from .errors import LabError
from .supervisor import SOCKET_NAME

SUPERVISOR = Path(__file__).with_name("supervisor.py")


def start_supervisor(
    directory: Path, *, lifetime: float, detached: bool, keep: bool, remove: Sequence[str], lock: socket.socket
) -> subprocess.Popen[bytes]:
    """Start the process that owns all others; it holds `lock`, the range of addresses, as long as it lives.

    lifetime: seconds after which it ends. detached: it outlives this process. keep: it leaves the directory. remove:
    files that go with it.
    """
    settings = {
        "directory": str(directory),
        "lifetime": lifetime,
        "owner": None if detached else os.getpid(),
        "keep": keep,
        "remove": list(remove),
    }
    with (directory / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", str(SUPERVISOR), json.dumps(settings)],
            stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
    assert process.stdout is not None
    ready = process.stdout.readline()
    process.stdout.close()
    if ready != b"ready\n":
        raise LabError(f"the supervisor did not start: {(directory / 'supervisor.log').read_text()}")
    return process


class Units:
    """The units of the lab in a directory: processes that live as long as the lab, unless they are stopped."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / SOCKET_NAME

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request to the supervisor; its module says which there are."""
        return deploy.ask(str(self.socket), request)

    def listed(self) -> dict[str, dict[str, Any]]:
        """Name -> pid, argv, started, exit_code (None while it runs); LabError when the lab has ended."""
        try:
            units: dict[str, dict[str, Any]] = self.ask({"op": "list"})["units"]
        except OSError as error:
            raise LabError(f"the lab in {self.directory} does not run any more") from error
        return units

    def pid(self, name: str) -> int | None:
        """The process of a unit that runs, None when it does not."""
        unit = self.listed().get(name)
        return None if unit is None or unit["exit_code"] is not None else int(unit["pid"])

    def runs(self, name: str) -> bool:
        """Whether that unit is running."""
        return self.pid(name) is not None

    def start(self, name: str, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start a long-running process; it ends with the lab."""
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

    def stop(self, name: str, number: signal.Signals, also: str | None = None) -> bool:
        """Send the signal and wait for the process to end (10 s, then by force); False when none ran.

        `also`: what it has started under that name is killed first.
        """
        return bool(self.ask({"op": "stop", "unit": name, "signal": int(number), "also": also})["stopped"])

    def set_lifetime(self, seconds: float) -> None:
        """The lab ends by itself that many seconds from now."""
        self.ask({"op": "lifetime", "seconds": seconds})

    def end(self) -> None:
        """End everything; returns when all has gone. Raises OSError or RuntimeError where nothing runs any more."""
        self.ask({"op": "end"})
