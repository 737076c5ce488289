"""The hosts as Consul shows them, and what it shows beside them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import parse_instances
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
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import NodeVersion
from tests.unit.plugins.module_utils._rollout.test_plan import OURS

# --- what Consul said -> hosts -------------------------------------------------------------------------------


def states_of(fleet: Fleet, hosts: list[WantedHost], **options: Any) -> list[HostState]:
    return host_states(fleet, hosts, **{"accept_warning": False, **options})


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
    (state,) = states_of(fleet, [WantedHost("web1", "node1", "2.0.0")])
    return state


def test_a_healthy_host() -> None:
    state = one_state(check("http"), version="1.0.0", previous="0.9.0")
    assert state == HostState("web1", "node1", 1, 1, "1.0.0", "recorded", "2.0.0", datacenter="dc1")


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
    assert (state.version, state.version_source) == ("1.0", "meta")
    fleet = Fleet(
        "web",
        parse_instances([entry("node1", meta={"version": text}), entry("node2", meta={"version": "1.0"})]),
        {"node2": NodeVersion("node2", version="2.0", previous=text)},
    )
    assert [note.partition(" cannot be deployed")[0] for note in unusable_versions(fleet, ["node1", "node2"])] == [
        f"The meta {text!r} of 1 node: node1",
        f"The previous version {text!r} of 1 node: node2",
    ]


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
    (accepted,) = states_of(fleet, [WantedHost("web1", "node1", "2.0.0")], accept_warning=True)
    assert (accepted.serving, accepted.is_healthy, accepted.warning) == (1, True, ())
    assert fleet.serving == 1


def test_a_dead_agent_makes_a_host_unreachable() -> None:
    data = entry("node1", check("http"))
    data["Checks"][0] = check("serfHealth", "critical", "", Output="Agent not live or unreachable")  # type: ignore[index]
    (state,) = states_of(Fleet("web", parse_instances([data])), [WantedHost("web1", "node1", "2.0.0")])
    assert state.unreachable is not None
    assert "Agent not live or unreachable" in state.unreachable


def test_a_host_without_the_service() -> None:
    (state,) = states_of(Fleet("web", []), [WantedHost("web1", "node1", "2.0.0")])
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
    (state,) = states_of(fleet, [WantedHost("web1", "node1", "2.0.0")])
    assert state.maintenance == Maintenance(False, "oncall queue")
    assert state.serving == 1


@pytest.mark.parametrize(
    ("checks", "verifiable"),
    [([], False), ([check("hb", Type="ttl")], False), ([check("app", service_id="")], True), ([check("http")], True)],
)
def test_what_can_verify_a_host(checks: list[dict[str, object]], verifiable: bool) -> None:
    fleet = Fleet("web", parse_instances([entry("node1", *checks)]))
    for asked, expected in (({}, verifiable), ({"health_url": True}, True), ({"smoke_test": True}, True)):
        (state,) = states_of(fleet, [WantedHost("web1", "node1", "2.0.0", **asked)])
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
