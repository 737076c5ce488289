# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Consul client (a private helper of this collection).

Everything goes through the HTTP seam of the client library (``transport.py``), since the libraries' own calls know no
filter, no stale reads and no timeout of a blocking read, and tell a refused transaction only as text.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ansible_collections.hitless.consul.plugins.module_utils._consul import transport
from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import (
    Answer,
    Response,
    decode,
    hits_limit,
    unavailable,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import KVPair, refused_txn
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    ConsulUnavailable,
    DeadlineExceeded,
)

T = TypeVar("T")

RETRY_FOR = 60.0
"""Seconds a read or an idempotent write is tried again: a new leader takes up to 17 s at Consul's default timing."""
RETRY_REFUSED_FOR = 10.0
"""Seconds an address that refuses connections is tried again: an agent that restarts is back sooner."""
MAX_WAIT = 600.0
"""Seconds, the longest wait of a blocking read that Consul grants."""
_WITHOUT_INDEX = 1.0
"""Seconds between two reads where an answer has no index to wait from, since something on the way drops it."""
_FINAL_5XX = (
    "invalid session",
    "Missing node registration",
    "Permission denied",
    "ACL not found",
    "Invalid check",
    "Unknown check",
    "Unknown service",
    "Failed to create boolean expression evaluator",
)


