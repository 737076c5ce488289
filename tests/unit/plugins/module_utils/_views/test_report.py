"""What a person reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Outcome, PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._views import report

NOW = datetime(2026, 11, 23, 14, 30, tzinfo=timezone.utc)
STARTED, FINISHED = "2026-11-23T14:22:33Z", "2026-11-23T14:23:45Z"


def deployment(state: str = "failed", budget: int = 0, **outcomes: str) -> tuple[Record, dict[str, Outcome]]:
    hosts = {
        name: PlannedHost(name, name, batch=1, from_version="1.4.1", to_version="1.4.2", rollback_to="1.4.1")
        for name in outcomes
    }
    one = Record(
        "20261123T142233Z-1.4.2-7f3a",
        "web",
        "1.4.2",
        state=state,
        started=STARTED,
        finished=FINISHED,
        hosts=hosts,
        batches=(tuple(outcomes),),
        failure_budget=budget,
        holder="anna@ci",
    )
    told = {name: Outcome(name, name, outcome, seconds=12.34) for name, outcome in outcomes.items() if outcome}
    return one, told


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.9, "1 m 0 s"),
        (72, "1 m 12 s"),
        (3599.9, "1 h 0 m"),
        (7400, "2 h 3 m"),
        (100000, "1 d 3 h"),
    ],
)
def test_durations(seconds: float | None, expected: str) -> None:
    assert report.duration(seconds) == expected


def test_the_table_of_hosts() -> None:
    one, told = deployment(web1="ok", web2="rolled_back", web3="")
    told["web2"] = replace(told["web2"], error="web on web2 was not healthy\nwithin 30 s")
    assert report.hosts_table(one, told).splitlines() == [
        "host  from   to     outcome      seconds  why",
        "web1  1.4.1  1.4.2  ok           12.3     -",
        "web2  1.4.1  1.4.2  rolled_back  12.3     web on web2 was not healthy within 30 s",
        "web3  1.4.1  1.4.2  pending      -        not begun (still on 1.4.1)",
    ]


def test_a_long_reason_is_cut_to_the_width() -> None:
    one, told = deployment(web1="failed")
    told["web1"] = replace(told["web1"], error="because " * 100)
    lines = report.hosts_table(one, told, width=80).splitlines()
    assert max(map(len, lines)) == 80
    assert lines[1].endswith("...")


def test_a_large_fleet_shows_every_host_that_is_not_well() -> None:
    outcomes = {f"web{number:04}": "failed" if number % 100 == 99 else "ok" for number in range(1000)}
    text = report.hosts_table(*deployment(**outcomes), rows=20)
    assert text.count("failed") == 10
    assert text.endswith("... and 980 more that are ok, current or skipped")
    assert len(text.splitlines()) == 1 + 20 + 1


@given(st.text(), st.text())
def test_what_comes_from_consul_cannot_speak_to_the_terminal(host: str, error: str) -> None:
    one, told = deployment(x="failed")
    hosts = {host: replace(one.hosts["x"], host=host)}
    text = report.hosts_table(replace(one, hosts=hosts), {host: replace(told["x"], host=host, error=error)})
    assert len(text.split("\n")) == 2
    assert all(" " <= letter <= "~" for letter in text.replace("\n", ""))


@pytest.mark.parametrize(
    ("state", "budget", "outcomes", "reason", "expected"),
    [
        (
            "successful",
            0,
            {"a": "ok", "b": "ok", "c": "current", "d": "skipped"},
            "",
            "Deployment of web 1.4.2 successful after 1 m 12 s: 2 changed, 1 already there, 1 skipped (d).",
        ),
        (
            "failed",
            0,
            {"a": "rolled_back", "b": "", "c": "", "d": "", "e": ""},
            "the failure budget of 0 is spent.",
            (
                "Deployment of web 1.4.2 failed after 1 m 12 s: 1 rolled back (a), 4 not begun (b, c, d, ...). "
                "It stopped because the failure budget of 0 is spent."
            ),
        ),
        (
            "failed",
            1,
            {"a": "ok", "b": "lost"},
            "",
            (
                "Deployment of web 1.4.2 failed after 1 m 12 s (completed within its failure budget of 1): "
                "1 changed, 1 lost (b)."
            ),
        ),
        (
            "interrupted",
            1,
            {"a": "ok", "b": "lost"},
            "",
            "Deployment of web 1.4.2 interrupted after 1 m 12 s: 1 changed, 1 cut off (b).",
        ),
        ("successful", 0, {}, "", "Deployment of web 1.4.2 successful after 1 m 12 s: no hosts."),
    ],
)
def test_the_verdict_in_a_sentence(
    state: str, budget: int, outcomes: dict[str, str], reason: str, expected: str
) -> None:
    assert report.verdict_sentence(*deployment(state, budget, **outcomes), reason) == expected


def test_what_it_did_not_cover_is_named() -> None:
    one, told = deployment("successful", a="ok")
    nodes = ("vm4", "vm5", "vm6", "vm7")
    assert report.verdict_sentence(replace(one, uncovered=nodes[:1]), told).endswith(
        "1 changed. Not covered: web on vm4."
    )
    assert report.verdict_sentence(replace(one, uncovered=nodes), told).endswith("web on vm4, vm5, vm6 and 1 more.")


def test_a_rollback_is_called_one() -> None:
    one, _told = deployment("successful", a="ok")
    assert report.title(replace(one, direction="rollback")) == "Rollback of web to 1.4.2"
    assert report.title(replace(one, direction="rollback", version=None)) == "Rollback of web"


def service(**more: Any) -> dict[str, Any]:
    node = {"version": "1.4.2", "previous": "1.4.1", "health": "in rotation", "reason": ""}
    return {"service": "web", "nodes": {"web1": node}, "running": None, "lock": None, "deployments": [], **more}


def test_the_screen_of_a_quiet_service() -> None:
    assert report.status(service(), NOW).splitlines() == [
        "web",
        "  node  version  previous  health       why",
        "  web1  1.4.2    1.4.1     in rotation  -",
        "",
        "  running  nothing",
        "  lock     free",
        "",
        "  no deployments yet",
    ]


def test_the_screen_of_a_service_that_is_being_deployed() -> None:
    running = {
        "id": "20261123T142233Z-1.4.2-7f3a",
        "direction": "deploy",
        "started": STARTED,
        "holder": "anna@ci",
        "batch": 2,
        "batches": 5,
        "results": {"web1": "ok", "web2": "pending"},
    }
    lock = {"holder": "anna@ci", "since": STARTED, "message": "web 1.4.2"}
    done = {"id": "x", "state": "interrupted", "started": STARTED, "seconds": 72, "holder": "ben", "description": "d"}
    before = {**done, "id": "w", "state": "failed", "direction": "rollback", "summary": {"ok": 3, "lost": 1}}
    lines = report.status(service(running=running, lock=lock, deployments=[done, before], nodes={}), NOW).splitlines()
    assert lines == [
        "web",
        "  no instances",
        "",
        (
            "  running  20261123T142233Z-1.4.2-7f3a (deploy), started 7 m 27 s ago by anna@ci, batch 2 of 5: "
            "1 changed, 1 to come"
        ),
        "  lock     taken 7 m 27 s ago by anna@ci (web 1.4.2)",
        "",
        "  last deployments",
        "  id  state        started       took      by   how",
        "  x   interrupted  7 m 27 s ago  1 m 12 s  ben  d",
        "  w   failed       7 m 27 s ago  1 m 12 s  ben  rollback: 3 changed, 1 lost",
    ]


def test_a_service_of_many_nodes_shows_first_those_out_of_rotation() -> None:
    good = {"version": "2", "previous": "1", "health": "in rotation", "reason": ""}
    bad = {**good, "health": "maintenance", "reason": "disk"}
    nodes = {f"web{number:03}": bad if number == 150 else good for number in range(200)}
    lines = report.status(service(nodes=nodes), NOW).splitlines()
    assert lines[2].split() == ["web150", "2", "1", "maintenance", "disk"]
    assert "  ... and 140 more in rotation" in lines


def test_the_story_of_a_deployment_tells_error_and_output_whole() -> None:
    one, told = deployment(web1="ok", web2="failed")
    error = "because " * 30
    told["web2"] = replace(told["web2"], error=error, output="first\nlast", started=STARTED, finished=FINISHED)
    steps = {"web2": [{"state": "draining", "at": STARTED}, {"state": "failed", "at": FINISHED}]}
    log = {"web1": "    indented\x1b[31m\u202e \u00fc\n"}
    text = report.story("failed", replace(one, message="hotfix", options={"batch_size": 1}), told, steps, log)
    assert "web2  draining 14:22:33, failed +1 m 12 s" in text
    assert "log of web1\n  |     indented?[31m? \u00fc" in text
    assert f"web2: {error.strip()}\n  | first\n  | last" in text
    assert "  message   hotfix\n  options   batch_size=1\n  batch 1   web1 web2" in text
    assert "web2  1.4.1  1.4.2  failed   12.3     14:22:33  14:23:45" in text


def test_nothing_to_recover_is_said() -> None:
    assert report.remains("web", [], []) == "web: nothing to recover."
