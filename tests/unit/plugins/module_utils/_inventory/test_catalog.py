"""The catalog as hosts, variables and groups: pure functions, and the requests that reading takes."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Answer, Connection
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._inventory.catalog import (
    Fleet,
    Grouping,
    Node,
    Selection,
    aggregate,
    build_groups,
    check_sources,
    choose,
    connect_address,
    group_name,
    host_name,
    host_variables,
    name_hosts,
    read_fleet,
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


def check(name: str, status: str) -> dict[str, str]:
    return {"CheckID": name, "Status": status}


# -- status ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        ([], "passing"),
        ([check("serfHealth", "passing"), check("service:web", "warning")], "warning"),
        ([check("a", "warning"), check("b", "critical")], "critical"),
        ([check("b", "critical"), check("_service_maintenance:web", "critical")], "maintenance"),
        ([check("_node_maintenance", "critical")], "maintenance"),
        ([check("serfHealth", "critical"), check("_node_maintenance", "critical")], "critical"),
        ([check("serfHealth", "critical"), check("service:web", "passing")], "critical"),
        ([check("_node_maintenance_of_mine", "warning")], "warning"),
    ],
)
def test_the_worst_check_decides_and_a_dead_machine_is_critical(checks: list[dict[str, str]], status: str) -> None:
    assert aggregate(checks) == status


# -- reading --------------------------------------------------------------------------------------------------


class Consul:
    """Answers from a table, and notes what was asked."""

    def __init__(self, answers: dict[str, Any], datacenter: str | None = None, *, filtered: bool = False) -> None:
        self.connection = Connection(datacenter=datacenter)
        self.answers = answers
        self.filtered = filtered
        self.asked: list[tuple[str, list[tuple[str, object]]]] = []

    def get(self, path: str, params: list[tuple[str, object]]) -> Answer:
        self.asked.append((path, params))
        return Answer(self.answers.get(path, []), 1, 200, self.filtered)

    @property
    def paths(self) -> list[str]:
        return sorted(path for path, _params in self.asked)


def entry(name: str, *, status: str = "passing", tags: list[str] | None = None, service: str = "web") -> dict[str, Any]:
    return {
        "Node": item(name),
        "Service": {"ID": service, "Service": service, "Address": "", "Port": 80, "Tags": tags, "Meta": None},
        "Checks": [check("service:web", status)],
    }


def item(name: str) -> dict[str, Any]:
    return {"Node": name, "Datacenter": "dc1", "Address": "10.0.0.1", "TaggedAddresses": None, "Meta": None}


def whole(nodes: int) -> Consul:
    """A catalog of so many nodes in two services, and as many nodes with none."""
    names = [f"n{number}" for number in range(nodes)]
    return Consul(
        {
            "/v1/catalog/services": {"web": [], "api": []},
            "/v1/health/service/web": [entry(name) for name in names],
            "/v1/health/service/api": [entry(name, service="api", status="critical") for name in names],
            "/v1/catalog/nodes": [item(name) for name in [*names, *(f"bare-{name}" for name in names)]],
            "/v1/health/state/warning": [{"Node": "bare-n0", **check("disk", "warning")}],
        }
    )


def test_requests_do_not_depend_on_the_number_of_nodes() -> None:
    few, many = whole(2), whole(500)
    assert len(read_fleet(few, Selection())["nodes"]) == 4  # type: ignore[arg-type]
    assert len(read_fleet(many, Selection())["nodes"]) == 1000  # type: ignore[arg-type]
    assert few.paths == many.paths
    assert len(few.paths) == 6


def test_nodes_without_services_have_a_status_of_their_own() -> None:
    nodes = {node["name"]: node for node in read_fleet(whole(2), Selection())["nodes"]}  # type: ignore[arg-type]
    assert {name: node["status"] for name, node in nodes.items()} == {
        "n0": "critical",
        "n1": "critical",
        "bare-n0": "warning",
        "bare-n1": "passing",
    }
    assert sorted(nodes["n0"]["services"]) == ["api", "web"]
    assert nodes["bare-n0"]["services"] == {}


def test_named_services_take_one_request_each() -> None:
    consul = whole(3)
    fleet = read_fleet(consul, Selection(services=("web", "gone")))  # type: ignore[arg-type]
    assert consul.paths == ["/v1/health/service/gone", "/v1/health/service/web"]
    assert fleet["missing"] == ["gone"]
    assert [node["name"] for node in fleet["nodes"]] == ["n0", "n1", "n2"]


def test_a_tag_or_a_filter_leaves_nodes_without_an_instance_out() -> None:
    consul = whole(3)
    consul.answers["/v1/health/service/web"][0]["Service"]["Tags"] = ["prod"]
    consul.answers["/v1/health/service/web"][1]["Service"]["Tags"] = ["PROD"]
    fleet = read_fleet(consul, Selection(tags=("prod",), filter="x == y"))  # type: ignore[arg-type]
    assert [node["name"] for node in fleet["nodes"]] == ["n0"]
    assert "/v1/catalog/nodes" not in consul.paths
    assert ("tag", "prod") in consul.asked[-1][1]
    assert ("filter", "x == y") in consul.asked[-1][1]


def test_each_request_carries_datacenter_and_node_metadata() -> None:
    consul = whole(1)
    consul.connection = Connection(datacenter="east")
    read_fleet(consul, Selection(node_meta=(("rack", "a"),)))  # type: ignore[arg-type]
    for _path, params in consul.asked:
        assert params[:3] == [("stale", ""), ("dc", "east"), ("node-meta", "rack:a")]


# -- empty ----------------------------------------------------------------------------------------------------


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


# -- names and addresses --------------------------------------------------------------------------------------


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


# -- variables and groups -------------------------------------------------------------------------------------


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
