"""Keys as reads show them, and the operations of a transaction. Pure."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    TXN_BYTES,
    TXN_LIMIT,
    VALUE_LIMIT,
    KVPair,
    in_transactions,
    json_object,
    kv_check_session,
    kv_set,
    kv_set_if,
    kv_text,
    refused_txn,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import LockLost

pytestmark = pytest.mark.oldest


@given(st.text())
def test_a_value_comes_back_as_it_was_set(text: str) -> None:
    assert kv_text(kv_set("k", text)) == text
    assert kv_set_if("k", text, 7) == {**kv_set("k", text), "Verb": "cas", "Index": 7}


def test_what_others_wrote_need_be_neither_text_nor_an_object() -> None:
    assert kv_text({"Value": None}) == ""
    assert kv_text({"Value": "/w=="}) == "\ufffd"
    for text in ("", "[]", "3", "null", "{", "[" * 100_000):
        assert json_object(text) is None
    assert json_object('{"a": 1}') == {"a": 1}
    item = {"Key": "k", "Value": None, "ModifyIndex": 3}
    assert KVPair.of(item) == KVPair("k", "", 3)
    assert KVPair.of({**item, "Session": "s"}).session == "s"


FENCE = kv_check_session("deploy/web/lock", "s")


@given(st.lists(st.integers(0, VALUE_LIMIT)))
@example([VALUE_LIMIT] * 4)
@example([0] * (3 * TXN_LIMIT))
def test_operations_go_in_order_in_as_few_transactions_as_consul_allows(sizes: list[int]) -> None:
    operations = [kv_set(f"k{number}", "x" * size) for number, size in enumerate(sizes)]
    parts = list(in_transactions(FENCE, operations))
    assert [one for part in parts for one in part[1:]] == operations
    assert all(part[0] == FENCE and 1 < len(part) <= TXN_LIMIT for part in parts)
    bodies = [len(json.dumps([{"KV": one} for one in part])) for part in parts]
    assert all(body <= TXN_BYTES for body in bodies)
    # None would have fitted into the one before it.
    for before, after in itertools.pairwise(parts):
        together = len(json.dumps([{"KV": one} for one in (*before, after[1])]))
        assert len(before) == TXN_LIMIT or together > TXN_BYTES * 0.95


OPERATIONS = [kv_check_session("deploy/web/lock", "s"), kv_set("deploy/web/status/n1", "x")]


def test_a_fence_that_did_not_hold_is_a_lost_lock() -> None:
    error = refused_txn(OPERATIONS, {"Errors": [{"OpIndex": 0, "What": "failed session check"}]})
    assert isinstance(error, LockLost)
    assert "deploy/web/lock is no longer held by this run: failed session check" in str(error)


def test_a_token_that_may_not_write_is_told_which_keys() -> None:
    error = refused_txn(OPERATIONS, {"Errors": [{"OpIndex": 1, "What": "Permission denied"}]})
    assert not isinstance(error, LockLost)
    assert "has to allow writing deploy/web/status/n1" in str(error)


@pytest.mark.parametrize("data", [None, {}, {"Errors": None}, {"Errors": [{"What": "no leader"}]}, json.loads("{}")])
def test_an_answer_of_another_shape_is_told_too(data: dict[str, object] | None) -> None:
    assert str(refused_txn(OPERATIONS[1:], data)).startswith("Consul refused a transaction: ")
