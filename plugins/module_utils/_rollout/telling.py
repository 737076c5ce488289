# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees of a host's turn, as it happens (a private helper of this collection)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ansible_collections.hitless.consul.plugins.module_utils._views.text import plain

EVERY = 10.0
"""Seconds between two lines of a wait."""


class Telling:
    """Lines of one host: when, which host, its place among those that change, and what.

    :param show: shows a line at once, from any thread.
    :param place: of the host, 1 for the first; ``places``: how many there are; 0 where that is not known.
    """

    def __init__(self, show: Callable[[str], None], host: str, place: int = 0, places: int = 0) -> None:
        self._show = show
        self._host = f"{host} [{place}/{places}]" if place and places else host

    def tell(self, text: str) -> None:
        self._show(f"{time.strftime('%H:%M:%S')} {self._host} {plain(text)}")

    @contextmanager
    def waiting(self, text: Callable[[float], str]) -> Iterator[None]:
        """Say every :data:`EVERY` seconds how far a wait is.

        :param text: what to say after so many seconds.
        """
        ended, began = threading.Event(), time.monotonic()

        def say() -> None:
            while not ended.wait(EVERY):
                self.tell(text(time.monotonic() - began))

        threading.Thread(target=say, daemon=True).start()
        try:
            yield
        finally:
            ended.set()
