# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Consul agents of a lab: their configuration, certificates, tokens, and plain HTTP calls to them."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConsulError, LabError
from .network import DNS_PORT, HTTP_PORT, HTTPS_PORT

DATACENTER = "dc1"


@dataclass(frozen=True)
class Certificate:
    """Files of one end of TLS: the authority it trusts, its own certificate and its key."""

    ca: Path
    certificate: Path
    key: Path


class Authority:
    """A certificate authority of the lab's own, by the openssl command."""

    def __init__(self, openssl: Path, folder: Path) -> None:
        """The authority in `folder`; a new one where there is none yet."""
        self.openssl = openssl
        self.folder = folder
        self.ca = folder / "ca.pem"
        if self.ca.exists():
            return
        folder.mkdir(mode=0o700)
        self._run(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7"),
            *("-subj", "/CN=Hitless lab CA", "-keyout", str(folder / "ca.key"), "-out", str(self.ca)),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def issue(self, name: str, address: str, server: bool) -> Certificate:
        """A certificate for a node: for its address, and as a Consul server's when it is one."""
        names = [f"IP:{address}", "IP:127.0.0.1", "DNS:localhost", f"DNS:{name}.node.consul"]
        if server:
            names.append(f"DNS:server.{DATACENTER}.consul")
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName={','.join(names)}\nextendedKeyUsage=serverAuth,clientAuth\n"
            "keyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n"
            "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n",
            encoding="utf-8",
        )
        self._run(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
        )
        self._run(
            *("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self.folder / "ca.key")),
            *("-CAcreateserial", "-days", "7", "-out", str(certificate), "-extfile", str(extensions)),
        )
        return Certificate(self.ca, certificate, key)

    def _run(self, *arguments: str) -> None:
        done = subprocess.run([str(self.openssl), *arguments], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise LabError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


class Http:
    """Plain calls to one Consul HTTP API; no retries, no proxy, five seconds."""

    def __init__(self, url: str, token: str = "", certificate: Certificate | None = None) -> None:
        self.url = url
        self.token = token
        if certificate is None:
            # urllib's own would read all of the machine's authorities, which takes far longer than the call.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        else:
            context = ssl.create_default_context(cafile=str(certificate.ca))
            context.load_cert_chain(certificate.certificate, certificate.key)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def call(self, method: str, path: str, body: Any = None, token: str | None = None, timeout: float = 5) -> Any:
        """Decoded JSON (bytes where it is none) of /v1/<path>; ConsulError otherwise."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v1/{path}", data=data, method=method)
        used = self.token if token is None else token
        if used:
            request.add_header("X-Consul-Token", used)
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace").strip()
            raise ConsulError(error.code, f"{method} {path}: {error.code} {text}") from error
        except OSError as error:
            raise ConsulError(0, f"{method} {path} at {self.url}: {error}") from error
        try:
            return json.loads(content)
        except ValueError:
            return content

    def kv(self, key: str) -> str | None:
        """The text of a key, None when there is no such key."""
        try:
            entry = self.call("GET", f"kv/{urllib.parse.quote(key)}?consistent")[0]
        except ConsulError as error:
            if error.status == 404:
                return None
            raise
        return base64.b64decode(entry["Value"] or "").decode()


@dataclass(frozen=True)
class AgentSettings:
    """What distinguishes one agent from another."""

    name: str
    address: str
    directory: Path
    join: list[str]
    version: tuple[int, ...]  # of Consul: it decides how some settings are spelled
    servers: int = 0  # how many servers there will be; 0: this one is a client
    certificate: Certificate | None = None
    acl: bool = False
    agent_token: str = ""
    default_token: str = ""  # what requests without a token may do, DNS included
    node_meta: dict[str, str] | None = None


def configuration(agent: AgentSettings) -> dict[str, Any]:
    """The agent's configuration file as data."""
    ports: dict[str, int] = {"http": HTTP_PORT, "dns": DNS_PORT, "serf_wan": -1}
    config: dict[str, Any] = {
        "node_name": agent.name,
        "datacenter": DATACENTER,
        "data_dir": str(agent.directory / "data"),
        "bind_addr": agent.address,
        "client_addr": agent.address,
        "ports": ports,
        "retry_join": agent.join,
        "retry_interval": "1s",
        "log_level": "INFO",
        "disable_update_check": True,
        "leave_on_terminate": False,
        "node_meta": agent.node_meta or {},
    }
    if agent.version >= (1, 14):
        ports["grpc_tls"] = -1
    if agent.servers:
        config |= {"server": True, "bootstrap_expect": agent.servers, "performance": {"raft_multiplier": 1}}
    if agent.acl:
        tokens = {"agent": agent.agent_token, "default": agent.default_token}
        config["acl"] = {
            "enabled": True,
            "default_policy": "deny",
            "down_policy": "extend-cache",
            "enable_token_persistence": False,
            "tokens": {kind: token for kind, token in tokens.items() if token},
        }
    if agent.certificate is not None:
        ports |= {"http": -1, "https": HTTPS_PORT}
        tls = {
            "ca_file": str(agent.certificate.ca),
            "cert_file": str(agent.certificate.certificate),
            "key_file": str(agent.certificate.key),
            "verify_incoming": True,
            "verify_outgoing": True,
        }
        if agent.version >= (1, 12):
            config["tls"] = {"defaults": tls, "internal_rpc": {"verify_server_hostname": True}}
        else:
            config |= {**tls, "verify_server_hostname": True}
    return config


def quote(text: str) -> str:
    """One path segment of a URL."""
    return urllib.parse.quote(text, safe="")
