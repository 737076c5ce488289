"""The client against a server that fails in every way a real Consul cannot be made to."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import client as _client
from ansible_collections.hitless.consul.plugins.module_utils._consul import transport
from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import AskAgain, Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection, normalise_url
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_check_session, kv_set
from ansible_collections.hitless.consul.plugins.module_utils._consul.transport import library_missing
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    ConsulUnavailable,
    DeadlineExceeded,
    HitlessError,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host, HostTransport
from lab.testkit import link_tree
from tests.http_server import Asked, HttpServer, Reply, nobody

pytestmark = pytest.mark.oldest

SECRET = "not-for-anybody"
KEY = [{"Key": "k", "Value": "djE=", "ModifyIndex": 7}]
FOUND = Reply(body=json.dumps(KEY), headers={"X-Consul-Index": "7"})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries pass at once; a try is still counted as long as it took."""
    monkeypatch.setattr(_client, "random", SimpleNamespace(uniform=lambda low, high: 0.0))


def client(url: str, retry_for: float = 30, **connection: Any) -> Client:
    return Client(Connection(url, **connection), retry_for=retry_for)


# -- what is tried again ------------------------------------------------------------------------------------------

LIMITED = "Your IP is issuing too many concurrent connections, please rate limit your calls"
PASSING_5XX = [
    (429, LIMITED),
    (500, "No cluster leader"),
    (500, "rpc error getting client: failed to get conn: dial tcp 127.0.0.1:0->127.0.0.2:8300: connection refused"),
    (500, "rpc error making call: EOF"),
    (500, "leadership lost while committing log"),
    (500, "node is not the leader"),
    (500, "No known Consul servers"),
    (500, ""),
    (502, "<html>bad gateway</html>"),
    (503, "Service Unavailable"),
    (504, ""),
]


@pytest.mark.parametrize(("status", "text"), PASSING_5XX)
def test_a_passing_trouble_is_waited_out(status: int, text: str) -> None:
    trouble = Reply(status, text)
    with HttpServer(trouble, trouble, FOUND) as server:
        asked = client(server.url)
        found = asked.key("k")
    assert found is not None
    assert (found.value, found.index) == ("v1", 7)
    assert len(server.asked) == asked.requests == 3


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b"\x15\x03\x01 what is this\r\n\r\n"]
)
def test_a_connection_that_breaks_is_tried_again(raw: bytes) -> None:
    with HttpServer(Reply(raw=raw), FOUND) as server:
        assert client(server.url).key("k") is not None
    assert len(server.asked) == 2


def test_writes_that_do_no_harm_twice_are_tried_again_and_others_are_not() -> None:
    trouble = Reply(500, "No cluster leader")
    with HttpServer(trouble, Reply(body="true")) as server:
        assert client(server.url).set_key("k", "v") is True
    assert [(one.method, one.body) for one in server.asked] == [("PUT", b"v")] * 2
    for parameter in ({"cas": 3}, {"acquire": "s"}, {"release": "s"}):
        with (
            HttpServer(trouble, Reply(body="true")) as server,
            pytest.raises(ConsulUnavailable, match="500: No cluster"),
        ):
            client(server.url).set_key("k", "v", **parameter)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "Bad request"),
        (401, ""),
        (403, "Permission denied"),
        (405, "method PUT not allowed"),
        (409, "Conflict"),
        (413, "Value exceeds 524288 byte limit"),
        (500, 'invalid session "1234"'),
        (500, "Permission denied: token with AccessorID '…' lacks permission 'service:write'"),
        (500, "ACL not found"),
        (301, ""),
        (302, "<a href='https://consul/'>Found</a>"),
    ],
)
def test_what_is_final_is_never_tried_again(status: int, text: str) -> None:
    with HttpServer(Reply(status, text, {"Location": "/elsewhere"} if status < 400 else {}), FOUND) as server:
        with pytest.raises(ConsulError) as error:
            client(server.url, token=SECRET).put("/v1/agent/maintenance", [("enable", "true")])
        assert not isinstance(error.value, ConsulUnavailable)
        assert error.value.status == status
        assert error.value.asked == "PUT /v1/agent/maintenance"
        assert f"refused PUT /v1/agent/maintenance with {status}" in str(error.value)
        assert text[:20] in str(error.value)
        assert SECRET not in str(error.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "limit", [(429, LIMITED), (503, "rate limit exceeded for operation that can only be performed")]
)
def test_a_write_that_a_limit_refused_was_not_carried_out_and_is_always_tried_again(limit: tuple[int, str]) -> None:
    for parameter in ({"cas": 3}, {"acquire": "s"}, {"release": "s"}):
        with HttpServer(Reply(*limit), Reply(body="true")) as server:
            assert client(server.url).set_key("k", "v", **parameter) is True
        assert len(server.asked) == 2