class Client:
    """Requests to one Consul HTTP address, with timeouts, retries and errors in the domain's words.

    Each request asks for the connection's datacenter, unless its parameters name one. Threads may share a client.

    :param connection: where and how.
    :param through: what carries the requests; the library's own HTTP client where not given.
    :param retry_for: seconds in all that reads and idempotent writes are tried again.
    """

    def __init__(
        self, connection: Connection, through: transport.Transport | None = None, retry_for: float = RETRY_FOR
    ) -> None:
        self.connection = connection
        self.retry_for = retry_for
        self.requests = 0
        """Requests sent so far, retries included: what the benchmark counts."""
        self._transport = through if through is not None else transport.connect(connection)
        self._where = "" if through is None else " (asked from the host)"

    def retrying(self, seconds: float) -> Client:
        """Another one by the same connections, with a patience of its own; 0 tries nothing again."""
        other = copy.copy(self)
        other.retry_for = seconds
        return other

    # -- requests ---------------------------------------------------------------------------------------------

    def get(self, path: str, params: Sequence[tuple[str, object]] = (), *, wait: float = 0, index: int = 0) -> Answer:
        """One read. With ``index`` it blocks for up to ``wait`` seconds until the data's index passes it."""
        query = list(params)
        if index:
            query += [("index", index), ("wait", f"{max(1, int(wait * 1000))}ms")]
        return self.request("GET", path, query, timeout=self.connection.timeout + (wait * 17 / 16 if index else 0))

    def put(
        self, path: str, params: Sequence[tuple[str, object]] = (), body: str = "", *, repeatable: bool = True
    ) -> Answer:
        """One write; ``repeatable`` says that sending it twice does no harm, so that it may be retried."""
        return self.request("PUT", path, params, body, repeatable=repeatable)

    def delete(self, path: str, params: Sequence[tuple[str, object]] = ()) -> Answer:
        return self.request("DELETE", path, params)

    def request(
        self,
        method: str,
        path: str,
        params: Sequence[tuple[str, object]] = (),
        body: str = "",
        *,
        repeatable: bool = True,
        timeout: float | None = None,
    ) -> Answer:
        """Send, retry where that is safe, raise where it failed for good.

        :raises ConsulUnavailable: no answer, or only 5xx or 429, for as long as retries are allowed.
        :raises ConsulError: any other answer but 2xx and 404 (404 is ``data=None``: "no such key" is an answer).
        """
        asked = f"{method} {path}"
        *above, last = path.split("/")[1:]
        if {"", ".", ".."} & {*above} or last in (".", ".."):
            # The library quotes every other character; such a path would silently be another one's.
            raise ConsulError(f"Consul cannot be asked for the name in {path!r}.", asked=asked, hint="Rename it there.")
        dc = self.connection.datacenter
        if dc and not any(name == "dc" for name, _value in params):
            params = [*params, ("dc", dc)]
        started = time.monotonic()
        delay = 0.25
        while True:
            limit, again = self.retry_for, repeatable
            try:
                response = self._send(method, path, params, body, timeout or self.connection.timeout)
            except ConsulUnavailable as error:
                problem = error
                limit = min(limit, RETRY_REFUSED_FOR) if error.status == -1 else limit
            else:
                is_limit = hits_limit(asked, response)
                if (response.code < 500 and not is_limit) or any(final in response.body for final in _FINAL_5XX):
                    names = ("keys", "") in params
                    return decode(asked, response, self.connection, self._where, names=names)
                again = again or is_limit  # limits refuse before anything is done
                problem = unavailable(asked, response, self.connection, self._where)
            left = limit - (time.monotonic() - started)
            if not again or left <= 0:
                raise problem
            time.sleep(min(delay * random.uniform(0.8, 1.2), left))
            delay = min(delay * 2, 5.0)

    def watch(
        self,
        path: str,
        params: Sequence[tuple[str, object]],
        decide: Callable[[Any], T | None],
        deadline: float,
        *,
        every: float = 60.0,
        first: Answer | None = None,
    ) -> T:
        """:meth:`watch_with_answer` without the answer."""
        return self.watch_with_answer(path, params, decide, deadline, every=every, first=first)[0]

    def watch_with_answer(
        self,
        path: str,
        params: Sequence[tuple[str, object]],
        decide: Callable[[Any], T | None],
        deadline: float,
        *,
        every: float = 60.0,
        first: Answer | None = None,
    ) -> tuple[T, Answer]:
        """Blocking reads until ``decide(data)`` is not None; it is asked at once, and at each return of a read.

        A return is no proof of change, and an index that goes back starts over (Consul's blocking query rules).

        :param deadline: on ``time.monotonic()``'s clock.
        :param every: longest wait of one read in seconds; ``decide`` is asked again at least that often. May be
            lowered between reads by ``decide`` raising :class:`AskAgain`.
        :param first: an answer to the same read to begin with, the one that ended another watch for instance.
        :returns: what ``decide`` said, and the answer it said that of.
        :raises DeadlineExceeded: with the last data seen under ``details["last"]``.
        """
        index, answer = 0, first
        while True:
            wait = every
            if answer is None:
                answer = self.get(
                    path, params, index=index, wait=min(wait, MAX_WAIT, max(0.0, deadline - time.monotonic()))
                )
            try:
                decided = decide(answer.data)
            except AskAgain as soon:
                wait, decided = soon.within, None
            if decided is not None:
                return decided, answer
            if time.monotonic() >= deadline:
                raise DeadlineExceeded("The deadline passed.", details={"last": answer.data})
            index = answer.index if answer.index >= index else 0
            index = max(index, 1)
            if not answer.index:
                time.sleep(max(0.0, min(wait, _WITHOUT_INDEX, deadline - time.monotonic())))
            wait = min(wait, MAX_WAIT, max(0.0, deadline - time.monotonic()))
            answer = self.get(path, params, index=index, wait=max(wait, 0.01))

    def txn(self, operations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Up to 64 KV operations at once, all or none.

        Sent again after an ambiguous answer: a caller's operations are idempotent sets behind a ``check-session``, or
        stand behind an index, which then says so.

        :raises LockLost: a ``check-session`` did not hold.
        :raises ConsulError: status 409, another operation failed.
        """
        answer = self.request("PUT", "/v1/txn", body=json.dumps([{"KV": op} for op in operations]))
        if answer.status == 409:
            raise refused_txn(operations, answer.data)
        return [result["KV"] for result in (answer.data or {}).get("Results") or [] if "KV" in result]

    # -- keys -------------------------------------------------------------------------------------------------

    def key(self, key: str, *, consistent: bool = False) -> KVPair | None:
        """The key, or None where there is none (or the token may not read it: Consul answers 404 for both)."""
        answer = self.get(f"/v1/kv/{key}", [("consistent", "")] if consistent else [])
        return KVPair.of(answer.data[0]) if answer.data else None

    def keys(self, prefix: str) -> list[KVPair]:
        """All keys below a prefix."""
        answer = self.get(f"/v1/kv/{prefix}", [("recurse", "")])
        return [KVPair.of(item) for item in answer.data or []]

    def key_names(self, prefix: str, separator: str = "") -> list[str]:
        """The names of the keys below a prefix, sorted; each only up to the separator where one is given."""
        extra: list[tuple[str, object]] = [("keys", "")]
        if separator:
            extra.append(("separator", separator))
        return list(self.get(f"/v1/kv/{prefix}", extra).data or [])

    def set_key(self, key: str, value: str, **params: object) -> bool:
        """Write a key; with ``cas``, ``acquire`` or ``release`` the answer says whether it took place."""
        extra = list(params.items())
        answer = self.request("PUT", f"/v1/kv/{key}", extra, value, repeatable=not extra)
        return bool(answer.data)

    def delete_key(self, key: str, *, recurse: bool = False) -> None:
        self.delete(f"/v1/kv/{key}", [("recurse", "")] if recurse else [])

    # -- inside -----------------------------------------------------------------------------------------------

    def _send(
        self, method: str, path: str, params: Sequence[tuple[str, object]], body: str, timeout: float
    ) -> Response:
        self.requests += 1
        transport.timeout.set(timeout)
        arguments: dict[str, Any] = {"params": list(params), "headers": self.connection.headers}
        if method in ("PUT", "POST"):
            # Bytes: the library would send text in the locale's or HTTP's Latin-1.
            arguments["data"] = body.encode()
        call = getattr(self._transport, method.lower())
        return call(lambda response: response, path, **arguments)  # type: ignore[no-any-return]


class AskAgain(Exception):
    """Raised by a ``decide`` of :meth:`Client.watch`: not yet; time alone may decide it within ``within`` seconds."""

    def __init__(self, within: float) -> None:
        super().__init__(within)
        self.within = within
