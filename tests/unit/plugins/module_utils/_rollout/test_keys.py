"""Names, versions, ids and keys."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import (
    Keys,
    checked_name,
    checked_prefix,
    checked_version,
    new_deployment_id,
)

pytestmark = pytest.mark.oldest

VERSIONS = st.from_regex(r"[A-Za-z0-9._+~:@-]{1,128}", fullmatch=True)
NAMES = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_-]{0,30}(\.[A-Za-z0-9_-]{1,10}){0,3}", fullmatch=True)


@pytest.mark.parametrize("name", ["web", "web-1", "web_1", "web1.example.com", "WEB", "1"])
def test_a_name_that_can_stand_in_a_key(name: str) -> None:
    assert checked_name(name, "node") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "a b", "a/b", "a:b", "é", "a\n", "a?b", "a#b", "a%2fb", 'a"b', "{{ x }}"]
)
def test_any_other_name_is_refused_by_name(name: str) -> None:
    with pytest.raises(HitlessError) as error:
        checked_name(name, "node")
    assert repr(name) in str(error.value)
    assert "Rename the node in Consul." in str(error.value)


@given(st.text())
def test_a_taken_name_needs_no_quoting_in_a_path(name: str) -> None:
    try:
        checked_name(name, "service")
    except HitlessError:
        return
    # What Go's and every other path cleaner leaves as it is.
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", name)
    assert name not in {".", ".."}


@pytest.mark.parametrize(
    ("given", "taken"), [("deploy", "deploy"), ("/a/b/", "a/b"), ("team.x/deploy", "team.x/deploy")]
)
def test_prefixes(given: str, taken: str) -> None:
    assert checked_prefix(given, "deploy_prefix") == taken


@pytest.mark.parametrize("prefix", ["", "/", "a//b", "a/../b", "a b", ".", "./deploy", "a/./b", None])
def test_what_is_no_prefix(prefix: object) -> None:
    with pytest.raises(HitlessError, match="deploy_prefix .* is not a prefix of keys"):
        checked_prefix(prefix if prefix is not None else "a?b", "deploy_prefix")


@given(VERSIONS)
def test_versions(version: str) -> None:
    assert checked_version(version) == version


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        (1.1, "1.1 is a number"),
        (20240101, "20240101 is a number"),
        (date(2024, 1, 1), "2024-01-01 is a date"),
        (True, "True is true or false"),
        (None, "None is nothing"),
        (["1"], "is a list"),
        ({}, "is a dictionary"),
        (b"1", "is something else"),
    ],
)
def test_a_version_that_yaml_has_read_as_something_else(version: object, kind: str) -> None:
    with pytest.raises(
        HitlessError, match=f"rollout_version must be a string, and .*{kind} .YAML reads 1.10"
    ) as caught:
        checked_version(version, "rollout_version")
    assert '"1.1"' not in str(caught.value), "1.1 need not be what was written"


@pytest.mark.parametrize("version", ["", "1 2", "1/2", "1\n", "x" * 129, "$(id)", "{{ x }}", "1;2", "é"])
def test_a_version_of_other_characters(version: str) -> None:
    with pytest.raises(HitlessError, match="is not a version"):
        checked_version(version)


@given(VERSIONS, VERSIONS, st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), st.integers(1, 10**7))
def test_ids_sort_by_time_and_stand_in_keys(first: str, second: str, at: datetime, later: int) -> None:
    one = new_deployment_id(first, at.replace(tzinfo=timezone.utc))
    two = new_deployment_id(second, at.replace(tzinfo=timezone.utc) + timedelta(seconds=later))
    assert one < two
    assert Keys("web").record(one) == f"deploy/web/deployments/{one}/record"


def test_an_id_tells_the_version_and_differs() -> None:
    at = datetime(2026, 11, 23, 14, 22, 33, tzinfo=timezone(timedelta(hours=1)))
    assert re.fullmatch(r"20261123T132233Z-1\.4\.2-[0-9a-f]{4}", new_deployment_id("1.4.2", at))
    assert new_deployment_id("1:2+3", at).startswith("20261123T132233Z-1-2-3-")
    assert len({new_deployment_id("1", at) for _ in range(5)}) > 1


@given(NAMES, NAMES)
def test_keys_of_a_service(service: str, node: str) -> None:
    keys = Keys(service, deploy="d", nodes="n")
    assert keys.lock == f"d/{service}/lock"
    assert keys.outcome("20260101T000000Z-1-abcd", node).startswith(keys.outcomes("20260101T000000Z-1-abcd"))
    assert {keys.version(node), keys.previous(node), keys.status(node)} == {
        f"n/{node}/deployment/{service}/{name}" for name in ("version", "previous", "status")
    }


def test_the_keys_of_a_plan_sort_by_their_number_and_are_read_by_no_other_prefix() -> None:
    keys = Keys("web")
    names = [keys.plan_chunk("d1", number) for number in range(1, 200)]
    assert names[0] == "deploy/web/deployments/d1/plan/000001"
    assert names == sorted(names)
    for prefix in (keys.record("d1"), keys.progress("d1"), keys.outcomes("d1"), keys.run_logs("d1")):
        assert not names[0].startswith(prefix)


def test_keys_refuse_what_would_leave_their_place() -> None:
    with pytest.raises(HitlessError, match="service name"):
        Keys("../nodes")
    with pytest.raises(HitlessError, match="node name"):
        Keys("web").version("a/b")
    with pytest.raises(HitlessError, match="deployment name"):
        Keys("web").record("../x")
