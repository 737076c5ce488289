"""Which steps of a host are news to one who follows a deployment. Pure."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Held, Holder
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment
from ansible_collections.hitless.consul.plugins.module_utils._views import follow
from ansible_collections.hitless.consul.plugins.module_utils._views.follow import Step, news

TURN = ("draining", "deploying", "failed", "deploying", "returning", "rolled_back")


def at(second: int) -> str:
    return f"2026-11-23T14:{22 + second // 60:02}:{second % 60:02}Z"


def steps(*each: tuple[str, int]) -> list[Step]:
    return [(state, at(second)) for state, second in each]


@pytest.mark.parametrize(
    ("told", "seen", "expected"),
    [
        ([], [("draining", 1)], ["draining"]),
        # The same step, written once more.
        ([("deploying", 5)], [("deploying", 7)], []),
        ([("draining", 1)], [("deploying", 5)], ["deploying"]),
        # The outcome tells the steps by its own times.
        ([("draining", 2), ("deploying", 5)], [("draining", 1), ("deploying", 6), ("ok", 9)], ["ok"]),
        # One was over before anybody looked: it would come too late.
        ([("deploying", 5)], [("draining", 1), ("deploying", 5), ("ok", 9)], ["ok"]),
        # A second one of the same name.
        ([("deploying", 5), ("failed", 9)], [("deploying", 10)], ["deploying"]),
        (
            [("deploying", 5), ("failed", 9), ("deploying", 30)],
            [("draining", 1), ("deploying", 5), ("failed", 12), ("deploying", 31), ("rolled_back", 40)],
            ["rolled_back"],
        ),
        # A step of the status that the outcome does not have.
        ([("deploying", 5), ("verifying", 8)], [("draining", 1), ("deploying", 5), ("returning", 9)], ["returning"]),
    ],
)
def test_what_is_news(told: list[tuple[str, int]], seen: list[tuple[str, int]], expected: list[str]) -> None:
    assert [state for state, _at in news(steps(*told), steps(*seen))] == expected


@given(st.lists(st.integers(2, 30), min_size=6, max_size=6), st.lists(st.integers(0, 5)), st.data())
def test_a_turn_is_told_in_order_and_once(gaps: list[int], looks: list[int], data: st.DataObject) -> None:
    """Whenever somebody looks, and however the clock readings of status and outcome differ by a second."""
    begins = [sum(gaps[: number + 1]) for number in range(6)]
    noise = st.integers(-1, 1)
    told: list[Step] = []
    for place in [*sorted(looks), 5]:
        told += news(told, steps((TURN[place], begins[place] + data.draw(noise))))
    outcome = steps(*((state, begin + data.draw(noise)) for state, begin in zip(TURN, begins, strict=True)))
    told += news(told, outcome)
    told += news(told, outcome)
    states = [state for state, _at in told]
    rest = iter(TURN)
    assert all(state in rest for state in states), states
    assert states[-1] == "rolled_back"


class Keys:
    """A fleet's keys as a follower reads them, look by look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: tuple[dict[str, list[Step]], dict[str, Outcome], bool]):
        self._looks = list(looks)
        self._steps: dict[str, list[Step]] = {}
        monkeypatch.setattr(follow, "require", self.look)
        monkeypatch.setattr(follow, "refresh", self.look)
        monkeypatch.setattr(follow, "read_steps", self.read_steps)
        monkeypatch.setattr(follow, "time", SimpleNamespace(sleep=lambda _seconds: None))

    def look(self, *_asked: object) -> Deployment:
        self._steps, outcomes, alive = self._looks.pop(0)
        held = Held(Holder("d1", "anna@ci", ""), "s", alive)
        hosts = {name: PlannedHost(name, name, batch=1) for name in ("web1", "web2")}
        return Deployment(Record("d1", "web", "2", hosts=hosts), held, outcomes, batch=1)

    def read_steps(self, *_asked: object) -> dict[str, list[dict[str, str]]]:
        return {host: [{"state": state, "at": when} for state, when in its] for host, its in self._steps.items()}


def test_each_look_tells_what_is_new_of_all_hosts_in_the_order_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"web2": Outcome("web2", "web2", "failed", finished=at(9), error="It exited\x1b[31m with 1.")}
    ends = steps(("draining", 2), ("deploying", 5), ("failed", 9))
    Keys(
        monkeypatch,
        ({"web1": steps(("draining", 3)), "web2": steps(("draining", 2))}, {}, True),
        ({"web1": steps(("draining", 3)), "web2": steps(("draining", 2))}, {}, True),
        ({"web1": steps(("deploying", 7)), "web2": ends}, failed, False),
    )
    shown: list[str] = []
    follow.Follower(None, None, "d1", shown.append, with_log=False).follow()  # type: ignore[arg-type]
    assert [look.splitlines() for look in shown] == [
        ["14:22:02 web2: draining", "14:22:03 web1: draining"],
        [
            "14:22:05 web2: deploying",
            "14:22:07 web1: deploying",
            "14:22:09 web2: failed",
            "14:22:09 web2: It exited?[31m with 1.",
        ],
    ]
