"""Which host is in which wave, and what is refused of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.wave_options import (
    parse_waves,
    parse_waves_by,
    read_waves,
    refuse_contradictions,
)

pytestmark = pytest.mark.oldest

META = {
    "web1": {"consul_node_meta": {"zone": "eu-2"}, "group_names": ["service_web", "blue"]},
    "web2": {"consul_node_meta": {"zone": "eu-10"}, "group_names": ["service_web", "green"]},
    "web3": {"consul_node_meta": {"zone": "eu-2"}, "group_names": ["service_web", "green"]},
}


def read(by_host: Mapping[str, Mapping[str, Any]] = META, **options: Any) -> dict[str, list[str]]:
    values = {**DEFAULTS, "waves_by": "consul_node_meta.zone", **options}
    return read_waves(values, by_host, lambda host, value: f"rack-{host}" if value == "{{ rack }}" else value)


def refused(by_host: Mapping[str, Mapping[str, Any]] = META, **options: Any) -> str:
    with pytest.raises(HitlessError) as caught:
        read(by_host, **options)
    return str(caught.value)


def test_by_name_where_no_order_is_given() -> None:
    found = read()
    assert found == {"eu-2": ["web1", "web3"], "eu-10": ["web2"]}
    assert list(found) == ["eu-2", "eu-10"], "and numbers as numbers"


def test_in_the_order_that_is_given() -> None:
    assert list(read(waves=["eu-10", "eu-2"])) == ["eu-10", "eu-2"]


def test_by_group() -> None:
    assert read(waves_by="group_names", waves=["green", "blue"]) == {"green": ["web2", "web3"], "blue": ["web1"]}


@pytest.mark.parametrize(("value", "name"), [(2, "2"), (True, "true"), ("a\nb", "a b"), ("{{ rack }}", "rack-web1")])
def test_what_a_name_may_be(value: object, name: str) -> None:
    assert read({"web1": {"rack": value}}, waves_by="rack") == {name: ["web1"]}


def test_without_waves() -> None:
    assert read(waves_by=None) == {}


@pytest.mark.parametrize(
    ("hosts", "options", "told"),
    [
        (
            {**META, "web4": {"consul_node_meta": {}}, "web5": {}},
            {},
            "rollout_waves_by is consul_node_meta.zone, and 2 hosts: web4, web5 have no name of a wave there.",
        ),
        (META, {"waves_by": "consul_node_meta"}, "3 hosts: web1, web2, web3 have no name of a wave there."),
        (
            META,
            {"waves": ["eu-2", "eu-3", "eu-10"]},
            "rollout_waves names eu-3, which consul_node_meta.zone is on none of the hosts (it is eu-2, eu-10).",
        ),
        (
            META,
            {"waves": ["eu-2"]},
            "By consul_node_meta.zone is in no wave that rollout_waves names (eu-2): 1 host: web2 (eu-10).",
        ),
        (
            META,
            {"waves_by": "group_names"},
            "group_names, which is a list on web1 (service_web, blue), and rollout_waves is not set.",
        ),
        (
            META,
            {"waves_by": "group_names", "waves": ["service_web", "blue", "green"]},
            "web1 is in several of rollout_waves, by group_names: service_web, blue.",
        ),
    ],
)
def test_what_is_refused(hosts: Mapping[str, Any], options: dict[str, Any], told: str) -> None:
    assert told in refused(hosts, **options)


def test_a_rollback_refuses_nothing() -> None:
    hosts = {**META, "web4": {}}
    assert read(hosts, direction="rollback", waves=["eu-3", "eu-2"]) == {"eu-2": ["web1", "web3"]}
    assert read(hosts, direction="rollback") == {"eu-2": ["web1", "web3"], "eu-10": ["web2"]}
    assert read(hosts, direction="rollback", waves_by="group_names") == {}


@pytest.mark.parametrize("value", [3, "a b", "", "zone.", "{{ zone }}", ["zone"], "web-zone"])
def test_what_is_no_variable(value: object) -> None:
    with pytest.raises(HitlessError, match="must be the name of a variable of the hosts"):
        parse_waves_by(value, "rollout_waves_by")


@pytest.mark.parametrize("value", ["consul_node_meta.zone", "group_names", "a.b-c.d"])
def test_what_is_a_variable(value: str) -> None:
    assert parse_waves_by(value, "rollout_waves_by") == value


def test_names_of_waves() -> None:
    assert parse_waves("a, b", "rollout_waves") == parse_waves(["a", "b"], "rollout_waves") == ["a", "b"]
    assert parse_waves([1, False], "rollout_waves") == ["1", "false"]
    with pytest.raises(HitlessError, match="rollout_waves names a twice"):
        parse_waves(["a", "b", "a"], "rollout_waves")
    for wrong in ([], {"a": 1}, ["a", ["b"]], 3, "a,,b", [None]):
        with pytest.raises(HitlessError, match="must be a list of names of waves"):
            parse_waves(wrong, "rollout_waves")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"waves": ["a"]}, "rollout_waves is set, and rollout_waves_by is not"),
        ({"wave_bake_time": 60}, "rollout_wave_bake_time is set, and rollout_waves_by is not"),
        (
            {"waves_by": "zone", "wave_bake_time": 5, "bake_time": 10},
            "rollout_wave_bake_time (5 s) is shorter than rollout_bake_time (10 s)",
        ),
        ({"waves_by": "zone", "wave_bake_time": 10, "bake_time": 10}, ""),
        ({"waves_by": "zone"}, ""),
        ({"waves": ["a"], "direction": "rollback"}, ""),
    ],
)
def test_contradictions(options: dict[str, Any], told: str) -> None:
    values = {**DEFAULTS, **options}
    if not told:
        refuse_contradictions(values)
        return
    with pytest.raises(HitlessError) as caught:
        refuse_contradictions(values)
    assert told in str(caught.value)
