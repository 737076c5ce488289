"""What goes back, to which version and in which order: by example, and by properties over random histories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import is_changed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import STATES
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.undo import Undo, failed_in, undo
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import NodeVersion
from tests.unit.plugins.module_utils._rollout.deployments import (
    Ended,
    all_of,
    deployment,
    history,
    node_of,
    recorded,
)

W, X, Y = "1.4.1", "1.4.2", "2.0.0"
HOSTS = ("web1", "web2", "web3", "web4", "web5")


def targets(found: Undo) -> dict[str, str]:
    return {one.host: one.target for one in found.back}


def test_half_a_rollout_goes_back_where_it_came_from_the_newest_changed_first() -> None:
    """Two versions were there before, and two are there afterwards: three hosts never got the new one."""
    ends: dict[str, Ended] = {
        "web1": ("ok", X, Y),
        "web2": ("ok", W, Y),
        "web3": ("rolled_back", X, Y),
        "web4": ("untouched", X, Y),
        "web5": ("pending", X, Y),
    }
    half = deployment("2", Y, ends, state="failed")
    now = recorded("2", {"web1": Y, "web2": Y, "web3": X, "web4": X, "web5": X})
    found = undo(history(half), half, now)
    assert targets(found) == {"web2": W, "web1": X}
    assert [one.host for one in found.back] == ["web2", "web1"]
    assert (found.stays, found.stuck, found.hosts) == ({}, {}, {node_of("web1"): "web1", node_of("web2"): "web2"})


def test_what_is_out_of_rotation_on_the_bad_version_goes_first() -> None:
    ends: dict[str, Ended] = {
        "web1": ("failed", X, Y),
        "web2": ("lost", X, Y),
        "web3": ("ok", X, Y),
        "web4": ("ok", X, Y),
    }
    bad = deployment("2", Y, ends, state="failed")
    now = {
        **recorded("2", {"web1": X}, "failed"),
        **recorded("2", {"web2": None}, "deploying"),
        **recorded("2", {"web3": Y, "web4": Y}),
    }
    found = undo(history(bad), bad, now)
    assert [(one.host, one.in_rotation) for one in found.back] == [
        ("web2", False),
        ("web1", False),
        ("web4", True),
        ("web3", True),
    ]
    assert set(targets(found).values()) == {X}


def test_a_host_that_was_only_drained_returns_to_rotation() -> None:
    """Its version is what it was; but the deployment that was cut off left it in maintenance."""
    cut = deployment("2", Y, {"web1": ("lost", X, Y), "web2": ("lost", X, Y)}, state="interrupted")
    now = recorded("2", {"web1": X, "web2": X}, "draining")
    found = undo(history(cut), cut, now, out={node_of("web1")})
    assert targets(found) == {"web1": X}
    assert not found.back[0].in_rotation


def test_what_was_put_right_meanwhile_stays_as_it_is() -> None:
    """A recovery, or a rollback that has come so far."""
    bad = deployment("2", Y, all_of(HOSTS[:2], ("failed", X, Y)), state="failed")
    assert not undo(history(bad), bad, recorded("3", {"web1": X, "web2": None})).back
    assert not undo(history(bad), bad, recorded("3", {"web1": X, "web2": None})).stays


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (recorded("3", {"web1": "3.0.0"}), "3 has changed it again since, to 3.0.0"),
        (recorded("3", {"web1": Y}, "deploying"), "3 has begun to change it since"),
        (recorded("2", {"web1": "3.0.0"}), "3.0.0 was recorded there since"),
        ({node_of("web1"): NodeVersion(node_of("web1"))}, "no version was recorded there since"),
        # Rolled back, or only drained: it runs what it ran before that.
        (recorded("3", {"web1": Y}, "rolled_back"), ""),
        (recorded("3", {"web1": Y}, "draining"), ""),
    ],
)
def test_a_host_that_was_changed_again_is_not_taken_along(now: dict[str, NodeVersion], why: str) -> None:
    good = deployment("2", Y, {"web1": ("ok", X, Y)})
    found = undo(history(good), good, now)
    assert found.stays == ({node_of("web1"): why} if why else {})
    assert targets(found) == ({} if why else {"web1": X})


def test_a_host_whose_restart_failed_since_goes_back_all_the_same() -> None:
    """It may be the version that does not start again; a restart says that the recorded one is still there."""
    good = deployment("2", Y, {"web1": ("ok", X, Y)})
    restarted = deployment("3", None, {"web1": ("failed", Y, Y)}, direction="restart", state="failed")
    status = {"deployment": "3", "state": "failed", "unsure": False}
    now = {node_of("web1"): NodeVersion(node_of("web1"), version=Y, status=status)}
    found = undo(history(good, restarted), good, now, out={node_of("web1")})
    assert (targets(found), found.stays) == ({"web1": X}, {})


def test_what_a_restart_found_is_not_what_a_host_had_before() -> None:
    first = deployment("1", X, {"web1": ("ok", "0.9.0", X)})
    broken = deployment("2", X, {"web1": ("failed", X, X)}, state="failed")
    restarted = deployment("3", None, {"web1": ("ok", X, X)}, direction="restart")
    bad = deployment("4", Y, {"web1": ("ok", X, Y)})
    found = undo(history(first, broken, restarted, bad), bad, recorded("4", {"web1": Y}))
    assert targets(found) == {"web1": "0.9.0"}, "what failed is no target, and the restart in between has no version"


def test_what_a_resumed_deployment_had_changed_goes_back_too() -> None:
    """The first start was cut off at web2, the second at web3, the third found both in place."""
    first = deployment(
        "2", Y, {"web1": ("ok", W, Y), "web2": ("lost", X, Y), "web3": ("pending", X, Y)}, state="interrupted"
    )
    second = deployment(
        "3",
        Y,
        {"web1": ("current", Y, None), "web2": ("ok", X, Y), "web3": ("lost", X, Y)},
        state="interrupted",
        resumes="2",
    )
    third = deployment(
        "4", Y, {"web1": ("current", Y, None), "web2": ("current", Y, None), "web3": ("ok", X, Y)}, resumes="3"
    )
    now = {**recorded("2", {"web1": Y}), **recorded("3", {"web2": Y}), **recorded("4", {"web3": Y})}
    assert targets(undo(history(first, second, third), third, now)) == {"web3": X, "web2": X, "web1": W}
    # Without the first one's record nothing is known of what it did.
    assert targets(undo(history(second, third), third, now)) == {"web3": X, "web2": X}
    # The first alone: what it gave is what still runs.
    assert targets(undo(history(first, second, third), first, now)) == {"web2": X, "web1": W}


def test_the_same_version_once_more_hides_no_change() -> None:
    first = deployment("2", Y, {"web1": ("ok", X, Y), "web2": ("pending", X, Y)}, state="interrupted")
    again = deployment("3", Y, {"web1": ("ok", Y, Y), "web2": ("ok", X, Y)}, resumes="2")
    now = recorded("3", {"web1": Y, "web2": Y})
    assert targets(undo(history(first, again), again, now)) == {"web2": X, "web1": X}
    alone = deployment("3", Y, {"web1": ("ok", Y, Y), "web2": ("ok", Y, Y)})
    assert targets(undo(history(alone), alone, now)) == {}


def test_a_rollback_that_was_cut_off_is_finished() -> None:
    """What it has left broken is its own, and not somebody else's later change."""
    bad = deployment("2", Y, all_of(HOSTS[:3], ("ok", X, Y)))
    ends: dict[str, Ended] = {"web3": ("ok", Y, X), "web2": ("lost", Y, X), "web1": ("pending", Y, X)}
    back = deployment("3", None, ends, direction="rollback", state="interrupted", undoes="2")
    now = {
        **recorded("3", {"web3": X}),
        **recorded("3", {"web2": Y}, "deploying"),
        **recorded("2", {"web1": Y}),
    }
    assert targets(undo(history(bad, back), bad, now)) == {"web2": X, "web1": X}