def test_a_limit_that_stays_is_said_once_the_time_is_up() -> None:
    with HttpServer(Reply(429, LIMITED)) as server, pytest.raises(ConsulUnavailable, match="with 429: Your IP.*limit"):
        client(server.url, retry_for=0).key("k")


def test_the_agents_own_health_says_warning_with_429() -> None:
    with HttpServer(Reply(429, "[]"), FOUND) as server, pytest.raises(ConsulError) as error:
        client(server.url).get("/v1/agent/health/service/name/web")
    assert error.value.status == 429
    assert len(server.asked) == 1


@pytest.mark.parametrize("token", [None, SECRET])
def test_a_refused_token_says_what_to_set(token: str | None) -> None:
    with HttpServer(Reply(403, "Permission denied")) as server, pytest.raises(ConsulError) as error:
        client(server.url, token=token).key("k")
    assert ("Asked with the token given" if token else "Asked with no token") in str(error.value)
    assert "CONSUL_HTTP_TOKEN" in str(error.value)


def test_no_such_key_is_an_answer() -> None:
    with HttpServer(Reply(404, "", {"X-Consul-Index": "9"})) as server:
        asked = client(server.url)
        assert asked.key("k") is None
        assert asked.keys("k") == []
        answer = asked.get("/v1/kv/k")
    assert (answer.data, answer.status, answer.index) == (None, 404, 9)
    assert len(server.asked) == 3


@pytest.mark.parametrize("body", ["<html>welcome</html>", "{", "true false", "[" * 100_000])
def test_what_is_no_json(body: str) -> None:
    with HttpServer(Reply(200, body)) as server, pytest.raises(ConsulError, match=r"not JSON.*Consul's HTTP address"):
        client(server.url).key("k")
    assert len(server.asked) == 1


SHAPES: dict[str, tuple[Callable[[Client], object], str]] = {
    "key": (lambda asked: asked.key("k"), '[{"Key": "k", "Value": null, "ModifyIndex": 1}]'),
    "key names": (lambda asked: asked.key_names("k"), '["k"]'),
    "service": (
        lambda asked: asked.get("/v1/health/service/web").data,
        '[{"Node": {}, "Service": {}, "Checks": []}]',
    ),
    "sidecars": (
        lambda asked: asked.get("/v1/health/connect/web").data,
        '[{"Node": {}, "Service": {}, "Checks": []}]',
    ),
    "node": (lambda asked: asked.get("/v1/health/node/n").data, '[{"Node": "n", "CheckID": "c", "Status": "passing"}]'),
    "nodes": (lambda asked: asked.get("/v1/catalog/nodes").data, '[{"Node": "n"}]'),
    "services of a node": (lambda asked: asked.get("/v1/catalog/node/n").data, '{"Node": {}, "Services": {}}'),
    "services": (lambda asked: asked.get("/v1/catalog/services").data, '{"web": []}'),
    "session": (lambda asked: asked.get("/v1/session/info/s").data, '[{"ID": "s"}]'),
    "agent": (lambda asked: asked.get("/v1/agent/self").data, '{"Config": {}}'),
    "new session": (lambda asked: asked.put("/v1/session/create").data, '{"ID": "s"}'),
    "transaction": (lambda asked: asked.txn([kv_set("k", "v")]), '{"Results": [{"KV": {}}]}'),
}
LISTS = ("key", "service", "sidecars", "node", "nodes", "session")


@pytest.mark.parametrize("what", SHAPES)
def test_json_of_another_service_is_not_taken_for_consuls(what: str) -> None:
    ask, good = SHAPES[what]
    bad = ["3", '"text"', "[3]", "true"]
    bad += ['{"version": "1.0"}', '[{"version": "1.0"}]', '["a"]'] if what in LISTS else []
    bad += ["null", '{"version": "1.0"}'] if what in ("agent", "new session") else []
    for body in bad:
        with (
            HttpServer(Reply(200, body)) as server,
            pytest.raises(ConsulError, match="JSON that is not Consul's") as error,
        ):
            ask(client(server.url))
        assert server.url in str(error.value)
        assert len(server.asked) == 1
    with HttpServer(Reply(200, good)) as server:
        assert ask(client(server.url))


