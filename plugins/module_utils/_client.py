# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Consul client (a private helper of this collection): the one file that imports ``consul``.

python-consul2 and py-consul share that import name and the HTTP seam used here: ``http.get/put/post/delete(callback,
path, params, headers[, data])``. Everything goes through that seam, since the libraries' own calls know no filter, no
stale reads and no timeout of a blocking read, and tell a refused transaction only as text.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    ConsulUnavailable,
    DeadlineExceeded,
    LockLost,
)

# Guarded: an ImportError raised while Ansible loads a plugin is reported as "probably a bug".
try:
    import consul
    import consul.std
    import requests
except ImportError as error:  # pragma: no cover - exercised by running without the library
    MISSING_LIBRARY: str | None = str(error)
else:
    MISSING_LIBRARY = None

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8500"
RETRY_FOR = 60.0
"""Seconds a read or an idempotent write is tried again: a new leader takes up to 17 s at Consul's default timing."""
RETRY_REFUSED_FOR = 10.0
"""Seconds an address that refuses connections is tried again: an agent that restarts is back sooner."""
MAX_WAIT = 600.0
"""Seconds, the longest wait of a blocking read that Consul grants."""
TXN_LIMIT = 64
"""Operations Consul takes in one transaction."""
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

_environment_lock = threading.Lock()


@dataclass(frozen=True)
class Connection:
    """Where Consul is and how to talk to it.

    :param url: base address, ``http[s]://host[:port]``; the scheme defaults to http, the port to 8500 (https: 8501).
    :param token: ACL token; never shown by ``repr``.
    :param ca_path: file or directory of CA certificates.
    :param timeout: seconds to wait for an answer; a blocking read adds its own wait.
    :param is_agent: whether it is a host's own agent, whose options have other names than the cluster's.
    """

    url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    validate_certs: bool = True
    datacenter: str | None = None
    timeout: float = 10.0
    is_agent: bool = False

    @property
    def base(self) -> str:
        """The address with scheme and port; raises :class:`ConsulError` for one that cannot be used."""
        return normalise_url(self.url)

    @property
    def verify(self) -> bool | str:
        return (self.ca_path or True) if self.validate_certs else False

    @property
    def certificate(self) -> tuple[str, str] | str | None:
        if self.client_cert and self.client_key:
            return (self.client_cert, self.client_key)
        return self.client_cert or None


