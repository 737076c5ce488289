"""The states of a host, how they follow one another, and what follows a failure."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
    DEFER,
    DEFERRED,
    DEPLOYING,
    DRAINING,
    END_MAINTENANCE,
    FAILED,
    GIVE_UP,
    GOOD,
    HOLD,
    LOST,
    NO_REASON,
    OK,
    OUTCOMES,
    PENDING,
    REGRESSED,
    RETURNING,
    ROLL_BACK,
    ROLLED_BACK,
    ROLLING_BACK,
    SKIPPED,
    SPENDING,
    STATES,
    STOP,
    UNDO_DRAIN,
    UNTOUCHED,
    VERIFYING,
    Failure,
    Situation,
    decide_after_undrain,
    decide_on_failure,
    never_began,
    outcome_of,
    require_transition,
    version_is_trusted,
)

pytestmark = pytest.mark.oldest


FOLLOWING = {
    PENDING: {DRAINING, UNTOUCHED, SKIPPED, LOST},
    DRAINING: {DEPLOYING, UNTOUCHED, SKIPPED, FAILED, LOST},
    DEPLOYING: {VERIFYING, UNTOUCHED, ROLLING_BACK, FAILED, LOST, DEFERRED},
    VERIFYING: {RETURNING, ROLLING_BACK, FAILED, LOST, DEFERRED},
    RETURNING: {OK, ROLLING_BACK, FAILED, LOST, DEFERRED},
    ROLLING_BACK: {ROLLED_BACK, FAILED, LOST, DEFERRED},
    OK: {REGRESSED, LOST},
    DEFERRED: {DRAINING},
}


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_each_transition_and_each_that_must_not_happen(before: str, after: str) -> None:
    if after == before or after in FOLLOWING.get(before, set()):
        require_transition(before, after)
    else:
        with pytest.raises(HitlessError, match=f"A host that is {before} cannot become {after}"):
            require_transition(before, after)


def test_what_states_mean() -> None:
    assert set(GOOD) == {OK, CURRENT, SKIPPED}
    assert set(SPENDING) == {ROLLED_BACK, REGRESSED, FAILED, LOST, UNTOUCHED}
    assert set(OUTCOMES) == {name for name, state in STATES.items() if not state.next} | {PENDING, OK, DEFERRED}
    untrusted = {DEPLOYING, VERIFYING, RETURNING, ROLLING_BACK, FAILED, LOST, DEFERRED}
    assert {name for name in STATES if not version_is_trusted(name)} == untrusted
    assert version_is_trusted(None)
    of_agents = ("requested", "claimed", "done", "withdrawn", "abandoned")
    assert [state for state in of_agents if not version_is_trusted(state)] == ["abandoned"]


IT_FAILED = Failure("Deploy: it exited with 3.")


HOST_LOST = Failure("The host cannot be reached.", lost=True)


LOCK_LOST = Failure("The lock is gone.", lock_lost=True)


WAY: dict[str, Any] = {"to_version": "2", "rollback_to": "1", "from_version": "1"}


BACK: dict[str, Any] = {**WAY, "state": ROLLING_BACK, "earlier": "It was broken."}
NEVER: dict[str, Any] = {**WAY, "state": DEPLOYING, "never_began": True}
ALIKE: dict[str, Any] = {**WAY, "trouble_of_all": "But all fail alike."}
RESTORE_FAILED: dict[str, Any] = {"state": RETURNING, "restore_failed": True, "drained_by_hook": True}


@pytest.mark.parametrize(
    ("failure", "at", "decision", "says"),
    [
        # The deployment never began: end the maintenance, nothing else.
        *(
            (IT_FAILED, {**WAY, "state": state}, END_MAINTENANCE, "Nothing was deployed.")
            for state in (PENDING, DRAINING)
        ),
        (IT_FAILED, {**WAY, "state": DRAINING, "wants_rollback": False}, END_MAINTENANCE, "Nothing was deployed."),
        (IT_FAILED, {**WAY, "state": DRAINING, "rollback_to": ""}, END_MAINTENANCE, "Nothing was deployed."),
        # It began: the same steps with the previous version.
        *((IT_FAILED, {**WAY, "state": state}, ROLL_BACK, "it exited") for state in (DEPLOYING, VERIFYING, RETURNING)),
        # Surely not: its first task was never sent to the host.
        (IT_FAILED, NEVER, END_MAINTENANCE, "Nothing was deployed."),
        (IT_FAILED, {**NEVER, "drained_by_hook": True}, UNDO_DRAIN, "Nothing was deployed."),
        (IT_FAILED, {**NEVER, "wants_rollback": False}, END_MAINTENANCE, "Nothing was deployed."),
        (IT_FAILED, {**NEVER, "rollback_to": ""}, END_MAINTENANCE, "Nothing was deployed."),
        (HOST_LOST, NEVER, GIVE_UP, "left as it is"),
        (LOCK_LOST, NEVER, STOP, "left as it is"),
        (IT_FAILED, {**BACK, "never_began": True}, HOLD, "The rollback failed too"),
        # There is none, it is the same, or none is wanted: a broken instance never gets traffic.
        (IT_FAILED, {"state": DEPLOYING, "to_version": "2"}, HOLD, "No previous version is known"),
        (IT_FAILED, {**WAY, "state": DEPLOYING, "rollback_to": "2"}, HOLD, "The previous version is the same"),
        (IT_FAILED, {"state": DEPLOYING, "to_version": "2", "from_version": "2"}, HOLD, "previous version is the same"),
        (IT_FAILED, {**WAY, "state": DEPLOYING, "wants_rollback": False}, HOLD, "rollout_rollback: none"),
        (IT_FAILED, {**WAY, "state": DEPLOYING, "stays": True}, HOLD, "it exited with 3. It stays in maintenance."),
        # It may be out of a load balancer that Consul does not drive: back there first.
        (IT_FAILED, {**WAY, "state": DRAINING, "drained_by_hook": True}, UNDO_DRAIN, "Nothing was deployed."),
        (IT_FAILED, {**WAY, "state": PENDING, "drained_by_hook": True}, END_MAINTENANCE, "Nothing was deployed."),
        (HOST_LOST, {**WAY, "state": DRAINING, "drained_by_hook": True}, GIVE_UP, "left as it is"),
        # What runs is fine, and another version would not help.
        (IT_FAILED, {**WAY, **RESTORE_FAILED}, HOLD, "2 runs and is healthy, but it was not restored."),
        (IT_FAILED, {**BACK, "restore_failed": True}, HOLD, "It was broken. Its previous version runs again"),
        (LOCK_LOST, {**WAY, **RESTORE_FAILED}, STOP, "The host is left as it is."),
        # The rollback failed too.
        (IT_FAILED, BACK, HOLD, "It was broken. The rollback failed too: Deploy: it exited with 3."),
        # All instances fail: neither version is the reason, and its turn comes again.
        *(
            (IT_FAILED, {**ALIKE, "state": state}, DEFER, "it exited with 3. But all fail alike. It stays")
            for state in (DEPLOYING, VERIFYING, RETURNING)
        ),
        (IT_FAILED, {**ALIKE, "state": VERIFYING, "wants_rollback": False}, DEFER, "until its turn comes again"),
        (IT_FAILED, {**BACK, **ALIKE, "state": ROLLING_BACK}, DEFER, "The rollback failed too: Deploy: it exited"),
        (IT_FAILED, {**ALIKE, "state": DRAINING}, END_MAINTENANCE, "Nothing was deployed."),
        (IT_FAILED, {**NEVER, **ALIKE, "state": DEPLOYING}, END_MAINTENANCE, "Nothing was deployed."),
        (IT_FAILED, {**RESTORE_FAILED, **ALIKE, "state": RETURNING}, HOLD, "but it was not restored"),
        (HOST_LOST, {**ALIKE, "state": VERIFYING}, GIVE_UP, "left as it is"),
        (LOCK_LOST, {**ALIKE, "state": VERIFYING}, STOP, "left as it is"),
        # Out of reach: left as it is, whenever.
        *((HOST_LOST, {**WAY, "state": state}, GIVE_UP, "left as it is") for state in (PENDING, DRAINING, DEPLOYING)),
        (HOST_LOST, BACK, GIVE_UP, "The rollback failed too"),
        # The lock is lost: no further step of ours.
        *((LOCK_LOST, {**WAY, "state": state}, STOP, "left as it is") for state in FOLLOWING),
    ],
)
def test_the_decision(failure: Failure, at: dict[str, Any], decision: str, says: str) -> None:
    found, why = decide_on_failure(failure, Situation(**at))
    assert found == decision
    assert failure.what in why
    assert says in why


@pytest.mark.parametrize(
    ("failure", "decision"),
    [(None, END_MAINTENANCE), (IT_FAILED, HOLD), (LOCK_LOST, STOP)],
    ids=["restored", "not", "lock"],
)
def test_the_decision_once_the_drain_is_undone(failure: Failure | None, decision: str) -> None:
    found, why = decide_after_undrain(failure, "It broke. Nothing was deployed.")
    assert found == decision
    assert why.startswith("It broke. Nothing was deployed.")
    assert failure is None or failure.what in why


def test_the_outcome_of_each_decision() -> None:
    assert {
        decision: outcome_of(decision)
        for decision in (ROLL_BACK, UNDO_DRAIN, END_MAINTENANCE, HOLD, DEFER, GIVE_UP, STOP)
    } == {
        ROLL_BACK: None,
        UNDO_DRAIN: None,
        END_MAINTENANCE: UNTOUCHED,
        HOLD: FAILED,
        DEFER: DEFERRED,
        GIVE_UP: LOST,
        STOP: None,
    }
    assert outcome_of(END_MAINTENANCE, other_owner=True) == SKIPPED
    assert outcome_of(HOLD, other_owner=True) == FAILED, "something was deployed there"


@pytest.mark.parametrize(
    ("result", "what", "output"),
    [
        ({"msg": "It broke."}, "It broke.", ""),
        # A command's, as Ansible reports it: a sentence all the same.
        ({"msg": "non-zero return code", "rc": 1, "stdout": "a", "stderr": "b\n"}, "non-zero return code.", "a\nb"),
        ({"msg": "MODULE FAILURE", "module_stdout": "x", "module_stderr": ""}, "MODULE FAILURE.", "x"),
        ({"msg": "two\n  lines"}, "two lines.", ""),
        ({"reason": "could not parse"}, "could not parse.", ""),
        ({"exception": "Traceback"}, "Traceback.", ""),
        ({}, f"{NO_REASON}.", ""),
        ({"msg": ["a", "b"]}, "['a', 'b'].", ""),
        # A loop: the item that failed tells why.
        (
            {
                "msg": "One or more items failed",
                "results": [{"msg": "fine"}, {"failed": True, "msg": "no!", "stdout": 1}],
            },
            "no!",
            "1",
        ),
        ({"msg": "All items completed", "results": None}, "All items completed.", ""),
    ],
)
def test_what_a_failed_result_tells(result: dict[str, Any], what: str, output: str) -> None:
    failure = Failure.of(result)
    assert (failure.what, failure.output) == (what, output)
    assert Failure.of(result, "Smoke test").what == f"Smoke test: {what}"
    assert (failure.lost, failure.lock_lost, failure.other_owner) == (False, False, False)


def test_what_kind_of_failure_it_was() -> None:
    assert Failure.of({"msg": "x", "unreachable": True}).lost
    assert Failure.of({"msg": "x", "lost": True}).lost
    assert Failure.of({"msg": "x", "lock_lost": True}).lock_lost
    assert Failure.of({"msg": "x", "other_owner": True}).other_owner
    assert Failure.of({"results": [{"failed": True, "msg": "x", "lost": True}]}).lost
    assert Failure.of({"results": [{"msg": "fine"}, {"msg": "x", "unreachable": True}]}).lost


FIRST = [{"name": "Check", "action": "assert"}, {"name": "Install", "action": "ansible.builtin.command"}]
UNDEFINED = {
    "failed": True,
    "changed": False,
    "msg": "Task failed: Finalization of task args for 'x' failed: 'y' is undefined",
}
UNDEFINED_OLD = {
    "failed": True,
    "msg": "The task includes an option with an undefined variable. The error was: 'y' is undefined",
}


@pytest.mark.parametrize(
    ("result", "name", "action", "surely"),
    [
        (UNDEFINED, "Install", "ansible.builtin.command", True),
        (UNDEFINED_OLD, "Install", "ansible.builtin.command", True),
        # As the role hands it on.
        ({**UNDEFINED, "timedout": False}, "Install", "ansible.builtin.command", True),
        ({"failed": True, "msg": "Timed out.", "timedout": False}, "Install", "ansible.builtin.command", False),
        # Whatever it says, it runs on the controller.
        ({"failed": True, "msg": "no", "assertion": "x"}, "Check", "assert", True),
        # A task that comes later, or one of the same name of another module.
        (UNDEFINED, "Restart", "ansible.builtin.service", False),
        (UNDEFINED, "Install", "ansible.builtin.shell", False),
        # It was sent: the module answered, or the time was up, or one item of a loop had gone before.
        ({**UNDEFINED, "rc": 1, "stderr": "y is undefined"}, "Install", "ansible.builtin.command", False),
        ({**UNDEFINED, "invocation": {}}, "Install", "ansible.builtin.command", False),
        ({"failed": True, "msg": "Timed out after 2 second(s)."}, "Install", "ansible.builtin.command", False),
        ({**UNDEFINED, "results": []}, "Install", "ansible.builtin.command", False),
        ({**UNDEFINED, "unreachable": True}, "Install", "ansible.builtin.command", False),
        ({}, "", "", False),
    ],
)
def test_a_deployment_that_never_began(result: dict[str, Any], name: str, action: str, surely: bool) -> None:
    assert never_began(result, name, action, FIRST) is surely
