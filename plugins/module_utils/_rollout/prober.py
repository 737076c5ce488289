# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a public address all the time that a run lives (a private program of this collection; ``probing.py`` starts it).

As the keeper of the lock it runs beside the run, in a session of its own, imports nothing but the standard library
(and, as a file, the keeper, by which it asks Consul), and knows the end of the run by the end of a pipe. So it ends
with the run, however that ends, and on SIGTERM, which asks for its account.

Each probe is what a new client does: a connection of its own, one GET, the answer to its end. Its account stands in a
file that it holds locked: what was counted so far, as JSON. Where more probes fail than may, it says so in a key of
the deployment, which the run's gates and its bake read: once, in one transaction with a check of the lock.
"""

from __future__ import annotations

import fcntl
import http.client
import importlib.util
import json
import os
import select
import ssl
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 5.0
"""Seconds in which a client wants an answer."""
BAD = 400
"""An answer with this status, or above, is a failure; a redirect is an answer, and is not followed."""
AT_ONCE = 100
"""Probes that may be under way, where none is answered."""
REPORT_AT, REPORT_SIZE = 20, 2000
"""Where in its file the account stands, behind the process's id, and how many bytes it takes."""
LAST_TRY = 5.0
"""Seconds in which what was found is still told, once the run does not want to know more."""


def ask(url: str, context: ssl.SSLContext | None = None, timeout: float = TIMEOUT) -> str:
    """One probe -> what is wrong with the answer; empty where nothing is.

    Never through a proxy of the environment. A certificate has to be right by the system's authorities.
    """
    connection: http.client.HTTPConnection | None = None
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            secure = context or ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=secure)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Connection": "close", "User-Agent": "hitless-probe"})
        answer = connection.getresponse()
        answer.read()
        return f"it answered {answer.status}" if answer.status >= BAD else ""
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer: {error or type(error).__name__}"
    finally:
        if connection:
            connection.close()


@dataclass
class Account:
    """What came of the probes.

    :param gap: the longest time without a good answer, in seconds.
    :param why: what was wrong with the last one that failed.
    """

    began: float
    count: int = 0
    failed: int = 0
    gap: float = 0.0
    why: str = ""
    good_at: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.good_at = self.good_at or self.began

    def add(self, now: float, why: str) -> None:
        """A probe has ended."""
        self.count += 1
        if why:
            self.failed, self.why = self.failed + 1, why
        else:
            self.gap, self.good_at = max(self.gap, now - self.good_at), now

    def as_dict(self, now: float) -> dict[str, Any]:
        gap = max(self.gap, now - self.good_at) if self.failed else self.gap
        return {"count": self.count, "failed": self.failed, "longest_gap": round(gap, 2), "last_error": self.why[:200]}


class Prober:
    """The life of one.

    :param config: what ``probing.start`` sends by standard input; times in seconds.
    :param tell: writes why it is a failure, as soon as that can be written.
    :param wake: readable once it is asked for its account.
    """

    def __init__(self, config: dict[str, Any], tell: Callable[[str], None], wake: int) -> None:
        self._config = config
        self._tell = tell
        self._wake = wake
        self._context = ssl.create_default_context() if config["address"].startswith("https:") else None
        self._account = Account(time.monotonic())
        self._lock = threading.Lock()
        self._under_way = 0
        self._telling: threading.Thread | None = None

    def run(self) -> None:
        """Until the run has ended, or asks for the account."""
        following = time.monotonic()
        while True:
            readable = select.select([self._config["pipe"], self._wake], [], [], max(0.0, following - time.monotonic()))
            if readable[0]:
                break
            following = max(following + self._config["interval"], time.monotonic())
            self._begin()
        with self._lock:
            self._write()
        if self._config["pipe"] in readable[0]:  # nobody will ask
            with suppress(FileNotFoundError):
                os.unlink(self._config["file"])
        elif self._telling:
            self._telling.join(LAST_TRY)

    def _begin(self) -> None:
        with self._lock:
            if self._under_way >= AT_ONCE:
                return
            self._under_way += 1
        threading.Thread(target=self._probe, daemon=True).start()

    def _probe(self) -> None:
        why = ask(self._config["address"], self._context)
        with self._lock:
            self._under_way -= 1
            self._account.add(time.monotonic(), why)
            self._write()
            if self._account.failed > self._config["failures"] and self._telling is None:
                self._telling = threading.Thread(target=self._tell, args=(self._why(),), daemon=True)
                self._telling.start()

    def _write(self) -> None:
        text = json.dumps(self._account.as_dict(time.monotonic()))  # the text of an error is what may be long
        os.pwrite(self._config["report"], text.ljust(REPORT_SIZE).encode()[:REPORT_SIZE], REPORT_AT)

    def _why(self) -> str:
        account, most = self._account, self._config["failures"]
        failed = f"{account.failed} of {account.count} probes have failed, more than rollout_probe_failures ({most})"
        return f"{failed}; the last one: {account.why}"


def _keeper(path: str) -> Any:
    """The keeper's file; it has no package that it could be imported from here."""
    spec = importlib.util.spec_from_file_location("keeper", path)
    if spec is None or spec.loader is None:
        raise OSError(f"{path} is not a program")
    module = importlib.util.module_from_spec(spec)
    sys.modules["keeper"] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Read the configuration, detach, ask. The process that was started ends at once."""
    config = json.load(sys.stdin)
    keeper = _keeper(config["keeper"])
    consul = keeper.Consul(keeper.Config(**config["consul"]))

    def tell(why: str) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        value = b64encode(json.dumps({"failure": True, "why": why, "at": at}).encode()).decode()
        while True:
            try:
                consul.fenced(Verb="set", Key=config["finding"], Value=value)  # or the lock is not the run's any more
            except keeper.NoAnswer:
                time.sleep(0.5)
            else:
                return

    prober = Prober(config, tell, keeper.wake_on_sigterm())
    fcntl.flock(config["report"], fcntl.LOCK_EX | fcntl.LOCK_NB)
    keeper.detach()
    os.pwrite(config["report"], b"%d\n" % os.getpid(), 0)
    prober.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())  # pylint: disable=ansible-bad-function
