"""Service definitions: what is refused, and how the catalog's answer is held against them. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.registration import (
    differences,
    read_definitions,
    seconds,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError

CHECK = {"http": "http://127.0.0.1:8080/health", "interval": "5s"}


def one(**service: Any) -> Any:
    return read_definitions([{"name": "web", **service}], 1800)[0]


def test_a_definition_is_consuls_own_with_version_and_id() -> None:
    definition = one(port="8080", version="1.10", meta={"team": "shop"}, checks=[CHECK], weights={"passing": "10"})
    assert definition.wanted == {
        "name": "web",
        "id": "web",
        "port": 8080,
        "meta": {"team": "shop", "version": "1.10"},
        "checks": [CHECK],
        "weights": {"passing": 10},
    }
    assert definition.file == "service-web.json"


def test_several_instances_of_one_service_on_a_machine() -> None:
    both = read_definitions([{"name": "web", "id": f"web-{port}", "port": port} for port in (8080, 8081)], 1800)
    assert [definition.file for definition in both] == ["service-web-8080.json", "service-web-8081.json"]


@pytest.mark.parametrize(
    ("service", "text"),
    [
        ({"name": ""}, "has no name"),
        ({"id": "a/b"}, "a/b"),
        ({"version": 1.1}, "must be text"),
        ({"meta": {"rack": 7}}, "meta rack is 7"),
        ({"port": "http"}, "whole numbers"),
        ({"state": "gone"}, "present or absent"),
        ({"token": "x"}, "consul_service_token"),
        ({"checks": {"http": "x"}}, "list of checks"),
        ({"checks": [{"http": "http://x/"}]}, "has no interval"),
        ({"checks": [{**CHECK, "interval": "5"}]}, "no duration"),
        ({"checks": [{**CHECK, "deregister_critical_service_after": "30m"}]}, "in the middle of one"),
        ({"check": {**CHECK, "deregister_critical_service_after": "90s"}}, "in the middle of one"),
    ],
)
def test_what_is_refused_and_why(service: dict[str, Any], text: str) -> None:
    with pytest.raises(HitlessError, match=text):
        one(**service)


def test_one_id_twice_is_refused() -> None:
    with pytest.raises(HitlessError, match="Two services have the ID web"):
        read_definitions([{"name": "web"}, {"name": "web"}], 1800)


def test_longer_than_a_deployment_may_take_is_fine() -> None:
    assert one(checks=[{**CHECK, "deregister_critical_service_after": "31m"}]).present


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_durations_are_gos(hours: int, minutes: int, rest: int) -> None:
    assert seconds(f"{hours}h{minutes}m{rest}s", "it") == hours * 3600 + minutes * 60 + rest


SHOWN: dict[str, Any] = {
    "Service": "web",
    "Port": 8080,
    "Address": "",
    "Tags": ["b", "a"],
    "Meta": {"version": "1.0.0", "consul-network-segment": ""},
    "Weights": {"Passing": 1, "Warning": 1},
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, None),
        ({"Port": 80}, "port 80 instead of 8080"),
        ({"Tags": ["a"]}, "tags"),
        ({"Meta": {}}, "meta"),
        ({"Weights": {"Passing": 5, "Warning": 1}}, "weights"),
        ({"Address": "10.0.0.1"}, "address '10.0.0.1' instead of ''"),
    ],
)
def test_differences_of_what_is_shown(change: dict[str, Any], text: str | None) -> None:
    definition = one(port=8080, tags=["a", "b"], version="1.0.0", weights={"passing": 1, "warning": 1})
    found = differences([definition], {"Services": {"web": {**SHOWN, **change}}})
    assert found == [] if text is None else text in found[0]


def test_tags_that_others_may_set_make_no_difference() -> None:
    definition = one(port=8080, version="1.0.0", enable_tag_override=True)
    assert differences([definition], {"Services": {"web": SHOWN}}) == []


def test_what_is_absent_differs_while_it_is_shown() -> None:
    gone = read_definitions([{"name": "web", "state": "absent"}], 1800)
    assert differences(gone, {"Services": {"web": SHOWN}}) == ["web is still registered"]
    assert differences(gone, {"Services": {}}) == []
    assert differences([one()], None) == ["web is not registered"]
