# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Load through the lab's load balancer, and the account of every request."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from .errors import LabError

GENERATOR = Path(__file__).with_name("generator.py")


class Row(NamedTuple):
    """One request. Times in epoch seconds; instance, version and pid as the application says, None without answer."""

    sent: float
    duration: float
    outcome: str  # ok, status, refused, reset, truncated, timeout, garbled
    status: int
    instance: str | None
    version: str | None
    pid: int | None
    connection: str  # new, kept
    detail: str


@dataclass(frozen=True)
class Report:
    """What became of the requests in `rows`."""

    rows: tuple[Row, ...]

    @property
    def total(self) -> int:
        return len(self.rows)

    @property
    def lost(self) -> list[Row]:
        """Everything but a complete 200."""
        return [row for row in self.rows if row.outcome != "ok"]

    @property
    def by_version(self) -> dict[str, int]:
        """Answered requests per version."""
        return dict(Counter(row.version for row in self.rows if row.version is not None))

    @property
    def by_instance(self) -> dict[str, int]:
        """Answered requests per VM."""
        return dict(Counter(row.instance for row in self.rows if row.instance is not None))

    @property
    def by_outcome(self) -> dict[str, int]:
        return dict(Counter(row.outcome for row in self.rows))

    def between(self, start: float, end: float = float("inf")) -> Report:
        """Only what was sent from `start` to `end` (epoch seconds, as time.time() tells them)."""
        return Report(tuple(row for row in self.rows if start <= row.sent <= end))

    def of(self, instance: str) -> Report:
        """Only what that VM answered."""
        return Report(tuple(row for row in self.rows if row.instance == instance))

    def __str__(self) -> str:
        lines = [f"{self.total} requests, {len(self.lost)} lost"]
        lines += [f"  {name:<12} {count}" for name, count in sorted(self.by_version.items())]
        lines += [f"  {name:<12} {count}" for name, count in sorted(self.by_instance.items())]
        for row in self.lost[:10]:
            at = time.strftime("%H:%M:%S", time.localtime(row.sent)) + f"{row.sent % 1:.3f}"[1:]
            words = [
                "lost",
                at,
                row.outcome,
                str(row.status or ""),
                row.instance or "",
                row.connection,
                *row.detail.split(),
            ]
            lines.append("  " + " ".join(word for word in words if word))
        return "\n".join(lines)


class LoadGenerator:
    """Requests at a fixed rate from a process of their own; a context manager.

    `rate` per second, at most `seconds` long (it ends with the lab, and with the process that started it); every fifth
    request uses a kept connection (`keepalive_every`, 0: none), the others a new one each; `timeout` seconds for each.
    """

    def __init__(
        self,
        url: str,
        file: Path,
        supervisor: Path,
        *,
        rate: float = 100,
        seconds: float = 900,
        timeout: float = 5,
        keepalive_every: int = 5,
        path: str = "/",
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self._settings = {
            "supervisor": str(supervisor),
            "host": parts.hostname,
            "port": parts.port,
            "path": path,
            "rate": rate,
            "seconds": seconds,
            "timeout": timeout,
            "keepalive_every": keepalive_every,
        }
        self._file = file
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._report: Report | None = None  # once it has ended: the lab removes the file with its directory

    def start(self) -> None:
        """Start, and return when the first request is accounted for."""
        self._file.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(GENERATOR), json.dumps(self._settings), str(self._file)], stdin=subprocess.PIPE
        )
        deadline = time.monotonic() + 10 + self._timeout
        while self._file.stat().st_size == 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise LabError("the load generator did not send anything")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the load and wait for what is in flight; harmless when it has ended."""
        if self._process is not None:
            self._process.communicate()
            self._process = None
            self._report = self.report()

    def wait(self) -> None:
        """Let it run to the end of its `seconds`."""
        if self._process is not None:
            self._process.wait()

    def report(self) -> Report:
        """The account so far; complete after stop() (or the end of the with block)."""
        if self._report is not None:
            return self._report
        with self._file.open(encoding="utf-8") as file:
            lines: Iterable[str] = file.read().splitlines(keepends=True)
        return Report(tuple(Row(*json.loads(line)) for line in lines if line.endswith("\n")))

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.report().rows

    def __enter__(self) -> LoadGenerator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
