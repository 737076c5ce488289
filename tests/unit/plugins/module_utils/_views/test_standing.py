"""The last lines of a run: what is, why, what to do."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._views.standing import REASONS, standing

pytestmark = pytest.mark.oldest

ID = "20261128T120000Z-2-abcd"
END = f"The story of it: ansible-playbook hitless.consul.status -e rollout_service=web -e status_id={ID}"


def told(in_rotation: str, /, *, undone: bool = False, **ended: str) -> list[str]:
    """The lines for hosts a, b, c, ... with these outcomes."""
    hosts = {name: PlannedHost(name, f"n-{name}", from_version="1", to_version="2") for name in ended}
    record = Record(ID, "web", "2", hosts=hosts)
    outcomes = {
        name: Outcome(name, f"n-{name}", outcome, error="It broke." if outcome not in ("ok", "pending") else "")
        for name, outcome in ended.items()
    }
    return standing(record, outcomes, {f"n-{name}" for name in in_rotation}, undone=undone).splitlines()


def test_all_is_well() -> None:
    assert told("ab", a="ok", b="current") == ["web: 2 of 2 in rotation, all on 2.", END]


def test_one_was_put_back() -> None:
    assert told("abc", a="ok", b="rolled_back", c="pending") == [
        "web: 3 of 3 in rotation: 2 on 1, 1 on 2.",
        "b: It broke.",
        "Next: repair 2, and run the same command again; hosts that have it are left alone.",
        END,
    ]


def test_all_is_back() -> None:
    lines = told("abc", a="rolled_back", b="rolled_back", c="pending", undone=True)
    assert lines[0] == "web: 3 of 3 in rotation, all on 1."
    assert lines[-2] == "Next: repair 2, and run the same command again. No host has it now, and nothing is to undo."


@pytest.mark.parametrize("ended", ["ok", "regressed", "failed", "lost"])
def test_not_all_are_back(ended: str) -> None:
    assert told("ab", a="rolled_back", b=ended, undone=True)[-2] == (
        "Next: see to the hosts that did not go back, and run hitless.consul.rollback: it tries these again."
    )


def test_one_that_never_began_its_way_back_has_the_version_still() -> None:
    hosts = {"a": PlannedHost("a", "a", from_version="1", to_version="2")}
    back = Outcome("a", "a", "untouched", from_version="2", to_version="1", error="No drain.")
    lines = standing(Record(ID, "web", "2", hosts=hosts), {"a": back}, {"a"}, undone=True)
    assert "1 of 1 in rotation, on 2." in lines
    assert "did not go back" in lines


def test_one_that_regressed_and_stays() -> None:
    lines = told("a", a="ok", b="regressed")
    assert lines[1] == "Out of rotation: b, no longer healthy on 2."
    assert lines[-2] == "Next: hitless.consul.rollback undoes it; or roll out a version that works."


def test_where_what_does_not_have_it_fails_too() -> None:
    hosts = {name: PlannedHost(name, name, from_version="1", to_version="2") for name in "ab"}
    ended = {"a": Outcome("a", "a", "failed", error="It broke."), "b": Outcome("b", "b", "pending")}
    lines = standing(Record(ID, "web", "2", hosts=hosts), ended, (), {"b": "alive is critical (no database)"})
    assert "Out of rotation: b, though nothing of this deployment keeps it out: alive is critical (no data" in lines
    assert "Next: what does not have it fails as well. See to that first, and run the same command again." in lines


def test_what_is_out_is_named_with_its_reason() -> None:
    lines = told("a", a="ok", b="failed", c="lost", d="skipped", e="pending")
    assert lines[0] == "web: 1 of 5 in rotation, on 2."
    assert lines[1:5] == [
        "Out of rotation: b, held in maintenance since its deployment failed.",
        "Out of rotation: c, lost: it cannot be reached, and nobody knows which version runs there.",
        "Out of rotation: d, skipped: It broke.",
        "Out of rotation: e, though nothing of this deployment keeps it out.",
    ]
    assert lines[-2] == "Next: once they can be reached, run the same command again, or hitless.consul.recover."


def test_what_was_printed_last_is_told_and_nothing_for_a_terminal() -> None:
    record = Record(ID, "web", "2", hosts={"a": PlannedHost("a", "a", from_version="1", to_version="2")})
    outcome = Outcome("a", "a", "rolled_back", error="It exited with 3.", output="one\nE: no \x1b[31mpackage\n\n")
    assert 'a: It exited with 3. It printed last: "E: no ?[31mpackage".' in standing(record, {"a": outcome}, {"a"})


def test_many_reasons_are_counted() -> None:
    many = {f"h{number}": "rolled_back" for number in range(REASONS + 3)}
    lines = told("", **many)
    assert sum(line.endswith(": It broke.") for line in lines) == REASONS
    assert "... and 3 more" in lines


def test_without_a_known_version() -> None:
    record = Record(ID, "web", "2", hosts={"a": PlannedHost("a", "a", to_version="2")})
    assert standing(record, {}, {"a"}).startswith("web: 1 of 1 in rotation, on an unknown version.")


def test_what_was_found_bad_and_has_not_gone_back_is_to_be_undone() -> None:
    """By rollout_rollback none, for instance: hosts are well by their checks, and the same command would be no help."""
    hosts = {name: PlannedHost(name, name, from_version="1", to_version="2") for name in "ab"}
    outcomes = {"a": Outcome("a", "a", "ok", from_version="1", to_version="2"), "b": Outcome("b", "b", "pending")}
    lines = standing(Record(ID, "web", "2", hosts=hosts), outcomes, {"a", "b"}, found_bad=True).splitlines()
    assert lines[-2] == "Next: hitless.consul.rollback undoes it; or roll out a version that works."


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (
            "failed",
            "Next: no version has changed, and nothing is to roll back. See to what is not healthy, and run the",
        ),
        ("regressed", "Next: no version has changed, and nothing is to roll back."),
        ("lost", "Next: once they can be reached, run the same command again, or hitless.consul.recover."),
        ("untouched", "Next: see to what has kept it from being rebooted, and run the same command again;"),
        ("pending", "Next: run the same command again; hosts that were rebooted are left alone."),
        ("ok", "The story of it"),
    ],
)
def test_of_a_reboot_nothing_is_to_roll_back(outcome: str, line: str) -> None:
    hosts = {name: PlannedHost(name, name, from_version="1", to_version="1") for name in ("a", "b")}
    ended = {"a": Outcome("a", "a", outcome, "1", "1", error="It broke."), "b": Outcome("b", "b", "ok", "1", "1")}
    record = Record(ID, "web", None, direction="reboot", hosts=hosts)
    lines = standing(record, ended, {"b"}).splitlines()
    assert any(one.startswith(line) for one in lines[-2:]), lines
    assert not any("rollback" in one or "roll out" in one for one in lines)
