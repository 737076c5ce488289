# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the lock of a running deployment (a private program of this collection; ``_lock.py`` starts it).

It runs beside the run, in a session of its own, imports nothing but the standard library (and, as a file, the program
that makes requests on hosts), and holds two things of the run: the read ends of two pipes. The write end of the first
is held by the main process and all workers forked from it; when the last of them is gone, also by kill -9, the pipe
ends. So it outlives a worker that still deploys after its main process has ended. Into the second the workers write
their results. Once the main process has ended nobody else takes them, and a worker with a result larger than a pipe's
buffer (64 KiB) would never end: the keeper takes them and throws them away.

While the run lives, the session is renewed each third of its TTL, but not while the main process is stopped (its gate
could not be passed), and no longer when hosts have stopped finishing for the progress deadline. When the run has ended
without releasing the lock, a record that still says "running" is made "interrupted" and the lock is released.

It ends by itself in every case, and on SIGTERM as if the run had ended. It says nothing: nobody listens.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

FINISH_FOR = 60.0
"""Seconds it tries to tidy up after the run; a leader's death takes up to 17. After that the session's TTL does it."""
PROGRESS_EVERY = 60.0
"""Seconds between two looks at the outcomes, at most."""
ORPHANS_FOR = 3600.0
"""Seconds that workers may go on after their main process has ended."""
ORPHANED = "The run was interrupted; what it had begun on a host goes on, and its lock is kept until that has ended."
DESCRIPTION = "The run ended without finishing: its controller was killed, or stopped by an error or a person."


class NoAnswer(Exception):
    """No usable answer now; a later try may get one."""


@dataclass(frozen=True)
class Config:
    """What ``lock.start_keeper`` sends by standard input; times in seconds."""

    http: str
    """The file that asks, ``programs/http.py``; ``tls`` are its settings."""
    url: str
    headers: dict[str, str]
    tls: dict[str, Any]
    datacenter: str
    timeout: float
    lock: str
    deployments: str
    """The prefix of their keys; empty where the lock is of none. Which of them it is of, its value says: a rollout that
    fails hands its lock on to the rollback."""
    record: str
    outcomes: str
    """What follows the prefix and the deployment's id."""
    session: str
    ttl: float
    progress_deadline: float
    controller: int
    pipe: int
    results: int | None = None


