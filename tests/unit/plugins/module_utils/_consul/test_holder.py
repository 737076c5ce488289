"""The lock's value and who holds it; what needs no Consul."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Holder, refusal
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys

ANNA = Holder("20261123T142233Z-1.4.2-7f3a", "anna@deploy1", "2026-11-23T14:22:33Z", "web 1.4.2")


@given(st.builds(Holder, st.text(), st.text(), st.text(), st.text(), st.text()))
def test_a_holder_reads_back_as_written(holder: Holder) -> None:
    assert Holder.parse(json.dumps(asdict(holder))) == holder


@pytest.mark.parametrize("value", ["", "do not touch", "[1]", "3", "null", '{"holder": null, "more": 1}'])
def test_any_value_can_be_told(value: str) -> None:
    holder = Holder.parse(value)

    assert (holder.deployment, holder.holder, holder.since) == ("", "", "")
    assert str(holder).startswith("somebody unnamed")


def test_a_holder_is_told_in_words() -> None:
    told = "anna@deploy1 since 2026-11-23T14:22:33Z (web 1.4.2, deployment 20261123T142233Z-1.4.2-7f3a)"
    assert str(ANNA) == told
    assert str(Holder("", "ben", "", "")) == "ben"
    job = "https://awx.example.com/#/jobs/playbook/42"
    assert str(Holder("", "ben (AWX job 42)", "", "web 2", job)) == f"ben (AWX job 42) (web 2, {job})"


def test_the_refusal_says_what_to_do() -> None:
    error = refusal(Keys("web"), ANNA, 30)

    assert "deploy/web/lock" in str(error)
    assert "also after 30 s" in str(error)
    assert "rollout_lock_wait" in str(error)
    assert error.details == {"holder": asdict(ANNA)}