def normalise_url(url: str) -> str:
    """``consul:8500`` and ``https://consul`` as the consul command takes them -> ``scheme://host:port``."""
    text = url.strip()
    if text.startswith("unix:"):
        raise ConsulError(
            f"The Consul address {url} is a Unix socket, which this collection does not speak.",
            hint="Give an HTTP address, http://127.0.0.1:8500 for instance.",
        )
    if "://" not in text:
        text = f"http://{text}"
    parts = urlsplit(text)
    try:
        port = parts.port or (8501 if parts.scheme == "https" else 8500)
    except ValueError:
        port = 0
    if "@" in parts.netloc:
        raise ConsulError(
            "The Consul address holds a user name or password, which this collection does not send.",
            hint="Set url (or CONSUL_HTTP_ADDR) without, and an ACL token as token (CONSUL_HTTP_TOKEN).",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.path.strip("/") or parts.query:
        raise ConsulError(
            f"The Consul address {url!r} is not of the form http://host:port or https://host:port.",
            hint="Set url (or CONSUL_HTTP_ADDR).",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


class Response(Protocol):
    """What both libraries hand to a callback."""

    code: int
    headers: Mapping[str, str]
    body: str


class Transport(Protocol):
    """The seam under the client library: its HTTP client, or one that goes through a host's connection.

    Where ``blocking`` is false the transport cannot hold a request open for long.
    """

    def get(self, callback: Callable[[Any], Any], path: str, params: Any = None, headers: Any = None) -> Any:
        """GET ``path``; what ``callback`` makes of the answer."""

    def put(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """PUT ``path``; what ``callback`` makes of the answer."""

    def post(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """POST ``path``; what ``callback`` makes of the answer."""

    def delete(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """DELETE ``path``; what ``callback`` makes of the answer."""


@dataclass(frozen=True)
class Answer:
    """A decoded answer: ``data`` (None for 404), ``index`` for the next blocking read, ``filtered`` by ACLs."""

    data: Any
    index: int
    status: int
    filtered: bool = False


@dataclass(frozen=True)
class KVPair:
    """A key as it stands: text value, the index for compare-and-set, the session that holds it."""

    key: str
    value: str
    index: int
    session: str | None = None


class Client:
    """Requests to one Consul HTTP address, with timeouts, retries and errors in the domain's words.

    :param connection: where and how.
    :param transport: what carries the requests; the library's own HTTP client where not given.
    :param retry_for: seconds in all that reads and idempotent writes are tried again.
    """

    def __init__(
        self, connection: Connection, transport: Transport | None = None, retry_for: float = RETRY_FOR
    ) -> None:
        self.connection = connection
        self.retry_for = retry_for
        self.requests = 0
        """Requests sent so far, retries included: what the benchmark counts."""
        self._timeout = connection.timeout
        self._transport = transport if transport is not None else self._connect()
        self._where = "" if transport is None else " (asked from the host)"

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

        :raises ConsulUnavailable: no answer, or only 5xx, for as long as retries are allowed.
        :raises ConsulError: any other answer but 2xx and 404 (404 is ``data=None``: "no such key" is an answer).
        """
        asked = f"{method} {path}"
        started = time.monotonic()
        delay = 0.25
        while True:
            limit = self.retry_for
            try:
                response = self._send(method, path, params, body, timeout or self.connection.timeout)
            except ConsulUnavailable as error:
                problem = error
                limit = min(limit, RETRY_REFUSED_FOR) if error.status == -1 else limit
            else:
                if response.code < 500:
                    return self._decode(asked, response)
                text = response.body.strip()[:300]
                if any(final in text for final in _FINAL_5XX):
                    raise self._refused(asked, response)
                problem = ConsulUnavailable(
                    f"Consul at {self.connection.base}{self._where} answered {asked} with {response.code}: {text}",
                    asked=asked,
                    status=response.code,
                )
            left = limit - (time.monotonic() - started)
            if not repeatable or left <= 0:
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
            wait = min(wait, MAX_WAIT, max(0.0, deadline - time.monotonic()))
            answer = self.get(path, params, index=index, wait=max(wait, 0.01))

    def txn(self, operations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Up to 64 KV operations at once, all or none.

        Not retried blindly: after an ambiguous answer the caller's operations are idempotent sets behind a
        ``check-session``, so sending them again does no harm.

        :raises LockLost: a ``check-session`` did not hold.
        :raises ConsulError: status 409, another operation failed.
        """
        answer = self.request("PUT", "/v1/txn", self._dc(), json.dumps([{"KV": op} for op in operations]))
        if answer.status == 409:
            errors = (answer.data or {}).get("Errors") or []
            for error in errors:
                at = error.get("OpIndex", 0)
                if at < len(operations) and operations[at]["Verb"] == "check-session":
                    raise LockLost(
                        f"The lock {operations[at]['Key']} is no longer held by this run: {error.get('What', '')}",
                        asked="PUT /v1/txn",
                        status=409,
                    )
            what = "; ".join(str(error.get("What")) for error in errors)
            refused = [error.get("OpIndex", 0) for error in errors if "Permission denied" in str(error.get("What"))]
            keys = ", ".join(sorted({operations[at]["Key"] for at in refused if at < len(operations)}))
            raise ConsulError(
                f"Consul refused a transaction: {what}",
                asked="PUT /v1/txn",
                status=409,
                hint=f"The policy of the token (CONSUL_HTTP_TOKEN) has to allow writing {keys}." if keys else "",
            )
        return [result["KV"] for result in (answer.data or {}).get("Results") or [] if "KV" in result]

    # -- keys -------------------------------------------------------------------------------------------------

    def key(self, key: str, *, consistent: bool = False) -> KVPair | None:
        """The key, or None where there is none (or the token may not read it: Consul answers 404 for both)."""
        answer = self.get(f"/v1/kv/{key}", self._dc([("consistent", "")] if consistent else []))
        return _pair(answer.data[0]) if answer.data else None

    def keys(self, prefix: str) -> list[KVPair]:
        """All keys below a prefix."""
        answer = self.get(f"/v1/kv/{prefix}", self._dc([("recurse", "")]))
        return [_pair(item) for item in answer.data or []]

    def key_names(self, prefix: str, separator: str = "") -> list[str]:
        """The names of the keys below a prefix, sorted; each only up to the separator where one is given."""
        extra: list[tuple[str, object]] = [("keys", "")]
        if separator:
            extra.append(("separator", separator))
        return list(self.get(f"/v1/kv/{prefix}", self._dc(extra)).data or [])

    def set_key(self, key: str, value: str, **params: object) -> bool:
        """Write a key; with ``cas``, ``acquire`` or ``release`` the answer says whether it took place."""
        extra = list(params.items())
        answer = self.request("PUT", f"/v1/kv/{key}", self._dc(extra), value, repeatable=not extra)
        return bool(answer.data)

    def delete_key(self, key: str, *, recurse: bool = False) -> None:
        self.delete(f"/v1/kv/{key}", self._dc([("recurse", "")] if recurse else []))

    # -- inside -----------------------------------------------------------------------------------------------

    def _dc(self, params: Sequence[tuple[str, object]] = ()) -> list[tuple[str, object]]:
        dc = self.connection.datacenter
        return [*params, ("dc", dc)] if dc else list(params)

    def _connect(self) -> Transport:
        if MISSING_LIBRARY:
            raise ConsulError(library_missing())
        base = urlsplit(self.connection.base)

        def http_connect(*_args: object, **_kwargs: object) -> Any:
            http = consul.std.HTTPClient(
                base.hostname if ":" not in (base.hostname or "") else f"[{base.hostname}]",
                base.port,
                base.scheme,
                self.connection.verify,
                self.connection.certificate,
            )
            http.session = _Session(self)
            return http

        with _without_consul_environment():
            api = type("_Consul", (consul.base.Consul,), {"http_connect": staticmethod(http_connect)})()
        return api.http  # type: ignore[no-any-return]

    def _send(
        self, method: str, path: str, params: Sequence[tuple[str, object]], body: str, timeout: float
    ) -> Response:
        self.requests += 1
        self._timeout = timeout
        headers = {"X-Consul-Token": self.connection.token} if self.connection.token else {}
        arguments: dict[str, Any] = {"params": list(params), "headers": headers}
        if method in ("PUT", "POST"):
            # Bytes: the library would send text in the locale's or HTTP's Latin-1.
            arguments["data"] = body.encode()
        call = getattr(self._transport, method.lower())
        if MISSING_LIBRARY:
            return call(lambda response: response, path, **arguments)  # type: ignore[no-any-return]
        try:
            return call(lambda response: response, path, **arguments)  # type: ignore[no-any-return]
        except requests.exceptions.SSLError as error:
            plain = any(sign in str(error) for sign in ("WRONG_VERSION_NUMBER", "RECORD_LAYER", "HTTP_REQUEST"))
            raise ConsulError(
                f"TLS with Consul at {self.connection.base} failed: {_innermost(error)}.",
                asked=f"{method} {path}",
                hint="Use an http:// address if that port speaks no TLS."
                if plain
                else "Check hitless_consul_agent_ca_path, hitless_consul_agent_client_cert and "
                "hitless_consul_agent_client_key."
                if self.connection.is_agent
                else "Check ca_path, client_cert, client_key (CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY).",
            ) from None
        except requests.exceptions.ConnectTimeout:
            raise self._no_answer(method, path, f"no connection within {timeout:g} s", refused=True) from None
        except requests.exceptions.ConnectionError as error:
            refused = "refused" in str(error) or "resolve" in str(error) or "No route" in str(error)
            raise self._no_answer(method, path, _innermost(error), refused=refused) from None
        except requests.exceptions.RequestException as error:
            raise self._no_answer(method, path, _innermost(error), refused=False) from None
        except OSError as error:  # requests names a missing certificate file only so
            raise ConsulError(
                f"Cannot ask Consul at {self.connection.base}: {error}", asked=f"{method} {path}"
            ) from None

    def _no_answer(self, method: str, path: str, why: str, *, refused: bool) -> ConsulUnavailable:
        hint = (
            "Set hitless_consul_agent_url to the address of that host's own agent."
            if self.connection.is_agent
            else "Set hitless_consul_url (CONSUL_HTTP_ADDR; url in an inventory source) to an address this machine "
            "reaches; where agents listen on their own loopback only, a tunnel does: "
            "ssh -N -L 8500:127.0.0.1:8500 HOST."
        )
        return ConsulUnavailable(
            f"No answer from Consul at {self.connection.base} to {method} {path}: {why}.",
            asked=f"{method} {path}",
            status=-1 if refused else 0,
            hint=hint if refused else "",
        )

    def _decode(self, asked: str, response: Response) -> Answer:
        headers = {name.lower(): value for name, value in response.headers.items()}
        try:
            index = int(headers.get("x-consul-index") or 0)
        except ValueError:
            index = 0
        filtered = headers.get("x-consul-results-filtered-by-acls") == "true"
        if response.code == 404:
            return Answer(None, index, 404, filtered)
        if response.code >= 300 and not (response.code == 409 and asked.endswith("/v1/txn")):
            raise self._refused(asked, response)
        try:
            data = json.loads(response.body) if response.body.strip() else None
        except ValueError:
            raise ConsulError(
                f"{self.connection.base} answered {asked} with something that is not Consul's JSON: "
                f"{response.body.strip()[:80]!r}.",
                asked=asked,
                status=response.code,
                hint="Is it a Consul HTTP address?",
            ) from None
        return Answer(data, index, response.code, filtered)

    def _refused(self, asked: str, response: Response) -> ConsulError:
        text = re.sub(r"\s+", " ", response.body).strip()[:300]
        headers = {name.lower(): value for name, value in response.headers.items()}
        hint = ""
        if response.code in (401, 403) or "Permission denied" in text or "ACL not found" in text:
            token = "the token given" if self.connection.token else "no token"
            hint = f"Asked with {token}; set token (CONSUL_HTTP_TOKEN) to one whose policy allows it."
        elif response.code < 400:
            hint = f"It redirects to {headers.get('location', 'nowhere')}; set url to Consul's own address."
        elif response.code == 413:
            hint = "Consul takes values of at most 512 KiB."
        elif response.code == 429:
            hint = "Consul's limit of requests or connections per client is reached."
        elif "HTTP request was sent to HTTPS" in text or "HTTP request to an HTTPS" in text:
            hint = "Use an https:// address."
        return ConsulError(
            f"Consul at {self.connection.base}{self._where} refused {asked} with {response.code}: {text}.",
            asked=asked,
            status=response.code,
            hint=hint,
        )


class AskAgain(Exception):
    """Raised by a ``decide`` of :meth:`Client.watch`: not yet; time alone may decide it within ``within`` seconds."""

    def __init__(self, within: float) -> None:
        super().__init__(within)
        self.within = within


def library_missing() -> str:
    """The sentence for a Python that has neither client library."""
    return (
        f"Ansible's Python ({sys.executable}) has no Consul client library ({MISSING_LIBRARY}). Install one there: "
        f"{sys.executable} -m pip install python-consul2 (with pipx: pipx inject ansible-core python-consul2)."
    )


def kv_set(key: str, value: str) -> dict[str, Any]:
    """The transaction operation that sets a key."""
    return {"Verb": "set", "Key": key, "Value": base64.b64encode(value.encode()).decode()}


def kv_set_if(key: str, value: str, index: int) -> dict[str, Any]:
    """The transaction operation that sets a key while it is as read at ``index`` (0: while there is none)."""
    return {**kv_set(key, value), "Verb": "cas", "Index": index}


def kv_delete(key: str, *, recurse: bool = False) -> dict[str, Any]:
    """The transaction operation that deletes a key, or all below a prefix; there being none is no error."""
    return {"Verb": "delete-tree" if recurse else "delete", "Key": key}


def kv_read(prefix: str) -> dict[str, Any]:
    """The transaction operation that reads all keys with a prefix; none is no error (it is one for ``get``)."""
    return {"Verb": "get-tree", "Key": prefix}


def kv_check_session(key: str, session: str) -> dict[str, Any]:
    """The transaction operation that holds only while ``session`` has locked ``key``: the fence."""
    return {"Verb": "check-session", "Key": key, "Session": session}


def kv_text(operation: dict[str, Any]) -> str:
    """The text of a value as transactions and reads return it."""
    return base64.b64decode(operation.get("Value") or "").decode("utf-8", "replace")


def _pair(item: dict[str, Any]) -> KVPair:
    return KVPair(item["Key"], kv_text(item), item["ModifyIndex"], item.get("Session"))


def _innermost(error: BaseException) -> str:
    text = str(error.args[0]) if error.args else str(error)
    found = re.findall(
        r"(\[Errno [^\]]+\][^')]*|\[SSL: [A-Z_]+\][^')(]*|certificate verify failed[^')(]*"
        r"|Read timed out[^')]*|Failed to resolve[^')(]*|Connection aborted[^)]*)",
        text,
    )
    return (found[-1] if found else text).strip(" .'\",(")[:200]


@contextmanager
def _without_consul_environment() -> Iterator[None]:
    """python-consul2 lets CONSUL_* in the environment win over its arguments, and refuses forms that consul takes."""
    with _environment_lock:
        saved = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("CONSUL_HTTP_")}
        try:
            yield
        finally:
            os.environ.update(saved)


if not MISSING_LIBRARY:

    class _Session(requests.Session):
        """Never asks the environment (a proxy from there would be sent the token), and always has a timeout."""

        def __init__(self, client: Client) -> None:
            super().__init__()
            self.trust_env = False
            self._client = client

        def request(self, *args: Any, **kwargs: Any) -> Any:
            kwargs["timeout"] = self._client._timeout
            kwargs["allow_redirects"] = False
            return super().request(*args, **kwargs)
