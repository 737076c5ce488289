"""The log of a run on a real Consul: sent in the background, bounded, and never waited for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._views import log
from lab import wait_until
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
    text = log.read_logs(client, keys, ID, {"web1": "node1"})["web1"]
    assert len(text) == 5000 + len(log.CUT)
    assert text.endswith("[... the rest is cut ...]\n")


class Failing(Client):
    """Fails at the second key of the first try, as at a change of leader."""

    sets = 0

    def set_key(self, *args: Any, **kwargs: Any) -> bool:
        self.sets += 1
        if self.sets == 2:
            raise log.ConsulError("No cluster leader", status=500)
        return super().set_key(*args, **kwargs)


def test_a_failure_halfway_sends_nothing_twice(consul: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "CHUNK", 300)
    monkeypatch.setattr(log, "ENTRY_LIMIT", 2000)
    keys, client = Keys("halfway"), Failing(Connection(consul.url))
    writer = log.LogWriter(lambda: client, keys, ID)
    text = "".join(f"line {number}\n" for number in range(50))
    writer.put("web1", text)
    writer.put("web2", "another one\n")
    writer.close(10)
    assert log.read_logs(client, keys, ID, {"web1": "n1", "web2": "n2"}) == {"web1": text, "web2": "another one\n"}


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


def test_what_is_given_up_is_not_tried_again() -> None:
    before, tried = set(threading.enumerate()), list[float]()

    def away() -> Client:
        tried.append(time.monotonic())
        raise log.ConsulError("away", status=500)

    writer = log.LogWriter(away, Keys("web"), ID)
    writer.put("web1", "a line\n")
    wait_until("it is tried", lambda: bool(tried))
    writer.close(0.1)
    wait_until("its thread ends", lambda: before.issuperset(threading.enumerate()), 10)


def _swallow(server: socket.socket, held: list[object]) -> None:
    while True:
        try:
            held.append(server.accept())
        except OSError:
            return