def test_what_it_had_before_is_not_known() -> None:
    first = deployment("2", Y, {"web1": ("ok", None, Y), "web2": ("ok", X, Y)})
    now = recorded("2", {"web1": Y, "web2": Y})
    found = undo(history(first), first, now)
    assert targets(found) == {"web2": X}
    assert found.stuck == {node_of("web1"): "which version it had before is not recorded"}
    assert targets(undo(history(first), first, now, previous_version=W)) == {"web2": X, "web1": W}


def test_nodes_that_are_not_asked_about_are_left_out() -> None:
    good = deployment("2", Y, all_of(HOSTS, ("ok", X, Y)))
    found = undo(history(good), good, recorded("2", {"web1": Y}))
    assert targets(found) == {"web1": X}
    assert len(found.hosts) == 5


# --- versions that failed ----------------------------------------------------------------------------------------


def failures() -> list[tuple[str, list[Deployment], str, str]]:
    """Why, deployments, host, and which of them says that X failed there."""
    good = deployment("2", X, all_of(HOSTS, ("ok", W, X)))
    stopped = deployment("2", X, {"web1": ("ok", W, X), "web2": ("rolled_back", W, X)}, state="failed")
    within = replace(stopped, record=replace(stopped.record, failure_budget=1))
    lost = deployment("2", X, {"web1": ("ok", W, X), "web2": ("lost", W, X)}, state="interrupted")
    away = deployment("3", None, {"web1": ("ok", X, W)}, direction="rollback", undoes="2")
    pressed = deployment("3", None, {"web1": ("rolled_back", X, W)}, direction="rollback", undoes="2")
    to_one = deployment("3", W, {"web1": ("ok", X, W)}, direction="rollback")
    mended = deployment("4", X, {"web1": ("ok", W, X), "web2": ("current", X, None)})
    cut = deployment("4", X, {"web1": ("lost", W, X)}, state="interrupted")
    again = deployment("3", None, {"web1": ("ok", X, X)}, direction="rollback", undoes="2")
    later = deployment("4", X, {"web1": ("ok", W, X), "web2": ("failed", W, X)}, state="failed", failure_budget=1)
    return [
        ("it was successful", [good], "web1", ""),
        ("it was never deployed", [], "web1", ""),
        ("it spent more than its budget", [stopped], "web1", "2"),
        ("within its budget: where it went well", [within], "web1", ""),
        ("within its budget: where it did not", [within], "web2", "2"),
        ("a machine was lost, which is not the version's fault", [lost], "web1", ""),
        ("it was undone", [good, away], "web5", "3"),
        ("it was rolled back from by a version", [good, to_one], "web5", "3"),
        ("a rollback that took nothing away", [good, pressed], "web1", ""),
        ("a rollback that put it there again", [good, again], "web1", ""),
        ("it worked since", [good, away, mended], "web1", ""),
        ("it worked there since, within its budget", [stopped, later], "web1", ""),
        ("a later start that says nothing", [good, away, cut], "web1", "3"),
    ]