class Consul:
    """The few requests needed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        # A renewal that hangs must leave time for another one within the TTL.
        self._timeout = min(config.timeout, max(1.0, config.ttl / 2))
        self._http = _program(config.http)
        # Once: the files of TLS may be gone by the time that the run is.
        self._way = self._http.opener({"url": config.url, **config.tls})

    def request(self, method: str, path: str, params: dict[str, str] | None = None, body: str = "") -> tuple[int, Any]:
        """-> (200, 404 or 409, decoded answer). Any other, a limit (429) for instance, is no answer."""
        answer = self._ask(method, path, params, body)
        try:
            return answer["status"], json.loads(answer["body"])
        except ValueError:
            return answer["status"], None

    def _ask(self, method: str, path: str, params: dict[str, str] | None, body: str = "") -> dict[str, Any]:
        query = dict(params or {})
        if self._config.datacenter:
            query["dc"] = self._config.datacenter
        answer: dict[str, Any] = self._http.ask(
            self._way,
            {
                "method": method,
                "url": f"{self._config.url}/v1/{quote(path)}?{urlencode(query)}",
                "headers": self._config.headers,
                "body": body,
                "timeout": self._timeout,
            },
        )
        if answer["status"] not in (200, 404, 409):
            raise NoAnswer(answer.get("error") or str(answer["status"]))
        return answer

    def key(self, key: str) -> dict[str, Any] | None:
        """A key with its Value, Session and ModifyIndex by a consistent read; None where it is not there."""
        status, data = self.request("GET", f"kv/{key}", {"consistent": ""})
        return data[0] if status == 200 and data else None

    def renew(self) -> bool:
        """Renew the session; false when it is gone for good."""
        status, _answer = self.request("PUT", f"session/renew/{self._config.session}")
        return status != 404

    def newest_outcome(self, deployment: str) -> int:
        """A number that grows with each outcome of a host; 0 while there is none.

        Only names are read, since outcomes can be ten thousand with all that a deployment printed. The index of their
        answer is that of the newest; that of an answer about an empty prefix (404) is that of all keys.
        """
        config = self._config
        answer = self._ask("GET", f"kv/{config.deployments}{deployment}/{config.outcomes}", {"keys": ""})
        headers = {name.lower(): value for name, value in answer["headers"].items()}
        return int(headers.get("x-consul-index") or 1) if answer["status"] == 200 else 0

    def holds_lock(self) -> bool:
        """Whether the lock is still this session's."""
        return self.deployment() is not None

    def deployment(self) -> str | None:
        """The deployment that the lock is of, empty for none; None where the lock is no longer this session's."""
        pair = self.key(self._config.lock)
        if pair is None or pair.get("Session") != self._config.session:
            return None
        try:
            holder = json.loads(b64decode(pair["Value"] or ""))
        except ValueError:
            return ""
        return str(holder.get("deployment") or "") if isinstance(holder, dict) else ""

    def mark_interrupted(self) -> None:
        """A record that says "running" says "interrupted", if the lock is still ours in the same transaction."""
        finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.change_record({"state": "interrupted", "finished": finished, "description": DESCRIPTION})

    def mark_orphaned(self) -> None:
        """A record that says "running" says that its controller was interrupted, for those who wait for the lock."""
        self.change_record({"description": ORPHANED})

    def change_record(self, changes: dict[str, str]) -> None:
        deployment = self.deployment() if self._config.deployments else ""
        key = f"{self._config.deployments}{deployment}/{self._config.record}"
        pair = self.key(key) if deployment else None
        if pair is None:
            return
        try:
            record = json.loads(b64decode(pair["Value"] or ""))
        except ValueError:
            return
        if not isinstance(record, dict) or record.get("state") != "running":
            return
        value = b64encode(json.dumps({**record, **changes}).encode()).decode()
        if not self.fenced(Verb="cas", Key=key, Value=value, Index=pair["ModifyIndex"]):
            raise NoAnswer("the lock or the record is not what it was: look again")

    def release(self) -> None:
        """The lock's key goes before its session: the other order would start the lock's delay."""
        self.fenced(Verb="delete", Key=self._config.lock)
        self.request("PUT", f"session/destroy/{self._config.session}")

    def fenced(self, **operation: object) -> bool:
        """One change of a key if the lock is still ours, in the same transaction; false where Consul refused it."""
        fence = {"Verb": "check-session", "Key": self._config.lock, "Session": self._config.session}
        status, _answer = self.request("PUT", "txn", body=json.dumps([{"KV": fence}, {"KV": operation}]))
        return status != 409


def _program(path: str) -> Any:
    """A program for hosts; it has no package that it could be imported from here."""
    spec = importlib.util.spec_from_file_location("program", path)
    if spec is None or spec.loader is None:
        raise OSError(f"{path} is not a program")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def process_state(pid: int) -> tuple[str, str]:
    """-> (state letter, when it started) of a process, ("", "") where there is none.

    The start tells a process from a later one that got the same number.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], fields[19]
    except OSError:
        if os.path.isdir("/proc/self"):
            return "", ""
    shown = subprocess.run(  # pylint: disable=ansible-bad-function
        ["ps", "-o", "state=,lstart=", "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    state, _space, started = shown.stdout.strip().partition(" ")
    return state[:1], started.strip()


def death_of(pid: int) -> int:
    """A descriptor that is readable once the process has ended, -1 where there is none such (macOS, Python 3.8)."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


