"""How far a deployment is, as one key says it."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import KVPair
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import STOP_LIMIT, Progress

pytestmark = pytest.mark.oldest


def read_back(progress: Progress) -> Progress:
    return Progress.of(KVPair("progress", progress.as_json(), 7))


def test_it_is_read_as_it_was_written() -> None:
    progress = Progress(batch=2, stop="why", at="2026-11-28T12:00:00Z", index=7)
    assert read_back(progress) == progress
    flying = Progress(at="2026-11-28T12:00:00Z", registered=5, counted=12.5, index=7).begun("web1", 2)
    assert read_back(flying) == flying


@pytest.mark.parametrize("value", ["", "[]", "{", "7"])
def test_what_others_have_written_there_is_a_beginning(value: str) -> None:
    assert Progress.of(KVPair("progress", value, 7)) == Progress(index=7)
    assert Progress.of(None) == Progress()


def test_a_host_is_in_flight_until_its_turn_has_ended() -> None:
    begun = Progress().begun("n1", 1).begun("n2", 0)
    assert begun.in_flight == {"n1": 1, "n2": 0}
    ended = begun.has_ended("n1", Outcome("web1", "n1", "ok"), begun=True)
    assert (ended.in_flight, ended.ended, list(ended.spent)) == ({"n2": 0}, 1, [])
    again = ended.has_ended("n1", Outcome("web1", "n1", "ok"), begun=True)
    assert again == ended, "a transaction that was sent twice counts once"


def test_who_spends_the_failure_budget_is_named() -> None:
    ended = Progress().begun("n1", 1).has_ended("n1", Outcome("web1", "n1", "rolled_back"), begun=True)
    ended = ended.has_ended("n2", Outcome("web2", "n2", "untouched"), begun=False)
    assert (list(ended.spent), ended.ended) == (["web1 rolled back", "web2 untouched"], 2)


def test_a_reason_is_cut() -> None:
    assert len(read_back(Progress(stop="x" * 9000)).stop) == STOP_LIMIT
