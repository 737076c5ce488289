"""A Consul server for the parts of the bench that need no machines: in memory, on a loopback address of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TXN_LIMIT = 64
"""Operations that Consul takes in one transaction."""
CONNECTIONS = 200
"""From one address: Consul's own limit."""
FINISHED = re.compile(r'Request finished: method=(\w+) url="?(/v1/[^\s"]*)"? from=([^\s:]+)')


class Request(NamedTuple):
    """One request that Consul has answered: the method, the path with its query, the address that it came from."""

    method: str
    url: str
    source: str


class Consul:
    """A development server, in memory, on an address of its own."""

    def __init__(self, address: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = f"http://{address}:8500"
        self.address = address
        self._process = process
        self._log = log
        self._http = http.client.HTTPConnection(address, 8500, timeout=30)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer; RuntimeError for any but 200."""
        self._http.request(method, path, json.dumps(body))
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content)

    def wait(self) -> None:
        """Return when it has a leader."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException, RuntimeError):
                if self.call("GET", "/v1/status/leader"):
                    return
            self._http.close()
            time.sleep(0.2)
        raise RuntimeError(f"Consul did not start: {self._log.read_text(encoding='utf-8')[-2000:]}")

    def write(self, groups: list[list[dict[str, Any]]]) -> None:
        """Operations in as few transactions as they fit in; those of one group stay together."""
        together: list[dict[str, Any]] = []
        for group in groups:
            if len(together) + len(group) > TXN_LIMIT:
                self.call("PUT", "/v1/txn", together)
                together = []
            together += group
        self.call("PUT", "/v1/txn", together)

    def processor_time(self) -> float:
        """Seconds of user and system time so far, as Linux tells them."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def requests(self) -> list[Request]:
        """The requests answered so far, in order, by its own log."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return [Request(*found.groups()) for found in FINISHED.finditer(text)]


def free_address() -> str:
    """A loopback address where nothing listens on Consul's ports."""
    for last in range(1, 255):
        address = f"127.0.31.{last}"
        try:
            for port in (8300, 8301, 8302, 8500, 8502, 8600):
                with socket.socket() as probe:
                    probe.bind((address, port))
        except OSError:
            continue
        return address
    raise RuntimeError("no free address in 127.0.31.0/24")


@contextlib.contextmanager
def running(binary: Path, folder: Path, connections: int = CONNECTIONS) -> Iterator[Consul]:
    """A server that ends with the context; its log is in the folder.

    :param connections: at a time from one address; Consul refuses more than the limit of open files allows.
    """
    address, log = free_address(), folder / "consul.log"
    settings = folder / "consul.json"
    settings.write_text(json.dumps({"limits": {"http_max_conns_per_client": connections}}), encoding="utf-8")
    addresses = (f"-bind={address}", f"-client={address}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [binary, "agent", "-dev", *addresses, "-node=server", "-log-level=debug", f"-config-file={settings}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        consul = Consul(address, process, log)
        consul.wait()
        yield consul
    finally:
        process.kill()
        process.wait()
