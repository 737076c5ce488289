"""A rollback by hand: which deployment it undoes, what it says, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Held, Holder
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import HostState
from ansible_collections.hitless.consul.plugins.module_utils._rollout.rollback import Rollback, find_rollback
from tests.unit.plugins.module_utils._rollout.deployments import (
    Ended,
    all_of,
    deployment,
    history,
    node_of,
    recorded,
)
from tests.unit.plugins.module_utils._rollout.test_plan import OTHERS, OURS

OLD, GOOD, BAD = "1.0.0", "1.4.2", "2.0.0"
HOSTS = ("web1", "web2", "web3")

FIRST = deployment("1", GOOD, all_of(HOSTS, ("ok", OLD, GOOD)))
PUT_BACK: dict[str, Ended] = {"web1": ("rolled_back", GOOD, BAD), "web2": ("pending", GOOD, BAD)}
HALF = deployment("2", BAD, {"web1": ("ok", GOOD, BAD), "web2": ("failed", GOOD, BAD), "web3": ("pending", GOOD, BAD)})


def state(host: str, version: str | None, **about: Any) -> HostState:
    return HostState(host, node_of(host), version=version, **about)


def found(kept: History, versions: dict[str, str | None], by: str = "1", **options: Any) -> Rollback:
    """What is found where these versions are recorded, the last time by that deployment."""
    states = [state(host, version) for host, version in versions.items()]
    about = {"version": None, "rollback_deployment": None, "previous_version": None, **options}
    return find_rollback(kept, "web", about, states, recorded(by, versions))


def refused(kept: History, **options: Any) -> str:
    with pytest.raises(HitlessError) as caught:
        found(kept, dict.fromkeys(HOSTS, GOOD), **options)
    return str(caught.value)


def test_the_last_deployment_is_undone_and_each_host_says_what_becomes_of_it() -> None:
    back = found(history(FIRST, HALF), {"web1": BAD, "web2": BAD, "web3": GOOD}, "2")
    assert (back.undoes, back.nothing, back.notes) == ("2", "", [])
    assert [(one.host, one.version, one.target, one.returns) for one in back.hosts[:2]] == [
        ("web2", BAD, GOOD, False),
        ("web1", BAD, GOOD, True),
    ]
    assert back.hosts[2].decided == ("current", "not changed by 2")


def test_a_deployment_that_has_put_everything_back_leaves_nothing_to_undo() -> None:
    """And the good version before it stays: one who presses the button after a failure has lost nothing."""
    failed = deployment("2", BAD, PUT_BACK, state="failed")
    back = found(history(FIRST, failed), dict.fromkeys(HOSTS, GOOD))
    assert back.undoes == ""
    assert back.nothing == (
        "web: nothing to undo: all 3 hosts run 1.4.2, which is what they had before the last deployment (2); for an "
        "older version say rollout_version, to undo the one before it rollback_deployment=1"
    )
    assert {one.decided for one in back.hosts} == {("current", "not changed by 2")}


def test_one_that_is_undone_already_leaves_nothing_to_undo() -> None:
    undone = deployment("3", None, all_of(HOSTS, ("ok", BAD, GOOD)), direction="rollback", undoes="2")
    bad = deployment("2", BAD, all_of(HOSTS, ("ok", GOOD, BAD)))
    back = found(history(FIRST, bad, undone), dict.fromkeys(HOSTS, GOOD), "3")
    assert back.nothing.startswith(
        "web: nothing to undo: all 3 hosts run 1.4.2, which is what they had before the last"
    )
    assert {one.decided for one in back.hosts} == {("current", "runs what it had before 2")}
    # Half of the way: it goes on.
    half = deployment("3", None, {"web3": ("ok", BAD, GOOD)}, direction="rollback", state="interrupted", undoes="2")
    back = found(history(FIRST, bad, half), {"web1": BAD, "web2": BAD, "web3": GOOD}, "2")
    assert [one.host for one in back.hosts if one.target] == ["web2", "web1"]


def test_a_rollback_to_one_version_is_not_undone() -> None:
    to_one = deployment("2", OLD, all_of(HOSTS, ("ok", GOOD, OLD)), direction="rollback")
    back = found(history(FIRST, to_one), {"web1": OLD, "web2": OLD, "web3": None}, "2")
    assert back.nothing == (
        "web: nothing to undo: 2 run 1.0.0, 1 run an unknown version, and the last deployment (2) was a rollback "
        "itself; for another version say rollout_version"
    )
    assert {one.decided for one in back.hosts} == {("current", "nothing to undo")}


def test_one_host_alone() -> None:
    failed = deployment("2", BAD, {"web1": ("rolled_back", GOOD, BAD)}, state="failed")
    assert found(history(failed), {"web1": GOOD}).nothing == (
        "web: nothing to undo: web1 runs 1.4.2, which is what it had before the last deployment (2); for an older "
        "version say rollout_version"
    )


def test_hosts_that_were_changed_again_are_named_and_left_alone() -> None:
    later = deployment("2", BAD, {"web1": ("ok", GOOD, BAD)})
    versions: dict[str, str | None] = {"web1": BAD, "web2": GOOD, "web3": GOOD}
    back = found(history(FIRST, later), versions, "2", rollback_deployment="1")
    assert back.undoes == "1"
    assert {one.host: one.target for one in back.hosts if one.target} == {"web2": OLD, "web3": OLD}
    assert back.hosts[-1].decided == ("changed_since", "2 has changed it again since, to 2.0.0")
    none = found(history(FIRST, later), {"web1": BAD}, "2", rollback_deployment="1")
    assert none.nothing.startswith("web: nothing to undo: web1 runs 2.0.0, none runs what 1 gave it any more")


def test_hosts_that_it_does_not_cover_are_named() -> None:
    back = found(history(FIRST), {"web1": GOOD})
    assert back.notes == [
        "1 also changed 2 hosts: web3, web2; this rollback does not cover them, and they stay as they are."
    ]


def test_what_a_deployment_keeps_in_maintenance_goes_back_to_rotation() -> None:
    """It was only drained when its run was cut off; what somebody else keeps there is not ours."""
    cut = deployment("2", BAD, all_of(HOSTS[:2], ("lost", GOOD, BAD)), state="interrupted")
    states = [state("web1", GOOD, maintenance=OURS), state("web2", GOOD, maintenance=OTHERS)]
    about = {"version": None, "rollback_deployment": None, "previous_version": None}
    versions = recorded("2", {"web1": GOOD, "web2": GOOD}, "draining")
    back = find_rollback(history(FIRST, cut), "web", about, states, versions)
    assert [one.host for one in back.hosts if one.target] == ["web1"]


def test_no_version_to_go_back_to() -> None:
    first = deployment("1", GOOD, {"web1": ("ok", None, GOOD)})
    back = found(history(first), {"web1": GOOD})
    assert (back.undoes, back.hosts[0].target) == ("1", None)
    assert back.hosts[0].note == "which version it had before is not recorded"
    assert found(history(first), {"web1": GOOD}, previous_version=OLD).hosts[0].target == OLD


def test_all_hosts_to_one_version_with_a_warning_where_that_failed() -> None:
    failed = deployment("2", BAD, PUT_BACK, state="failed")
    back = found(history(FIRST, failed), dict.fromkeys(HOSTS, GOOD), version=BAD)
    assert (back.undoes, back.nothing, [one.decided for one in back.hosts]) == ("", "", [None] * 3)
    assert back.notes == [
        "2.0.0 failed or was rolled back from in 2; it is deployed all the same, since rollout_version names it."
    ]
    assert found(history(FIRST, failed), dict.fromkeys(HOSTS, GOOD), version=OLD).notes == []


def test_what_cannot_be_undone_is_refused_with_those_that_can() -> None:
    alive = replace(
        deployment("4", BAD, {"web1": ("ok", GOOD, BAD)}, state="running", summary={}),
        lock=Held(Holder("4", "somebody", "", "", ""), "session", alive=True),
    )
    undone = deployment("3", None, all_of(HOSTS, ("ok", BAD, GOOD)), direction="rollback", undoes="2")
    kept = history(FIRST, HALF, undone, alive)
    known = "nothing was changed. It could be one of 2, 1."
    assert refused(kept, rollback_deployment="9") == (
        "Consul knows no deployment 9 of web (a run with --check leaves none, and old ones are deleted, see "
        f"rollout_keep_deployments); {known}"
    )
    assert refused(kept, rollback_deployment="4") == (
        f"The deployment 4 of web is still running, and cannot be undone before its end; {known}"
    )
    assert refused(kept, rollback_deployment="3") == (
        f"3 is itself a rollback: to go forward again, roll out the version; {known}"
    )


def test_without_a_record_there_is_nothing_to_go_by() -> None:
    assert refused(history()) == (
        "No deployment of web is recorded (or the token may not read its records), so that there is none to undo; "
        "nothing was changed. Say which version all hosts are to go to: rollout_version."
    )
    unreadable = deployment("2", None, {}, state="failed", description="Its plan in Consul cannot be read.")
    assert "What the deployment 2 of web has changed cannot be read" in refused(history(FIRST, unreadable))
