"""Which nodes become hosts, and how they are named."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._inventory.catalog import (
    Fleet,
    Node,
    Selection,
)
from ansible_collections.hitless.consul.plugins.module_utils._inventory.hosts import (
    check_sources,
    choose,
    connect_address,
    host_name,
    host_variables,
    name_hosts,
    refuse_empty,
)


def node(name: str = "web-1", **changes: Any) -> Node:
    base: dict[str, Any] = {
        "name": name,
        "datacenter": "dc1",
        "address": "10.0.0.1",
        "tagged_addresses": {"lan": "10.0.0.1", "wan": "192.0.2.1"},
        "meta": {"rack": "a", "fqdn": f"{name}.example.com"},
        "dead": False,
        "status": "passing",
        "services": {
            "web": [{"id": "web", "address": "10.0.0.1", "port": 80, "tags": ["v1"], "meta": {}, "status": "passing"}]
        },
    }
    return Node(**{**base, **changes})  # type: ignore[typeddict-item]


def fleet_of(*nodes: Node, missing: tuple[str, ...] = (), filtered: bool = False) -> Fleet:
    return Fleet(nodes=list(nodes), missing=list(missing), filtered=filtered)


def test_an_empty_answer_names_the_token() -> None:
    with pytest.raises(HitlessError, match=r"no node, or a request without an ACL token may not read it.*allow_empty"):
        refuse_empty(fleet_of(), [], Selection(), "here", token=False)
    with pytest.raises(
        HitlessError, match=r"no node with service web, tags v1, or the ACL token may not .*it did keep"
    ):
        refuse_empty(
            fleet_of(missing=("web",), filtered=True), [], Selection(("web",), tags=("v1",)), "here", token=True
        )


def test_one_service_without_an_instance_is_refused_too() -> None:
    nodes = [node()]
    with pytest.raises(HitlessError, match="no instance of wbe "):
        refuse_empty(fleet_of(*nodes, missing=("wbe",)), nodes, Selection(("web", "wbe")), "here", token=True)
    refuse_empty(fleet_of(*nodes), nodes, Selection(("web",)), "here", token=True)


def test_nothing_left_after_the_selection_by_status_is_said_as_such() -> None:
    with pytest.raises(HitlessError, match="None of the 1 nodes"):
        refuse_empty(fleet_of(node()), [], Selection(), "here", token=True)


def test_dead_nodes_stay_unless_left_out() -> None:
    fleet = fleet_of(node(), node("web-2", dead=True, status="critical"), node("web-3", status="critical"))
    every = ("passing", "warning", "critical", "maintenance")
    assert len(choose(fleet, every, dead_nodes=True)) == 3
    assert [found["name"] for found in choose(fleet, every, dead_nodes=False)] == ["web-1", "web-3"]
    assert [found["name"] for found in choose(fleet, ["passing"], dead_nodes=True)] == ["web-1"]


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (["node"], "web-1"),
        (["meta:fqdn", "node"], "web-1.example.com"),
        (["meta:none", "tagged:wan"], "192.0.2.1"),
        (["service_address"], "10.0.0.1"),
    ],
)
def test_the_first_source_that_is_there_names_the_host(sources: list[str], name: str) -> None:
    assert host_name(node(), sources) == name


@pytest.mark.parametrize(
    "unsafe",
    ["{{ lookup('pipe','id') }}", "a b:c/d+\u00e9", "-oProxyCommand=id", "web[1:9]", "all", "localhost", "!web"],
)
def test_an_unsafe_name_is_passed_over_or_refused(unsafe: str) -> None:
    with pytest.raises(HitlessError, match="no name that is safe"):
        host_name(node(unsafe), ["node"])
    assert host_name(node(unsafe), ["node", "node_address"]) == "10.0.0.1"


def test_an_address_that_ssh_would_take_for_an_option_is_refused() -> None:
    bad = node(address="-oProxyCommand=id")
    with pytest.raises(HitlessError, match="no usable address"):
        connect_address(bad, ["node_address"])
    assert connect_address(bad, ["node_address", "tagged:lan"]) == "10.0.0.1"
    assert connect_address(bad, []) is None
    assert connect_address(node(address="2001:db8::1"), ["node_address"]) == "2001:db8::1"


def test_an_unusable_node_fails_all_or_is_skipped_with_a_word() -> None:
    nodes = [node(), node("a b")]
    with pytest.raises(HitlessError, match="'a b'"):
        name_hosts(nodes, ["node"], [], None)
    said: list[str] = []
    assert [name for name, _address, _node in name_hosts(nodes, ["node"], [], said.append)] == ["web-1"]
    assert "'a b'" in said[0]


def test_two_nodes_with_one_name_are_refused() -> None:
    with pytest.raises(HitlessError, match=r"'web-1' and 'web-2' would both be the host 10\.0\.0\.1"):
        name_hosts([node(), node("web-2")], ["node_address"], [], lambda _text: None)


@pytest.mark.parametrize("source", ["name", "meta:", "meta", "tagged", "lan", "other:x"])
def test_an_unknown_source_is_refused(source: str) -> None:
    with pytest.raises(HitlessError, match="hostnames holds"):
        check_sources("hostnames", ["node", source])
    check_sources("hostnames", ["node", "node_address", "service_address", "tagged:lan", "meta:a"])


def test_host_variables() -> None:
    found = node()
    assert host_variables(found, "192.0.2.1") == {
        "ansible_host": "192.0.2.1",
        "consul_node": "web-1",
        "consul_datacenter": "dc1",
        "consul_address": "10.0.0.1",
        "consul_node_meta": {"rack": "a", "fqdn": "web-1.example.com"},
        "consul_services": found["services"],
        "consul_status": "passing",
    }
    assert "ansible_host" not in host_variables(found)
