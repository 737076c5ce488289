"""Requests to the real Consul server, over connections that are kept and shared by all simulated machines."""

from __future__ import annotations

import contextlib
import http.client
import queue
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Of one request; the index is for a blocking read that goes on from there."""

    status: int
    content: bytes
    index: int


class Link:
    """Thread-safe. `source` is the address that requests come from, so that Consul's log tells them from others."""

    def __init__(self, address: str, source: str, port: int = 8500) -> None:
        self.address = address
        self.port = port
        self.source = source
        self.is_closed = False
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()

    def ask(self, method: str, path: str, body: bytes | None = None, timeout: float = 30.0) -> Answer:
        """One request; OSError or HTTPException where there is no answer.

        SystemExit, which ends the thread that asks without a word, once the fleet is closed.
        """
        if self.is_closed:
            raise SystemExit
        connection = self._connection()
        connection.timeout = timeout
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(timeout)
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read()
        except BaseException:
            connection.close()
            if self.is_closed:
                raise SystemExit from None
            raise
        self._idle.put(connection)
        return Answer(answer.status, content, int(answer.headers.get("X-Consul-Index") or 0))

    def close(self) -> None:
        """No request is begun any more."""
        self.is_closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _connection(self) -> http.client.HTTPConnection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return http.client.HTTPConnection(self.address, self.port, source_address=(self.source, 0))
