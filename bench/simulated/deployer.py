"""The deploy agent of a simulated machine: the program of the role deploy_agent itself, many times in one process.

What it accepts, each step that it takes and writes, how it drains, verifies, returns and fails is that program's own
code. Three things are replaced, since they belong to a machine of its own: the connection to its Consul agent (here the
simulated one, or the server behind it), the files of its state (here memory: each machine would wait for the same
disk), and the process of the deployment command with the lock file around it.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.deploy_agent import PROGRAM

from .link import Link
from .machine import Machine

sys.path.insert(0, str(PROGRAM.parent))

from hitless_deploy.agent import Agent
from hitless_deploy.config import DEFAULTS
from hitless_deploy.consul import RETRY_FOR, Consul
from hitless_deploy.errors import Unavailable
from hitless_deploy.log import Log
from hitless_deploy.programs import probe
from hitless_deploy.store import Store
from hitless_deploy.turn import Turn

_in_time = probe.in_time


def _in_time_if_possible(call: Callable[[], Any]) -> Any:
    return _in_time(call) if threading.current_thread() is threading.main_thread() else call()


probe.in_time = _in_time_if_possible


class ThroughLink(Consul):
    """What the program asks: of the machine's own agent by a call, of the cluster over the shared connections."""

    def __init__(self, config: dict[str, Any], machine: Machine, link: Link, retry_for: float = RETRY_FOR) -> None:
        super().__init__(config, retry_for)
        self._machine = machine
        self._link = link

    def once(
        self,
        method: str,
        path: str,
        params: Sequence[tuple[str, object]] = (),
        body: bytes | None = None,
        timeout: float = 10.0,
    ) -> tuple[int, Any, int]:
        """As in the program: (status, data, index), or Unavailable."""
        try:
            if path.startswith("/v1/agent/"):
                status, data = self._machine.agent(method, path, {name: str(value) for name, value in params})
                return status, data, 0
            query = f"?{urllib.parse.urlencode(params)}" if params else ""
            answer = self._link.ask(method, urllib.parse.quote(path, safe="/:") + query, body, timeout)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{method} {path}: {error}") from None
        if answer.status not in (200, 404, 409):
            raise Unavailable(f"{method} {path}: {answer.status} {answer.content[:200]!r}")
        return answer.status, None if answer.status == 404 else json.loads(answer.content or b"null"), answer.index


class Memory(Store):
    """The state of one machine."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._kept: dict[str, str] = {}

    def load(self, name: str = "state") -> Any:
        return json.loads(self._kept.get(name, "null"))

    def save(self, data: Any, name: str = "state") -> None:
        self._kept[name] = json.dumps(data)

    def clear(self, *names: str) -> None:
        for name in names or ("state",):
            self._kept.pop(name, None)


class Deployer(Agent):
    """The deploy agent of one machine, for the requests that are there now; see :func:`settle`."""

    def __init__(self, config: dict[str, Any], machine: Machine, link: Link) -> None:
        super().__init__(config, "")
        self._machine = machine
        self._link = link
        self.consul = self._connect()
        self.store = Memory(config)

    def _connect(self, retry_for: float = RETRY_FOR) -> ThroughLink:
        return ThroughLink(self.config, self._machine, self._link, retry_for)

    def tell(self, text: str) -> None:
        """To the journal of the unit: here nobody reads thousands of them."""

    def take(self, state: dict[str, Any], index: int, steps: list[Any], resumed: bool = False) -> None:
        """As in the program, with connections of this kind for what runs beside the turn."""
        self.store.save(state)
        log = Log(self.config, self.store, state["request"])
        log.consul = self._connect(retry_for=0)
        turn = Turn(self, state, index, steps, log)
        turn.resumed = resumed
        turn.watch.consul = self._connect(retry_for=0)
        log.start()
        try:
            turn.run()
        finally:
            log.finish()

    def hold(self) -> bool:
        """No lock: nothing else deploys on a simulated machine, and its agent does one thing at a time."""
        return False

    def start_command(self) -> None:
        """The command, to its end."""
        request = self.store.load()["request"]
        code = self._machine.deploy(request["reason"], request["version"], request["deploy_timeout"])
        result = {"request": request["request"], "rc": code, "timed_out": code is None, "error": ""}
        self.store.save(result, "result")


def settle(machine: Machine, link: Link, folder: Path) -> None:
    """Do all that is asked of the machine, as its watch does when its key has changed."""
    config = {
        **DEFAULTS,
        "service": machine.service,
        "node": machine.name,
        "command": "simulated",
        "state_directory": str(folder),
    }
    deployer = Deployer(config, machine, link)
    try:
        deployer.settle()
    finally:
        os.close(deployer.own_lock)
