# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came back from Consul: data in the shape that its API promises, or an error (a private helper). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, ConsulUnavailable

T = TypeVar("T")

_SHAPES: dict[str, tuple[type[object], tuple[str, ...]]] = {
    "GET /v1/kv/": (list, ("Key", "ModifyIndex")),
    "GET /v1/health/service/": (list, ("Node", "Service", "Checks")),
    "GET /v1/health/connect/": (list, ("Node", "Service", "Checks")),
    "GET /v1/health/": (list, ("Node", "CheckID", "Status")),
    "GET /v1/catalog/services": (dict, ()),
    "GET /v1/catalog/node/": (dict, ()),
    "GET /v1/catalog/": (list, ("Node",)),
    "GET /v1/session/": (list, ("ID",)),
    "GET /v1/agent/self": (dict, ("Config",)),
    "PUT /v1/session/create": (dict, ("ID",)),
    "PUT /v1/txn": (dict, ()),
}
"""Start of a request -> what Consul answers: an object, or a list of objects, with these fields. The first one counts.

Any HTTP service may listen at an address, and many answer JSON."""


class Response(Protocol):
    """What both client libraries hand to a callback."""

    code: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Answer:
    """A decoded answer: ``data`` (None for 404), ``index`` for the next blocking read (0 where there is none),
    ``filtered`` by ACLs."""

    data: Any
    index: int
    status: int
    filtered: bool = False


class Watching(Protocol):
    """What waits for what it reads: a client, or what follows the instances on one node."""

    def watch_with_answer(
        self,
        path: str,
        params: Sequence[tuple[str, object]],
        decide: Callable[[Any], T | None],
        deadline: float,
        *,
        first: Answer | None = None,
    ) -> tuple[T, Answer]:
        """See the client's."""


def decode(asked: str, response: Response, connection: Connection, where: str = "", *, names: bool = False) -> Answer:
    """The answer to a request, ``GET /v1/kv/...``.

    :param where: from where it was asked, for messages.
    :param names: only the names of keys were asked for.
    :raises ConsulError: Consul refused, or it is not Consul that answered. No such key (404) is an answer.
    """
    headers = {name.lower(): value for name, value in response.headers.items()}
    try:
        index = int(headers.get("x-consul-index") or 0)
    except ValueError:
        index = 0
    filtered = headers.get("x-consul-results-filtered-by-acls") == "true"
    if response.code == 404:
        return Answer(None, index, 404, filtered)
    if response.code >= 300 and not (response.code == 409 and asked.endswith("/v1/txn")):
        raise refused(asked, response, connection, where)
    try:
        data = json.loads(response.body) if response.body.strip() else None
    except (ValueError, RecursionError):
        raise _not_consul(asked, response, connection, where, "something that is not JSON") from None
    if not _has_shape(asked, data, names=names):
        raise _not_consul(asked, response, connection, where, "JSON that is not Consul's")
    return Answer(data, index, response.code, filtered)


def hits_limit(asked: str, response: Response) -> bool:
    """Whether a limit of requests or connections refused it: with 429, and with 503 what the leader alone can do.

    The agent's own health is no limit: there 429 says that a service is in warning.
    """
    if asked.startswith("GET /v1/agent/health/"):
        return False
    return response.code == 429 or (response.code == 503 and "rate limit exceeded" in response.body)


def refused(asked: str, response: Response, connection: Connection, where: str = "") -> ConsulError:
    """The error for an answer that is a refusal."""
    text = re.sub(r"\s+", " ", response.body).strip()[:300]
    headers = {name.lower(): value for name, value in response.headers.items()}
    hint = ""
    if response.code in (401, 403) or "Permission denied" in text or "ACL not found" in text:
        token = "the token given" if connection.token else "no token"
        hint = f"Asked with {token}; set token (CONSUL_HTTP_TOKEN) to one whose policy allows it."
    elif response.code < 400:
        hint = f"It redirects to {headers.get('location', 'nowhere')}; set url to Consul's own address."
    elif response.code == 413:
        hint = "Consul takes values of at most 512 KiB."
    elif "HTTP request was sent to HTTPS" in text or "HTTP request to an HTTPS" in text:
        hint = "Use an https:// address."
    return ConsulError(
        f"Consul at {connection.base}{where} refused {asked} with {response.code}: {text}.",
        asked=asked,
        status=response.code,
        hint=hint,
    )


def unavailable(asked: str, response: Response, connection: Connection, where: str = "") -> ConsulUnavailable:
    """The error for an answer that another try may change: there is no leader, or a limit is reached."""
    return ConsulUnavailable(
        f"Consul at {connection.base}{where} answered {asked} with {response.code}: {response.body.strip()[:300]}",
        asked=asked,
        status=response.code,
        hint="Its limit of requests, or of connections of one client, is reached (limits in Consul's configuration)."
        if hits_limit(asked, response)
        else "",
    )


def no_answer(asked: str, why: str, connection: Connection, *, nobody: bool) -> ConsulUnavailable:
    """The error where none came; its status is -1 where ``nobody`` listens there."""
    hint = (
        "Set hitless_consul_agent_url to the address of that host's own agent."
        if connection.is_agent
        else "Set hitless_consul_url (CONSUL_HTTP_ADDR; url in an inventory source) to an address this machine "
        "reaches; where agents listen on their own loopback only, a tunnel does: ssh -N -L 8500:127.0.0.1:8500 HOST."
    )
    return ConsulUnavailable(
        f"No answer from Consul at {connection.base} to {asked}: {why}.",
        asked=asked,
        status=-1 if nobody else 0,
        hint=hint if nobody else "",
    )


def tls_failed(asked: str, why: str, connection: Connection) -> ConsulError:
    """The error where no connection could be trusted."""
    if any(sign in why for sign in ("WRONG_VERSION_NUMBER", "RECORD_LAYER", "HTTP_REQUEST")):
        hint = "Use an http:// address if that port speaks no TLS."
    elif connection.is_agent:
        hint = "Check hitless_consul_agent_ca_path, _client_cert, _client_key and _tls_server_name."
    else:
        hint = (
            "Check ca_path, client_cert, client_key, tls_server_name (CONSUL_CACERT or CONSUL_CAPATH, "
            "CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME)."
        )
    return ConsulError(f"TLS with Consul at {connection.base} failed: {why}.", asked=asked, hint=hint)


def _has_shape(asked: str, data: Any, *, names: bool) -> bool:
    shape = next((shape for start, shape in _SHAPES.items() if asked.startswith(start)), None)
    if shape is None:
        return True
    kind, fields = shape
    if kind is dict:
        return isinstance(data, dict) and set(fields) <= data.keys() if data is not None else not fields
    if data is None:
        return True
    return isinstance(data, list) and all(
        isinstance(item, str) if names else isinstance(item, dict) and set(fields) <= item.keys() for item in data
    )


def _not_consul(asked: str, response: Response, connection: Connection, where: str, what: str) -> ConsulError:
    return ConsulError(
        f"{connection.base}{where} answered {asked} with {what}: {response.body.strip()[:80]!r}.",
        asked=asked,
        status=response.code,
        hint="Set hitless_consul_agent_url to the address of that host's own agent."
        if connection.is_agent
        else "Set url (hitless_consul_url, CONSUL_HTTP_ADDR) to Consul's HTTP address, http://HOST:8500 for instance.",
    )
