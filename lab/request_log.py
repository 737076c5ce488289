# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HTTP requests that a lab's Consul agents answer, as the agents' own logs tell them."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from .errors import LabError
from .nodes import Node

FINISHED = re.compile(rb"Request finished: method=(\w+) url=\"?(/v1/[^\s\"]*)")
END = "/v1/status/leader?end-of-log"
_SECONDS = 30.0


class Request(NamedTuple):
    """One request: the machine whose agent answered it, the method, the path with its query."""

    node: str
    method: str
    url: str


class RequestLog:
    """Keeps what the agents of some nodes answer meanwhile; a context manager, complete after its end.

    By /v1/agent/monitor, which tells debug messages whatever the agent itself writes to its log. Not with TLS.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._threads: list[threading.Thread] = []
        self._requests: list[Request] = []

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests, those of one agent in order."""
        return tuple(self._requests)

    def __enter__(self) -> RequestLog:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for node in self._nodes:
            headers = {"X-Consul-Token": node.agent.token} if node.agent.token else {}
            asked = urllib.request.Request(f"{node.agent_url}/v1/agent/monitor?loglevel=debug", headers=headers)
            # Its answer begins when the agent has begun to tell.
            log = opener.open(asked, timeout=_SECONDS * 10)
            self._threads.append(threading.Thread(target=self._read, args=(node.name, log), daemon=True))
            self._threads[-1].start()
        return self

    def _read(self, node: str, log: urllib.request._UrlopenRet) -> None:
        with log:
            for line in log:
                found = FINISHED.search(line)
                if found is None:
                    continue
                method, url = (part.decode() for part in found.groups())
                if url == END:
                    return
                self._requests.append(Request(node, method, url))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node, thread in zip(self._nodes, self._threads, strict=True):
            node.agent.call("GET", END.removeprefix("/v1/"))
            thread.join(_SECONDS)
            if thread.is_alive() and kind is None:
                raise LabError(f"the log of the agent of {node.name} did not come to its end")
