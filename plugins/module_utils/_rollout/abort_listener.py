# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hears an operator abort while a host drains (a private helper of this collection)."""

from __future__ import annotations

import threading
import time

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_text
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import ABORT, Order

SHORT = 1.0
"""Seconds for which nothing is listened to: what is shorter than that ends as soon as it could be told."""
EVERY = 10.0
"""Seconds of one blocking read at most."""


class Aborted(Exception):
    """An operator has aborted the rollout; ``order`` is what was said."""

    def __init__(self, order: Order) -> None:
        super().__init__(order.told)
        self.order = order


class AbortListener:
    """A sleep that an abort ends. It reads in a thread of its own, from when it has slept for a moment.

    :param key: of control, which is there: a watch on a key that is not returns at each change of any other.
    :param used: index of the last order that means nothing any more.
    """

    def __init__(self, client: Client, key: str, used: int) -> None:
        self._client = client
        self._key = key
        self._used = used
        self._began = time.monotonic()
        self._heard: Order | None = None
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> AbortListener:
        return self

    def __exit__(self, *_error: object) -> None:
        self._ends.set()

    def sleep(self, seconds: float) -> None:
        """:raises Aborted: somebody has aborted the rollout."""
        if self._thread is None and time.monotonic() + seconds - self._began > SHORT:
            self._thread = threading.Thread(target=self._listen, daemon=True)
            self._thread.start()
        if self._ends.wait(max(0.0, seconds)) and self._heard:
            raise Aborted(self._heard)

    def _listen(self) -> None:
        index = self._used
        while not self._ends.is_set():
            try:
                answer = self._client.get(f"/v1/kv/{self._key}", wait=EVERY, index=max(1, index))
            except ConsulError:
                self._ends.wait(SHORT)
                continue
            found = answer.data[0] if answer.data else None
            order = Order.of_control(kv_text(found), found["ModifyIndex"]) if found else None
            if order and order.word == ABORT and order.index > self._used:
                self._heard = order
                self._ends.set()
            index = answer.index if answer.index >= index else 0
            if not answer.index or not found:
                self._ends.wait(SHORT)