@pytest.mark.parametrize("what", LISTS)
def test_nothing_is_an_answer(what: str) -> None:
    for body in ("null", "[]"):
        with HttpServer(Reply(200, body)) as server:
            assert not SHAPES[what][0](client(server.url))


def test_an_index_that_is_none_is_the_first() -> None:
    with HttpServer(Reply(200, "[]", {"X-Consul-Index": "x", "X-Consul-Results-Filtered-By-ACLs": "true"})) as server:
        answer = client(server.url).get("/v1/catalog/nodes")
    assert (answer.index, answer.filtered, answer.data) == (0, True, [])


def test_a_server_that_never_answers_is_given_up_after_the_timeout() -> None:
    never = Reply(hold=True)
    with HttpServer(never) as server, pytest.raises(ConsulUnavailable, match="to GET /v1/kv/k: Read timed out"):
        client(server.url, retry_for=0, timeout=0.2).key("k")
    assert len(server.asked) == 1


def test_a_blocking_read_is_given_its_own_time_and_consuls_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float | None]] = []

    def send(self: Client, method: str, path: str, params: Any, body: str, timeout: float) -> Any:
        seen.append((dict(params).get("wait", ""), timeout))
        return type("R", (), {"code": 200, "headers": {}, "body": "[]"})()

    monkeypatch.setattr(Client, "_send", send)
    asked = client("http://127.0.0.1:1", timeout=5)
    asked.get("/v1/x", wait=160, index=3)
    asked.get("/v1/x", wait=160)
    assert seen == [("160000ms", 5 + 170), ("", 5)]


def test_where_nobody_listens_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "RETRY_REFUSED_FOR", 0.0)
    url = nobody()
    asked = client(url, retry_for=1000)
    with pytest.raises(ConsulUnavailable) as error:
        asked.key("k")
    assert f"No answer from Consul at {url} to GET /v1/kv/k" in str(error.value)
    assert "Connection refused" in str(error.value)
    assert "ssh -N -L 8500:127.0.0.1:8500" in str(error.value)
    assert asked.requests == 1


NOWHERE = {
    "name": socket.gaierror(8, "nodename nor servname provided, or not known"),
    "network": OSError(errno.ENETUNREACH, "Network is unreachable"),
    "host": OSError(errno.EHOSTUNREACH, "Host is down"),
}


@pytest.mark.parametrize("what", NOWHERE)
def test_an_address_that_leads_nowhere_is_tried_no_longer_than_a_port_nobody_listens_at(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Told by the error's kind: each system words it in another way."""

    def nowhere(*_args: Any, **_kwargs: Any) -> Any:
        raise NOWHERE[what]

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr(_client, "RETRY_REFUSED_FOR", 0.0)
    for ask in (Client, through_the_host):
        asked = ask(Connection("http://consul.invalid:8500"))
        asked.retry_for = 0.1
        with pytest.raises(ConsulUnavailable, match="CONSUL_HTTP_ADDR|hitless_consul_agent_url"):
            asked.key("k")
        assert asked.requests == 1


def test_where_no_agent_listens_it_names_the_agents_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "RETRY_REFUSED_FOR", 0.0)
    with pytest.raises(ConsulUnavailable) as error:
        Client(Connection(nobody(), is_agent=True)).key("k")
    assert "hitless_consul_agent_url" in str(error.value)
    assert "CONSUL_HTTP_ADDR" not in str(error.value)


@pytest.mark.parametrize("name", ["a//b", "a/../b", "..", ".", "./a"])
def test_a_name_that_would_ask_for_another_is_refused(name: str) -> None:
    with HttpServer() as server, pytest.raises(ConsulError, match="cannot be asked for the name"):
        client(server.url).get(f"/v1/health/service/{name}")
    assert server.asked == []


def test_any_other_name_is_asked_for_as_it_is() -> None:
    with HttpServer(Reply(body="[]")) as server:
        client(server.url).get("/v1/health/service/a b?c#d%41é+/e")
    assert server.asked[0].path == "/v1/health/service/a%20b%3Fc%23d%2541%C3%A9%2B/e"


