"""The question to the application, asked from its host."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._remote.programs import probe
from tests.http_server import Asked, HttpServer, Reply, nobody

pytestmark = pytest.mark.oldest


def question(url: str, **more: Any) -> dict[str, Any]:
    asked = {"url": url, "match": None, "deadline": 20, "interval": 0.05, "timeout": 5, "stable_for": 0, **more}
    answer: dict[str, Any] = probe.main(asked)
    return answer


def test_an_application_that_answers() -> None:
    with HttpServer(Reply(200, '{"version": "2"}')) as server:
        answer = question(f"{server.url}/health?x=1", match='"version": "2"')
    assert (answer["ok"], answer["status"], answer["body"], answer["tries"]) == (True, 200, '{"version": "2"}', 1)
    assert server.asked[0].path == "/health?x=1"


def test_the_old_process_is_not_the_new_one() -> None:
    replies = [Reply(200, "version 1"), Reply(503, "starting"), Reply(200, "version 2")]
    with HttpServer(*replies) as server:
        answer = question(server.url, match=r"version 2\b")
    assert (answer["ok"], answer["tries"]) == (True, 3)


@pytest.mark.parametrize(
    ("reply", "error", "body"),
    [
        (Reply(500, "broken"), "it answered 500", "broken"),
        (Reply(404, ""), "it answered 404", ""),
        (Reply(200, "version 1"), "its answer does not match 'version 2'", "version 1"),
        (Reply(raw=b""), "closed connection", ""),
        (Reply(raw=b"what is this\r\n\r\n"), "what is this", ""),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"), "its answer does not match", "short"),
        (Reply(raw=b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "it answered 500", ""),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "IncompleteRead", ""),
    ],
)
def test_an_application_that_does_not_answer_well(reply: Reply, error: str, body: str) -> None:
    with HttpServer(reply) as server:
        answer = question(server.url, match="version 2", deadline=0)
    assert not answer["ok"]
    assert error in answer["error"]
    assert answer["body"] == body


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x"])
def test_a_pattern_that_would_take_ages_is_ended(pattern: str) -> None:
    with HttpServer(Reply(200, "a" * 40 + "!")) as server:
        started = time.monotonic()
        answer = question(server.url, match=pattern, deadline=0)
    assert time.monotonic() - started < 10
    assert not answer["ok"]
    assert answer["error"].endswith("takes more than 1 s")


@pytest.mark.parametrize("pattern", ["(", "(" * 900 + ")" * 900, "a" * 1001, "a{99999999999999999999}", 5])
def test_a_pattern_that_cannot_be_used_is_told(pattern: Any) -> None:
    assert probe.pattern_problem(pattern)
    with HttpServer(Reply(200, "a")) as server:
        answer = question(server.url, match=pattern, deadline=0)
    assert not answer["ok"]
    assert "cannot be used: " in answer["error"]


def test_what_matched_is_told() -> None:
    with HttpServer(Reply(200, '{"version": "2", "pid": 7}')) as server:
        assert question(server.url, match='"version": "(1|2)"')["found"] == '"version": "2"'


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("match", [None, "log in"])
def test_a_redirect_is_not_health(status: int, match: str | None) -> None:
    """The page for logging in answers 200, whatever the application does."""

    def answer(asked: Asked) -> Reply:
        return Reply(200, "log in") if asked.path == "/login" else Reply(status, "", {"Location": "/login"})

    with HttpServer(answer=answer) as server:
        found = question(server.url, match=match, deadline=0)
        assert [asked.path for asked in server.asked] == ["/"]
    assert (found["ok"], found["status"], found["error"]) == (False, status, "it redirects to /login")


def test_where_a_redirect_leads_is_one_printable_line() -> None:
    with HttpServer(Reply(302, "", {"Location": "/\x1b[31m" + "x" * 300})) as server:
        error = question(server.url, deadline=0)["error"]
    assert error == "it redirects to /[31m" + "x" * 195
    with HttpServer(Reply(304, "")) as server:
        assert question(server.url, deadline=0)["error"] == "it answered 304"


def test_nobody_there_and_no_url() -> None:
    assert "refused" in question(nobody(), deadline=0)["error"]
    assert not question("nonsense", deadline=0)["ok"]


def test_a_process_that_starts_meanwhile_is_found() -> None:
    with HttpServer(Reply(200, "ok")) as server:
        ready = threading.Event()
        server._answer = lambda asked: Reply(200, "ok") if ready.is_set() else Reply(503, "")
        threading.Timer(0.3, ready.set).start()
        answer = question(server.url)
    assert answer["ok"]
    assert answer["tries"] > 1


def test_it_must_go_on_answering() -> None:
    answers = iter([200, 500, 200] + [200] * 1000)

    def answer(asked: Asked) -> Reply:
        return Reply(next(answers), "x")

    with HttpServer(answer=answer) as server:
        found = question(server.url, stable_for=0.3)
    assert found["ok"]
    assert found["tries"] > 4


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpServer() as proxy, HttpServer(Reply(200, "ok")) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert question(server.url)["ok"]
        assert proxy.asked == []
