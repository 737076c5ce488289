"""What reading the catalog asks Consul for, and what comes of the answers."""

from __future__ import annotations

from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._inventory.catalog import (
    Selection,
    read_fleet,
)


def check(name: str, status: str) -> dict[str, str]:
    return {"CheckID": name, "Status": status}


class Consul:
    """Answers from a table, and notes what was asked."""

    def __init__(self, answers: dict[str, Any], *, filtered: bool = False) -> None:
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


def test_a_name_that_differs_in_case_alone_is_another_service() -> None:
    """Consul gives the instances of both for either name."""
    both = [entry("n1"), entry("n1", service="Web"), entry("n2", service="Web")]
    answers = {f"/v1/health/service/{name}": both for name in ("web", "Web", "WEB")}
    consul = Consul({"/v1/catalog/services": {"Web": [], "web": []}, **answers})
    nodes = {node["name"]: node for node in read_fleet(consul, Selection())["nodes"]}  # type: ignore[arg-type]
    assert {name: [len(found) for found in node["services"].values()] for name, node in nodes.items()} == {
        "n1": [1, 1],
        "n2": [1],
    }
    only = read_fleet(consul, Selection(services=("web", "WEB")))  # type: ignore[arg-type]
    assert [(node["name"], list(node["services"])) for node in only["nodes"]] == [("n1", ["web"])]
    assert only["missing"] == ["WEB (it is spelled Web or web there)"]


def test_a_tag_or_a_filter_leaves_nodes_without_an_instance_out() -> None:
    consul = whole(3)
    consul.answers["/v1/health/service/web"][0]["Service"]["Tags"] = ["prod"]
    consul.answers["/v1/health/service/web"][1]["Service"]["Tags"] = ["PROD"]
    fleet = read_fleet(consul, Selection(tags=("prod",), filter="x == y"))  # type: ignore[arg-type]
    assert [node["name"] for node in fleet["nodes"]] == ["n0"]
    assert "/v1/catalog/nodes" not in consul.paths
    assert ("tag", "prod") in consul.asked[-1][1]
    assert ("filter", "x == y") in consul.asked[-1][1]


def test_each_request_carries_node_metadata() -> None:
    consul = whole(1)
    read_fleet(consul, Selection(node_meta=(("rack", "a"),)))  # type: ignore[arg-type]
    for _path, params in consul.asked:
        assert params[:2] == [("stale", ""), ("node-meta", "rack:a")]
