"""What rollout_analysis may hold, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import (
    checks_of,
    comparison_of,
    number_of,
    parse_analysis,
    refuse_contradictions,
)

pytestmark = pytest.mark.oldest

NAME = "rollout_analysis"
QUERY: dict[str, Any] = {"url": "http://prometheus/q", "json": "data.result[0].value[1]", "condition": "< 0.01"}
COMPARED = {
    "alpha": 0.01,
    "tolerated_ratio": 1,
    "slower_than": 0,
    "inconclusive_limit": 30,
    "dry_run": False,
}


def options(analysis: object, **changes: Any) -> dict[str, Any]:
    balancers = ["http://lb1/"]
    parsed = parse_analysis(analysis, NAME)
    return {"analysis": parsed, "direction": "deploy", "bake_time": 60, "load_balancers": balancers, **changes}


@pytest.mark.parametrize(
    "value", ["load_balancers", ["load_balancers"], {"load_balancers": None}, [{"load_balancers": {}}]]
)
def test_the_built_in_one_is_said_in_short(value: object) -> None:
    assert parse_analysis(value, NAME) == [{"load_balancers": COMPARED}]
    assert comparison_of(options(value)) == COMPARED
    assert checks_of(options(value)) == []


def test_its_settings() -> None:
    given = {"alpha": "0.001", "tolerated_ratio": 1.5, "slower_than": 2, "inconclusive_limit": 5, "dry_run": "yes"}
    assert parse_analysis({"load_balancers": given}, NAME)[0]["load_balancers"] == {
        **given,
        "alpha": 0.001,
        "dry_run": True,
    }


def test_checks_have_all_of_their_keys() -> None:
    request, command = parse_analysis([QUERY, {"command": "true", "name": "log"}], NAME)
    either = {"interval": 10, "count": 0, "failure_limit": 0, "inconclusive_limit": 0, "timeout": 5, "dry_run": False}
    assert request == {
        **either,
        **QUERY,
        "name": "url 0",
        "method": "GET",
        "headers": {},
        "body": "",
        "status": 200,
    }
    assert command == {**either, "command": "true", "name": "log"}
    assert parse_analysis([], NAME) == []


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (7, "must be load_balancers, or a list of checks"),
        (["load_balancer"], "[0] must be load_balancers or a dictionary, and is 'load_balancer'"),
        ([7], "[0] must be load_balancers or a dictionary"),
        ([{}], "must have one of load_balancers, url and command, and has none of them"),
        ([{"url": "http://a/", "command": "true"}], "and has url and command"),
        (["load_balancers", {"load_balancers": {}}], "has load_balancers twice"),
        ([{"load_balancers": {"alhpa": 1}}], "rollout_analysis[0].load_balancers has no key alhpa. Is it alpha?"),
        ([{"load_balancers": {}, "alpha": 0.1}], "takes its settings below it"),
        ([{"load_balancers": {"alpha": 1}}], "alpha must be less than 1"),
        ([{"load_balancers": {"alpha": 0}}], "alpha must be a number, more than 0"),
        ([{"load_balancers": {"tolerated_ratio": 0.5}}], "tolerated_ratio must be a number, 1 or more"),
        ([{"url": "prometheus/q"}], "url must be a URL"),
        ([{"url": "http://p/q?query=rate(a[1m]) > 1"}], "{{ query | urlencode }}"),
        ([{"url": "http://a/", "intervall": 3}], "[0] has no key intervall. Is it interval?"),
        ([{"url": "http://a/", "status": "ok"}], "status must be a whole number"),
        ([{"url": "http://a/", "headers": "X: y"}], "headers must be a dictionary"),
        ([{"url": "http://a/", "json": "data"}], "has json, and no condition"),
        ([{"url": "http://a/", "condition": "< 1"}], "has condition, and no json"),
        ([{**QUERY, "json": "data..x"}], "json must be a path"),
        ([{**QUERY, "json": "$.data[*]"}], "json must be a path"),
        ([{**QUERY, "condition": "0.01"}], "condition must be an operator and a value"),
        ([{**QUERY, "condition": "< ok"}], "which takes numbers only"),
        ([{**QUERY, "count": -1}], "count must be a whole number"),
        ([{**QUERY, "interval": 0}], "interval must be a number of seconds, more than 0"),
        ([{"command": ["true"]}], "command must be text"),
        ([{**QUERY, "name": "a"}, {"command": "true", "name": "a"}], "two checks are called a"),
    ],
)
def test_what_is_refused(value: object, says: str) -> None:
    with pytest.raises(HitlessError) as refused:
        parse_analysis(value, NAME)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"analysis": "load_balancers", "bake_time": 0}, "rollout_bake_time is 0"),
        ({"analysis": [QUERY], "bake_time": 0}, "rollout_bake_time is 0"),
        ({"analysis": "load_balancers", "load_balancers": []}, "rollout_load_balancers is not set"),
        (
            {"analysis": [{**QUERY, "interval": 61}]},
            "url 0 needs 61 s (interval 61 s, count 1), and rollout_bake_time is 60 s",
        ),
        ({"analysis": [{**QUERY, "interval": 20, "count": 4}]}, "needs 80 s (interval 20 s, count 4)"),
    ],
)
def test_what_nothing_could_answer_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(HitlessError) as refused:
        refuse_contradictions(options(**changes))
    assert says in str(refused.value)
    refuse_contradictions(options(**changes, direction="rollback"))


def test_what_can_be_answered_is_not() -> None:
    refuse_contradictions(options([]))
    refuse_contradictions(options(["load_balancers", {**QUERY, "interval": 20, "count": 3}]))
    refuse_contradictions(options([QUERY], load_balancers=[]))


@pytest.mark.parametrize(
    ("value", "number"),
    [("0.25", 0.25), (3, 3.0), ("1e3", 1000.0), ("NaN", None), ("", None), (True, None), (None, None), ([1], None)],
)
def test_what_is_a_number(value: object, number: float | None) -> None:
    assert number_of(value) == number