@pytest.mark.parametrize(
    ("why", "deployments", "host", "told"), failures(), ids=lambda one: one if isinstance(one, str) else ""
)
def test_which_version_failed(why: str, deployments: list[Deployment], host: str, told: str) -> None:
    assert failed_in(history(*deployments), X, node_of(host)) == told, why


def test_a_version_that_failed_is_no_target_but_what_was_there_before_is() -> None:
    """1.4.2 stopped half way, and 2.0.0 was rolled over that: back to 1.4.1 everywhere."""
    stopped = deployment(
        "2", X, {"web1": ("ok", W, X), "web2": ("rolled_back", W, X), "web3": ("pending", W, X)}, state="failed"
    )
    newest = deployment("3", Y, {"web1": ("ok", X, Y), "web2": ("ok", W, Y), "web3": ("ok", W, Y)})
    now = recorded("3", dict.fromkeys(HOSTS[:3], Y))
    found = undo(history(stopped, newest), newest, now)
    assert targets(found) == {"web3": W, "web2": W, "web1": W}
    assert {one.host: one.note for one in found.back if one.note} == {"web1": "1.4.2, which it had before, failed in 2"}


def test_where_nothing_older_is_recorded_there_is_no_target() -> None:
    stopped = deployment("2", X, {"web1": ("ok", None, X), "web2": ("rolled_back", W, X)}, state="failed")
    newest = deployment("3", Y, {"web1": ("ok", X, Y), "web2": ("ok", W, Y)})
    now = recorded("3", dict.fromkeys(HOSTS[:2], Y))
    found = undo(history(stopped, newest), newest, now)
    assert targets(found) == {"web2": W}
    assert found.stuck == {
        node_of("web1"): "1.4.2, which it had before, failed in 2, and none that it had before that is recorded"
    }


