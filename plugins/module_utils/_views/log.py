# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log of a deployment in Consul, written in the background, and read (a private helper of this collection).

Two writers, two places: what a run over connections tells stands below the deployment, what a machine's own agent tells
below the node, which is all that its token may touch.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Mapping

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import NAME, Keys

QUEUE = 2000
"""Entries that wait for Consul; what comes when so many wait is dropped and counted."""
ENTRY_LIMIT = 20_000
"""Characters of one entry; of a longer one the end is kept, which says why something failed."""
CHUNK = 60_000
"""Characters of one key; Consul takes 512 KiB, and a character can be four bytes."""
HOST_LIMIT = 250_000
"""Characters of a host's log in one deployment."""
CUT = "\n[... the rest is cut ...]\n"
GATHER = 1.0
"""Seconds for which entries are gathered before they are sent."""


def key_name(host: str) -> str:
    """A host's name as it can stand in a key."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", host).replace("..", "__")
    return name if NAME.fullmatch(name) and name != "." else f"_{name}"


class LogWriter:
    """Sends entries to Consul from a thread of its own. Nothing of it waits, grows without bound, or fails a run.

    :param client: made when the first entry is sent.
    :param say: told, once, that the log is incomplete.
    """

    def __init__(
        self, client: Callable[[], Client], keys: Keys, deployment: str, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self._make_client = client
        self._keys = keys
        self._deployment = deployment
        self._say = say
        self._queue: queue.Queue[tuple[str, str]] = queue.Queue(QUEUE)
        self._numbers: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._ended = threading.Event()
        self._given_up = threading.Event()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="hitless-log", daemon=True)
        self._thread.start()

    def put(self, host: str, text: str) -> None:
        """One entry, whole lines; returns at once."""
        try:
            self._queue.put_nowait((key_name(host), text[-ENTRY_LIMIT:]))
        except queue.Full:
            self.dropped += 1

    def end(self) -> None:
        """Nothing more comes; what waits is still sent."""
        self._ended.set()

    def close(self, within: float) -> None:
        """Send what waits, for at most so many seconds."""
        self.end()
        self._thread.join(within)
        self._given_up.set()
        left = self._queue.qsize() if self._thread.is_alive() else 0
        lost = self.dropped + left
        if lost:
            self._say(f"The log of {self._deployment} in Consul is incomplete: {lost} entries could not be sent.")

    def _run(self) -> None:
        client: Client | None = None
        gathered: dict[str, list[str]] = {}
        while not self._given_up.is_set() and not (self._ended.is_set() and self._queue.empty() and not gathered):
            self._gather(gathered)
            try:
                client = client or self._make_client()
                for host in list(gathered):
                    self._send(client, host, gathered[host])
                    del gathered[host]
            except HitlessError as error:
                if not isinstance(error, ConsulError) or error.status in (400, 403):
                    self._say(f"The log of {self._deployment} cannot be sent to Consul: {error}")
                    self.dropped += sum(len(entries) for entries in gathered.values()) + self._queue.qsize()
                    return
                self._forget(gathered)
                self._given_up.wait(0.5)

    def _gather(self, gathered: dict[str, list[str]]) -> None:
        until = time.monotonic() + (0 if self._ended.is_set() else GATHER)
        while True:
            try:
                host, text = self._queue.get(timeout=max(0.0, min(until - time.monotonic(), 0.2)))
            except queue.Empty:
                if time.monotonic() >= until or self._ended.is_set():
                    return
                continue
            gathered.setdefault(host, []).append(self._within_limit(host, text))
            if sum(map(len, gathered[host])) >= CHUNK:
                return

    def _forget(self, gathered: dict[str, list[str]]) -> None:
        """Memory stays bounded while Consul is away."""
        for entries in gathered.values():
            while sum(map(len, entries)) > 2 * CHUNK:
                entries.pop(0)
                self.dropped += 1

    def _within_limit(self, host: str, text: str) -> str:
        """The text in so far as the host's log may still grow."""
        taken = self._taken.get(host, 0)
        self._taken[host] = taken + len(text)
        if taken + len(text) <= HOST_LIMIT:
            return text
        return text[: HOST_LIMIT - taken] + CUT if taken <= HOST_LIMIT else ""

    def _send(self, client: Client, host: str, entries: list[str]) -> None:
        """Send the entries; what has been sent is taken off them, so that a failure halfway sends nothing twice."""
        text = "".join(entries)
        while text:
            number = self._numbers.get(host, 0) + 1
            client.set_key(f"{self._keys.run_log(self._deployment, host)}{number:06d}", text[:CHUNK])
            self._numbers[host] = number
            text = text[CHUNK:]
            entries[:] = [text]


def read_logs(client: Client, keys: Keys, deployment: str, hosts: Mapping[str, str | None]) -> dict[str, str]:
    """What was written of a deployment, by its run and by the machines' own agents.

    :param hosts: host -> its node, None where its own agent has written nothing.
    :returns: host -> text, for those of which anything was; those of the run itself (localhost, coordinators) first.
    """
    names = {key_name(host): host for host in hosts}
    prefix = keys.run_logs(deployment)
    written: dict[str, list[str]] = {}
    for pair in client.keys(prefix):
        name = pair.key.removeprefix(prefix).partition("/")[0]
        written.setdefault(names.get(name, name), []).append(pair.value)
    for host, node in hosts.items():
        own = client.keys(keys.agent_log(node, deployment)) if node else ()
        written[host] = [*written.pop(host, ()), *(pair.value for pair in own)]
    return {host: "".join(parts) for host, parts in written.items() if parts}
