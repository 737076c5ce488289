"""What of the catalog is a symptom: traffic that an upgraded host no longer gets, and that nobody has taken away."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Check, Instance
from ansible_collections.hitless.consul.plugins.module_utils._rollout.regression import Symptom, symptoms_of

CHECK = {"id": "web", "name": "web answers", "notes": "", "output": "500", "service_id": "web"}
MAINTENANCE = Check("_service_maintenance:web", "", "critical", "disk", "", "web")
SERF = Check("serfHealth", "Serf Health Status", "critical", "", "Agent not live", "")


def instance(node: str, *checks: Check) -> Instance:
    return Instance(node, "", "dc1", "web", "web", 80, (), {}, checks)


def check(status: str, **more: Any) -> Check:
    return Check(**{**CHECK, "status": status, **more})


@pytest.mark.parametrize(
    ("checks", "outcome"),
    [
        ([check("passing")], None),
        ([check("warning")], None),
        ([], None),
        ([check("critical")], "regressed"),
        ([check("critical"), MAINTENANCE], None),
        ([check("passing"), SERF], "lost"),
        ([check("critical"), SERF], "lost"),
    ],
)
def test_what_is_a_symptom(checks: list[Check], outcome: str | None) -> None:
    found = symptoms_of([instance("n1", *checks)], check_interval=30)
    assert {node: one.outcome for node, one in found.items()} == ({"n1": outcome} if outcome else {})


def test_how_long_a_check_takes_to_say_it_twice() -> None:
    known = check("critical", interval=10.0, timeout=2.0)
    assert symptoms_of([instance("n1", known)], check_interval=30)["n1"].delay == 12
    assert symptoms_of([instance("n1", check("critical"))], check_interval=30)["n1"].delay == 30


def test_all_that_fails_is_told() -> None:
    told = symptoms_of([instance("n1", check("critical"), check("critical", id="b", name="db"))], check_interval=1)
    assert told["n1"].told == "web answers is critical (500); db is critical (500)"


def test_an_instance_that_is_gone_shows_only_where_all_are_read() -> None:
    there = [instance("n1", check("passing"))]
    assert symptoms_of(there, check_interval=1, nodes=["n1", "n2"]) == {}
    gone = {"n2": Symptom("it is no longer registered")}
    assert symptoms_of(there, check_interval=1, registered={"n1"}, nodes=["n1", "n2"]) == gone