def test_of_several_that_failed_the_first_is_named() -> None:
    """Each was stopped by its second host; the first host went on from one to the next."""
    oldest = deployment("1", W, {"web1": ("ok", "1.0.0", W), "web2": ("rolled_back", "1.0.0", W)}, state="failed")
    middle = deployment("2", X, {"web1": ("ok", W, X), "web2": ("rolled_back", "1.0.0", X)}, state="failed")
    newest = deployment("3", Y, {"web1": ("ok", X, Y), "web2": ("ok", "1.0.0", Y)})
    found = undo(history(oldest, middle, newest), newest, recorded("3", dict.fromkeys(HOSTS[:2], Y)))
    assert targets(found) == {"web2": "1.0.0", "web1": "1.0.0"}
    assert found.back[1].note == "1.4.2, which it had before, failed in 2"


def test_the_version_that_is_undone_is_no_target_unless_nothing_else_was_there() -> None:
    """One host had it before, and was lost when it was to get it again."""
    first = deployment("1", Y, {"web1": ("ok", X, Y)})
    second = deployment("2", Y, {"web1": ("lost", Y, Y), "web2": ("ok", X, Y)}, state="interrupted")
    now = {**recorded("2", {"web1": Y}, "deploying"), **recorded("2", {"web2": Y})}
    assert targets(undo(history(first, second), second, now)) == {"web1": X, "web2": X}
    again = deployment("2", Y, {"web1": ("lost", Y, Y), "web2": ("ok", Y, Y)}, state="interrupted")
    assert targets(undo(history(first, again), again, now)) == {"web1": Y}


def test_a_record_that_resumes_itself_does_not_go_round_for_ever() -> None:
    one = deployment("2", Y, {"web1": ("ok", X, Y)}, resumes="2")
    assert targets(undo(history(one), one, recorded("2", {"web1": Y}))) == {"web1": X}


# --- by properties -----------------------------------------------------------------------------------------------

OF_A_TURN = ("ok", "ok", "ok", "rolled_back", "failed", "lost", "untouched", "pending")


