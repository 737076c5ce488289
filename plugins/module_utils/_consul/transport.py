# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What carries a request from here (a private helper of this collection): the one file that imports ``consul``.

python-consul2 and py-consul share that import name and the HTTP seam used here: ``get/put/post/delete(callback, path,
params, headers[, data])``. Under it both have a session of requests, which costs a millisecond of processor time a
request, more than half of it in what is of no use here (cookies, hooks, redirects, the environment). Its place takes a
session over urllib3, which requests itself is made of.
"""

from __future__ import annotations

import inspect
import re
import ssl
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import no_answer, tls_failed
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError
from ansible_collections.hitless.consul.plugins.module_utils._remote.programs.http import tls_context

# Guarded: an ImportError raised while Ansible loads a plugin is reported as "probably a bug".
try:
    import consul.std
    import urllib3
    from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
except ImportError as error:  # pragma: no cover - exercised by running without the library
    MISSING_LIBRARY: str | None = f"has no Consul client library ({error})"
else:
    # python-consul, which both libraries come from, has the same import name and sends no headers.
    MISSING_LIBRARY = (
        None
        if hasattr(consul.std, "HTTPClient") and "headers" in inspect.signature(consul.std.HTTPClient.get).parameters
        else "has the package python-consul, which is another one of the same import name and too old; uninstall it"
    )

THREADS = 10
"""Connections that are kept: as many as threads of a task ask at once."""

timeout: ContextVar[float] = ContextVar("timeout", default=10.0)
"""Seconds that the request of this thread may take; the library has no parameter for it that both know."""


class Transport(Protocol):
    """The seam under the client library: its HTTP client, or one that goes through a host's connection."""

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


def connect(connection: Connection) -> Transport:
    """The library's own HTTP client, with a session of this file.

    :raises ConsulError: there is no library; a file of the TLS settings cannot be used.
    """
    if MISSING_LIBRARY:
        raise ConsulError(library_missing())
    base = urlsplit(connection.base)
    host = f"[{base.hostname}]" if ":" in (base.hostname or "") else base.hostname
    # Not consul.Consul: it lets CONSUL_HTTP_* of the environment win over its arguments.
    http = consul.std.HTTPClient(host, base.port, base.scheme)
    http.session = Session(connection)
    return http  # type: ignore[no-any-return]


def library_missing() -> str:
    """The sentence for a Python that has neither client library."""
    return (
        f"Ansible's Python ({sys.executable}) {MISSING_LIBRARY}. Install one there: "
        f"{sys.executable} -m pip install py-consul (with pipx: pipx inject ansible-core py-consul)."
    )


@dataclass
class Reply:
    """An answer as the libraries read it from a response of requests."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    encoding: str = "utf-8"

    @property
    def text(self) -> str:
        return self.content.decode(self.encoding, "replace")


class Session:
    """What the libraries call of a session of requests: one method for each of HTTP's, with the whole address.

    It asks neither the environment (a proxy from there would be sent the token) nor where a redirect points, and always
    has a timeout. Threads may share it.
    """

    def __init__(self, connection: Connection) -> None:
        """:raises ConsulError: a file of the TLS settings cannot be used."""
        self._connection = connection
        base = urlsplit(connection.base)
        if base.scheme == "http":
            self._pool = urllib3.HTTPConnectionPool(base.hostname or "", base.port, maxsize=THREADS)
            return
        try:
            context: ssl.SSLContext = tls_context(connection.tls)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise tls_failed("", str(error), connection) from None
        name: dict[str, Any] = {"server_hostname": connection.tls_server_name} if connection.tls_server_name else {}
        self._pool = urllib3.HTTPSConnectionPool(
            base.hostname or "", base.port, maxsize=THREADS, ssl_context=context, **name
        )

    def get(self, address: str, **about: Any) -> Reply:
        return self._send("GET", address, about)

    def put(self, address: str, **about: Any) -> Reply:
        return self._send("PUT", address, about)

    def post(self, address: str, **about: Any) -> Reply:
        return self._send("POST", address, about)

    def delete(self, address: str, **about: Any) -> Reply:
        return self._send("DELETE", address, about)

    def _send(self, method: str, address: str, about: Mapping[str, Any]) -> Reply:
        """One request; the libraries' words on TLS and timeouts are those of :func:`connect` already."""
        target = address[len(self._connection.base) :]
        asked, within = f"{method} {unquote(target.partition('?')[0])}", timeout.get()
        try:
            answer = self._pool.request(
                method,
                target,
                body=about.get("data") or None,
                headers=about["headers"],
                retries=False,
                redirect=False,
                timeout=within,
            )
        except SSLError as error:
            raise tls_failed(asked, _innermost(error), self._connection) from None
        # In urllib3 before 2 a NewConnectionError is one of the other.
        except NewConnectionError as error:
            raise no_answer(asked, _innermost(error), self._connection, nobody=True) from None
        except ConnectTimeoutError:
            raise no_answer(asked, f"no connection within {within:g} s", self._connection, nobody=True) from None
        except HTTPError as error:
            raise no_answer(asked, _innermost(error), self._connection, nobody=False) from None
        return Reply(answer.status, answer.headers, answer.data)


def _innermost(error: BaseException) -> str:
    text = str(error.args[0]) if error.args else str(error)
    found = re.findall(
        r"(\[Errno [^\]]+\][^')]*|\[SSL: [A-Z_]+\][^')(]*|certificate verify failed[^')(]*"
        r"|Read timed out[^')]*|Failed to resolve[^')(]*|Connection aborted[^)]*)",
        text,
    )
    return (found[-1] if found else text).strip(" .'\",(")[:200]
