# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task of this collection works with, whether an action or a module runs it (a private helper).

Modules and actions share one ``ARGUMENT_SPEC`` and one ``perform(task)``; this file is what they share of the rest: the
connection options with their order of precedence, and the clients made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import (
    DEFAULT_URL,
    Connection,
    normalise_url,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host, HostTransport
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys, checked_prefix

CLUSTER_SPEC: dict[str, dict[str, Any]] = {
    "url": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "token_file": {"type": "path", "no_log": False},
    "ca_path": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "tls_server_name": {"type": "str"},
    "validate_certs": {"type": "bool"},
    "datacenter": {"type": "str"},
    "timeout": {"type": "float"},
}
"""Options of every task; documented in the fragment ``hitless.consul._cluster``."""

AGENT_SPEC: dict[str, dict[str, Any]] = {
    "agent_url": {"type": "str"},
    "agent_token": {"type": "str", "no_log": True},
    "agent_ca_path": {"type": "str"},
    "agent_client_cert": {"type": "str"},
    "agent_client_key": {"type": "str", "no_log": False},
    "agent_tls_server_name": {"type": "str"},
    "via": {"type": "str", "choices": ["auto", "controller", "host"]},
    "node": {"type": "str"},
}
"""Options of tasks that ask a host's own agent; documented in the fragment ``hitless.consul._agent``."""

KEYS_SPEC: dict[str, dict[str, Any]] = {
    "deploy_prefix": {"type": "str"},
    "nodes_prefix": {"type": "str"},
}
"""Options of tasks that read or write this collection's keys; documented in the fragment ``hitless.consul._keys``."""

OPTIONS = (*CLUSTER_SPEC, *AGENT_SPEC, *KEYS_SPEC)
"""All options that a variable ``hitless_consul_<option>`` can set."""

VARIABLE_PREFIX = "hitless_consul_"

_ENVIRONMENT = {
    "url": "CONSUL_HTTP_ADDR",
    "token": "CONSUL_HTTP_TOKEN",
    "token_file": "CONSUL_HTTP_TOKEN_FILE",
    "http_auth": "CONSUL_HTTP_AUTH",
    "ca_path": "CONSUL_CACERT",
    "client_cert": "CONSUL_CLIENT_CERT",
    "client_key": "CONSUL_CLIENT_KEY",
    "tls_server_name": "CONSUL_TLS_SERVER_NAME",
    "validate_certs": "CONSUL_HTTP_SSL_VERIFY",
}
"""As the consul command reads them; ``http_auth``, a password, has no option."""
_TRUE, _FALSE = ("1", "t", "true", "y", "yes", "on"), ("0", "f", "false", "n", "no", "off")


def boolean(value: object, name: str) -> bool:
    """A boolean as variables and the environment give it: ``false`` and ``"false"`` alike."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise HitlessError(f"{name} must be true or false, not {value!r}.")


def decrypted(value: Any) -> Any:
    """A value as plain data: up to ansible-core 2.18 a vaulted text is an object that only turns into a text."""
    if getattr(value, "__ENCRYPTED__", False):
        return str(value)
    if isinstance(value, dict):
        return {key: decrypted(one) for key, one in value.items()}
    return [decrypted(one) for one in value] if isinstance(value, list) else value


def connection_options(
    params: Mapping[str, Any],
    variables: Mapping[str, Any],
    environment: Mapping[str, str],
    inventory: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The options that are set: task option, else variable ``hitless_consul_<option>``, else environment.

    An address on a higher level takes no ``CONSUL_HTTP_SSL`` or token file of a lower one with it.

    :param inventory: options of the inventory source, for where no address is set.
    """
    for name in ("CONSUL_NAMESPACE", "CONSUL_PARTITION"):
        if environment.get(name):
            raise HitlessError(
                f"{name} is set, and this collection does not know Enterprise namespaces and partitions.",
                hint="Unset it: it would be ignored otherwise.",
            )
    named = {name: variables.get(VARIABLE_PREFIX + name) for name in OPTIONS}
    options: dict[str, Any] = {}
    for level in (
        {name: params[name] for name in OPTIONS if params.get(name) is not None},
        {name: value for name, value in named.items() if value not in (None, "")},
        _from_environment(environment),
    ):
        # A token of a nearer level beats the file of a farther one, and the other way round.
        has_token = "token" in options or "token_file" in options
        options.update(
            (name, decrypted(value))
            for name, value in level.items()
            if name not in options and not (has_token and name in ("token", "token_file"))
        )
    return options if "url" in options else {**(inventory or {}), **options}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The options as the consul command takes them from its environment."""
    found: dict[str, Any] = {name: environment[key] for name, key in _ENVIRONMENT.items() if environment.get(key)}
    if environment.get("CONSUL_CAPATH"):
        found.setdefault("ca_path", environment["CONSUL_CAPATH"])
    if _on(environment, "CONSUL_HTTP_SSL"):
        address = str(found.get("url", "127.0.0.1:8500"))
        found["url"] = address if "://" in address else f"https://{address}"
    return found


def _on(environment: Mapping[str, str], name: str) -> bool:
    return bool(environment.get(name)) and boolean(environment[name], name)


def _token(options: Mapping[str, Any]) -> str | None:
    if options.get("token"):
        return str(options["token"])
    path = options.get("token_file")
    if not path:
        return None
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip() or None
    except OSError as error:
        raise HitlessError(
            f"The token file {path} cannot be read: {error.strerror}.", hint="Set token_file or token."
        ) from None


def _seconds(value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise HitlessError(f"timeout must be a number of seconds between 0 and 600, not {value!r}.")
    return seconds


def cluster_connection(options: Mapping[str, Any]) -> Connection:
    """The connection to the cluster's address."""
    connection = Connection(
        url=str(options.get("url") or DEFAULT_URL),
        token=_token(options),
        http_auth=options.get("http_auth"),
        ca_path=options.get("ca_path"),
        client_cert=options.get("client_cert"),
        client_key=options.get("client_key"),
        tls_server_name=options.get("tls_server_name"),
        validate_certs=boolean(options.get("validate_certs", True), "validate_certs"),
        datacenter=options.get("datacenter") or None,
        timeout=_seconds(options.get("timeout", 10)),
    )
    normalise_url(connection.url)
    return connection


def agent_connection(options: Mapping[str, Any]) -> Connection:
    """The connection to the host's own agent, its addresses and paths as seen from where it is asked."""
    return Connection(
        url=str(options.get("agent_url") or DEFAULT_URL),
        token=options.get("agent_token") or _token(options),
        ca_path=options.get("agent_ca_path"),
        client_cert=options.get("agent_client_cert"),
        client_key=options.get("agent_client_key"),
        tls_server_name=options.get("agent_tls_server_name"),
        validate_certs=boolean(options.get("validate_certs", True), "validate_certs"),
        timeout=_seconds(options.get("timeout", 10)),
        is_agent=True,
    )


@dataclass
class Task:
    """One task as ``perform`` sees it.

    :param params: the validated options of the task.
    :param options: the connection options after precedence, see :func:`connection_options`.
    :param host: the managed host.
    :param node_hint: the host variable ``consul_node``, and the host's name in the inventory.
    :param variables: the task's variables (actions only; empty in a module).
    """

    params: dict[str, Any]
    options: dict[str, Any]
    host: Host
    check_mode: bool = False
    node_hint: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    warn: Callable[[str], None] = lambda message: None
    show: Callable[[str], None] = lambda text: None

    @cached_property
    def consul(self) -> Client:
        """Asks the cluster, from the controller."""
        return Client(cluster_connection(self.options))

    @cached_property
    def agent(self) -> Client:
        """Asks the host's own agent: directly, or through the host's connection."""
        connection = agent_connection(self.options)
        if self.host.is_local or self.options.get("via") == "controller":
            return Client(connection)
        return Client(connection, HostTransport(self.host, connection.base, connection.tls, connection.timeout))

    @property
    def deploy_prefix(self) -> str:
        """The prefix of the keys of deployments."""
        return checked_prefix(self.options.get("deploy_prefix", "deploy"), "deploy_prefix")

    def keys(self, service: str) -> Keys:
        """The keys of a service, below the prefixes that are set."""
        return Keys(
            service,
            deploy=self.deploy_prefix,
            nodes=checked_prefix(self.options.get("nodes_prefix", "nodes"), "nodes_prefix"),
        )

    @cached_property
    def node(self) -> str:
        """The Consul node of the host: option ``node``, variable ``consul_node``, else what its agent says."""
        name = self.options.get("node") or self.node_hint
        if name:
            return str(name)
        return agent_node(self.agent)


def agent_node(agent: Client) -> str:
    """The name of the node that an agent stands for; needs ``agent:read`` on it."""
    return agent_identity(agent)[0]


def agent_identity(agent: Client) -> tuple[str, str]:
    """The node that an agent stands for, and its datacenter where it tells; needs ``agent:read`` on it."""
    config = (agent.get("/v1/agent/self").data or {}).get("Config") or {}
    if not config.get("NodeName"):
        raise HitlessError(
            f"The Consul agent at {agent.connection.url} does not say of which node it is.",
            hint="Set consul_node (the option node) to the host's name in Consul, or check hitless_consul_agent_url.",
        )
    return str(config["NodeName"]), str(config.get("Datacenter") or "")
