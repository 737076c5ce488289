"""What a plan refuses, and what it warns of."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import (
    HostState,
)
from tests.unit.plugins.module_utils._rollout.test_plan import OTHERS, a_host, planned, refused


def test_a_host_that_can_never_pass_is_named_and_not_counted_on() -> None:
    hosts = [a_host(1), a_host(2, serving=0, blocked="disk is critical (97% full)")]
    plan = planned(hosts, min_healthy=0)
    assert plan.warnings == [
        "web2 cannot become healthy as long as its node's own check fails: disk is critical (97% full)."
    ]
    assert "1 of its 2 instances is healthy, and 1 must stay so" in refused(hosts, min_healthy=1)


def test_hosts_without_a_rollback_are_named() -> None:
    hosts = [a_host(number, version=None, version_source=None) for number in (1, 2)]
    assert planned(hosts).warnings == [
        "No rollback possible on 2 hosts: web1, web2 (no version recorded): set rollout_previous_version."
    ]
    assert planned(hosts, rollback="none").warnings == []


@pytest.mark.parametrize(
    ("hosts", "options", "sentence"),
    [
        ([], {}, "There is no host to roll web over"),
        ([a_host(1), a_host(2, node="node1")], {}, "same node in Consul (2 hosts: web1, web2)"),
        ([a_host(1), a_host(2, datacenter="dc2")], {}, "several Consul datacenters (dc1, dc2)"),
        ([a_host(1), a_host(2, registered=0, serving=0)], {}, "web is not registered on 1 host: web2"),
        ([a_host(1), a_host(2, unreachable="timed out")], {}, "Unreachable: 1 host: web2 (timed out); nothing was"),
        (
            [a_host(1, serving=0, maintenance=OTHERS), a_host(2, serving=0, maintenance=OTHERS)],
            {},
            "Every host is in maintenance set by someone else (2 hosts: web1 (",
        ),
        ([a_host(1, unreachable="timed out")], {"unreachable": "skip"}, "No host is left to work on"),
        (
            [a_host(1, target=None), a_host(2, target=None, note="2.0.0 failed")],
            {},
            "There is no version of web to go back to on 2 hosts: web1, web2 (2.0.0 failed); nothing was changed.",
        ),
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
    ours = a_host(3, serving=0, maintenance=OTHERS, warning=warns.warning)
    assert planned([a_host(1), a_host(2), ours], min_healthy=1).batches == [["web1"], ["web2"]]
    # On the version, but not healthy.
    assert "A check warns on 1 host: web2" in refused([a_host(1), a_host(2, version="2.0.0", warning=warns.warning)])


def test_what_warns_goes_back_all_the_same() -> None:
    """It may be what the version is taken back for."""
    warns = a_host(2, warning=("node2: memory is warning (81 percent)",))
    assert planned([a_host(1), warns], direction="rollback").batches == [["web1"], ["web2"]]


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
