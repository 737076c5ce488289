"""The log of a run on a real Consul: sent in the background, bounded, and never waited for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client, Connection
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._views import log
from tests.integration.consul_agent import Server
from tests.integration.services import started

ID = "20261123T142233Z-1.4.2-7f3a"


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    yield from started(None)


def test_entries_arrive_in_order_and_are_read_again(consul: Server) -> None:
    keys, client = Keys("web"), Client(Connection(consul.url))
    writer = log.LogWriter(lambda: client, keys, ID)
    for number in range(500):
        writer.put("web/1", f"line {number} of a host with a strange name\n")
    writer.put("web2", "x" * 50_000 + "the end\n")
    writer.close(10)
    client.set_key(f"{keys.agent_log('node2', ID)}000001", "told by its own agent\n")
    found = log.read_logs(client, keys, ID, {"web/1": "node1", "web2": "node2", "web3": "node3"})
    assert list(found) == ["web/1", "web2"]
    assert found["web/1"] == "".join(f"line {number} of a host with a strange name\n" for number in range(500))
    assert found["web2"].endswith("the end\ntold by its own agent\n")
    assert not writer.dropped


def test_a_host_that_prints_for_ever_is_cut(consul: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "HOST_LIMIT", 5000)
    keys, client = Keys("cut"), Client(Connection(consul.url))
    writer = log.LogWriter(lambda: client, keys, ID)
    for _ in range(20):
        writer.put("web1", "y" * 999 + "\n")
    writer.close(10)
    assert log.read_logs(client, keys, ID, {"web1": "node1"})["web1"].endswith("[... the rest is cut ...]\n")


def test_a_consul_that_never_answers_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "QUEUE", 50)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[object] = []
        threading.Thread(target=_swallow, args=(server, held), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        writer = log.LogWriter(lambda: Client(Connection(url, timeout=30), retry_for=1), Keys("web"), ID, said.append)
        before = time.thread_time()
        for number in range(10_000):
            writer.put("web1", f"{number}\n")
        assert time.thread_time() - before < 5, "it works off nothing itself"
        writer.close(0.2)
    assert writer.dropped > 9_000
    assert "is incomplete" in said[-1]


def test_a_token_that_may_not_write_is_said_once(consul: Server) -> None:
    said: list[str] = []

    def refuse() -> Client:
        raise log.ConsulError("refused", status=403)

    writer = log.LogWriter(refuse, Keys("web"), ID, said.append)
    writer.put("web1", "a line\n")
    writer.close(5)
    assert "cannot be sent to Consul: refused" in said[0]


def _swallow(server: socket.socket, held: list[object]) -> None:
    while True:
        try:
            held.append(server.accept())
        except OSError:
            return
