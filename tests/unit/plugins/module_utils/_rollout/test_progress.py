"""How far a deployment is, as its keys say it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import (
    STOP_LIMIT,
    Progress,
    begun_op,
    ended_ops,
)

pytestmark = pytest.mark.oldest

KEYS, ID = Keys("web"), "d1"


class Store:
    """What a sequence of operations leaves."""

    def __init__(self) -> None:
        self.values: dict[str, Mapping[str, Any]] = {}

    def do(self, *operations: Mapping[str, Any]) -> None:
        for one in operations:
            if one["Verb"] == "delete":
                self.values.pop(one["Key"], None)
            else:
                self.values[one["Key"]] = {"Value": one["Value"], "ModifyIndex": 7}

    @property
    def progress(self) -> Progress:
        return Progress.of(KEYS, ID, self.values)


def test_it_is_read_as_it_was_written() -> None:
    store = Store()
    assert store.progress == Progress(in_flight={}, spent=[])
    store.do(Progress(batch=2, stop="why", at="2026-11-28T12:00:00Z", registered=5, counted=12.5).op(KEYS, ID))
    assert store.progress == Progress(2, "why", "2026-11-28T12:00:00Z", 5, 12.5, index=7, in_flight={}, spent=[])


@pytest.mark.parametrize("value", [b"", b"[]", b"{", b"7", b'{"batch": "x", "registered": null, "counted": "y"}'])
def test_what_others_have_written_there_is_a_beginning(value: bytes) -> None:
    store = Store()
    store.do({"Verb": "set", "Key": KEYS.progress(ID), "Value": b64encode(value).decode()})
    assert store.progress == Progress(index=7, in_flight={}, spent=[])


def test_a_host_is_in_flight_until_its_turn_has_ended() -> None:
    store = Store()
    store.do(begun_op(KEYS, ID, "n1", 1), begun_op(KEYS, ID, "n2", 0))
    assert store.progress.in_flight == {"n1": 1, "n2": 0}
    ends = ended_ops(KEYS, ID, Outcome("web1", "n1", "ok", finished="2026-11-28T12:00:00Z"))
    for _time in range(2):  # a transaction whose answer was lost is sent again
        store.do(*ends)
        assert store.progress.in_flight == {"n2": 0}
        assert store.progress.ended_at == "2026-11-28T12:00:00Z"
        assert store.progress.spent == []


def test_who_spends_the_failure_budget_is_named() -> None:
    store = Store()
    for number, outcome in ((1, "rolled_back"), (2, "ok"), (3, "untouched"), (4, "skipped")):
        store.do(*ended_ops(KEYS, ID, Outcome(f"web{number}", f"n{number}", outcome)))
    assert store.progress.spent == ["web1 rolled back", "web3 untouched"]


def test_a_reason_is_cut() -> None:
    store = Store()
    store.do(Progress(stop="x" * 9000).op(KEYS, ID))
    assert len(store.progress.stop) == STOP_LIMIT
