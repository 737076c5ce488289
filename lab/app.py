# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application that a lab's VM runs: a small HTTP/1.1 server whose version string says how it behaves.

GET /health tells its health, everything else answers {"instance", "version", "pid"} as JSON, /latency/3000 after 3 s.
On SIGTERM it stops accepting, finishes the requests in flight, closes idle connections and exits. docs/lab.md lists the
behaviours.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, cast

TOKEN = re.compile(r"^([a-z]+?)(\d*)$")
LATENCY = re.compile(r"GET /latency/(\d+) ")


@dataclass(frozen=True)
class Behaviour:
    """What a version does, read from the suffixes of its name ("3.0.0-slow5-badafter3")."""

    broken: bool = False  # health and requests answer 500
    warning: bool = False  # health answers 429, which Consul takes as a warning; requests are fine
    slow: float = 0.0  # seconds from its start until it listens
    bad_after: float | None = None  # seconds after its start from which health and requests answer 500
    bad_for: float = float("inf")  # seconds for which they do
    latency: float = 0.0  # seconds that each request takes
    flaky: int = 0  # of a hundred requests so many answer 500, while health answers well
    reregister: bool = False  # deregisters and registers its service when it starts
    crash: bool = False  # exits at once, code 1

    @classmethod
    def of(cls, version: str, instance: str, zone: str = "") -> Behaviour:
        """The behaviour of `version` on `instance`; unknown suffixes mean nothing ("-rc1")."""
        suffixes = version.split("-")[1:]
        if "only" in suffixes and suffixes[suffixes.index("only") + 1 :][:1] not in ([instance], [zone]):
            return cls()
        found: dict[str, Any] = {}
        for position, suffix in enumerate(suffixes):
            match = TOKEN.match(suffix)
            if match is None:
                continue
            name, number = match.group(1), int(match.group(2) or 0)
            if name in ("broken", "warning", "reregister", "crash"):
                found[name] = True
            elif name == "brokenon" and suffixes[position + 1 : position + 2] == [instance]:
                found["broken"] = True
            elif name == "slow":
                found["slow"] = float(number)
            elif name == "badafter":
                found["bad_after"] = float(number)
            elif name == "badfor":
                found["bad_for"] = float(number)
            elif name == "flaky":
                found["flaky"] = number
            elif name == "latency":
                found["latency"] = number / 1000
        return cls(**found)


class Application:
    """The state that all connections share."""

    def __init__(self, instance: str, version: str, behaviour: Behaviour, outage: str) -> None:
        self.instance = instance
        self.version = version
        self.behaviour = behaviour
        self.started = time.monotonic()
        self.stopping = False
        self.outage = outage
        self.connections: set[Connection] = set()
        self.all_closed = asyncio.Event()
        self.flaked = 0

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and body for one request."""
        known, ran = self.behaviour, time.monotonic() - self.started
        turned = known.bad_after is not None and known.bad_after <= ran < known.bad_after + known.bad_for
        outage = os.path.exists(self.outage)
        failing = known.broken or turned or outage
        body: dict[str, Any] = {"instance": self.instance, "version": self.version, "pid": os.getpid()}
        if path.partition("?")[0] == "/health":
            status = 500 if failing else 429 if self.behaviour.warning else 200
            body["status"] = {
                500: f"failing: {'no database' if outage else 'version is broken'}",
                429: "warning: running hot",
                200: "ok",
            }[status]
            return status, body
        self.flaked += known.flaky
        if self.flaked >= 100:  # spread evenly, so that two runs are alike
            self.flaked -= 100
            failing = True
        return (500 if failing else 200), body

    def stop(self) -> None:
        """Begin the graceful end: what is idle goes now, what is in flight goes with its answer."""
        self.stopping = True
        for connection in list(self.connections):
            connection.close_if_idle()
        if not self.connections:
            self.all_closed.set()


class Connection(asyncio.Protocol):
    """One client connection; requests are answered one after another."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.buffer = b""
        self.busy = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.application.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self.application.connections.discard(self)
        if self.application.stopping and not self.application.connections:
            self.application.all_closed.set()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._next()

    def close_if_idle(self) -> None:
        if not self.busy and not self.buffer:
            self.transport.close()

    def _next(self) -> None:
        if self.busy or b"\r\n\r\n" not in self.buffer:
            return
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
        self.busy = True
        asked = LATENCY.match(lines[0])
        latency = int(asked.group(1)) / 1000 if asked else self.application.behaviour.latency
        if latency:
            asyncio.get_running_loop().call_later(latency, self._respond, lines[0], headers)
        else:
            self._respond(lines[0], headers)

    def _respond(self, request_line: str, headers: dict[str, str]) -> None:
        method, _, rest = request_line.partition(" ")
        status, body = self.application.answer(rest.partition(" ")[0])
        content = json.dumps(body).encode() + b"\n"
        close = self.application.stopping or headers.get("connection", "").lower() == "close"
        reason = {200: "OK", 429: "Too Many Requests", 500: "Internal Server Error"}[status]
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            f"Connection: {'close' if close else 'keep-alive'}\r\n\r\n"
        )
        self.transport.write(head.encode() + (b"" if method == "HEAD" else content))
        self.busy = False
        if close:
            self.transport.close()
        else:
            self._next()


def reregister(settings: dict[str, Any], version: str) -> None:
    """Deregister and register the service at the VM's own agent, as some applications do: maintenance gets lost."""
    service = dict(settings["service"], Meta={"version": version})
    context = None
    if settings["ca"]:
        context = ssl.create_default_context(cafile=settings["ca"])
        context.load_cert_chain(settings["certificate"], settings["key"])
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else [])
    )
    headers = {"X-Consul-Token": settings["token"]} if settings["token"] else {}
    identifier = urllib.parse.quote(service["ID"], safe="")
    for path, body in (
        (f"/v1/agent/service/deregister/{identifier}", b""),
        ("/v1/agent/service/register", json.dumps(service).encode()),
    ):
        request = urllib.request.Request(settings["agent_url"] + path, data=body, method="PUT", headers=headers)
        opener.open(request, timeout=5).close()
    print("registered anew", flush=True)


async def serve(settings: dict[str, Any], version: str) -> None:
    """Run until SIGTERM; then end gracefully."""
    behaviour = Behaviour.of(version, settings["name"], settings.get("zone", ""))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if behaviour.crash:
        sys.exit("cannot start: configuration key 'database' is missing")
    if behaviour.reregister:
        await asyncio.to_thread(reregister, settings, version)
    if behaviour.slow:
        try:
            await asyncio.wait_for(stop.wait(), behaviour.slow)
            return
        except asyncio.TimeoutError:
            pass
    application = Application(settings["name"], version, behaviour, settings["outage"])
    address, port = settings["address"], settings["port"]
    server = await loop.create_server(lambda: Connection(application), address, port, backlog=256)
    print(f"version {version} listens on {address}:{port}", flush=True)
    await stop.wait()
    server.close()
    application.stop()
    await application.all_closed.wait()
    print(f"version {version} stopped", flush=True)


def main() -> None:
    """app.py VM-SETTINGS-FILE VERSION"""
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    asyncio.run(serve(settings, sys.argv[2]))


if __name__ == "__main__":
    main()
