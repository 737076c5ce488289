"""The account of a probe: read from wherever it stands, added, and told."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.probed import Probed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Brief, Record
from ansible_collections.hitless.consul.plugins.module_utils._views.report import verdict_sentence

SOME = Probed(2914, 0, 0.11)


def test_it_is_told_in_a_line() -> None:
    assert SOME.told == "2,914 probes, 0 failed, longest gap 0.11 s"


@pytest.mark.parametrize("data", [None, [], "text", {}, {"count": "many"}, {"count": 3, "longest_gap": "long"}])
def test_what_cannot_be_read_is_an_empty_account(data: object) -> None:
    assert not Probed.of(data)


def test_it_stands_in_the_record_and_in_the_verdict() -> None:
    record = Record("d1", "web", "2", state="successful", probed=SOME)
    assert Brief.from_json(record.to_json(), "d1", "web").probed == SOME
    assert verdict_sentence(record, {}).endswith("2,914 probes, 0 failed, longest gap 0.11 s.")
    plain = Record("d1", "web", "2", state="successful")
    assert "probe" not in plain.brief_dict()
    assert "probes" not in verdict_sentence(plain, {})


def test_of_a_deployment_that_was_paused_both_runs_count() -> None:
    then = Probed(10, 2, 3.5, "it answered 503")
    assert SOME.and_then(then) == Probed(2924, 2, 3.5, "it answered 503")
    assert then.and_then(SOME).last_error == "it answered 503"
    assert Probed().and_then(then) == then
