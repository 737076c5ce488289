"""One event loop for all machines: it answers as their agents and applications, and waits for their requests.

A machine's key is followed by a blocking read of its own, as its deploy agent would: one read of all keys below
`nodes/` would bring the keys of all machines each time that one of them has written a status.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from .link import Link
from .machine import PORT, Machine, Reply

WAIT = 300
"""Seconds that one blocking read lasts, as the deploy agent's."""
_INDEX = re.compile(rb"X-Consul-Index: (\d+)", re.IGNORECASE)
_LENGTH = re.compile(rb"Content-Length: (\d+)", re.IGNORECASE)


class Loop:
    """Runs in a thread of its own from :meth:`start` to :meth:`stop`.

    :param settle: what to do, in a thread, when a machine's key has changed.
    :param listens: whether the machines answer others.
    """

    def __init__(
        self, machines: Iterable[Machine], link: Link, settle: Callable[[Machine], None], *, listens: bool
    ) -> None:
        self._machines = {machine.address: machine for machine in machines}
        self._link = link
        self._settle = settle
        self._listens = listens
        self._loop = asyncio.new_event_loop()
        self._workers = ThreadPoolExecutor(32)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self.answered = 0
        """Requests that the agents of all machines have answered to others than their own deploy agents."""

    def start(self) -> None:
        """Returns when all agents answer and all keys are followed."""
        self._thread.start()
        self._ready.wait()
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._ready.set()
            self._loop.close()

    async def _main(self) -> None:
        listening, tasks = [], []
        try:
            for machine in self._machines.values() if self._listens else ():
                place = socket.create_server((machine.address, PORT), backlog=16)
                listening.append(await asyncio.start_server(self._answer, sock=place))
            first: list[asyncio.Future[None]] = []
            for machine in self._machines.values():
                if machine.behaviour.fails != "absent":
                    first.append(self._loop.create_future())
                    tasks.append(asyncio.create_task(self._follow(machine, first[-1])))
            await asyncio.gather(*first)
            self._ready.set()
            await self._stop.wait()
        except OSError as error:
            self._failure = error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for server in listening:
                server.close()

    # -- the watch of a machine's deploy agent -----------------------------------------------------------------------

    async def _follow(self, machine: Machine, followed: asyncio.Future[None]) -> None:
        index = await self._index(machine, "")
        followed.set_result(None)
        while True:
            try:
                new = await self._index(machine, f"?index={index}&wait={WAIT}s")
            except OSError:
                await asyncio.sleep(1)
                continue
            if new != index:
                await self._in_thread(machine)
            index = new

    async def _index(self, machine: Machine, query: str) -> int:
        """The index of its key. By HTTP/1.0: the answer ends with the connection, in whatever chunks it comes."""
        source = (self._link.source, 0)
        reader, writer = await asyncio.open_connection(self._link.address, self._link.port, local_addr=source)
        try:
            writer.write(f"GET /v1/kv/{machine.key('new')}{query} HTTP/1.0\r\n\r\n".encode())
            found = _INDEX.search(await reader.read())
        finally:
            writer.close()
        if found is None:
            raise OSError("no answer of Consul's")
        return max(1, int(found[1]))

    async def _in_thread(self, machine: Machine) -> None:
        """Settle in a thread that nothing waits for at the end of this process."""
        ended = asyncio.Event()

        def settle() -> None:
            try:
                self._settle(machine)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=settle, name=f"deployer of {machine.name}", daemon=True).start()
        await ended.wait()

    # -- the machine's own HTTP API ----------------------------------------------------------------------------------

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for each connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if length:
                await reader.readexactly(int(length[1]))
            method, target = head.split(b" ", 2)[:2]
            machine = self._machines[writer.get_extra_info("sockname")[0]]
            status, data = await self._reply(machine, method.decode(), target.decode())
            body = data.encode() if isinstance(data, str) else json.dumps(data).encode()
            told = f"HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            writer.write(told.encode() + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _reply(self, machine: Machine, method: str, target: str) -> Reply:
        parts = urllib.parse.urlsplit(target)
        if parts.path == "/health":
            return machine.health()
        self.answered += 1
        params = dict(urllib.parse.parse_qsl(parts.query))
        try:
            return await self._loop.run_in_executor(self._workers, machine.agent, method, parts.path, params)
        except OSError as error:
            return Reply(500, str(error))
