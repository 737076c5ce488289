"""A plan as the playbook gets it."""

from __future__ import annotations

from dataclasses import fields

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import (
    HostState,
    Maintenance,
    Plan,
    PlanSettings,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.planning import make_plan

OURS = Maintenance(True, "deploy:20261123T142233Z-2.0.0-7f3a web")


OTHERS = Maintenance(False, "ansible disk replacement")


def a_host(number: int, **changes: object) -> HostState:
    values = {
        "node": f"node{number}",
        "version": "1.0.0",
        "version_source": "recorded",
        "target": "2.0.0",
        "datacenter": "dc1",
    }
    return HostState(f"web{number}", **{**values, **changes})  # type: ignore[arg-type]


OF_OPTIONS = [one.name for one in fields(PlanSettings) if one.name in DEFAULTS and one.name != "service"]


def planned(hosts: list[HostState], elsewhere: int = 0, **changes: object) -> Plan:
    registered = sum(one.registered for one in hosts) + elsewhere
    serving = sum(one.serving for one in hosts) + elsewhere
    values = {name: DEFAULTS[name] for name in OF_OPTIONS} | changes
    return make_plan(hosts, PlanSettings("web", registered, serving, **values))


def refused(hosts: list[HostState], elsewhere: int = 0, **changes: object) -> str:
    with pytest.raises(HitlessError) as caught:
        planned(hosts, elsewhere, **changes)
    return str(caught.value)


def test_the_plan_of_five_hosts() -> None:
    plan = planned([a_host(number) for number in range(1, 6)], 1, batch_size=[1, 2])
    assert plan.as_dict() == {
        "description": "web 1.0.0 -> 2.0.0 on 5 hosts in 3 batches of 1, 2, 2; at least 3 of 6 stay healthy",
        "nothing_to_do": False,
        "batches": [["web1"], ["web2", "web3"], ["web4", "web5"]],
        "windows": [],
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
                "place": number,
            }
            for number, batch in ((1, 1), (2, 2), (3, 2), (4, 3), (5, 3))
        },
        "places": 5,
        "uncovered": [],
        "health": {"registered": 6, "healthy": 6, "minimum": 3},
        "largest": 1,
        "undoes": "",
        "waves": [],
        "wave_of": {},
    }
    assert plan.warnings == []


def test_nothing_to_do() -> None:
    plan = planned([a_host(1, version="2.0.0"), a_host(2, version="2.0.0")])
    assert plan.nothing_to_do
    assert plan.description == "web: nothing to do; 2 already current"
    assert plan.as_dict()["order"] == []
    assert plan.as_dict()["serial"] == [1]
