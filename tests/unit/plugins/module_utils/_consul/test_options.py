"""Where a connection option comes from: task option, variable, environment, default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.parsing.yaml import objects as yaml_objects

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    Task,
    agent_connection,
    agent_node,
    boolean,
    cluster_connection,
    connection_options,
    decrypted,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from tests.http_server import HttpServer, Reply

pytestmark = pytest.mark.oldest

ENVIRONMENT = {
    "url": "CONSUL_HTTP_ADDR",
    "token": "CONSUL_HTTP_TOKEN",
    "ca_path": "CONSUL_CACERT",
    "client_cert": "CONSUL_CLIENT_CERT",
    "client_key": "CONSUL_CLIENT_KEY",
    "tls_server_name": "CONSUL_TLS_SERVER_NAME",
}


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_the_nearest_wins(name: str) -> None:
    params, variables, environment = {name: "task"}, {f"hitless_consul_{name}": "variable"}, {ENVIRONMENT[name]: "env"}
    # A module's parameter that is not given is None; a variable may be set to nothing.
    nothing: tuple[dict[str, Any], dict[str, Any]] = ({name: None}, {f"hitless_consul_{name}": ""})
    assert connection_options(params, variables, environment)[name] == "task"
    assert connection_options(nothing[0], variables, environment)[name] == "variable"
    assert connection_options(*nothing, environment)[name] == "env"
    assert name not in connection_options(*nothing, {})


@pytest.mark.parametrize("name", ["datacenter", "timeout", "agent_url", "agent_token", "via", "deploy_prefix"])
def test_options_that_no_environment_sets(name: str) -> None:
    variables = {f"hitless_consul_{name}": "variable"}
    assert connection_options({name: "task"}, variables, {})[name] == "task"
    assert connection_options({}, variables, {name: "x"})[name] == "variable"
    assert name not in connection_options({}, {}, {name: "x"})


def url(params: dict[str, Any], variables: dict[str, Any], environment: dict[str, str]) -> str:
    return cluster_connection(connection_options(params, variables, environment)).base


@pytest.mark.parametrize(
    ("params", "variables", "environment", "expected"),
    [
        ({}, {}, {}, "http://127.0.0.1:8500"),
        ({}, {}, {"CONSUL_HTTP_ADDR": "consul:8500"}, "http://consul:8500"),
        ({}, {}, {"CONSUL_HTTP_ADDR": "consul:8501", "CONSUL_HTTP_SSL": "true"}, "https://consul:8501"),
        ({}, {}, {"CONSUL_HTTP_ADDR": "consul:8501", "CONSUL_HTTP_SSL": "0"}, "http://consul:8501"),
        ({}, {}, {"CONSUL_HTTP_ADDR": "http://consul:8500", "CONSUL_HTTP_SSL": "1"}, "http://consul:8500"),
        # As the consul command: the default address, by TLS.
        ({}, {}, {"CONSUL_HTTP_SSL": "true"}, "https://127.0.0.1:8500"),
        ({"url": "consul:1"}, {}, {"CONSUL_HTTP_SSL": "true"}, "http://consul:1"),
        ({}, {"hitless_consul_url": "consul:1"}, {"CONSUL_HTTP_SSL": "true"}, "http://consul:1"),
    ],
)
def test_addresses(
    params: dict[str, Any], variables: dict[str, Any], environment: dict[str, str], expected: str
) -> None:
    assert url(params, variables, environment) == expected


def test_an_ssl_switch_that_is_none() -> None:
    with pytest.raises(HitlessError, match="CONSUL_HTTP_SSL must be true or false, not 'maybe'"):
        connection_options({}, {}, {"CONSUL_HTTP_ADDR": "consul", "CONSUL_HTTP_SSL": "maybe"})


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Names of files that hold the name of their level as token."""
    found = {}
    for level in ("task", "variable", "env"):
        path = tmp_path / level
        path.write_text(f"file of {level}\n")
        found[level] = str(path)
    return found


