"""What a deployment takes as verification that a host works, and what it refuses for lack of one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab, wait_until
from lab.testkit.ansible_run import flat
from tests.rollout.drive import Drive, Load

NEW = "2.0.0"


@pytest.fixture
def warned(fleet: Lab) -> Iterator[Lab]:
    """The lab with a check of each node that warns, of its memory; Consul's DNS serves all of them."""
    check = {"ID": "memory", "Name": "memory", "TTL": "1h", "Status": "warning", "Notes": "81 percent"}
    for vm in fleet.vms:
        vm.agent.call("PUT", "agent/check/register", check)
    wait_until("the catalog shows it", lambda: not fleet.services(passing=True))
    yield fleet
    for vm in fleet.vms:
        vm.agent.call("PUT", "agent/check/deregister/memory")


def test_what_warns_gets_traffic_and_is_protected(drive: Drive, warned: Lab) -> None:
    refused = drive.run(NEW, batch_size=4)
    assert refused.rc != 0, refused.output
    assert "A check warns on 5 hosts" in flat(refused.output)
    assert "rollout_accept_warning: true" in flat(refused.output)
    assert drive.deployed() == []
    with Load(warned) as load:
        result = drive.run(NEW, batch_size=4, accept_warning=True)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [NEW] * 5
    # Three of five must stay, whatever the batch size.
    assert drive.record()["plan"]["windows"] == [2]


def test_nothing_to_verify_by_wants_an_explicit_yes(drive: Drive) -> None:
    """Also what its hosts do not cover is named, in the plan and at the end."""
    vm = drive.lab.vms[0]
    vm.agent.call("PUT", "agent/check/deregister/service:web")
    wait_until("it has no check", lambda: any(len(one["Checks"]) == 1 for one in drive.lab.services()))
    blind = {"health_url": "", "health_match": "", "hosts": vm.name}
    refused = drive.run(NEW, **blind)
    assert refused.rc != 0, refused.output
    assert "rollout_unverified: true" in flat(refused.output)
    assert drive.deployed() == []
    result = drive.run(NEW, **blind, unverified=True)
    assert result.rc == 0, result.output
    output = flat(result.output)
    assert f"Nothing verifies that a new version works on 1 host: {vm.name}" in output
    assert "web also runs on 4 nodes: web2, web3, web4, web5" in output
    assert "Not covered: web on web2, web3, web4 and 1 more." in drive.record()["description"]
