"""A small HTTP server whose answers a test writes down: only for faults that a real Consul cannot be made to show."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ADDRESS = "127.0.35.1"


@dataclass
class Reply:
    """One answer; ``raw`` bytes go out instead of any HTTP, ``hold`` says to wait for the server's end first."""

    status: int = 200
    body: str = "null"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    hold: bool = False


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HttpServer:
    """A context manager. ``replies`` are given one after another, the last one for ever; or computed by a function."""

    def __init__(self, *replies: Reply, answer: Callable[[Asked], Reply] | None = None, address: str = ADDRESS) -> None:
        self.asked: list[Asked] = []
        self._replies = list(replies) or [Reply()]
        self._answer = answer
        self._lock = threading.Lock()
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
                reply = outer._reply(asked)
                if reply.hold:
                    outer.ended.wait(60)
                with contextlib.suppress(OSError):
                    if reply.raw is not None:
                        self.wfile.write(reply.raw)
                        self.close_connection = True
                        return
                    self.send_response(reply.status)
                    for name, value in {**reply.headers, "Content-Length": str(len(reply.body.encode()))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.body.encode())

            do_GET = do_PUT = do_POST = do_DELETE = do_CONNECT = _handle  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://{address}:{self.port}"

    def _reply(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            if self._answer is not None:
                return self._answer(asked)
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    def __enter__(self) -> HttpServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()


def nobody(address: str = ADDRESS) -> str:
    """The URL of a port that refuses connections."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return f"http://{address}:{probe.getsockname()[1]}"
