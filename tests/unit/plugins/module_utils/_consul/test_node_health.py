"""What gets no traffic, and what is on a node, as checks alone tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul import client as _client
from ansible_collections.hitless.consul.plugins.module_utils._consul import health as _health
from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    Wanted,
    parse_instances,
    wait_for_health,
    with_tags,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.node_health import (
    OnNode,
    failing_nodes,
    out_of_rotation,
    tell_whose_they_are,
    with_checks,
)

pytestmark = pytest.mark.oldest

Data = dict[str, Any]
STATUSES = ("passing", "passing", "passing", "warning", "critical")


def check(node: str, check_id: str, status: str, service_id: str = "", tags: Sequence[str] = ()) -> Data:
    name = "web" if service_id else ""
    about = {"Node": node, "CheckID": check_id, "Status": status, "ServiceID": service_id, "ServiceName": name}
    return {**about, "ServiceTags": list(tags)}


def entry(node: str, service_id: str, checks: Sequence[Data], tags: Sequence[str] = ()) -> Data:
    service = {"ID": service_id, "Service": "web", "Tags": list(tags), "Port": 80}
    return {"Node": {"Node": node, "Address": "10.0.0.1"}, "Service": service, "Checks": list(checks)}


@st.composite
def services(draw: st.DrawFn) -> list[Data]:
    """All instances, some on one node, with checks or without."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        node = f"web{number}"
        serf = check(node, "serfHealth", draw(st.sampled_from(STATUSES)))
        for which in range(draw(st.integers(0, 3))):
            tags = draw(st.sampled_from([(), ("blue",), ("blue", "x")]))
            own = [
                check(node, f"{name}-{which}", draw(st.sampled_from(STATUSES)), f"web-{which}", tags)
                for name in draw(st.sampled_from([(), ("a",), ("a", "b")]))
            ]
            found.append(entry(node, f"web-{which}", [serf, *own], tags))
    return found


def critical_of(entries: Sequence[Data]) -> list[Data]:
    """What Consul answers with, and a node that has no instance."""
    there = {(one["Node"], one["CheckID"]): one for each in entries for one in each["Checks"]}
    return [one for one in [*there.values(), check("db", "serfHealth", "critical")] if one["Status"] == "critical"]


@given(services(), st.sampled_from([(), ("blue",)]))
def test_critical_checks_tell_as_much_as_all_instances(entries: list[Data], tags: Sequence[str]) -> None:
    instances = with_tags(parse_instances(entries), tags)
    there = Counter(one.node for one in instances)
    critical = critical_of(entries)
    told = out_of_rotation(critical, tags, {node: there[node] for node in failing_nodes(critical)})
    out = [one for one in instances if not one.in_rotation]
    assert Counter(one.node for one in told) == Counter(one.node for one in out)
    assert not any(one.in_rotation for one in told)
    for one in out:
        # What is wrong there is told as well.
        ids = {bad.id for bad in one.failing(accept_warning=True)}
        assert ids <= {bad.id for other in told if other.node == one.node for bad in other.failing(accept_warning=True)}
    assert tell_whose_they_are(entries, tags)


def test_a_node_that_fails_takes_as_many_as_are_known_there() -> None:
    critical = [check("web1", "serfHealth", "critical"), check("web1", "a", "critical", "web-2")]
    assert failing_nodes(critical) == {"web1"}
    assert [one.service_id for one in out_of_rotation(critical, (), {"web1": 3})] == ["web-2", "", ""]
    assert [one.service_id for one in out_of_rotation(critical, (), {"web1": 1})] == ["web-2"]
    assert [one.service_id for one in out_of_rotation(critical[:1], (), {})] == []


@pytest.mark.parametrize("status", ["passing", "critical"])
def test_a_check_that_has_not_the_tags_of_its_instance_is_noticed(status: str) -> None:
    stale = entry("web1", "web", [check("web1", "a", status, "web", ["green"])], ["blue"])
    assert tell_whose_they_are([stale], ())
    assert not tell_whose_they_are([stale], ["blue"])
    assert not tell_whose_they_are([stale], ["green"])
    assert tell_whose_they_are([stale], ["red"])
    renamed = entry("web1", "web", [{**check("web1", "a", status, "web"), "ServiceName": "old"}])
    assert not tell_whose_they_are([renamed], ())