class Keeper:
    """The life of one keeper."""

    def __init__(self, config: Config, consul: Consul, wake: int) -> None:
        self.config = config
        self.consul = consul
        self._wake = wake  # readable when SIGTERM came
        self._death = death_of(config.controller)
        self._watched = [config.pipe, wake, *([] if self._death < 0 else [self._death])]
        self._controller_started = process_state(config.controller)[1]
        self._orphaned: float | None = None
        self._newest = ("", -1)
        self._progressed = time.monotonic()
        self._looked = 0.0

    def run(self) -> None:
        """Until the run has ended, the session is gone, or the run makes no progress any more."""
        every = self.config.ttl / 3
        delay = pause = 0.0
        while True:
            if self._ended(pause):
                self.finish()
                return
            try:
                if self.stopped():
                    # Not renewed; only looked at, so as not to outlive it.
                    if not self.consul.holds_lock():
                        return
                    delay, pause = 0.0, min(every, 1.0)
                    continue
                if self.orphaned_too_long() or not self.consul.renew() or self.stalled():
                    return
                delay, pause = 0.0, every
            except NoAnswer:
                pause = delay = min(delay * 2 or 0.25, every)

    def _ended(self, within: float) -> bool:
        """Wait that many seconds; true as soon as the run has ended."""
        until = time.monotonic() + within
        while True:
            readable = select.select(self._watched, [], [], max(0.0, until - time.monotonic()))[0]
            if self.config.pipe in readable or self._wake in readable:
                return True
            if not readable:
                return False
            if self._death in readable:
                self._watched.remove(self._death)
                return False
            if not os.read(readable[0], 65536):
                self._watched.remove(readable[0])

    def orphan(self) -> float:
        """The main process has just been found ended, and perhaps not its workers -> when that was."""
        self._orphaned = since = time.monotonic()
        if self.config.results is not None:
            self._watched.append(self.config.results)
        if self.consul.holds_lock():
            self.consul.mark_orphaned()
        return since

    def stopped(self) -> bool:
        """Whether the main process is stopped (SIGSTOP, Ctrl-Z): it could hold the lock for ever and do nothing."""
        state, started = process_state(self.config.controller)
        return state == "T" and started == self._controller_started

    def orphaned_too_long(self) -> bool:
        """Whether the main process has been gone for so long that its workers cannot be deploying any more."""
        state, started = process_state(self.config.controller)
        if state not in ("", "Z") and started == self._controller_started:
            return False
        since = self.orphan() if self._orphaned is None else self._orphaned
        return time.monotonic() - since >= ORPHANS_FOR

    def stalled(self) -> bool:
        """Whether no host finished for the progress deadline; a deadline of 0 is none."""
        deadline, now = self.config.progress_deadline, time.monotonic()
        every = min(PROGRESS_EVERY, deadline / 10)
        if not deadline or not self.config.deployments or (self._looked and now - self._looked < every):
            return False
        deployment = self.consul.deployment() or ""
        newest = (deployment, self.consul.newest_outcome(deployment) if deployment else 0)
        self._looked = now
        if newest != self._newest:
            self._newest, self._progressed = newest, now
        return now - self._progressed >= deadline

    def finish(self) -> None:
        """The run is gone: tidy up, unless it did so itself."""
        until, delay = time.monotonic() + FINISH_FOR, 0.25
        while True:
            try:
                if self.consul.holds_lock():
                    self.consul.mark_interrupted()
                self.consul.release()
            except NoAnswer:
                if time.monotonic() >= until:
                    return
                time.sleep(delay)
                delay = min(delay * 2, 5.0)
            else:
                return


def wake_on_sigterm() -> int:
    """What is readable once SIGTERM has come; a terminal's signals are ignored from here on."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: bool(os.write(woken, b"T")))
    return wake


def detach() -> None:
    """Go on in a process of its own. That which was started ends at once: nobody waits for a program beside a run."""
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def main() -> int:
    """Read the configuration, detach, keep."""
    config = Config(**json.load(sys.stdin))
    keeper = Keeper(config, Consul(config), wake_on_sigterm())
    detach()
    keeper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())  # pylint: disable=ansible-bad-function
