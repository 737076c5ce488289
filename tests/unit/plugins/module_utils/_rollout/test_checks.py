"""The user's checks: what one measurement tells, and what several come to."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import parse_analysis
from ansible_collections.hitless.consul.plugins.module_utils._rollout.checks import Checks, Measured, measure
from lab import wait_until
from tests.http_server import HttpServer, Reply, nobody

pytestmark = pytest.mark.oldest


def parsed(**check: Any) -> dict[str, Any]:
    return parse_analysis([check], "rollout_analysis")[0]


def prometheus(value: str) -> str:
    """As Prometheus answers a query."""
    result = [{"metric": {}, "value": [1764388800.123, value]}]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def asked(body: str, condition: str = "< 0.01", path: str = "data.result[0].value[1]", status: int = 200) -> Measured:
    with HttpServer(Reply(status=status, body=body)) as server:
        return measure(parsed(url=f"{server.url}/api/v1/query", json=path, condition=condition), {})


def test_a_query_of_prometheus() -> None:
    assert asked(prometheus("0.002")) == Measured("passed", "0.002 < 0.01")
    assert asked(prometheus("0.25")) == Measured("failed", "0.25, not < 0.01")
    assert asked(prometheus("NaN")) == Measured("inconclusive", "'NaN' is no number")
    empty = json.dumps({"status": "success", "data": {"result": []}})
    assert asked(empty) == Measured("inconclusive", "its answer has no data.result[0].value[1]")


@pytest.mark.parametrize(
    ("value", "condition", "how"),
    [
        (5, "<= 5", "passed"),
        (5, ">= 5.0", "passed"),
        (5, "> 5", "failed"),
        (5, "== 5.0", "passed"),
        ("5", "!= 5", "failed"),
        ("ok", "== ok", "passed"),
        ("not ok", "== ok", "failed"),
        ("ok", "!= ok", "failed"),
        (True, "== true", "passed"),
        (None, "== null", "passed"),
        ("ok", "== 5", "inconclusive"),
        ([1], "< 5", "inconclusive"),
    ],
)
def test_conditions(value: object, condition: str, how: str) -> None:
    assert asked(json.dumps({"a": [{"b": value}]}), condition, "a[0].b").how == how


def test_other_answers() -> None:
    assert asked("<html>").how == "inconclusive"
    assert asked("{}", status=503) == Measured("failed", "status 503, and not 200")
    with HttpServer(Reply(status=204)) as server:
        check = parsed(url=server.url, status=204, method="post", headers={"X-A": "b"}, body="{}")
        assert measure(check, {}) == Measured("passed", "status 204")
        (request,) = server.asked
        assert (request.method, request.headers["X-A"], request.body) == ("POST", "b", b"{}")
    assert measure(parsed(url=nobody(), timeout=1), {}).how == "inconclusive"


@pytest.mark.parametrize(
    ("command", "measured"),
    [
        ("true", Measured("passed", "exit code 0")),
        ('echo "$HITLESS_VERSION on $HITLESS_CHANGED"', Measured("passed", "exit code 0: 2 on web1")),
        ("echo 17 errors; exit 1", Measured("failed", "exit code 1: 17 errors")),
        ("exec sleep 60", Measured("inconclusive", "it did not end within 0.3 s")),
    ],
)
def test_commands(command: str, measured: Measured) -> None:
    check = parsed(command=command, timeout=5 if "sleep" not in command else 0.3)
    assert measure(check, {"HITLESS_VERSION": "2", "HITLESS_CHANGED": "web1"}) == measured


def test_a_command_that_is_not_there_is_no_failure() -> None:
    found = measure(parsed(command="/no/such/command"), {})
    assert found.how == "inconclusive"
    assert found.told.startswith("it could not be run (exit code 127: ")


# -- in a bake ----------------------------------------------------------------------------------------------------


def baked(*checks: dict[str, Any], seconds: float = 0.3) -> tuple[Checks, list[str]]:
    """All of them, until none has anything more to find out."""
    told: list[str] = []
    settled = [{"interval": 0.1, **one} for one in checks]
    with Checks(parse_analysis(settled, "rollout_analysis"), {}, seconds, told.append) as running:
        wait_until("none is open", lambda: not running.are_open)
    return running, told


def halt(*checks: dict[str, Any]) -> tuple[str, str] | None:
    one = baked(*checks)[0].halt
    return (one.kind, one.why) if one else None


GOOD, BAD, UNSURE = {"command": "true"}, {"command": "echo 5; exit 1"}, {"command": "exit 127"}


def test_it_is_asked_as_often_as_the_bake_allows() -> None:
    running, told = baked({**GOOD, "name": "log"})
    assert told == [f"analysis: log: passed, exit code 0 [{number}/3]" for number in (1, 2, 3)]
    assert running.halt is None
    assert len(baked({**GOOD, "count": 2})[1]) == 2


def test_more_failures_than_its_limit_stop() -> None:
    assert halt({**BAD, "name": "log"}) == ("failure", "analysis: the check log has failed once (exit code 1: 5)")
    assert halt({**BAD, "name": "log", "failure_limit": 3}) is None
    found = halt({**BAD, "name": "log", "failure_limit": 1})
    assert found == ("failure", "analysis: the check log has failed 2 times (exit code 1: 5)")


def test_what_cannot_be_asked_pauses() -> None:
    found = halt({**UNSURE, "name": "log"})
    assert found is not None
    assert found[0] == "pause"
    assert found[1].startswith("analysis: the check log was inconclusive once (it could not be run")
    assert halt({**UNSURE, "inconclusive_limit": 3}) is None


def test_a_failure_is_stronger_than_what_cannot_be_asked() -> None:
    found = halt({**UNSURE, "interval": 0.05}, BAD)
    assert found is not None
    assert found[0] == "failure"


def test_a_dry_run_only_tells() -> None:
    running, told = baked({**BAD, "name": "log", "dry_run": True})
    assert running.halt is None
    assert told == ["analysis: log: failed, exit code 1: 5 [1/3] (dry run)"]


def test_a_slow_one_delays_no_other_and_not_the_end() -> None:
    began = time.monotonic()
    slow = parse_analysis(
        [{"command": "exec sleep 5", "interval": 0.05}, {**BAD, "interval": 0.05}], "rollout_analysis"
    )
    with Checks(slow, {}, 1, lambda _text: None) as running:
        wait_until("the quick one has failed", lambda: running.halt is not None)
    assert time.monotonic() - began < 4