# -- on a node ----------------------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing sleeps here")


class Cluster(Client):
    """A node whose instances change at known seconds: a blocking read of its checks returns when these change.

    :param events: seconds, and the instances from then on.
    """

    def __init__(self, *events: tuple[float, list[Data]]) -> None:
        super().__init__(Connection("http://127.0.0.1:1"))
        self.clock = Clock()
        self.events = events
        self.asked: list[str] = []

    def get(self, path: str, params: Any = (), *, wait: float = 0, index: int = 0) -> Answer:
        kind = path.split("/")[3]
        self.asked.append(kind)
        assert len(self.asked) < 50, "it polls"
        began = self._shown(kind)
        later = [at for at, _ in self.events if 1000 + at > self.clock.now]
        until = self.clock.now + wait
        while index and index >= self._index() and self._shown(kind) == began and self.clock.now < until:
            self.clock.now = min([until, *(1000 + at for at in later[:1])])
            later = later[1:]
        return Answer(self._shown(kind), self._index(), 200)

    def _index(self) -> int:
        return sum(1000 + at <= self.clock.now for at, _ in self.events)

    def _shown(self, kind: str) -> Any:
        entries = self.events[self._index() - 1][1]
        if kind == "service":
            return entries
        return [one for each in entries for one in each["Checks"]]


OWN = check("web1", "a", "passing", "web")
BAD = check("web1", "a", "critical", "web")
GOOD = [entry("web1", "web", [OWN])]


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "time", Clock)


def follow(monkeypatch: pytest.MonkeyPatch, known: list[Data], *events: tuple[float, list[Data]]) -> Cluster:
    """Wait until the service passes on the node -> what was asked meanwhile."""
    cluster = Cluster((0, known), *events)
    monkeypatch.setattr(_client, "time", cluster.clock)
    monkeypatch.setattr(_health, "time", cluster.clock)
    on_node = OnNode(cluster, "web", "web1", known)
    reached = wait_for_health(on_node, Wanted("web", node="web1"), 60, first=Answer(known, 1, 200))
    assert reached.answer
    assert reached.answer.data == events[-1][1]
    assert cluster.clock.now - 1000 - events[-1][0] < 1.5
    return cluster


def test_the_checks_of_the_node_tell_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = follow(monkeypatch, [entry("web1", "web", [BAD])], (7, GOOD))
    assert set(found.asked) == {"node"}


def test_what_has_no_check_is_followed_by_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    serf = [check("web1", "serfHealth", "critical")]
    bad, good = [entry("web1", "web", serf)], [entry("web1", "web", [check("web1", "serfHealth", "passing")])]
    assert set(follow(monkeypatch, bad, (7, good)).asked) == {"service"}


def test_one_that_comes_beside_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    second = entry("web1", "web-2", [check("web1", "b", "critical", "web-2")])
    third = entry("web1", "web-2", [check("web1", "b", "passing", "web-2")])
    found = follow(monkeypatch, [entry("web1", "web", [BAD])], (3, [*GOOD, second]), (7, [*GOOD, third]))
    assert found.asked.count("service") == 1


@pytest.mark.parametrize("back", [GOOD, [entry("web1", "web", [])]], ids=["with its check", "without a check"])
def test_one_that_registers_itself_again_is_read(monkeypatch: pytest.MonkeyPatch, back: list[Data]) -> None:
    """It is gone for a while: no check tells when one without any is back."""
    found = follow(monkeypatch, [entry("web1", "web", [BAD])], (3, []), (7, back))
    assert 0 < found.asked.count("service") < 10


def test_the_checks_of_an_instance_are_its_own_and_its_nodes() -> None:
    serf, other = check("web1", "serfHealth", "passing"), check("web1", "b", "critical", "web-2")
    (found,) = with_checks(GOOD, [serf, other, BAD])
    assert found["Checks"] == [serf, BAD]
    assert GOOD[0]["Checks"] == [OWN]
