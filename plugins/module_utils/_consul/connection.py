# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Consul is and how to talk to it (a private helper of this collection). Asks nothing."""

from __future__ import annotations

import base64
import functools
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError

DEFAULT_URL = "http://127.0.0.1:8500"
_IN_A_HEADER = re.compile(r"[ -~]+")
"""What a token may consist of: printable ASCII. Consul's own are UUIDs."""


@dataclass(frozen=True)
class Connection:
    """One Consul HTTP address, and what is sent and checked there.

    :param url: base address, ``http[s]://host[:port]``; the scheme defaults to http, the port to 8500 (https: 8501).
    :param token: ACL token, without white space around it; never shown by ``repr``.
    :param http_auth: ``user:password`` for a proxy before Consul that asks for it; never shown by ``repr``.
    :param ca_path: file or directory of CA certificates; the system's where not given.
    :param tls_server_name: name that the certificate must have, where it is not the address's.
    :param datacenter: asked for by each request; None for that of the agent asked.
    :param timeout: seconds to wait for an answer; a blocking read adds its own wait.
    :param is_agent: whether it is a host's own agent, whose options have other names than the cluster's.
    :raises HitlessError: the token is none that a request can carry; the message does not show it.
    """

    url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)
    http_auth: str | None = field(default=None, repr=False)
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    tls_server_name: str | None = None
    validate_certs: bool = True
    datacenter: str | None = None
    timeout: float = 10.0
    is_agent: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", clean_token(self.token, is_agent=self.is_agent))

    @functools.cached_property
    def base(self) -> str:
        """The address with scheme and port; raises :class:`ConsulError` for one that cannot be used."""
        return normalise_url(self.url)

    @property
    def headers(self) -> dict[str, str]:
        """What each request is sent with."""
        found = {"X-Consul-Token": self.token} if self.token else {}
        if self.http_auth:
            found["Authorization"] = f"Basic {base64.b64encode(self.http_auth.encode()).decode()}"
        return found

    @property
    def tls(self) -> dict[str, Any]:
        """The settings of TLS, as ``programs/http.py`` takes them."""
        return {
            "ca_path": self.ca_path,
            "client_cert": self.client_cert,
            "client_key": self.client_key,
            "tls_server_name": self.tls_server_name,
            "validate_certs": self.validate_certs,
        }


def clean_token(token: str | None, *, is_agent: bool = False) -> str | None:
    """A token without the white space around it: a YAML block or a shell's ``$(cat file)`` leaves a line's end.

    :raises HitlessError: no HTTP header can carry it. Refused here, since HTTP libraries show the header they refuse.
    """
    text = (token or "").strip()
    if text and not _IN_A_HEADER.fullmatch(text):
        option = (
            "hitless_consul_agent_token" if is_agent else "token (hitless_consul_token, CONSUL_HTTP_TOKEN, token_file)"
        )
        raise HitlessError(
            "The ACL token cannot be sent: it holds a line's end, or another character that is not printable ASCII.",
            hint=f"Check where {option} comes from: it has to be the token alone.",
        )
    return text or None


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
            "The Consul address holds a user name or password.",
            hint="Set url (or CONSUL_HTTP_ADDR) without them. An ACL token goes into token (CONSUL_HTTP_TOKEN), user "
            "and password for a proxy before Consul into the environment variable CONSUL_HTTP_AUTH.",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.path.strip("/") or parts.query:
        raise ConsulError(
            f"The Consul address {url!r} is not of the form http://host:port or https://host:port.",
            hint="Set url (or CONSUL_HTTP_ADDR).",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"