@pytest.mark.parametrize(
    ("tokens", "token_files", "expected"),
    [
        ({"task", "variable", "env"}, {"task", "variable", "env"}, "task"),
        ({"variable", "env"}, {"variable", "env"}, "variable"),
        ({"env"}, {"env"}, "env"),
        (set(), {"task", "variable", "env"}, "file of task"),
        (set(), {"variable", "env"}, "file of variable"),
        (set(), {"env"}, "file of env"),
        # The nearer level wins, whichever of the two it gives.
        ({"env"}, {"task"}, "file of task"),
        ({"variable"}, {"task"}, "file of task"),
        ({"env"}, {"variable"}, "file of variable"),
        ({"variable"}, {"env"}, "variable"),
        ({"task"}, {"variable", "env"}, "task"),
        (set(), set(), None),
    ],
)
def test_a_token_and_a_token_file(
    files: dict[str, str], tokens: set[str], token_files: set[str], expected: str | None
) -> None:
    params = {
        "token": "task" if "task" in tokens else None,
        "token_file": files["task"] if "task" in token_files else None,
    }
    variables: dict[str, str] = {}
    environment: dict[str, str] = {}
    if "variable" in tokens:
        variables["hitless_consul_token"] = "variable"
    if "variable" in token_files:
        variables["hitless_consul_token_file"] = files["variable"]
    if "env" in tokens:
        environment["CONSUL_HTTP_TOKEN"] = "env"
    if "env" in token_files:
        environment["CONSUL_HTTP_TOKEN_FILE"] = files["env"]
    options = connection_options(params, variables, environment)
    assert cluster_connection(options).token == expected
    assert agent_connection(options).token == expected
    assert agent_connection({**options, "agent_token": "agent's"}).token == "agent's"


NEWLINES = ["a-token\n", "a-token\r\n", " a-token", "\n  a-token\n\n"]


@pytest.mark.parametrize("text", NEWLINES)
def test_white_space_around_a_token_is_no_part_of_it(text: str, tmp_path: Path) -> None:
    """Wherever it comes from: a YAML block and ``$'...\\n'`` leave a line's end."""
    file = tmp_path / "token"
    file.write_text(text)
    given: list[tuple[dict[str, str], dict[str, str], dict[str, str]]] = [
        ({"token": text}, {}, {}),
        ({"token_file": str(file)}, {}, {}),
        ({}, {"hitless_consul_token": text}, {}),
        ({}, {"hitless_consul_token_file": str(file)}, {}),
        ({}, {}, {"CONSUL_HTTP_TOKEN": text}),
        ({}, {}, {"CONSUL_HTTP_TOKEN_FILE": str(file)}),
    ]
    for levels in given:
        options = connection_options(*levels)
        assert cluster_connection(options).token == "a-token"
        assert agent_connection(options).token == "a-token"
    assert agent_connection(connection_options({"agent_token": text}, {}, {})).token == "a-token"
    assert agent_connection(connection_options({}, {"hitless_consul_agent_token": text}, {})).token == "a-token"


@pytest.fixture
def vaulted() -> Callable[[str], Any]:
    """Makes what ``!vault`` in a file of variables is, in the ansible-core that is installed."""
    vault = VaultLib([("default", VaultSecret(b"secret"))])
    if hasattr(yaml_objects.AnsibleVaultEncryptedUnicode, "from_plaintext"):
        return lambda text: yaml_objects.AnsibleVaultEncryptedUnicode.from_plaintext(
            text, vault, VaultSecret(b"secret")
        )
    return lambda text: text  # from 2.19 on a plugin is given the text


def test_a_vaulted_text_is_a_text(vaulted: Callable[[str], Any]) -> None:
    names = ("token", "datacenter", "agent_token", "agent_url", "agent_ca_path", "node")
    variables = {f"hitless_consul_{name}": vaulted(f"{name}-text") for name in names}
    options = connection_options({}, variables, {})
    assert json.loads(json.dumps(options)) == {name: f"{name}-text" for name in names}
    for connection in (cluster_connection(options), agent_connection(options)):
        assert type(connection.token) is str
    nested = {"A": [vaulted("b"), 1], "C": {"D": vaulted("e")}}
    assert json.dumps(decrypted(nested)) == '{"A": ["b", 1], "C": {"D": "e"}}'


def test_a_vaulted_token_of_an_agent_is_carried_through_the_host(vaulted: Callable[[str], Any]) -> None:
    seen: list[bytes] = []

    def execute(command: str, data: bytes) -> tuple[int, bytes, bytes]:
        seen.append(data)
        return 0, b"", b""

    options = connection_options({}, {"hitless_consul_agent_token": vaulted("a-token")}, {})
    with pytest.raises(HitlessError, match="gave no answer"):
        Task({}, options, Host(execute)).agent.get("/v1/agent/self")
    assert "'headers': {'X-Consul-Token': 'a-token'}" in seen[0].decode()


