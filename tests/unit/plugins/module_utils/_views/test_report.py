"""What a person reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._views import report

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
        failure_budget=budget,
        holder="anna@ci",
    )
    told = {name: Outcome(name, name, outcome, seconds=12.34) for name, outcome in outcomes.items() if outcome}
    return one, told


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


def test_what_a_rollback_changed_went_back() -> None:
    one, told = deployment("failed", a="ok", b="failed", c="current")
    back = replace(one, direction="rollback", version=None)
    assert report.verdict_sentence(back, told) == (
        "Rollback of web failed after 1 m 12 s: 1 went back, 1 already there, 1 failed (b)."
    )
    assert "budget" not in report.verdict_sentence(replace(back, is_automatic=True, failure_budget=3), told)


def test_nothing_to_recover_is_said() -> None:
    assert report.remains("web", [], []) == "web: nothing to recover."
