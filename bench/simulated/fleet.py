"""So many machines on one real Consul server."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.consul import Consul, Request, running
from lab.binaries import find_consul
from lab.network import claim

from .deployer import settle
from .link import Link
from .loop import Loop
from .machine import PORT, Behaviour, Machine

FIRST = "1.0.0"
"""The version that runs everywhere at the beginning."""
NETWORKS = range(64, 192)
"""Of 127.N.0.0/16: a fleet takes one."""
_IN_A_ROW = 250
_IN_TURN = 2
"""Open files of a machine in its turn, beside the one by which it follows its key and the one at which it listens."""


class Fleet:
    """The machines `web-0001` and so on, and what became of them; made by :func:`simulated`."""

    def __init__(
        self, consul: Consul, machines: list[Machine], link: Link, loop: Loop, folder: Path, *, listens: bool
    ) -> None:
        self.consul = consul
        self.machines = machines
        self.folder = folder
        self._link = link
        self._loop = loop
        self._listens = listens

    @property
    def environment(self) -> dict[str, str]:
        """By which Ansible finds Consul."""
        return {"CONSUL_HTTP_ADDR": self.consul.url}

    def inventory(self, **variables: Any) -> Path:
        """A static inventory of all machines in the group of their service; local connections, and these variables."""
        hosts = {
            one.name: {
                "consul_node": one.name,
                "consul_address": one.address,
                "hitless_consul_agent_url": f"http://{one.address}:{PORT}",
            }
            for one in self.machines
        }
        connection = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
        }
        if self._listens:
            connection["rollout_health_url"] = f"http://{{{{ consul_address }}}}:{PORT}/health"
        group = {"hosts": hosts, "vars": {**connection, **variables}}
        file = self.folder / "inventory.json"
        file.write_text(json.dumps({"all": {"children": {self.machines[0].service: group}}}), encoding="utf-8")
        return file

    def asked_by_others(self) -> list[Request]:
        """What the server has answered so far to others than the machines: to the controller."""
        return [one for one in self.consul.requests() if one.source != self._link.source]

    def asked_of_agents(self) -> int:
        """How many requests the machines' own agents have answered so far."""
        return self._loop.answered

    def versions(self) -> dict[str, int]:
        """Version -> how many machines run it, by what their deployment commands did."""
        found: dict[str, int] = {}
        for machine in self.machines:
            found[machine.version] = found.get(machine.version, 0) + 1
        return found


def _ordinary(_number: int) -> Behaviour:
    return Behaviour()


@contextlib.contextmanager
def simulated(
    number: int,
    service: str = "web",
    behaviour: Callable[[int], Behaviour] = _ordinary,
    consul: str | None = None,
    *,
    listens: bool = True,
    at_once: int | None = None,
) -> Iterator[Fleet]:
    """A fleet that ends with the context.

    :param behaviour: of the machine with that number, from 1 on.
    :param consul: version or path of Consul; any that is found where not given.
    :param listens: whether machines answer others, as their agents and applications do. Else there is agent mode only,
        and no health URL.
    :param at_once: how many have their turns at a time at most; all where not given.
    :raises RuntimeError: this process may not open as many files.
    """
    in_turn = _IN_TURN * (number if at_once is None else at_once)
    _allow_files(number * (2 if listens else 1) + in_turn + 500)
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="hitless-simulated-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        server = stack.enter_context(running(find_consul(consul), folder, number + in_turn + 500))
        network = stack.enter_context(_network())
        link = Link(server.address, f"127.{network}.0.1")
        stack.callback(link.close)
        machines = [
            Machine(f"{service}-{one:04d}", _address(network, one), service, FIRST, behaviour(one), link)
            for one in range(1, number + 1)
        ]
        server.write([machine.operations() for machine in machines])
        state = folder / "machines"
        loop = Loop(machines, link, lambda machine: settle(machine, link, state), listens=listens)
        loop.start()
        stack.callback(loop.stop)
        yield Fleet(server, machines, link, loop, folder, listens=listens)


def _address(network: int, number: int) -> str:
    return f"127.{network}.{1 + (number - 1) // _IN_A_ROW}.{1 + (number - 1) % _IN_A_ROW}"


@contextlib.contextmanager
def _network() -> Iterator[int]:
    """A number N whose 127.N.0.0/16 no other fleet has."""
    for number in NETWORKS:
        lock = claim(f"hitless-simulated-{number}")
        if lock is not None:
            with lock:
                yield number
            return
    raise RuntimeError("no free range of loopback addresses")


def _allow_files(wanted: int) -> None:
    """Raise the limit of open files, of this process and of Consul, which is started by it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise RuntimeError(f"this fleet needs {wanted} open files, and at most {hard} are allowed (ulimit -Hn)")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