# -- blocking reads -----------------------------------------------------------------------------------------------


def watch_indexes(server: HttpServer) -> list[str | None]:
    return [parse_qs(urlsplit(one.path).query).get("index", [None])[0] for one in server.asked]


def at(index: int, data: object = None) -> Reply:
    return Reply(body=json.dumps(data), headers={"X-Consul-Index": str(index)})


def test_a_watch_starts_over_when_the_index_goes_back() -> None:
    with HttpServer(at(50, 0), at(60, 1), at(3, 2), at(4, 3)) as server:
        seen = []

        def decide(data: Any) -> Any:
            seen.append(data)
            return data if data == 3 else None

        assert client(server.url).watch("/v1/x", [], decide, time.monotonic() + 60) == 3
    # Consul: an index that went back is read again from 0, and an index is at least 1.
    assert watch_indexes(server) == [None, "50", "60", "1"]
    assert seen == [0, 1, 2, 3]


def test_a_watch_of_what_never_existed_blocks_too() -> None:
    with HttpServer(Reply(404, "", {"X-Consul-Index": "0"}), at(5, [1])) as server:
        assert client(server.url).watch("/v1/x", [], lambda data: data, time.monotonic() + 60) == [1]
    assert watch_indexes(server) == [None, "1"]


def test_a_return_without_a_change_is_no_change() -> None:
    with HttpServer(at(5), at(5), at(5), at(6, "x")) as server:
        assert client(server.url).watch("/v1/x", [], lambda data: data, time.monotonic() + 60) == "x"
    assert watch_indexes(server) == [None, "5", "5", "5"]


def test_a_watch_ends_at_its_deadline_with_what_it_saw_last() -> None:
    with HttpServer(at(5, "last")) as server, pytest.raises(DeadlineExceeded) as error:
        client(server.url).watch("/v1/x", [], lambda data: None, time.monotonic() - 1)
    assert error.value.details == {"last": "last"}
    assert len(server.asked) == 1


def test_a_watch_waits_no_longer_than_asked_for_and_than_consul_grants() -> None:
    def waits(decide: Callable[[Any], Any], *, every: float = 60, left: float = 10_000) -> str:
        with HttpServer(at(5, "no"), at(6, "yes")) as server:
            client(server.url).watch("/v1/x", [], decide, time.monotonic() + left, every=every)
        return parse_qs(urlsplit(server.asked[1].path).query)["wait"][0]

    def plain(data: Any) -> Any:
        return data if data == "yes" else None

    def soon(data: Any) -> Any:
        if data == "no":
            raise AskAgain(1.5)
        return data

    assert waits(plain) == "60000ms"
    assert waits(plain, every=7000) == "600000ms"
    assert waits(soon) == "1500ms"
    assert 0 < int(waits(plain, left=30).removesuffix("ms")) <= 30_000


