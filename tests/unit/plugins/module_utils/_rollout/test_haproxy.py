"""HAProxy's statistics as text. tests/rollout has real ones."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import haproxy
from tests.http_server import HttpServer, Reply, nobody

pytestmark = pytest.mark.oldest

LB = "http://lb1:8404/"
HEAD = "# pxname,svname,qcur,scur,stot,status,type,addr,\n"
UP = "web,web1,0,1,10,UP,2,10.0.0.1:8080,"


def page(*rows: str) -> str:
    return HEAD + "stats,FRONTEND,,1,7,OPEN,0,,\n" + "".join(f"{row}\n" for row in rows) + "web,BACKEND,0,1,20,UP,1,,\n"


def test_servers_are_read() -> None:
    shown = haproxy.parse(LB, page(UP, "web,web2,3,0,0,MAINT (resolution),2,,"))
    assert shown.servers == {
        ("web", "web1"): haproxy.Server("10.0.0.1:8080", "UP", 1, 0),
        ("web", "web2"): haproxy.Server("", "MAINT (resolution)", 0, 3),
    }
    assert shown.sessions_ever == 37


@pytest.mark.parametrize(
    ("status", "takes"),
    [
        ("UP", True),
        ("UP 1/3", True),
        ("no check", True),
        ("DOWN", False),
        ("DOWN 1/2", False),
        ("MAINT", False),
        ("MAINT (via web/web1)", False),
        ("DRAIN", False),
        ("NOLB", False),
    ],
)
def test_who_gets_new_requests(status: str, takes: bool) -> None:
    assert haproxy.Server("10.0.0.1:8080", status, 0, 0).takes_requests is takes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "Active connections: 1 \nserver accepts handled requests\n",
            "is the status of nginx, which counts no sessions",
        ),
        ("<html>", "does not answer with HAProxy's statistics"),
        ("", "does not answer with HAProxy's statistics"),
        (page("web,web1,0,1,10,UP,2,,"), "shows no addresses of its servers"),
    ],
)
def test_what_could_not_be_used_is_refused(text: str, says: str) -> None:
    with pytest.raises(HitlessError, match=says):
        haproxy.parse(LB, text)


def test_the_same_address_written_in_two_ways() -> None:
    assert haproxy.normal("[2001:DB8::0:1]:80") == haproxy.normal("2001:db8::1:80") == "2001:db8::1:80"
    assert haproxy.normal("localhost:80") in ("127.0.0.1:80", "::1:80")
    assert haproxy.normal("no such name:80") == "no such name:80"


def test_asked_over_http() -> None:
    with HttpServer(Reply(body=page(UP))) as server:
        assert haproxy.ask(f"{server.url}/stats").servers
        assert server.asked[0].path == "/stats;csv"
    with pytest.raises(haproxy.NoAnswer, match="does not answer"):
        haproxy.ask(nobody())
    with HttpServer(Reply(status=401, body="no")) as server, pytest.raises(haproxy.NoAnswer, match="401|Unauthorized"):
        haproxy.ask(f"{server.url}/")


COLUMNS = "pxname,svname,qcur,scur,stot,econ,eresp,wredis,status,lbtot,type"
COUNTERS = f"# {COLUMNS},hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,rtime,addr,\n"


@pytest.mark.parametrize(
    ("row", "requests", "errors"),
    [
        ("0,0,20,0,0,0,UP,20,2,1,10,2,3,4,0,7", 20, 4),
        ("0,0,20,5,0,0,UP,5,2,0,0,0,0,0,0,0", 5, 5),
        ("0,0,5,0,3,2,UP,5,2,0,0,0,0,0,0,0", 5, 5),
        ("0,0,50,2,1,0,UP,40,2,,,,,,,", 40, 3),
    ],
    ids=["answers", "no connection, three retries each", "no answer, and sent elsewhere", "TCP"],
)
def test_what_is_counted_of_a_server(row: str, requests: int, errors: int) -> None:
    server = haproxy.parse(LB, f"{COUNTERS}web,web1,{row},10.0.0.1:80,\n").servers["web", "web1"]
    assert (server.requests, server.errors) == (requests, errors)
    assert server.answer_ms == (7 if requests == 20 else 0)


def test_what_does_not_answer_before_anything_begins_is_told() -> None:
    def asked(url: str) -> haproxy.Statistics:
        if url == LB:
            return haproxy.parse(url, page(UP))
        raise haproxy.NoAnswer(f"{url} does not answer (refused).")

    assert haproxy.unanswered([LB, "http://lb2/"], asked) == ["http://lb2/ does not answer (refused)."]
