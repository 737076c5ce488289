"""Two kinds of instances under one name: with ``rollout_tags`` only those with all of the tags count, and change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lab import Lab, wait_until
from lab.testkit.ansible_run import flat
from tests.fleet import CONSUL
from tests.rollout.drive import Drive, RotationWatch

OLD, NEW = "1.0.0", "2.0.0"
PROD = ("web1", "web2", "web3")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=5, consul=CONSUL, ssh=False, tags=["prod", "eu"]) as running:
        yield running


@pytest.fixture
def two_kinds(fleet: Lab) -> Iterator[Lab]:
    """web1 to web3 are prod, web4 and web5 staging; web1 has an instance of staging, too, and none of those works."""
    staging: dict[str, Any] = {"Name": "web", "Tags": ["staging", "eu"], "Port": 9090}
    broken = {"CheckID": "never", "Name": "never", "TTL": "1h", "Status": "critical"}
    for vm in fleet.vms[3:]:
        vm.agent.call("PUT", "agent/service/register", {**staging, "ID": "web", "Check": broken})
    web1 = fleet.vms[0].agent
    web1.call("PUT", "agent/service/register", {**staging, "ID": "web-staging", "Check": broken})
    wait_until("the catalog shows it", lambda: len(fleet.services()) == 6 and len(fleet.services(passing=True)) == 3)
    yield fleet
    web1.call("PUT", "agent/service/deregister/web-staging")


@pytest.mark.slow
def test_only_instances_with_the_tags_change_and_count(drive: Drive, two_kinds: Lab) -> None:
    # Of three, two must stay; of all six four would have to, and three work.
    options = {"hosts": ",".join(PROD), "min_healthy": "60%", "batch_size": 3}
    refused = drive.run(NEW, **options)
    assert refused.rc != 0
    assert "3 of its 6 instances are healthy, and 4 (60% of 6) must stay so" in flat(refused.output)
    refused = drive.run(NEW, **{**options, "hosts": "all"}, tags="prod,eu")
    assert refused.rc != 0
    assert "web is not registered on 2 hosts: web4, web5;" in flat(refused.output)
    assert "or it lacks the tags of rollout_tags" in flat(refused.output)
    assert drive.deployed() == []
    with RotationWatch(two_kinds) as watch:
        result = drive.run(NEW, **options, tags="prod,eu")
    assert result.rc == 0, result.output
    assert drive.running() == [NEW] * 3 + [OLD] * 2
    assert drive.outcomes() == dict.fromkeys(PROD, "ok")
    assert watch.instances == {(name, "web") for name in PROD}, "that of staging on web1 is none of the rollout's"
    assert watch.most == 1
    assert "at least 2 of 3 stay healthy" in flat(result.output)
    assert drive.is_settled()
