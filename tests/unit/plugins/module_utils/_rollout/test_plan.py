"""The plan: batches by properties, refusals and sentences by example."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import parse_instances
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import (
    Fleet,
    WantedHost,
    assumed_intervals,
    deregistrations,
    host_states,
    maintenance_of,
    unusable_versions,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import (
    HostState,
    Maintenance,
    Plan,
    PlanSettings,
    make_plan,
    minimum_of,
    parse_batch_size,
    parse_min_healthy,
    sizes_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import NodeVersion

OURS = Maintenance(True, "deploy:20261123T142233Z-2.0.0-7f3a web")
FOREIGN = Maintenance(False, "ansible disk replacement")


def a_host(number: int, **changes: object) -> HostState:
    values = {
        "node": f"node{number}",
        "version": "1.0.0",
        "version_source": "recorded",
        "target": "2.0.0",
        "datacenter": "dc1",
    }
    return HostState(f"web{number}", **{**values, **changes})  # type: ignore[arg-type]


def planned(hosts: list[HostState], elsewhere: int = 0, **changes: object) -> Plan:
    registered = sum(one.registered for one in hosts) + elsewhere
    serving = sum(one.serving for one in hosts) + elsewhere
    return make_plan(hosts, PlanSettings("web", registered, serving, **changes))  # type: ignore[arg-type]


def refused(hosts: list[HostState], elsewhere: int = 0, **changes: object) -> str:
    with pytest.raises(HitlessError) as caught:
        planned(hosts, elsewhere, **changes)
    return str(caught.value)


SIZE = st.one_of(st.integers(1, 8), st.integers(1, 100).map(lambda number: f"{number}%"))
MINIMUM = st.one_of(st.integers(0, 12), st.integers(0, 100).map(lambda number: f"{number}%"))


@st.composite
def fleets(draw: st.DrawFn) -> list[HostState]:
    """Hosts of one to three instances each, healthy or not, on some version, in some maintenance."""
    hosts = []
    for number in range(draw(st.integers(1, 14))):
        registered = draw(st.integers(1, 3))
        maintenance = draw(st.sampled_from([None, None, None, OURS, FOREIGN]))
        healthy = 0 if maintenance else draw(st.integers(0, registered))
        version = draw(st.sampled_from([None, "1.0.0", "2.0.0"]))
        reason = draw(st.sampled_from([None, None, None, "no route to host"]))
        blocked = None if healthy else draw(st.sampled_from([None, "disk is critical"]))
        hosts.append(
            a_host(
                number,
                registered=registered,
                serving=healthy,
                maintenance=maintenance,
                version=version,
                unreachable=reason,
                blocked=blocked,
            )
        )
    return hosts


@given(fleets(), st.one_of(SIZE, st.lists(SIZE, min_size=1, max_size=4)), MINIMUM, st.integers(0, 5), st.booleans())
def test_every_plan_keeps_its_promises(
    hosts: list[HostState], batch_size: object, min_healthy: object, elsewhere: int, skip_current: bool
) -> None:
    options = {"batch_size": batch_size, "min_healthy": min_healthy, "skip_current": skip_current}
    try:
        plan = planned(hosts, elsewhere, unreachable="skip", **options)
    except HitlessError as error:
        assert "nothing was changed" in str(error)  # noqa: PT017 - it may refuse, and says so
        return
    by_name = {one.host: one for one in hosts}
    turns = [name for batch in plan.batches for name in batch]

    # Each host to change has exactly one turn, and no other host has any.
    assert sorted(turns) == sorted(name for name, one in plan.hosts.items() if one.state == "to_change")
    assert list(plan.hosts) == [one.host for one in hosts]
    assert all(batch for batch in plan.batches)
    for number, batch in enumerate(plan.batches, 1):
        assert {plan.hosts[name].batch for name in batch} == {number}

    # Broken ones first, and each kind in the order given.
    broken = [name for name in turns if not by_name[name].serving]
    assert turns == broken + [name for name in turns if by_name[name].serving]
    for kind in (broken, turns[len(broken) :]):
        assert kind == sorted(kind, key=list(by_name).index)

    # No batch is larger than asked for, and none takes the service below the minimum.
    sizes = sizes_of(batch_size, len(turns))  # type: ignore[arg-type]
    healthy = plan.healthy
    for number, batch in enumerate(plan.batches):
        assert len(batch) <= sizes[min(number, len(sizes) - 1)]
        taken = sum(by_name[name].serving for name in batch)
        assert not taken or healthy - taken >= plan.minimum
        healthy += sum(by_name[name].registered for name in batch if not by_name[name].blocked) - taken

    # What the play is given is the same batches, each behind its coordinator.
    result = plan.as_dict()
    assert [name for name in result["order"] if name not in result["coordinators"]] == turns
    assert sum(result["serial"]) == (len(result["order"]) or 1)
    start = 0
    for name, size, batch in zip(result["coordinators"], result["serial"], plan.batches, strict=False):
        assert result["order"][start : start + size] == [name, *batch]
        start += size


@given(fleets(), SIZE, MINIMUM)
def test_a_plan_depends_on_nothing_but_its_input(hosts: list[HostState], batch_size: object, minimum: object) -> None:
    def outcome() -> object:
        try:
            return planned(hosts, batch_size=batch_size, min_healthy=minimum, unreachable="skip").as_dict()
        except HitlessError as error:
            return str(error)

    assert outcome() == outcome()


@given(st.integers(0, 100), st.integers(0, 1000))
def test_a_minimum_in_percent_is_rounded_up(percent: int, registered: int) -> None:
    minimum = minimum_of(f"{percent}%", registered)
    assert (minimum - 1) * 100 < percent * registered <= minimum * 100


@pytest.mark.parametrize(
    ("given_size", "hosts", "sizes"),
    [(2, 5, [2]), ("25%", 10, [2]), ("25%", 3, [1]), ([1, "10%", "50%"], 20, [1, 2, 10])],
)
def test_batch_sizes_in_percent_are_rounded_down(given_size: object, hosts: int, sizes: list[int]) -> None:
    assert sizes_of(given_size, hosts) == sizes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (2, 2),
        ("2", 2),
        ("25 %", "25%"),
        ([1, "10%"], [1, "10%"]),
        ("1, 10%, 50%", [1, "10%", "50%"]),
        ('[1, "10%"]', [1, "10%"]),
    ],
)
def test_batch_sizes_are_read_from_text_too(value: object, parsed: object) -> None:
    assert parse_batch_size(value, "rollout_batch_size") == parsed


@pytest.mark.parametrize("value", [0, "0", -1, 1.5, True, "half", "0%", "120%", [], [1, 0], None])
def test_a_batch_size_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(HitlessError, match="rollout_batch_size"):
        parse_batch_size(value, "rollout_batch_size")


@pytest.mark.parametrize("value", [-1, "-1", False, "most", "101%"])
def test_a_minimum_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(HitlessError, match="rollout_min_healthy"):
        parse_min_healthy(value, "rollout_min_healthy")


def test_the_plan_of_five_hosts() -> None:
    plan = planned([a_host(number) for number in range(1, 6)], 1, batch_size=[1, 2])
    assert plan.as_dict() == {
        "description": "web 1.0.0 -> 2.0.0 on 5 hosts in 3 batches of 1, 2, 2; at least 3 of 6 stay healthy",
        "nothing_to_do": False,
        "batches": [["web1"], ["web2", "web3"], ["web4", "web5"]],
        "coordinators": ["web-batch-1-of-3", "web-batch-2-of-3", "web-batch-3-of-3"],
        "order": ["web-batch-1-of-3", "web1", "web-batch-2-of-3", "web2", "web3", "web-batch-3-of-3", "web4", "web5"],
        "serial": [2, 3, 3],
        "hosts": {
            f"web{number}": {
                "node": f"node{number}",
                "state": "to_change",
                "batch": batch,
                "coordinator": f"web-batch-{batch}-of-3",
                "from": "1.0.0",
                "to": "2.0.0",
                "rollback_to": "1.0.0",
                "healthy": True,
                "why": None,
                "unsure": False,
            }
            for number, batch in ((1, 1), (2, 2), (3, 2), (4, 3), (5, 3))
        },
        "uncovered": [],
        "health": {"registered": 6, "healthy": 6, "minimum": 3},
    }
    assert plan.warnings == []


def test_broken_hosts_go_first_and_count_once_repaired() -> None:
    hosts = [a_host(1), a_host(2, serving=0), a_host(3, serving=0, maintenance=OURS), a_host(4)]
    plan = planned(hosts, batch_size=2, min_healthy=3)
    assert plan.batches == [["web2", "web3"], ["web1"], ["web4"]]
    assert "not healthy now: web2, web3" in plan.description


def test_a_host_that_can_never_pass_is_named_and_not_counted_on() -> None:
    hosts = [a_host(1), a_host(2, serving=0, blocked="disk is critical (97% full)")]
    plan = planned(hosts, min_healthy=0)
    assert plan.warnings == [
        "web2 cannot become healthy as long as its node's own check fails: disk is critical (97% full)."
    ]
    assert "1 of its 2 instances is healthy, and 1 must stay so" in refused(hosts, min_healthy=1)


def test_hosts_that_are_left_alone() -> None:
    hosts = [
        a_host(1, version="2.0.0"),
        a_host(2, serving=0, maintenance=FOREIGN),
        a_host(3, unreachable="no route to host"),
        a_host(4),
        a_host(5),
    ]
    plan = planned(hosts, unreachable="skip", min_healthy=0)
    assert {name: one.state for name, one in plan.hosts.items()} == {
        "web1": "current",
        "web2": "foreign",
        "web3": "unreachable",
        "web4": "to_change",
        "web5": "to_change",
    }
    assert plan.description == (
        "web 1.0.0 -> 2.0.0 on 2 hosts in 2 batches of 1; at least 0 of 5 stay healthy; 1 already current; "
        "1 in other maintenance; 1 unreachable"
    )
    assert plan.warnings == [
        "web2 is skipped: in maintenance set by someone else: ansible disk replacement.",
        "web3 is skipped: no route to host.",
    ]


def test_nothing_to_do() -> None:
    plan = planned([a_host(1, version="2.0.0"), a_host(2, version="2.0.0")])
    assert plan.nothing_to_do
    assert plan.description == "web: nothing to do; 2 already current"
    assert plan.as_dict()["order"] == []
    assert plan.as_dict()["serial"] == [1]


def test_a_host_on_the_version_that_is_not_healthy_is_changed() -> None:
    plan = planned([a_host(1), a_host(2, version="2.0.0", serving=0), a_host(3, version="2.0.0")], skip_current=True)
    assert plan.batches == [["web2"], ["web1"]]
    assert plan.hosts["web2"].rollback_to is None
    assert plan.warnings == ["No rollback possible on 1 host: web2: the version is the one that runs there."]


def test_a_host_whose_last_deployment_was_cut_off_is_changed_whatever_is_recorded() -> None:
    plan = planned([a_host(1, version="2.0.0", sure=False), a_host(2, version="2.0.0")])
    assert {name: host.state for name, host in plan.hosts.items()} == {"web1": "to_change", "web2": "current"}


def test_all_hosts_are_changed_where_current_ones_are_not_skipped() -> None:
    plan = planned([a_host(1, version="2.0.0"), a_host(2, version="2.0.0")], skip_current=False)
    assert plan.batches == [["web1"], ["web2"]]


@pytest.mark.parametrize(
    ("host", "given_version", "back"),
    [
        (a_host(1), "0.9.0", "1.0.0"),
        (a_host(1, version_source="meta"), None, "1.0.0"),
        (a_host(1, version_source="meta"), "0.9.0", "0.9.0"),
        (a_host(1, version=None, version_source=None), "0.9.0", "0.9.0"),
        (a_host(1, version=None, version_source=None), None, None),
    ],
)
def test_a_rollback_goes_to_what_is_recorded_else_given_else_told_by_the_service(
    host: HostState, given_version: str | None, back: str | None
) -> None:
    assert planned([host, a_host(2)], previous_version=given_version).hosts["web1"].rollback_to == back


def test_hosts_without_a_rollback_are_named() -> None:
    hosts = [a_host(number, version=None, version_source=None) for number in (1, 2)]
    assert planned(hosts).warnings == [
        "No rollback possible on 2 hosts: web1, web2 (no version recorded): set rollout_previous_version."
    ]
    assert planned(hosts, rollback="none").warnings == []


def test_a_rollback_by_hand_resumes() -> None:
    """A host that was rolled back has no previous version any more, and is on the one that others go back to."""
    back = [
        a_host(1, version="1.0.0", target=None),
        a_host(2, version="2.0.0", target="1.0.0"),
        a_host(3, version="2.0.0", target="1.0.0"),
    ]
    plan = planned(back, direction="rollback")
    assert plan.hosts["web1"].state == "current"
    assert plan.description.startswith("roll back web 2.0.0 -> 1.0.0 on 2 hosts")
    back[0] = a_host(1, version="2.0.0", target=None)
    assert "No previous version of web is recorded for 1 host: web1" in refused(back, direction="rollback")


def test_several_versions_are_told() -> None:
    hosts = [a_host(1), a_host(2, version="1.1.0"), a_host(3, version=None, version_source=None)]
    assert planned(hosts).description.startswith(
        "web on 3 hosts (1 from 1.0.0 to 2.0.0, 1 from 1.1.0 to 2.0.0, 1 from unknown to 2.0.0) in 3 batches of 1;"
    )


def test_one_instance_and_half_of_it() -> None:
    assert refused([a_host(1)]) == (
        "web cannot be rolled over web1: 1 of its 1 instance is healthy, and 1 (50% of 1) must stay so; nothing was "
        "changed. Set rollout_min_healthy: 0 to accept the downtime."
    )
    assert planned([a_host(1)], min_healthy=0).batches == [["web1"]]


def test_too_few_are_healthy_already() -> None:
    hosts = [a_host(1), a_host(2), a_host(3, serving=0, maintenance=FOREIGN)]
    assert refused(hosts, min_healthy="67%") == (
        "web cannot be rolled over web1: 2 of its 3 instances are healthy, and 3 (67% of 3) must stay so; nothing was "
        "changed. Repair the others first, or set rollout_min_healthy: 1 to accept fewer."
    )


@pytest.mark.parametrize(
    ("hosts", "options", "sentence"),
    [
        ([], {}, "There is no host to roll web over"),
        ([a_host(1), a_host(2, node="node1")], {}, "same node in Consul (2 hosts: web1, web2)"),
        ([a_host(1), a_host(2, datacenter="dc2")], {}, "several Consul datacenters (dc1, dc2)"),
        ([a_host(1), a_host(2, registered=0, serving=0)], {}, "web is not registered on 1 host: web2"),
        ([a_host(1), a_host(2, unreachable="timed out")], {}, "Unreachable: 1 host: web2 (timed out); nothing was"),
        (
            [a_host(1, serving=0, maintenance=FOREIGN), a_host(2, serving=0, maintenance=FOREIGN)],
            {},
            "Every host is in maintenance set by someone else (2 hosts: web1 (",
        ),
        ([a_host(1, unreachable="timed out")], {"unreachable": "skip"}, "No host is left to work on"),
        ([a_host(1, target=None), a_host(2, target=None)], {}, "No previous version of web is recorded for 2 hosts"),
    ],
)
def test_refusals(hosts: list[HostState], options: dict[str, object], sentence: str) -> None:
    assert sentence in refused(hosts, **options)


def test_what_warns_is_refused_and_counts_for_the_minimum() -> None:
    warns = a_host(2, warning=("node2: memory is warning (81 percent)",))
    assert refused([a_host(1), warns]) == (
        "A check warns on 1 host: web2 (node2: memory is warning (81 percent)), so that no deployment could be "
        "verified there by its checks; nothing was changed. Repair it, or accept it: rollout_accept_warning: true. "
        "Consul's DNS serves what warns."
    )
    # Only where it would get a turn.
    ours = a_host(3, serving=0, maintenance=FOREIGN, warning=warns.warning)
    assert planned([a_host(1), a_host(2), ours], min_healthy=1).batches == [["web1"], ["web2"]]
    # On the version, but not healthy.
    assert "A check warns on 1 host: web2" in refused([a_host(1), a_host(2, version="2.0.0", warning=warns.warning)])


def test_what_nothing_can_verify_is_refused_unless_that_is_wanted() -> None:
    hosts = [a_host(1), a_host(2, verifiable=False), a_host(3, verifiable=False, version="2.0.0")]
    assert refused(hosts) == (
        "Nothing can tell whether a new version of web works on 1 host: web2: there is no rollout_health_url, and no "
        "check that runs by itself (a TTL may have been reported before the deployment); nothing was changed. Set "
        "rollout_health_url, or give the service a check, or go on without: rollout_unverified: true."
    )
    assert planned(hosts, unverified=True).warnings == [
        "Nothing verifies that a new version works on 1 host: web2: a broken one would stay unnoticed."
    ]


def test_nodes_that_the_rollout_does_not_cover_are_named() -> None:
    plan = planned([a_host(1), a_host(2)], elsewhere=2, uncovered=("node3", "node4"))
    assert plan.as_dict()["uncovered"] == ["node3", "node4"]
    assert plan.description.endswith("; 2 not covered")
    assert plan.warnings == [
        "web also runs on 2 nodes: node3, node4; this rollout does not cover them, and they stay as they are."
    ]
    assert planned([a_host(1), a_host(2)]).warnings == []


def test_a_machine_that_is_gone_may_be_skipped() -> None:
    gone = a_host(3, registered=0, serving=0, unreachable="timed out")
    assert planned([a_host(1), a_host(2), gone], unreachable="skip").batches == [["web1"], ["web2"]]


def test_long_lists_of_hosts_are_cut() -> None:
    hosts = [a_host(number, version=None, version_source=None) for number in range(30)]
    assert "web9 and 20 more" in planned(hosts).warnings[0]


# --- what Consul said -> hosts -------------------------------------------------------------------------------


def check(check_id: str, status: str = "passing", service_id: str = "web", **more: object) -> dict[str, object]:
    return {"CheckID": check_id, "Name": check_id, "Status": status, "ServiceID": service_id, **more}


def entry(node: str, *checks: dict[str, object], meta: dict[str, str] | None = None) -> dict[str, object]:
    return {
        "Node": {"Node": node, "Datacenter": "dc1", "Address": "10.0.0.1"},
        "Service": {"ID": "web", "Service": "web", "Port": 80, "Tags": ["prod"], "Meta": meta or {}},
        "Checks": [check("serfHealth", service_id=""), *checks],
    }


def one_state(*checks: dict[str, object], meta: dict[str, str] | None = None, **recorded: Any) -> HostState:
    fleet = Fleet(
        "web", parse_instances([entry("node1", *checks, meta=meta)]), {"node1": NodeVersion("node1", **recorded)}
    )
    (state,) = host_states(fleet, [WantedHost("web1", "node1", "2.0.0")])
    return state


def test_a_healthy_host() -> None:
    state = one_state(check("http"), version="1.0.0", previous="0.9.0")
    assert state == HostState("web1", "node1", 1, 1, "1.0.0", "recorded", "2.0.0", "0.9.0", datacenter="dc1")


def test_the_recorded_version_beats_the_one_of_the_meta() -> None:
    assert one_state(meta={"version": "0.1"}, version="1.0.0").version_source == "recorded"
    state = one_state(meta={"version": "0.1"})
    assert (state.version, state.version_source) == ("0.1", "meta")
    assert one_state().version is None


BAD = ["release/1.0.0", "1.0.0 (a1b2c3)", "{{ x }}", "é"]


@pytest.mark.parametrize("text", BAD)
def test_a_version_that_cannot_be_deployed_is_unknown_and_told(text: str) -> None:
    state = one_state(meta={"version": text})
    assert (state.version, state.version_source) == (None, None)
    state = one_state(meta={"version": "1.0"}, version=text, previous=text)
    assert (state.version, state.version_source, state.previous) == ("1.0", "meta", None)
    fleet = Fleet(
        "web",
        parse_instances([entry("node1", meta={"version": text}), entry("node2", meta={"version": "1.0"})]),
        {"node2": NodeVersion("node2", version="2.0", previous=text)},
    )
    assert [note.partition(" cannot be deployed")[0] for note in unusable_versions(fleet, ["node1", "node2"])] == [
        f"The meta {text!r} of 1 node: node1",
        f"The previous version {text!r} of 1 node: node2",
    ]
    (state,) = host_states(fleet, [WantedHost("web2", "node2")], previous_version="0.9")
    assert state.target == "0.9"


def test_a_deployment_that_was_cut_off_is_told_by_the_status() -> None:
    assert one_state(version="2.0.0", status={"state": "ok"}).sure
    assert not one_state(version="2.0.0", status={"state": "deploying"}).sure


@pytest.mark.parametrize(
    ("state", "sure"),
    [
        (None, True),
        ("draining", True),
        ("untouched", True),
        ("ok", True),
        ("rolled_back", True),
        ("skipped", True),
        ("deploying", False),
        ("verifying", False),
        ("returning", False),
        ("rolling_back", False),
        ("failed", False),
        ("lost", False),
    ],
)
def test_what_is_recorded_is_trusted_unless_a_deployment_was_cut_off_since(state: str | None, sure: bool) -> None:
    assert NodeVersion("web1", "1.0.0", status={"state": state} if state else None).version_is_trusted is sure


def test_a_failing_check_of_the_node_blocks_it() -> None:
    state = one_state(check("disk", "critical", "", Output="97% full\n"))
    assert (state.serving, state.blocked) == (0, "disk is critical (97% full)")


def test_what_warns_gets_traffic_and_could_not_be_verified() -> None:
    warns = check("memory", "warning", "", Output="81 percent")
    state = one_state(check("http"), warns)
    assert (state.registered, state.serving, state.is_healthy) == (1, 1, False)
    assert state.warning == ("node1: memory is warning (81 percent)",)
    assert one_state(check("http", "warning")).warning == ("node1: http is warning",)
    # One that serves nothing has nothing to lose: its deployment may be the cure.
    assert one_state(check("http", "critical"), warns).warning == ()
    fleet = Fleet("web", parse_instances([entry("node1", warns)]))
    (accepted,) = host_states(fleet, [WantedHost("web1", "node1", "2.0.0")], accept_warning=True)
    assert (accepted.serving, accepted.is_healthy, accepted.warning) == (1, True, ())
    assert fleet.serving == 1


def test_a_dead_agent_makes_a_host_unreachable() -> None:
    data = entry("node1", check("http"))
    data["Checks"][0] = check("serfHealth", "critical", "", Output="Agent not live or unreachable")  # type: ignore[index]
    (state,) = host_states(Fleet("web", parse_instances([data])), [WantedHost("web1", "node1", "2.0.0")])
    assert state.unreachable is not None
    assert "Agent not live or unreachable" in state.unreachable


def test_a_host_without_the_service() -> None:
    (state,) = host_states(Fleet("web", []), [WantedHost("web1", "node1", "2.0.0")])
    assert (state.registered, state.serving) == (0, 0)


@pytest.mark.parametrize(
    ("checks", "found"),
    [
        ([check("http", "critical")], None),
        ([check("_service_maintenance:web", "critical", Notes=OURS.reason)], OURS),
        ([check("_node_maintenance", "critical", "", Notes=OURS.reason)], OURS),
        ([check("_service_maintenance:web", "critical", Notes="deploy:x api")], Maintenance(False, "deploy:x api")),
        ([check("_node_maintenance", "critical", "", Notes="")], Maintenance(False, "")),
        (
            [
                check("_service_maintenance:web", "critical", Notes=OURS.reason),
                check("_node_maintenance", "critical", "", Notes="oncall disk"),
            ],
            Maintenance(False, "oncall disk"),
        ),
    ],
)
def test_whose_maintenance_it_is(checks: list[dict[str, object]], found: Maintenance | None) -> None:
    assert maintenance_of("web", parse_instances([entry("node1", *checks)])) == found


def test_maintenance_of_a_service_that_shares_it_counts() -> None:
    other = entry("node1", check("_service_maintenance:worker", "critical", "worker", Notes="oncall queue"))
    fleet = Fleet("web", parse_instances([entry("node1")]), others=parse_instances([other]))
    (state,) = host_states(fleet, [WantedHost("web1", "node1", "2.0.0")])
    assert state.maintenance == Maintenance(False, "oncall queue")
    assert state.serving == 1


@pytest.mark.parametrize(
    ("checks", "verifiable"),
    [([], False), ([check("hb", Type="ttl")], False), ([check("app", service_id="")], True), ([check("http")], True)],
)
def test_what_can_verify_a_host(checks: list[dict[str, object]], verifiable: bool) -> None:
    fleet = Fleet("web", parse_instances([entry("node1", *checks)]))
    for asked, expected in (({}, verifiable), ({"health_url": True}, True), ({"smoke_test": True}, True)):
        (state,) = host_states(fleet, [WantedHost("web1", "node1", "2.0.0", **asked)])
        assert state.verifiable is expected


def test_where_an_interval_is_assumed_it_is_told() -> None:
    told = check("http", Interval="5s", Timeout="2s", Type="http")
    fleet = Fleet("web", parse_instances([entry("node1", told), entry("node2", told, check("beats", Type="ttl"))]))
    assert assumed_intervals(fleet, ["node1"], 30) == []
    (note,) = assumed_intervals(fleet, ["node1", "node2"], 30)
    assert note.startswith(
        "Consul does not tell how often these checks have a new result: beats (ttl). 30 s are assumed"
    )


def test_a_deregistration_shorter_than_the_deployment_is_told() -> None:
    definition = {"Interval": "1s", "Timeout": "2s", "DeregisterCriticalServiceAfter": "1m30s"}
    fleet = Fleet("web", parse_instances([entry("node1", check("http", Definition=definition)), entry("node2")]))
    (warning,) = deregistrations(fleet, ["node1"], 2110)
    assert warning.startswith("DANGER: Consul deregisters web on node1 once its check http has been critical for 90 s")
    assert deregistrations(fleet, ["node1"], 60) == []
    assert deregistrations(fleet, ["node2"], 2110) == []