def test_the_environment_of_the_consul_command() -> None:
    def found(**environment: str) -> Connection:
        return cluster_connection(connection_options({}, {}, environment))

    assert found(CONSUL_CAPATH="/folder").ca_path == "/folder"
    assert found(CONSUL_CAPATH="/folder", CONSUL_CACERT="/ca.pem").ca_path == "/ca.pem"
    assert found(CONSUL_TLS_SERVER_NAME="server.dc1.consul").tls["tls_server_name"] == "server.dc1.consul"
    assert found(CONSUL_HTTP_AUTH="anna:secret").headers == {"Authorization": "Basic YW5uYTpzZWNyZXQ="}
    # None of it is the agent's: another address, seen from another machine.
    agent = agent_connection(
        connection_options({}, {}, {"CONSUL_HTTP_AUTH": "anna:secret", "CONSUL_TLS_SERVER_NAME": "x"})
    )
    assert (agent.headers, agent.tls_server_name) == ({}, None)
    assert agent_connection({"agent_tls_server_name": "client.dc1.consul"}).tls_server_name == "client.dc1.consul"


def test_a_token_set_to_nothing_is_none_at_all(files: dict[str, str]) -> None:
    environment = {"CONSUL_HTTP_TOKEN": "env", "CONSUL_HTTP_TOKEN_FILE": files["env"]}
    assert cluster_connection(connection_options({"token": ""}, {}, environment)).token is None


def test_a_token_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HitlessError, match="The token file /.*/gone cannot be read: No such file or directory"):
        cluster_connection({"token_file": str(tmp_path / "gone")})


@pytest.mark.parametrize("name", ["CONSUL_NAMESPACE", "CONSUL_PARTITION"])
def test_enterprise_settings_are_refused(name: str) -> None:
    with pytest.raises(HitlessError, match=f"{name} is set"):
        connection_options({}, {}, {name: "team"})
    assert connection_options({}, {}, {name: ""}) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("False", False),
        (" no ", False),
        ("1", True),
        (0, False),
        ("on", True),
    ],
)
def test_booleans(value: object, expected: bool) -> None:
    assert boolean(value, "validate_certs") is expected
    assert cluster_connection({"validate_certs": value}).validate_certs is expected
    assert agent_connection({"validate_certs": value}).validate_certs is expected


@pytest.mark.parametrize("value", ["maybe", "", None, 2])
def test_what_is_no_boolean(value: object) -> None:
    with pytest.raises(HitlessError, match="x must be true or false"):
        boolean(value, "x")


def test_certificates_are_not_verified_only_where_that_is_said() -> None:
    assert cluster_connection({}).validate_certs is True
    assert cluster_connection(connection_options({}, {}, {"CONSUL_HTTP_SSL_VERIFY": "false"})).validate_certs is False


@pytest.mark.parametrize(("value", "expected"), [(5, 5.0), ("2.5", 2.5), ("600", 600.0)])
def test_a_timeout(value: object, expected: float) -> None:
    assert cluster_connection({"timeout": value}).timeout == expected


@pytest.mark.parametrize("value", [0, -1, 601, "x", "nan", "inf"])
def test_what_is_no_timeout(value: object) -> None:
    with pytest.raises(HitlessError, match="timeout must be a number of seconds between 0 and 600"):
        cluster_connection({"timeout": value})


def test_the_agent_takes_nothing_of_the_cluster_but_the_token() -> None:
    options = connection_options(
        {"url": "https://consul", "ca_path": "/ca.pem", "client_cert": "/c.pem", "token": "t"}, {}, {}
    )
    agent = agent_connection(options)
    assert (agent.base, agent.ca_path, agent.client_cert, agent.token) == ("http://127.0.0.1:8500", None, None, "t")


def test_who_asks_the_agent() -> None:
    """Directly where the host is this machine, or via says so; else through the host."""

    def execute(command: str, data: bytes) -> tuple[int, bytes, bytes]:
        raise AssertionError("not asked")

    def through_host(host: Host, **options: str) -> bool:
        return "HostTransport" in type(Task({}, options, host).agent._transport).__name__

    assert through_host(Host(execute))
    assert through_host(Host(execute), via="auto")
    assert not through_host(Host(execute), via="controller")
    assert not through_host(Host(None))


@pytest.mark.parametrize(
    "reply", [Reply(404), Reply(body='{"Config": {}}'), Reply(body='{"Config": {"NodeName": ""}}')]
)
def test_an_agent_that_does_not_say_its_node(reply: Reply) -> None:
    with HttpServer(reply) as server, pytest.raises(HitlessError, match=r"does not say of which node.*Set consul_node"):
        agent_node(Client(Connection(server.url)))


def test_the_node_is_said_before_it_is_asked_for() -> None:
    assert Task({}, {"node": "said"}, Host(None), node_hint="hint").node == "said"
    assert Task({}, {}, Host(None), node_hint="hint").node == "hint"