def test_answers_without_an_index_are_not_read_in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something between drops the header: each read answers at once."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():  # not what another test has left behind
            slept.append(seconds)

    monkeypatch.setattr(_client, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    with HttpServer(Reply(body='"no"'), Reply(body='"no"'), Reply(body='"yes"')) as server:
        client(server.url).watch("/v1/x", [], lambda data: data if data == "yes" else None, time.monotonic() + 60)
    assert slept == [1.0, 1.0]
    assert watch_indexes(server) == [None, "1", "1"]


def test_another_patience_changes_nothing_for_who_has_more() -> None:
    with HttpServer(Reply(500), FOUND) as server:
        patient = client(server.url)
        with pytest.raises(ConsulUnavailable):
            patient.retrying(0.0).key("k")
        assert len(server.asked) == 1
        assert patient.key("k") is not None
    assert patient.retry_for == 30


def test_each_thread_has_its_own_time() -> None:
    """A blocking read of one thread does not lend its time to the short one of another."""
    with HttpServer(answer=lambda asked: Reply(body="[]", hold="short" in asked.path)) as server:
        asked = client(server.url, retry_for=0, timeout=0.3)
        begun, others = threading.Event(), threading.Event()
        uri = asked._transport.uri  # type: ignore[attr-defined]

        def slow_uri(path: str, params: Any = None) -> str:
            if "short" in path:
                begun.set()
                others.wait(5)
            return str(uri(path, params))

        asked._transport.uri = slow_uri  # type: ignore[attr-defined]

        def ask() -> None:
            with pytest.raises(ConsulUnavailable):
                asked.get("/v1/short")

        short = threading.Thread(target=ask, daemon=True)
        short.start()
        begun.wait(5)
        asked.get("/v1/long", index=1, wait=600)
        others.set()
        short.join(5)
        assert not short.is_alive()


def test_an_answer_already_read_is_decided_first() -> None:
    with HttpServer(at(6, "yes")) as server:
        asked = client(server.url)
        first = Answer("yes", 5, 200)
        assert asked.watch("/v1/x", [], lambda data: data, time.monotonic() + 60, first=first) == "yes"
        assert server.asked == []


# -- transactions -------------------------------------------------------------------------------------------------


def test_a_lost_lock_is_told_from_another_failure() -> None:
    operations = [kv_check_session("deploy/web/lock", "s"), kv_set("k", "v")]

    def refused(index: int) -> Reply:
        return Reply(409, json.dumps({"Results": None, "Errors": [{"OpIndex": index, "What": "key is not locked"}]}))

    with HttpServer(refused(0)) as server, pytest.raises(LockLost, match="deploy/web/lock is no longer held"):
        client(server.url).txn(operations)
    assert len(server.asked) == 1
    with (
        HttpServer(refused(1)) as server,
        pytest.raises(ConsulError, match="refused a transaction: key is not") as error,
    ):
        client(server.url).txn(operations)
    assert not isinstance(error.value, LockLost)
    assert len(server.asked) == 1


# -- arguments, environment, secrets ------------------------------------------------------------------------------


def test_the_environment_never_wins_over_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpServer() as other, HttpServer(FOUND) as server:
        environment = {
            "CONSUL_HTTP_ADDR": other.url.removeprefix("http://"),
            "CONSUL_HTTP_TOKEN": "from-the-environment",
            "CONSUL_HTTP_SSL": "true",
            "CONSUL_HTTP_SSL_VERIFY": "maybe",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        client(server.url, token="given").key("k")
        client(server.url).key("k")
        assert {name: os.environ[name] for name in environment} == environment
    assert [one.headers.get("X-Consul-Token") for one in server.asked] == ["given", None]
    assert other.asked == []


def test_no_proxy_of_the_environment_ever_sees_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpServer() as proxy, HttpServer(FOUND) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert client(server.url, token=SECRET).key("k") is not None
    assert proxy.asked == []
    assert server.asked[0].headers["X-Consul-Token"] == SECRET


def test_no_netrc_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with HttpServer(FOUND) as server:
        client(server.url).key("k")
    assert "Authorization" not in server.asked[0].headers


def test_a_redirect_is_not_followed() -> None:
    with HttpServer(FOUND) as other:
        away = Reply(307, "", {"Location": f"{other.url}/v1/kv/k"})
        with HttpServer(away) as server, pytest.raises(ConsulError, match=f"307.*redirects to {other.url}"):
            client(server.url, token=SECRET).key("k")
        assert other.asked == []


def test_a_token_is_shown_nowhere() -> None:
    connection = Connection("http://127.0.0.1:1", token=SECRET)
    asked = Client(connection)
    assert SECRET not in f"{connection!r} {connection} {asked!r} {vars(asked)!r}"


def test_text_goes_out_and_comes_back_as_utf_8() -> None:
    with HttpServer(Reply(body=json.dumps([{"Key": "k", "Value": "w6kg4oKs", "ModifyIndex": 1}]))) as server:
        asked = client(server.url)
        asked.set_key("k", "é €")
        found = asked.key("k")
    assert server.asked[0].body == "é €".encode()
    assert found is not None
    assert found.value == "é €"


def test_each_request_asks_for_the_datacenter() -> None:
    with HttpServer(answer=lambda asked: Reply(body='{"Results": []}' if "txn" in asked.path else "[]")) as server:
        asked = client(server.url, datacenter="dc2")
        asked.set_key("k", "v", cas=0)
        asked.key("k")
        asked.keys("k")
        asked.key_names("k", "/")
        asked.delete_key("k")
        asked.txn([kv_set("k", "v")])
        asked.get("/v1/health/service/web", index=3, wait=1)
        asked.put("/v1/session/destroy/s")
        asked.get("/v1/catalog/nodes", [("dc", "dc3")])
    queries = [parse_qs(urlsplit(one.path).query, keep_blank_values=True) for one in server.asked]
    assert [query["dc"] for query in queries] == [["dc2"]] * 8 + [["dc3"]]
    assert queries[0] == {"cas": ["0"], "dc": ["dc2"]}


def test_without_a_library_it_names_the_python_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MISSING_LIBRARY", "has no Consul client library (No module named 'consul')")
    with pytest.raises(ConsulError, match="has no Consul client library .*-m pip install py-consul.*pipx inject"):
        client("http://127.0.0.1:1")
    assert "pip install" in library_missing()


OLD_LIBRARY = {
    "python-consul": "class HTTPClient:\n    def get(self, callback, path, params=None): pass\n",
    "another package": "",
}


@pytest.mark.parametrize("package", OLD_LIBRARY)
def test_another_package_of_the_same_import_name_is_told_by_name(tmp_path: Path, package: str) -> None:
    folder = tmp_path / "consul"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "std.py").write_text(OLD_LIBRARY[package])
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(link_tree.COLLECTIONS)!r}]\n"
        f"from {transport.__name__} import library_missing; print(library_missing())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "python-consul, which is another one of the same import name" in done.stdout
    assert "pip install py-consul" in done.stdout


