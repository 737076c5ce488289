"""The hosts of a plan as the values of several keys. Pure."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import VALUE_LIMIT
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan_chunks import chunks_of, joined
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import WHY_LIMIT, PlannedHost

NAMES = st.text(min_size=1, max_size=30)
HOSTS = st.dictionaries(NAMES, st.fixed_dictionaries({}, optional={"state": NAMES, "batch": st.integers(0, 999)}))


@given(HOSTS, st.lists(NAMES), st.integers(400, 800))
def test_a_plan_comes_back_in_its_order_and_no_key_is_larger_than_allowed(
    hosts: dict[str, dict[str, object]], uncovered: list[str], limit: int
) -> None:
    chunks = chunks_of(hosts, uncovered, limit)
    found, nodes = joined(chunks)
    assert (list(found.items()), nodes) == (list(hosts.items()), tuple(uncovered))
    assert all(len(chunk.encode()) <= limit for chunk in chunks)
    assert all(json.loads(chunk)["hosts"] or json.loads(chunk)["uncovered"] for chunk in chunks)
    # None is begun before the one before it is full.
    assert all(len(one) > limit - 400 for one in chunks[:-1])


def test_a_plan_of_nothing_has_no_key() -> None:
    assert chunks_of({}, []) == []
    assert joined([]) == ({}, ())


def test_ten_thousand_hosts_with_long_names_take_few_keys() -> None:
    names = [f"web-{number:05}.frontend.eu-central-1.example.org" for number in range(10_000)]
    hosts = {
        name: PlannedHost(
            name,
            name.partition(".")[0],
            batch=10_000,
            from_version="2026.11.23-rc1",
            to_version="2026.11.24-rc1",
            rollback_to="2026.11.23-rc1",
        ).as_dict()
        for name in names
    }
    chunks = chunks_of(hosts, ())
    assert len(chunks) < 10
    assert max(map(len, chunks)) <= VALUE_LIMIT


def test_what_may_be_said_of_one_host_fits_into_a_key_by_far() -> None:
    longest = PlannedHost("é" * 255, "n" * 255, batch=1, why="\0" * 10_000, unsure=True)
    (chunk,) = chunks_of({longest.host: longest.as_dict()}, ())
    assert len(chunk) < 6 * WHY_LIMIT + 6 * 255 + 1000 < VALUE_LIMIT / 10


def test_one_entry_that_fits_into_no_key_is_refused() -> None:
    with pytest.raises(HitlessError, match=r'"web1":.* takes \d+ bytes in the plan, more than a key may hold \(100\)'):
        chunks_of({"web1": {"why": "x" * 100}}, (), 100)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"hosts":[],"uncovered":[]}', '{"hosts":{},"uncovered":{}}'])
def test_what_is_no_part_of_a_plan_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="no part of a plan"):
        joined(['{"hosts":{},"uncovered":[]}', text])
