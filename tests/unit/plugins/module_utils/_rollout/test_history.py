"""Which of the deployments that are kept counts as the last one, which one a new one resumes, which have to stay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Held, Holder
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import Control, Controlled
from ansible_collections.hitless.consul.plugins.module_utils._rollout.findings import Finding
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History, is_changed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Brief
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import OUTCOMES
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment, Listed
from tests.unit.plugins.module_utils._rollout.deployments import deployment, history


def listed(identity: str, version: str | None, **about: object) -> Listed:
    return Listed(Brief(identity, "web", version, **about))  # type: ignore[arg-type]


def kept(*newest_first: Listed) -> History:
    return History(newest_first, lambda _id: None)


def last_of(*newest_first: Listed) -> str | None:
    found = kept(*newest_first).last()
    return found.record.id if found else None


GOOD = listed("1", "1.4.2", state="successful", summary={"ok": 5})


def test_which_outcomes_may_have_changed_a_host() -> None:
    assert {one for one in OUTCOMES if is_changed(one)} >= {"ok", "failed", "lost"}
    assert not any(map(is_changed, ("current", "rolled_back", "untouched", "skipped", "pending")))


@pytest.mark.parametrize(
    ("newest", "last"),
    [
        (listed("2", "2.0.0", state="failed", summary={"rolled_back": 1, "pending": 4}), "2"),
        (listed("2", "2.0.0", state="failed", summary={"pending": 5}), "2"),
        (listed("2", "1.4.2", state="successful", summary={"current": 5}), "1"),
        (listed("2", "1.4.2", state="successful", summary={"current": 4, "skipped": 1}), "1"),
        (listed("2", None, state="successful", direction="rollback", summary={"current": 5}), "1"),
        (listed("2", None, state="failed", description="Its record in Consul cannot be read."), "2"),
    ],
)
def test_only_what_found_every_host_in_place_is_passed_over(newest: Listed, last: str) -> None:
    assert last_of(newest, GOOD) == last


@pytest.mark.parametrize("direction", ["restart", "reboot"])
def test_a_restart_changes_no_version(direction: str) -> None:
    """It is none that could be undone, and a rollout goes on behind it."""
    restarted = listed("3", None, direction=direction, state="failed", summary={"ok": 2, "failed": 1})
    begun = listed("2", "2.0.0", state="interrupted", summary={"ok": 1, "pending": 4})
    assert last_of(restarted, begun, GOOD) == "2"
    assert kept(restarted, begun, GOOD).resumed_by("2.0.0") == "2"
    assert kept(restarted, begun).resumed_by(None, direction) == "3"
    assert kept(begun, restarted).resumed_by(None, direction) == "", "whoever got a new version has been restarted"


def test_one_that_runs_is_not_the_last_one() -> None:
    held = Held(Holder("2", "somebody", "", "", ""), "session", alive=True)
    assert last_of(Listed(Brief("2", "web", "2.0.0"), held), GOOD) == "1"
    assert last_of() is None


def test_what_a_rollback_would_look_at_has_to_stay() -> None:
    repeated = listed("4", "2.0.0", state="successful", summary={"current": 5})
    completed = listed("3", "2.0.0", state="successful", summary={"ok": 3, "current": 2}, resumes="2")
    begun = listed("2", "2.0.0", state="interrupted", summary={"ok": 1, "lost": 1, "pending": 3})
    assert kept(repeated, completed, begun, GOOD).needed() == {"3", "2"}
    undone = listed("5", None, state="failed", direction="rollback", summary={"ok": 1, "lost": 1}, undoes="3")
    assert kept(undone, completed, begun, GOOD).needed() == {"5", "3", "2"}
    assert kept().needed() == set()


CASES: list[tuple[str, list[Listed]]] = [
    ("", []),
    ("", [GOOD]),
    ("", [listed("2", "2.0.0", state="successful", summary={"ok": 5})]),
    ("2", [listed("2", "2.0.0", state="interrupted", summary={"ok": 1, "lost": 1, "pending": 3})]),
    ("2", [listed("2", "2.0.0", state="failed", summary={"ok": 1, "rolled_back": 1, "pending": 3})]),
    ("", [listed("2", "2.0.0", state="failed", summary={"rolled_back": 1, "pending": 4})]),
    # Between them another version has changed hosts, or has not.
    (
        "",
        [
            listed("3", "3.0.0", state="failed", summary={"ok": 1, "pending": 4}),
            listed("2", "2.0.0", state="interrupted", summary={"ok": 1, "pending": 4}),
        ],
    ),
    (
        "2",
        [
            listed("3", "3.0.0", state="failed", summary={"rolled_back": 1, "pending": 4}),
            listed("2", "2.0.0", state="interrupted", summary={"ok": 1, "pending": 4}),
        ],
    ),
    # The second start was cut off at once: the third goes on with both.
    (
        "3",
        [
            listed("3", "2.0.0", state="interrupted", summary={"current": 1, "pending": 4}, resumes="2"),
            listed("2", "2.0.0", state="interrupted", summary={"ok": 1, "pending": 4}),
        ],
    ),
    # A rollback has taken away what there was to resume.
    (
        "",
        [
            listed("3", None, direction="rollback", state="successful", summary={"ok": 1, "current": 4}, undoes="2"),
            listed("2", "2.0.0", state="interrupted", summary={"ok": 1, "pending": 4}),
        ],
    ),
]


@pytest.mark.parametrize(("resumes", "before"), CASES)
def test_which_deployment_the_same_version_goes_on_with(resumes: str, before: list[Listed]) -> None:
    assert kept(*before).resumed_by("2.0.0") == resumes


def test_the_hosts_of_a_deployment_are_read_once() -> None:
    asked = []

    def read(identity: str) -> Deployment | None:
        asked.append(identity)
        return None

    found = History([GOOD], read)
    assert (found.with_hosts("1"), found.with_hosts("1")) == (None, None)
    assert asked == ["1"]


def test_where_a_deployment_is_found() -> None:
    found = history(deployment("1", "1", {}), deployment("2", "2", {}), deployment("3", "3", {}))
    assert found.ids == ["3", "2", "1"]
    assert [one.record.id for one in found.older_than("3")] == ["2", "1"]
    assert found.find("4") is None


# -- a rollout's own rollback that was interrupted ----------------------------------------------------------------

BAD = listed("2", "1.5.0", state="failed", summary={"ok": 3, "rolled_back": 1})


def back(identity: str, state: str, **summary: int) -> Listed:
    return listed(identity, None, direction="rollback", state=state, summary=summary, undoes="2", is_automatic=True)


@pytest.mark.parametrize(
    ("newest_first", "expected"),
    [
        ([back("3", "interrupted", ok=1, lost=1), BAD, GOOD], "2"),
        ([back("3", "successful", ok=3), BAD, GOOD], ""),
        ([back("3", "failed", ok=2, failed=1), BAD, GOOD], ""),
        ([BAD, GOOD], ""),
        # The next one has ended it, also where the first had done all that there was to do.
        ([back("4", "successful", ok=2, current=1), back("3", "interrupted", ok=1, lost=1), BAD, GOOD], ""),
        ([back("4", "successful", current=5), back("3", "interrupted", ok=3), BAD, GOOD], ""),
        ([back("4", "interrupted", current=5), back("3", "interrupted", ok=3), BAD, GOOD], "2"),
    ],
)
def test_it_is_ended_once(newest_first: list[Listed], expected: str) -> None:
    assert kept(*newest_first).unfinished_rollback("1.5.0") == expected
    assert kept(*newest_first).unfinished_rollback("1.6.0") == "", "another version takes over as it is"


@pytest.mark.parametrize(
    ("outcomes", "about", "expected"),
    [
        (("ok", "rolled_back"), {}, "2"),
        (("regressed", "pending"), {}, "2"),
        (("ok", "lost"), {}, ""),  # cut off in its turn: the rollout goes on
        (("rolled_back", "pending"), {}, ""),  # nothing is left to go back
        (("ok", "rolled_back"), {"failure_budget": 1}, ""),
        (("ok", "rolled_back"), {"options": {"rollback": "host"}}, ""),
        (("ok", "rolled_back"), {"state": "failed"}, ""),
        (("ok", "rolled_back"), {"direction": "rollback"}, ""),
    ],
)
def test_one_that_was_interrupted_once_it_had_failed(
    outcomes: tuple[str, str], about: dict[str, object], expected: str
) -> None:
    hosts = {f"web{number}": (outcome, "1.4.2", "1.5.0") for number, outcome in enumerate(outcomes)}
    about = {"state": "interrupted", "options": {"rollback": "fleet"}, **about}
    failing = deployment("2", "1.5.0", hosts, **about)
    assert history(failing).unfinished_rollback("1.5.0") == expected
    ended = deployment("3", None, {"web0": ("current", "1.4.2", None)}, undoes="2", is_automatic=True)
    assert history(failing, ended).unfinished_rollback("1.5.0") == ""


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (Control(), ""),
        (Control(findings=(Finding("analysis", True, "worse"),)), "2"),  # before anybody has heard of it
        (Control(findings=(Finding("analysis", False, "no answer"),)), ""),
        (Control(noted=Controlled(kind="failure")), "2"),
        (Control(noted=Controlled(kind="abort")), "2"),
        (Control(noted=Controlled(kind="stop"), findings=(Finding("analysis", True, "worse"),)), ""),
    ],
)
def test_one_that_was_interrupted_once_it_was_found_bad(control: Control, expected: str) -> None:
    about: dict[str, object] = {"state": "interrupted", "options": {"rollback": "fleet"}}
    bad = deployment("2", "1.5.0", {"web0": ("ok", "1.4.2", "1.5.0"), "web1": ("pending", "1.4.2", "1.5.0")}, **about)
    assert history(replace(bad, control=control)).unfinished_rollback("1.5.0") == expected


def test_those_that_a_deployment_resumed_one_after_the_other() -> None:
    third = listed("3", "2.0.0", resumes="2")
    found = kept(third, listed("2", "2.0.0", resumes="1"), GOOD)
    assert (found.chain("3"), found.chain("1"), found.chain("")) == (["3", "2", "1"], ["1"], [])
    assert kept(third).chain("3") == ["3"]
    assert kept(listed("2", "2.0.0", resumes="3"), listed("3", "2.0.0", resumes="2")).chain("2") == ["2"]
