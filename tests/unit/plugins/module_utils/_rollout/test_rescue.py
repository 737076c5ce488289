"""What becomes of a host whose deployment failed."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.rescue import (
    CLEARED,
    KEPT,
    LOST,
    RESTORE,
    ROLL_BACK,
    STOPPED,
    UNTOLD,
    Failure,
    failure_of,
    judge,
    judge_undrained,
)

pytestmark = pytest.mark.oldest

FAILED = Failure("Deploy: it exited with 3.")
HOST_LOST = Failure("The host cannot be reached.", lost=True)
LOCK_LOST = Failure("The lock is gone.", lock_lost=True)
DEPLOYING = {"attempt": "deploy", "rollback": True, "rollback_to": "1", "to_version": "2"}
ROLLING_BACK = {**DEPLOYING, "attempt": "rollback", "earlier": "It was broken."}


@pytest.mark.parametrize(
    ("failure", "started", "how", "verdict", "says"),
    [
        # The deployment never started: clear maintenance, nothing else.
        (FAILED, False, DEPLOYING, CLEARED, "Nothing was deployed."),
        (FAILED, False, {**DEPLOYING, "rollback": False}, CLEARED, "Nothing was deployed."),
        (FAILED, False, {**DEPLOYING, "rollback_to": ""}, CLEARED, "Nothing was deployed."),
        # It started: the same steps with the previous version.
        (FAILED, True, DEPLOYING, ROLL_BACK, "it exited with 3."),
        # There is none, it is the same, or none is wanted: a broken instance never gets traffic.
        (FAILED, True, {**DEPLOYING, "rollback_to": ""}, KEPT, "No previous version is known"),
        (FAILED, True, {**DEPLOYING, "rollback_to": "2"}, KEPT, "The previous version is the same"),
        (FAILED, True, {**DEPLOYING, "rollback_to": "", "from_version": "2"}, KEPT, "The previous version is the same"),
        (FAILED, True, {**DEPLOYING, "rollback": False}, KEPT, "rollout_rollback: none"),
        # It may be out of a load balancer that Consul does not drive: back there first.
        (FAILED, False, {**DEPLOYING, "drained": True}, RESTORE, "Nothing was deployed."),
        (HOST_LOST, False, {**DEPLOYING, "drained": True}, LOST, "left as it is"),
        # What runs is fine, and another version would not help.
        (FAILED, True, {**DEPLOYING, "not_restored": True}, KEPT, "2 runs and is healthy, but it was not restored."),
        (FAILED, True, {**ROLLING_BACK, "not_restored": True}, KEPT, "It was broken. Its previous version runs again"),
        (LOCK_LOST, True, {**DEPLOYING, "not_restored": True}, STOPPED, "The host is left as it is."),
        # The rollback failed too.
        (FAILED, True, ROLLING_BACK, KEPT, "It was broken. The rollback failed too: Deploy: it exited with 3."),
        (FAILED, False, ROLLING_BACK, KEPT, "It stays in maintenance."),
        # Out of reach: left as it is, whenever.
        (HOST_LOST, False, DEPLOYING, LOST, "left as it is"),
        (HOST_LOST, True, DEPLOYING, LOST, "left as it is"),
        (HOST_LOST, True, ROLLING_BACK, LOST, "The rollback failed too"),
        # The lock is lost: no further step of ours.
        (LOCK_LOST, False, DEPLOYING, STOPPED, "The host is left as it is."),
        (LOCK_LOST, True, DEPLOYING, STOPPED, "The host is left as it is."),
        (LOCK_LOST, True, ROLLING_BACK, STOPPED, "The host is left as it is."),
    ],
)
def test_the_verdict(failure: Failure, started: bool, how: dict[str, Any], verdict: str, says: str) -> None:
    found, why = judge(failure, started=started, **how)
    assert found == verdict
    assert failure.what in why
    assert says in why


@pytest.mark.parametrize(
    ("failure", "verdict"), [(None, CLEARED), (FAILED, KEPT), (LOCK_LOST, STOPPED)], ids=["restored", "not", "lock"]
)
def test_the_verdict_once_the_drain_is_undone(failure: Failure | None, verdict: str) -> None:
    found, why = judge_undrained(failure, "It broke. Nothing was deployed.")
    assert found == verdict
    assert why.startswith("It broke. Nothing was deployed.")
    assert failure is None or failure.what in why


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
        ({}, f"{UNTOLD}.", ""),
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
    failure = failure_of(result)
    assert (failure.what, failure.output) == (what, output)
    assert failure_of(result, "Smoke test").what == f"Smoke test: {what}"
    assert (failure.lost, failure.lock_lost, failure.foreign) == (False, False, False)


def test_what_kind_of_failure_it_was() -> None:
    assert failure_of({"msg": "x", "unreachable": True}).lost
    assert failure_of({"msg": "x", "lost": True}).lost
    assert failure_of({"msg": "x", "lock_lost": True}).lock_lost
    assert failure_of({"msg": "x", "foreign": True}).foreign
    assert failure_of({"results": [{"failed": True, "msg": "x", "lost": True}]}).lost
    assert failure_of({"results": [{"msg": "fine"}, {"msg": "x", "unreachable": True}]}).lost
