"""Instances as Consul's answers tell them, and the waiting for their health on a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import client as _client
from ansible_collections.hitless.consul.plugins.module_utils._consul import health as _health
from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    Wanted,
    aggregate,
    freshness,
    parse_instances,
    require_registered,
    service_query,
    wait_for_health,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import DeadlineExceeded, HitlessError

pytestmark = pytest.mark.oldest

Data = list[dict[str, Any]]


def check(
    status: str = "passing", check_id: str = "service:web", *, service: str = "web", **more: Any
) -> dict[str, Any]:
    return {"CheckID": check_id, "Name": "web answers", "Status": status, "ServiceID": service, "Notes": "", **more}


def maintenance(reason: str = "by hand", service: str = "web") -> dict[str, Any]:
    return check("critical", f"_service_maintenance:{service}", Notes=reason, Name="Service Maintenance Mode")


NODE_MAINTENANCE = check("critical", "_node_maintenance", service="", Notes="disk")


def entry(
    *checks: dict[str, Any], node: str = "web1", service_id: str = "web", tags: list[str] | None = None
) -> dict[str, Any]:
    serf = {"CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "Notes": "", "ServiceID": ""}
    return {
        "Node": {"Node": node, "Address": "10.0.0.1", "Datacenter": "dc1"},
        "Service": {"ID": service_id, "Service": "web", "Tags": tags, "Address": "", "Port": 80, "Meta": None},
        "Checks": [serf, *(checks or (check(),))],
    }


# -- reading ------------------------------------------------------------------------------------------------------


def test_an_answer_of_1_8_which_tells_no_interval() -> None:
    """As recorded: Definition is empty there, Tags and Meta may be null."""
    (one,) = parse_instances([entry(check(Definition={}, Output="HTTP GET http://x: 200 OK Output: ok"))])
    assert (one.node, one.address, one.service_id, one.tags, one.meta) == ("web1", "10.0.0.1", "web", (), {})
    assert one.checks[1].interval == 0
    assert freshness([one], 30) == 30


def test_an_answer_of_1_20_which_tells_it() -> None:
    told = {"Definition": {}, "Interval": "1m30s", "Timeout": "5s", "Type": "http"}
    (one,) = parse_instances([entry(check(**told), check(check_id="ttl", Interval="10s", Timeout=""))])
    assert freshness([one], 30) == 95  # the other: 10 s and Consul's own timeout of 10 s


def test_the_address_of_the_service_comes_before_that_of_the_node() -> None:
    told = entry()
    told["Service"]["Address"] = "10.9.9.9"
    assert parse_instances([told])[0].address == "10.9.9.9"


def test_nothing_is_no_instance() -> None:
    assert parse_instances(None) == parse_instances([]) == []


@pytest.mark.parametrize(
    ("checks", "status", "healthy"),
    [
        ([check()], "passing", True),
        ([check("warning")], "warning", False),
        ([check(), check("critical", "b")], "critical", False),
        ([check(), maintenance()], "maintenance", False),
        ([check("critical"), maintenance()], "maintenance", False),
        ([check(), NODE_MAINTENANCE], "maintenance", False),
        ([check("critical", "serfHealth", service="")], "critical", False),
        ([check("critical", "serfHealth", service=""), maintenance()], "critical", False),
        ([check("critical", "serfHealth", service=""), NODE_MAINTENANCE], "critical", False),
    ],
)
def test_the_status_of_an_instance(checks: Data, status: str, healthy: bool) -> None:
    (one,) = parse_instances([entry(*checks)])
    assert (one.status, not one.failing(accept_warning=False)) == (status, healthy)
    assert (not one.failing(accept_warning=True)) is (healthy or status == "warning")
    # DNS serves what warns, whatever a deployment accepts.
    assert one.in_rotation is (healthy or status == "warning")


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        ([], "passing"),
        ([("serfHealth", "passing"), ("service:web", "warning")], "warning"),
        ([("a", "warning"), ("b", "critical")], "critical"),
        ([("b", "critical"), ("_service_maintenance:web", "critical")], "maintenance"),
        ([("_node_maintenance", "critical")], "maintenance"),
        ([("serfHealth", "critical"), ("_node_maintenance", "critical")], "critical"),
        ([("serfHealth", "critical"), ("service:web", "passing")], "critical"),
        ([("_node_maintenance_of_mine", "warning")], "warning"),
        ([("a", "unknown")], "critical"),
    ],
)
def test_the_worst_check_decides_and_a_dead_machine_is_critical(checks: list[tuple[str, str]], status: str) -> None:
    assert aggregate(checks) == status


def test_its_own_maintenance_is_told_before_its_nodes() -> None:
    (both,) = parse_instances([entry(NODE_MAINTENANCE, maintenance("ours"))])
    assert both.maintenance is not None
    assert both.maintenance.notes == "ours"
    assert (both.reason(node_wide=False), both.reason(node_wide=True)) == ("ours", "disk")
    (other,) = parse_instances([entry(maintenance("of another instance", "web-2"))])
    assert other.reason(node_wide=False) is None


def test_a_check_is_told_with_its_output_on_one_line() -> None:
    (one,) = parse_instances([entry(check("critical", Output="Get http://x:\n  connection   refused\n" + "y" * 1000))])
    (failing,) = one.failing(accept_warning=False)
    assert failing.told().startswith("web answers is critical (Get http://x: connection refused yyy")
    assert len(failing.told()) < 400


def test_a_service_that_is_not_on_the_node() -> None:
    with pytest.raises(HitlessError, match="No instance of web is registered on the node web1.*consul_node"):
        require_registered([], "web", "web1")


def test_a_query_holds_no_name_that_could_change_it() -> None:
    assert service_query("web", "web1") == (
        "/v1/health/service/web",
        [("filter", 'Service.Service == "web" and Node.Node == "web1"')],
    )
    for service, node in (("web", 'x" or "" == "'), ("web/../../kv", "web1")):
        with pytest.raises(HitlessError, match="cannot be used"):
            service_query(service, node)


def test_without_any_check_freshness_is_what_is_assumed() -> None:
    assert freshness([], 30) == 30
    (bare,) = parse_instances([{**entry(), "Checks": []}])
    assert freshness([bare], 30) == 0


TOLD = {"Interval": "60s", "Timeout": "1s"}


@pytest.mark.parametrize(
    ("checks", "seconds"),
    [
        ([check(**TOLD)], 61),
        # A check of the node covers the application as well.
        ([check(), check(check_id="app", service="", **TOLD)], 61),
        ([check(check_id="app", service="")], 30),
        # The longest counts, of those that Consul tells and those that are assumed.
        ([check(**TOLD), check(check_id="hb", Type="ttl")], 61),
        ([check(Interval="1s", Timeout="1s"), check(check_id="hb", Type="ttl")], 30),
        # Neither tells of the application.
        ([check(Interval="1s", Timeout="1s"), maintenance(), NODE_MAINTENANCE], 2),
    ],
)
def test_how_old_a_passing_result_may_be(checks: Data, seconds: float) -> None:
    assert freshness(parse_instances([entry(*checks)]), 30) == seconds


@pytest.mark.parametrize(
    ("checks", "verifiable"),
    [
        ([check(Type="http")], True),
        ([check()], True),
        ([check(check_id="app", service="", Type="tcp")], True),
        ([check(check_id="hb", Type="ttl")], False),
        ([check(check_id="al", Type="alias"), maintenance(), NODE_MAINTENANCE], False),
        ([check(check_id="hb", Type="ttl"), check(Type="http")], True),
        ([], False),
    ],
)
def test_whether_a_check_finds_out_what_runs_there_now(checks: Data, verifiable: bool) -> None:
    serf = entry()["Checks"][0]
    (one,) = parse_instances([{**entry(), "Checks": [serf, *checks]}])
    assert one.is_verifiable is verifiable


# -- waiting ------------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing sleeps here")


class Story(Client):
    """A Consul whose answer changes at known seconds; a blocking read lasts until then, or for its wait."""

    def __init__(self, clock: Clock, *events: tuple[float, Data]) -> None:
        super().__init__(Connection("http://127.0.0.1:1"))
        self.clock = clock
        self.start = clock.now
        self.events = events
        self.reads = 0

    def get(self, path: str, params: Any = (), *, wait: float = 0, index: int = 0) -> Answer:
        self.reads += 1
        assert self.reads < 50, "it polls"
        if index and index == self._index():
            later = [self.start + at for at, _ in self.events if self.start + at > self.clock.now]
            self.clock.now = min([self.clock.now + wait, *later])
        return Answer(self.events[self._index() - 1][1], self._index(), 200)

    def _index(self) -> int:
        return sum(self.start + at <= self.clock.now for at, _ in self.events)

    @property
    def passed(self) -> float:
        return self.clock.now - self.start


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_client, "time", clock)
    monkeypatch.setattr(_health, "time", clock)
    return clock


GOOD, BAD = [entry()], [entry(check("critical", Output="refused"))]


def test_what_holds_already_needs_one_read(clock: Clock) -> None:
    story = Story(clock, (0, GOOD))
    assert wait_for_health(story, Wanted("web", node="web1"), 60).seconds == 0
    assert story.reads == 1


def test_it_returns_when_it_becomes_so(clock: Clock) -> None:
    story = Story(clock, (0, BAD), (7, GOOD))
    assert wait_for_health(story, Wanted("web", node="web1"), 60).seconds == 7
    assert story.reads == 2


def test_a_break_starts_the_stable_time_anew(clock: Clock) -> None:
    story = Story(clock, (0, GOOD), (4, BAD), (6, GOOD))
    assert wait_for_health(story, Wanted("web", node="web1", stable_for=10), 60).seconds == 16


def test_an_index_that_moves_without_a_change_breaks_nothing(clock: Clock) -> None:
    story = Story(clock, (0, GOOD), (4, GOOD), (6, GOOD))
    assert wait_for_health(story, Wanted("web", node="web1", stable_for=10), 60).seconds == 10


def test_the_stable_time_is_waited_out_beyond_the_deadline(clock: Clock) -> None:
    story = Story(clock, (0, BAD), (59, GOOD))
    assert wait_for_health(story, Wanted("web", node="web1", stable_for=10), 60).seconds == 69


def test_a_break_beyond_the_deadline_is_final(clock: Clock) -> None:
    story = Story(clock, (0, GOOD), (5, BAD), (6, GOOD), (12, BAD), (13, GOOD))
    with pytest.raises(DeadlineExceeded, match="web on web1 was not in rotation within 10 s: web answers is critical"):
        wait_for_health(story, Wanted("web", node="web1", stable_for=10), 10)
    assert story.passed == 12


def test_the_deadline_names_the_failing_checks(clock: Clock) -> None:
    story = Story(clock, (0, BAD))
    with pytest.raises(DeadlineExceeded) as error:
        wait_for_health(story, Wanted("web", node="web1"), 30)
    assert str(error.value) == "web on web1 was not in rotation within 30 s: web answers is critical (refused)."
    assert error.value.details == {
        "failing_checks": [
            {"node": "web1", "check": "service:web", "name": "web answers", "status": "critical", "output": "refused"}
        ]
    }
    assert story.passed == pytest.approx(30, abs=0.1)


def test_what_has_been_spent_of_a_deadline_is_part_of_it(clock: Clock) -> None:
    """Told is the whole, which is what was set."""
    story = Story(clock, (0, BAD))
    with pytest.raises(DeadlineExceeded, match="not in rotation within 30 s: web answers is critical"):
        wait_for_health(story, Wanted("web", node="web1"), 30, spent=20.4)
    assert story.passed == pytest.approx(9.6, abs=0.1)


@pytest.mark.parametrize(
    ("wanted", "data", "holds"),
    [
        (Wanted("web", node="web1"), [], False),
        (Wanted("web", node="web1"), GOOD, True),
        (Wanted("web", node="web1"), [entry(maintenance(), check())], False),
        (Wanted("web", "checks_passing", node="web1"), [entry(maintenance(), check())], True),
        (Wanted("web", "checks_passing", node="web1"), [entry(NODE_MAINTENANCE, check())], True),
        (Wanted("web", "checks_passing", node="web1"), [entry(maintenance(), check("critical"))], False),
        (Wanted("web", "checks_passing", node="web1"), [], False),
        (Wanted("web", "checks_passing", node="web1", in_maintenance=True), GOOD, False),
        (Wanted("web", "checks_passing", node="web1", in_maintenance=True), [entry(maintenance(), check())], True),
        (Wanted("web", "out_of_rotation", node="web1"), [], True),
        (Wanted("web", "out_of_rotation", node="web1"), GOOD, False),
        (Wanted("web", "out_of_rotation", node="web1"), [entry(maintenance(), check())], True),
        (Wanted("web", "out_of_rotation", node="web1"), [entry(check("warning"))], False),
        (Wanted("web", node="web1"), [entry(check("warning"))], False),
        (Wanted("web", node="web1", accept_warning=True), [entry(check("warning"))], True),
        # All instances on the node, or the one that is meant.
        (Wanted("web", node="web1"), [*GOOD, entry(check("critical"), service_id="web-2")], False),
        (Wanted("web", node="web1", service_id="web"), [*GOOD, entry(check("critical"), service_id="web-2")], True),
        (Wanted("web", node="web1", tags=("prod",)), [entry(tags=["prod", "x"]), entry(check("critical"))], True),
        (Wanted("web", node="web1", tags=("prod",)), GOOD, False),
        # Anywhere: at least so many.
        (Wanted("web", count=2), [*GOOD, entry(node="web2"), *BAD], True),
        (Wanted("web", count=3), [*GOOD, entry(node="web2"), *BAD], False),
        (Wanted("web", count=0), [], True),
    ],
)
def test_what_holds(clock: Clock, wanted: Wanted, data: Data, holds: bool) -> None:
    assert wanted.holds(wanted.select(data)) is holds
    if not holds:
        # Whatever is missing, the error says something about it.
        with pytest.raises(DeadlineExceeded) as error:
            wait_for_health(Story(clock, (0, data)), wanted, 1)
        assert not str(error.value).endswith((": .", ": still in rotation: ."))


def test_the_error_says_how_many_there_are_where_none_fails(clock: Clock) -> None:
    with pytest.raises(DeadlineExceeded, match="web was not in rotation on 3 instances within 1 s: 1 is registered"):
        wait_for_health(Story(clock, (0, GOOD)), Wanted("web", count=3), 1)


def test_what_is_put_right_while_waiting_sees_each_answer(clock: Clock) -> None:
    seen: list[Any] = []
    wait_for_health(Story(clock, (0, BAD), (3, GOOD)), Wanted("web", node="web1"), 60, also=seen.append)
    assert seen == [BAD, GOOD]
