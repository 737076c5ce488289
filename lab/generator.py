# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load generator's process: requests at a fixed rate, each accounted for in one line of a file.

Open loop: request n leaves at start + n / rate whether others came back or not. Nothing is ever tried again. It ends
after `seconds`, when its standard input is closed (its owner went away) or when the lab ended, and waits for what is
in flight.

A line is a JSON list: sent (epoch seconds), duration (s), outcome, status, instance, version, pid, connection
("new" or "kept"), detail. Outcomes: ok (200, complete, JSON), status, refused, reset, truncated, timeout, garbled.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any, TextIO

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
KEPT = 10.0
"""Seconds for which a connection without a request is kept: below the load balancer's limit (30 s)."""


class Truncated(Exception):
    """The connection ended inside an answer."""


class Generator:
    """One run of load."""

    def __init__(self, settings: dict[str, Any], out: TextIO) -> None:
        self.host: str = settings["host"]
        self.port: int = settings["port"]
        self.path: str = settings["path"]
        self.rate: float = settings["rate"]
        self.seconds: float = settings["seconds"]
        self.timeout: float = settings["timeout"]
        self.keepalive_every: int = settings["keepalive_every"]
        self.supervisor: str = settings["supervisor"]
        self.out = out
        self.idle: list[tuple[float, Streams]] = []
        """Kept connections and since when; the last one is taken first, so that those of a burst grow old."""
        self.flying: set[asyncio.Task[None]] = set()
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), self.stopping.set)
        lab = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        lab.connect(self.supervisor)
        loop.add_reader(lab.fileno(), self.stopping.set)
        start = time.monotonic()
        number = 0
        while not self.stopping.is_set() and time.monotonic() - start < self.seconds:
            keep = self.keepalive_every > 0 and number % self.keepalive_every == 0
            task = asyncio.create_task(self.request(keep))
            self.flying.add(task)
            task.add_done_callback(self.flying.discard)
            number += 1
            delay = start + number / self.rate - time.monotonic()
            if delay > 0:
                try:
                    await asyncio.wait_for(self.stopping.wait(), delay)
                except asyncio.TimeoutError:
                    pass
            else:
                await asyncio.sleep(0)
        if self.flying:
            await asyncio.wait(self.flying)
        for _since, (_reader, writer) in self.idle:
            writer.close()

    async def request(self, keep: bool) -> None:
        """One request, one line."""
        sent = time.time()
        begin = time.monotonic()
        kept = self.kept() if keep else None
        status, body, detail = 0, b"", ""
        try:
            status, body = await asyncio.wait_for(self.exchange(keep, kept), self.timeout)
            outcome = "ok" if status == 200 else "status"
        except asyncio.TimeoutError:
            outcome = "timeout"
        except ConnectionRefusedError:
            outcome = "refused"
        except Truncated as error:
            outcome, detail = "truncated", str(error)
        except OSError as error:
            outcome, detail = "reset", str(error)
        except ValueError as error:
            outcome, detail = "garbled", str(error)
        answer: dict[str, Any] = {}
        if outcome in ("ok", "status"):
            try:
                answer = json.loads(body)
            except ValueError:
                detail = body[:80].decode(errors="replace")
                outcome = "garbled" if outcome == "ok" else outcome
        row = [round(sent, 4), round(time.monotonic() - begin, 4), outcome, status]
        row += [answer.get("instance"), answer.get("version"), answer.get("pid"), "kept" if kept else "new", detail]
        self.out.write(json.dumps(row) + "\n")
        self.out.flush()

    def kept(self) -> Streams | None:
        """A kept connection, if there is one that nobody has closed meanwhile."""
        while self.idle:
            since, (reader, writer) = self.idle.pop()
            if time.monotonic() - since < KEPT and not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    async def exchange(self, keep: bool, kept: Streams | None) -> tuple[int, bytes]:
        """Send one GET and read the whole answer: status and body."""
        reader, writer = kept or await asyncio.open_connection(self.host, self.port)
        reusable = False
        try:
            connection = "keep-alive" if keep else "close"
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: {connection}\r\n\r\n".encode())
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise Truncated("in the headers") from error
                raise ConnectionResetError("closed without an answer") from error
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
            try:
                if "content-length" in headers:
                    body = await reader.readexactly(int(headers["content-length"]))
                else:
                    body = await reader.read()
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise Truncated("in the body") from error
            reusable = keep and "content-length" in headers and headers.get("connection", "").lower() != "close"
            return status, body
        finally:
            if reusable:
                self.idle.append((time.monotonic(), (reader, writer)))
            else:
                writer.close()


def main() -> None:
    """generator.py SETTINGS-AS-JSON OUTPUT-FILE"""
    with open(sys.argv[2], "w", encoding="utf-8") as out:

        async def run() -> None:
            await Generator(json.loads(sys.argv[1]), out).run()

        asyncio.run(run())


if __name__ == "__main__":
    main()