@dataclass
class World:
    """Hosts, and what has been done to them."""

    versions: dict[str, str] = field(default_factory=lambda: dict.fromkeys(HOSTS, "v0"))
    now: dict[str, NodeVersion] = field(default_factory=dict)
    done: list[Deployment] = field(default_factory=list)
    before: list[dict[str, str]] = field(default_factory=list)
    """What was recorded as each of them began."""

    def deploy(self, version: str, turns: Mapping[str, str]) -> None:
        identity = f"{len(self.done) + 1:02}"
        resumes = history(*self.done).resumed_by(version)
        self.before.append(dict(self.versions))
        ends: dict[str, Ended] = {}
        for host, turn in turns.items():
            there = self.now.get(node_of(host), NodeVersion(node_of(host)))
            before = self.versions[host]
            if before == version and there.version_is_trusted:
                ends[host] = ("current", before, None)
                continue
            ends[host] = (turn, before, version)
            if turn != "pending":
                self._record(host, version if turn == "ok" else before, identity, turn)
        good = all(STATES[outcome].is_good for outcome, _from, _to in ends.values())
        state = "successful" if good else "failed"
        self.done.append(deployment(identity, version, ends, state=state, resumes=resumes))

    def roll_back(self, found: Undo, stops_after: int) -> None:
        identity = f"{len(self.done) + 1:02}"
        self.before.append(dict(self.versions))
        ends: dict[str, Ended] = {}
        for number, one in enumerate(found.back):
            outcome = "ok" if number < stops_after else "pending"
            ends[one.host] = (outcome, one.given, one.target)
            if outcome == "ok":
                self._record(one.host, one.target, identity, "ok")
        about = {"direction": "rollback", "undoes": found.deployment, "state": "failed"}
        self.done.append(deployment(identity, None, ends, **about))

    def _record(self, host: str, version: str, identity: str, state: str) -> None:
        self.versions[host] = version
        self.now |= recorded(identity, {host: version}, state)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World()
    for _number in range(draw(st.integers(1, 6))):
        version = f"v{draw(st.integers(1, 3))}"
        world.deploy(version, {host: draw(st.sampled_from(OF_A_TURN)) for host in HOSTS})
    return world


@given(worlds(), st.integers(0, 5))
def test_undoing_the_last_deployment_keeps_its_promises(world: World, stops_after: int) -> None:
    kept = history(*world.done)
    last = kept.last()
    if last is None:
        return
    one = kept.with_hosts(last.record.id)
    assert one is not None
    found = undo(kept, one, world.now)
    chain = [one]
    while chain[-1].record.resumes:
        resumed = kept.with_hosts(chain[-1].record.resumes)
        assert resumed is not None
        assert resumed.record.version == one.record.version
        chain.append(resumed)
    changed_by = {host for each in chain for host, ended in each.outcomes.items() if is_changed(ended.outcome)}

    # Only what it changed, or those that it resumed; nothing came after it, so that none stays for that.
    assert set(targets(found)) | {found.hosts[node] for node in found.stuck} <= changed_by
    assert not found.stays
    begun = world.before[int(chain[-1].record.id) - 1]
    for back in found.back:
        assert not failed_in(kept, back.target, back.node)
        assert not (back.in_rotation and back.target == back.given)
        if not back.note:
            assert back.target == begun[back.host]
    for node in found.stuck:
        assert failed_in(kept, begun[found.hosts[node]], node)

    # What serves nobody goes first.
    in_rotation = [back.in_rotation for back in found.back]
    assert in_rotation == sorted(in_rotation)

    # What was cut off goes on where it was, and then there is nothing left.
    rest = targets(found)
    world.roll_back(found, stops_after)
    kept = history(*world.done)
    again = undo(kept, one, world.now)
    assert targets(again) == dict(list(rest.items())[stops_after:])
    world.roll_back(again, len(HOSTS))
    assert not undo(history(*world.done), one, world.now).back


@given(worlds(), st.data())
def test_undoing_an_earlier_one_touches_nothing_that_was_changed_since(world: World, data: st.DataObject) -> None:
    kept = history(*world.done)
    one = data.draw(st.sampled_from(world.done))
    found = undo(kept, one, world.now)
    later = [each for each in world.done if each.record.id > one.record.id]
    for back in found.back:
        since = [each.outcomes[back.host].outcome for each in later if back.host in each.outcomes]
        given_now = world.versions[back.host] == one.record.version
        assert given_now or not any(is_changed(outcome) for outcome in since), "somebody else's change would be lost"