# -- tokens -------------------------------------------------------------------------------------------------------


def test_white_space_around_a_token_is_not_sent() -> None:
    for token in (f"{SECRET}\n", f"  {SECRET}\r\n", f"\t{SECRET}"):
        with HttpServer(FOUND) as server:
            client(server.url, token=token).key("k")
        assert server.asked[0].headers["X-Consul-Token"] == SECRET
    with HttpServer(FOUND) as server:
        client(server.url, token=" \n").key("k")
    assert "X-Consul-Token" not in server.asked[0].headers


@pytest.mark.parametrize("agent", [False, True])
@pytest.mark.parametrize("between", ["\n", "\r", "\x00", "é", "€"])
def test_a_token_that_no_request_can_carry_is_refused_and_not_shown(between: str, agent: bool) -> None:
    with pytest.raises(HitlessError, match="The ACL token cannot be sent") as error:
        Connection(token=f"not-for{between}anybody", is_agent=agent)
    assert "anybody" not in str(error.value)
    assert ("hitless_consul_agent_token" if agent else "CONSUL_HTTP_TOKEN") in str(error.value)


def test_a_user_and_password_go_to_the_proxy_before_consul() -> None:
    with HttpServer(FOUND) as server:
        client(server.url, http_auth="anna:" + SECRET, token="t").key("k")
    assert server.asked[0].headers["Authorization"] == "Basic " + base64.b64encode(b"anna:" + SECRET.encode()).decode()
    assert server.asked[0].headers["X-Consul-Token"] == "t"
    assert SECRET not in repr(Connection(http_auth=SECRET))


# -- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("consul", "http://consul:8500"),
        ("consul:80", "http://consul:80"),
        ("http://consul/", "http://consul:8500"),
        ("https://consul", "https://consul:8501"),
        ("https://consul:443", "https://consul:443"),
        ("HTTPS://consul:443", "https://consul:443"),
        ("[::1]:8500", "http://[::1]:8500"),
        ("http://[::1]", "http://[::1]:8500"),
        (" 10.0.0.1:8500 ", "http://10.0.0.1:8500"),
    ],
)
def test_addresses(given: str, expected: str) -> None:
    assert normalise_url(given) == expected


@pytest.mark.parametrize(
    "given",
    ["", "http://", "ftp://consul", "http://consul:x", "http://consul:99999", "http://consul/v1", "http://consul?a=b"],
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(ConsulError, match="is not of the form http://host:port"):
        normalise_url(given)


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ConsulError) as error:
        normalise_url(f"http://me:{SECRET}@consul:8500")
    assert SECRET not in str(error.value)


def test_a_unix_socket_is_refused_by_name() -> None:
    with pytest.raises(ConsulError, match="unix:///run/consul.sock is a Unix socket"):
        normalise_url("unix:///run/consul.sock")


# -- TLS ----------------------------------------------------------------------------------------------------------


def issue(folder: Path, name: str) -> tuple[str, str]:
    """A certificate that is its own authority, of one name."""
    pem, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x -out {pem}"
    )
    command += f" -keyout {key} -addext subjectAltName={name}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return pem, key


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return issue(tmp_path_factory.mktemp("tls"), "IP:127.0.35.1")


