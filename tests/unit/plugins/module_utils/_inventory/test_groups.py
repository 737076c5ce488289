"""Groups, and the names that two things would share."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._inventory.catalog import (
    Node,
)
from ansible_collections.hitless.consul.plugins.module_utils._inventory.groups import Grouping, build_groups, group_name
from tests.unit.plugins.module_utils._inventory.test_hosts import node


@pytest.mark.parametrize(
    ("text", "name"), [("service_web-api", "service_web_api"), ("1.4", "_1_4"), ("t_{{ x }}", "t____x___")]
)
def test_group_names_are_valid(text: str, name: str) -> None:
    assert group_name(text) == name


def test_groups_of_every_kind() -> None:
    hosts = [("a", node()), ("b", node("web-2", services={}, meta={"rack": ""}, status="critical"))]
    assert build_groups(hosts, Grouping(), ["web", "gone"]) == {
        "service_web": ["a"],
        "service_gone": [],
        "dc_dc1": ["a", "b"],
    }
    assert build_groups(hosts, Grouping("s_", "d_", "", "tag_", "m_", ("rack", "none"))) == {
        "s_web": ["a"],
        "d_dc1": ["a", "b"],
        "passing": ["a"],
        "critical": ["b"],
        "tag_v1": ["a"],
        "m_rack_a": ["a"],
    }


def services(*names: str) -> dict[str, Any]:
    return {name: node()["services"]["web"] for name in names}


@pytest.mark.parametrize(
    ("found", "grouping"),
    [
        (node(services=services("web-api", "web_api")), Grouping()),
        (node(services=services("dc1")), Grouping(service="x_", datacenter="x_")),
        (node(meta={"a": "b_c", "a_b": "c"}), Grouping(meta_keys=("a", "a_b"))),
    ],
)
def test_two_meanings_of_one_group_are_refused(found: Node, grouping: Grouping) -> None:
    with pytest.raises(HitlessError, match=r"would stand for .* as well as for "):
        build_groups([("a", found)], grouping)


def test_a_group_of_ansibles_own_is_refused() -> None:
    with pytest.raises(HitlessError, match="a group of Ansible's own"):
        build_groups([("a", node(services=services("all")))], Grouping(service=""))
