"""One probe as a client sees it, and what many come to."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout import prober
from ansible_collections.hitless.consul.plugins.module_utils._rollout.prober import Account, Prober, ask
from lab import wait_until
from tests.http_server import ADDRESS, HttpServer, Reply

CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it"


@pytest.mark.parametrize(
    ("reply", "wrong"),
    [
        (Reply(200), ""),
        (Reply(204, ""), ""),
        (Reply(302, headers={"Location": "http://127.0.0.1:1/"}), ""),
        (Reply(404), "it answered 404"),
        (Reply(503), "it answered 503"),
        (Reply(raw=b"no HTTP at all\r\n\r\n"), "no answer: "),
        (Reply(raw=CUT), "no answer: IncompleteRead"),
        (Reply(raw=b""), "no answer: "),
    ],
)
def test_what_is_a_good_answer(reply: Reply, wrong: str) -> None:
    with HttpServer(reply) as server:
        found = ask(f"{server.url}/path?query=1")
        assert (found == "") == (wrong == "")
        assert found.startswith(wrong)
        assert (server.asked[0].path, server.asked[0].headers["Connection"]) == ("/path?query=1", "close")


def test_a_slow_answer_is_none() -> None:
    with HttpServer(Reply(hold=True)) as server:
        assert ask(server.url, timeout=0.2) == "no answer within 0.2 s"


def test_nobody_there() -> None:
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
    assert ask(f"http://{ADDRESS}:{port}/").startswith("no answer: ")
    assert ask("http://host:port/").startswith("no answer: ")
    assert ask("https://no.such.host.invalid/").startswith("no answer: ")


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with HttpServer() as server:
        assert ask(server.url) == ""


def test_the_longest_gap_is_between_good_answers() -> None:
    account = Account(100.0)
    for now, why in ((100.1, ""), (100.2, ""), (100.5, "bad"), (101.0, "worse"), (101.2, ""), (101.3, "")):
        account.add(now, why)
    assert account.as_dict(101.4) == {"count": 6, "failed": 2, "longest_gap": 1.0, "last_error": "worse"}
    account.add(102.0, "bad")
    assert account.as_dict(105.3)["longest_gap"] == 4.0, "which lasts still"


class Beside:
    """A prober as a thread, with the ends of its pipes."""

    def __init__(self, folder: Path, address: str, failures: int = 1) -> None:
        self.file = folder / "report"
        self.report = os.open(self.file, os.O_RDWR | os.O_CREAT)
        self.pipe, self.run = os.pipe()
        wake, self.wake = os.pipe()
        config: dict[str, Any] = {
            "address": address,
            "interval": 0.01,
            "failures": failures,
            "pipe": self.pipe,
            "report": self.report,
            "file": str(self.file),
        }
        self.told: list[str] = []
        self._thread = threading.Thread(target=Prober(config, self.told.append, wake).run)
        self._thread.start()

    @property
    def account(self) -> dict[str, Any]:
        text = self.file.read_bytes()[prober.REPORT_AT :]
        return json.loads(text) if text else {"count": 0}

    def ended(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_it_asks_until_it_is_asked_for_its_account(tmp_path: Path) -> None:
    with HttpServer() as server:
        beside = Beside(tmp_path, server.url)
        wait_until("it has asked", lambda: len(server.asked) > 5, 10)
        os.write(beside.wake, b"T")
        beside.ended()
        assert beside.account["count"] > 3
        assert beside.account["failed"] == 0
        assert beside.told == []


def test_it_ends_with_its_run_and_leaves_nothing(tmp_path: Path) -> None:
    with HttpServer() as server:
        beside = Beside(tmp_path, server.url)
        wait_until("it has asked", lambda: bool(server.asked), 10)
        os.close(beside.run)
        beside.ended()
        assert not beside.file.exists()


def test_it_says_once_that_more_have_failed_than_may(tmp_path: Path) -> None:
    with HttpServer(Reply(503), Reply(), Reply(503), Reply(503), Reply()) as server:
        beside = Beside(tmp_path, server.url, failures=1)
        wait_until("it has asked", lambda: len(server.asked) > 10, 10)
        os.write(beside.wake, b"T")
        beside.ended()
        assert beside.account["failed"] == 3
        assert len(beside.told) == 1
        assert "2 of " in beside.told[0]
        assert beside.told[0].endswith("more than rollout_probe_failures (1); the last one: it answered 503")