@contextmanager
def tls_server(certificate: tuple[str, str]) -> Iterator[HttpServer]:
    """A server that speaks TLS only, and answers plain HTTP as Consul's (Go's) does."""
    server = HttpServer(FOUND)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    server._server.handle_error = lambda *args: None  # type: ignore[method-assign]
    server.url = server.url.replace("http:", "https:")
    with server:
        yield server


@pytest.fixture
def tls(certificate: tuple[str, str]) -> Iterator[HttpServer]:
    with tls_server(certificate) as server:
        yield server


def through_the_host(connection: Connection) -> Client:
    """By the program that is sent to hosts; the keeper asks by it too."""
    return Client(connection, HostTransport(Host(None), connection.base, connection.tls, 5), retry_for=0)


@pytest.mark.parametrize("ask", [Client, through_the_host])
def test_the_name_in_the_certificate_may_be_another_than_the_address(
    ask: Callable[[Connection], Client], tmp_path: Path
) -> None:
    pem, key = issue(tmp_path, "DNS:server.dc1.consul")
    with tls_server((pem, key)) as server:
        assert ask(Connection(server.url, ca_path=pem, tls_server_name="server.dc1.consul")).key("k") is not None
        for name in (None, "server.dc2.consul"):
            with pytest.raises(ConsulError, match=r"TLS with .* failed: .*certificate verify failed.*server_name"):
                ask(Connection(server.url, ca_path=pem, tls_server_name=name)).key("k")


@pytest.mark.parametrize("ask", [Client, through_the_host])
def test_each_file_of_a_folder_of_authorities_is_trusted(
    ask: Callable[[Connection], Client], tls: HttpServer, certificate: tuple[str, str], tmp_path: Path
) -> None:
    """As the consul command does; OpenSSL alone reads only files that are named by a hash."""
    (tmp_path / "more").mkdir()
    (tmp_path / "README").write_text("no certificate")
    with pytest.raises(ConsulError, match="no file in it holds a certificate"):
        ask(Connection(tls.url, ca_path=str(tmp_path))).key("k")
    shutil.copy(certificate[0], tmp_path / "more" / "ours.pem")
    assert ask(Connection(tls.url, ca_path=str(tmp_path))).key("k") is not None


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_with_and_without_the_authority(tls: HttpServer, certificate: tuple[str, str]) -> None:
    assert client(tls.url, ca_path=certificate[0]).key("k") is not None
    assert client(tls.url, validate_certs=False).key("k") is not None
    before = len(tls.asked)
    with pytest.raises(ConsulError, match="TLS with Consul at https://.* failed: .*certificate verify failed.*ca_path"):
        client(tls.url, token=SECRET).key("k")
    assert len(tls.asked) == before


@pytest.mark.parametrize("option", ["ca_path", "client_cert"])
def test_a_file_that_is_not_there(tls: HttpServer, option: str) -> None:
    with pytest.raises(ConsulError, match="/gone.pem") as error:
        client(tls.url, **{option: "/gone.pem"}).key("k")
    assert not isinstance(error.value, ConsulUnavailable)


def test_https_asked_of_a_plain_port_gives_the_hint() -> None:
    with HttpServer(FOUND) as server, pytest.raises(ConsulError, match="http:// address"):
        client(server.url.replace("http:", "https:"), retry_for=0).key("k")
    assert server.asked == []


def test_http_asked_of_a_tls_port_gives_the_hint() -> None:
    go = Reply(raw=b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
    with HttpServer(go) as server, pytest.raises(ConsulError, match="https:// address"):
        client(server.url).key("k")


def test_a_client_is_made_without_touching_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may start a process just then, and would start it without its token."""

    class Untouchable(dict[str, str]):
        def _refuse(self, *_args: object) -> None:
            raise AssertionError("the environment is changed")

        __setitem__ = __delitem__ = pop = update = clear = _refuse  # type: ignore[assignment]

    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", Untouchable(os.environ, CONSUL_HTTP_TOKEN="mine"))
        client("http://127.0.0.1:1")


def test_requests_are_counted() -> None:
    def answer(asked: Asked) -> Reply:
        return Reply(body="[]")

    with HttpServer(answer=answer) as server:
        asked = client(server.url)
        asked.keys("a")
        asked.keys("b")
    assert asked.requests == 2
