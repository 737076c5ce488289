# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process that owns everything a lab runs: what systemd is to a real machine.

It starts and stops units on request (JSON lines on a Unix socket in the lab's directory), so a deployment's application
belongs to it and not to whoever asked. It ends with its owner (a pipe and a pidfd: kill -9 counts), at the end of the
lab's lifetime, or when told; then nothing it started is left and the directory is gone.

Linux only: as a "child subreaper" it inherits every orphan below it (HAProxy workers, SSH sessions), so the processes
to end are always its own descendants and a reused pid is never killed. Should it be killed itself, the kernel kills its
units (PR_SET_PDEATHSIG).

Requests and their answers (or {"error": text}):
    {"op": "start", "unit", "argv", "env", "cwd", "log"} -> {"pid"}
    {"op": "stop", "unit", "signal", "timeout", "also"} -> {"stopped"}, when it has gone; descendants whose command is
        named like `also` are killed first
    {"op": "signal", "unit", "signal"} -> {"running"}
    {"op": "list"} -> {"units"}
    {"op": "reboot", "units", "boot_id", "seconds"} -> {}: all units whose names begin so are killed with all below
        them; after that time they are started again as they were, and the file of the boot's id has another one
    {"op": "lifetime", "seconds"} -> {}: from now on
    {"op": "end"} -> {"ended"}, when everything has gone
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SOCKET_NAME = "supervisor.sock"

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """In the child, before exec: the kernel kills it when the supervisor dies."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Unit:
    """One long-running process: its child, its exit code once it ended, who waits for that, and when it is killed."""

    process: subprocess.Popen[bytes]
    request: dict[str, Any]
    started: float
    exit_code: int | None = None
    waiting: list[Client] = field(default_factory=list)
    kill_at: float | None = None


@dataclass(frozen=True)
class Boot:
    """Units that are started again, and when."""

    at: float
    requests: list[dict[str, Any]]
    boot_id: str


@dataclass(eq=False)
class Client:
    """One connection on the control socket and the bytes of its unfinished line."""

    connection: socket.socket
    buffer: bytes = b""


class Supervisor:
    """The loop. `directory` is removed at the end unless `keep`; `remove` names files that go with it."""

    def __init__(self, directory: str, lifetime: float, owner: int | None, keep: bool, remove: list[str]) -> None:
        self.directory = directory
        self.deadline = time.monotonic() + lifetime
        self.keep = keep
        self.remove = remove
        self.units: dict[str, Unit] = {}
        self.boots: list[Boot] = []
        self.selector = selectors.DefaultSelector()
        self.ending = False
        self.end_client: Client | None = None
        self._watch_signals()
        if owner is not None:
            self._watch_owner(owner)
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(os.path.join(directory, SOCKET_NAME))
        self.server.listen(64)
        self.server.setblocking(False)
        self.selector.register(self.server, selectors.EVENT_READ, "accept")

    def _watch_signals(self) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end_by_signal)
        self.wakeup = read
        self.selector.register(read, selectors.EVENT_READ, "wakeup")

    def _end_by_signal(self, *_: object) -> None:
        self.ending = True

    def _watch_owner(self, owner: int) -> None:
        # Two ways, because each has a hole: a fork of the owner keeps the pipe open, and the pid may be gone by now.
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "owner")
        try:
            self.selector.register(os.pidfd_open(owner), selectors.EVENT_READ, "owner")
        except ProcessLookupError:
            self.ending = True
        except OSError:  # a kernel before 5.3: the pipe alone must do
            pass

    def run(self) -> None:
        """Serve until the end, then end everything."""
        try:
            while not self.ending and time.monotonic() < self.deadline:
                for key, _events in self.selector.select(self._next_deadline() - time.monotonic()):
                    self._handle(key)
                self._reap()
                self._kill_overdue()
                self._boot()
        finally:
            self._end()

    def _next_deadline(self) -> float:
        kills = [unit.kill_at for unit in self.units.values() if unit.kill_at is not None]
        return min([self.deadline, *kills, *(boot.at for boot in self.boots)])

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.data == "owner":
            self.ending = True
        elif key.data == "wakeup":
            with contextlib.suppress(BlockingIOError):
                os.read(self.wakeup, 4096)
        elif key.data == "accept":
            connection, _address = self.server.accept()
            self.selector.register(connection, selectors.EVENT_READ, Client(connection))
        else:
            self._read(key.data)

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(client.connection)
            client.connection.close()
            return
        client.buffer += data
        while b"\n" in client.buffer:
            line, client.buffer = client.buffer.split(b"\n", 1)
            try:
                answer = self._request(client, json.loads(line))
            except (KeyError, ValueError, TypeError, OSError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            if answer is not None:
                self._answer(client, answer)

    @staticmethod
    def _answer(client: Client, answer: dict[str, Any]) -> None:
        # The client may have given up: then nobody misses the answer.
        with contextlib.suppress(OSError):
            client.connection.sendall(json.dumps(answer).encode() + b"\n")

    def _request(self, client: Client, request: dict[str, Any]) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = {}
        operation = request["op"]
        if operation == "start":
            answer = self._start(request)
        elif operation == "stop":
            answer = self._stop(client, request)
        elif operation == "signal":
            unit = self._running(request["unit"])
            if unit is not None:
                unit.process.send_signal(request["signal"])
            answer = {"running": unit is not None}
        elif operation == "list":
            answer = {"units": {name: self._describe(unit) for name, unit in self.units.items()}}
        elif operation == "reboot":
            self._reboot(request)
        elif operation == "lifetime":
            self.deadline = time.monotonic() + request["seconds"]
        elif operation == "end":
            self.ending = True
            self.end_client = client
            answer = None
        else:
            answer = {"error": f"unknown operation {operation!r}"}
        return answer

    @staticmethod
    def _describe(unit: Unit) -> dict[str, Any]:
        return {
            "pid": unit.process.pid,
            "argv": unit.request["argv"],
            "started": unit.started,
            "exit_code": unit.exit_code,
        }

    def _running(self, name: str) -> Unit | None:
        self._reap()
        unit = self.units.get(name)
        return unit if unit is not None and unit.exit_code is None else None

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["unit"]
        if self._running(name) is not None:
            return {"error": f"{name} is already running"}
        with open(request["log"], "ab") as log:
            process = subprocess.Popen(
                request["argv"],
                cwd=request.get("cwd", self.directory),
                env=request.get("env"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        self.units[name] = Unit(process, request, time.time())
        return {"pid": process.pid}

    def _stop(self, client: Client, request: dict[str, Any]) -> dict[str, Any] | None:
        unit = self._running(request["unit"])
        if unit is None:
            return {"stopped": False}
        unit.waiting.append(client)
        unit.kill_at = time.monotonic() + request.get("timeout", 10)
        also = request.get("also")
        if also is not None:
            # Held still, the unit can neither fork another one meanwhile nor free the pid of a dead one.
            unit.process.send_signal(signal.SIGSTOP)
            for pid in descendants(unit.process.pid):
                if command_name(pid).startswith(also):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        unit.process.send_signal(request.get("signal", signal.SIGTERM))
        return None

    def _reboot(self, request: dict[str, Any]) -> None:
        """The machine's end, without a word; all that ran starts again with it."""
        self._reap()
        running = [
            unit for name, unit in self.units.items() if name.startswith(request["units"]) and unit.exit_code is None
        ]
        for unit in running:
            unit.process.send_signal(signal.SIGSTOP)  # it can neither fork another one nor free a pid
            for pid in descendants(unit.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            unit.process.kill()
        requests = [unit.request for unit in running]
        self.boots.append(Boot(time.monotonic() + request["seconds"], requests, request["boot_id"]))

    def _boot(self) -> None:
        """Start what is to be started by now."""
        for boot in [one for one in self.boots if one.at <= time.monotonic()]:
            self.boots.remove(boot)
            with open(boot.boot_id, "w", encoding="utf-8") as file:
                file.write(f"{time.time_ns()}\n")
            for request in boot.requests:
                if self._running(request["unit"]) is None:
                    self._start(request)

    def _reap(self) -> None:
        """Collect every dead child, orphans that became ours included, and answer those who waited for a unit."""
        units = {unit.process.pid: unit for unit in self.units.values() if unit.exit_code is None}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            unit = units.get(pid)
            if unit is not None:
                unit.exit_code = unit.process.returncode = os.waitstatus_to_exitcode(status)
                unit.kill_at = None
                for client in unit.waiting:
                    self._answer(client, {"stopped": True, "exit_code": unit.exit_code})
                unit.waiting.clear()

    def _kill_overdue(self) -> None:
        for unit in self.units.values():
            if unit.kill_at is not None and unit.kill_at <= time.monotonic():
                unit.kill_at = None
                unit.process.kill()

    def _end(self) -> None:
        # No new units while the old ones end: the socket goes first (waiting deployments see it close and end too).
        self.server.close()
        for key in list(self.selector.get_map().values()):
            if isinstance(key.data, Client) and key.data is not self.end_client:
                key.data.connection.close()
        while True:
            pids = descendants(os.getpid())
            if not pids:
                break
            for pid in pids:
                # Only its parent can reap a descendant, and that is one of ours: the pid is still its own.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            time.sleep(0.01)
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)
        for path in self.remove:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        if self.end_client is not None:
            self._answer(self.end_client, {"ended": True})


def descendants(root: int) -> list[int]:
    """All living processes below `root`, by one pass over /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                    # pid (comm) state ppid ...: comm may hold spaces and brackets, so read behind the last one.
                    parent = int(stat.read().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def command_name(pid: int) -> str:
    """The kernel's short name of a process, "" when it has gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def main() -> None:
    settings = json.loads(sys.argv[1])
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    supervisor = Supervisor(
        settings["directory"], settings["lifetime"], settings["owner"], settings["keep"], settings["remove"]
    )
    print("ready", flush=True)
    supervisor.run()


if __name__ == "__main__":
    main()
