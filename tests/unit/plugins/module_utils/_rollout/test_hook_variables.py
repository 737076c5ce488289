"""What the user's hooks are told."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout import hook_variables
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost

pytestmark = pytest.mark.oldest


def test_hosts_with_what_became_of_them() -> None:
    planned = [
        PlannedHost("web1", "n1", from_version="1", to_version="2"),
        PlannedHost("web2", "n2", from_version="1", to_version="2", why="oncall: disk"),
        PlannedHost("web3", "n3", to_version="2"),
    ]
    ended = {"web1": Outcome("web1", "n1", "rolled_back", "1", "2", error="it was not healthy")}
    assert hook_variables.hosts_told(planned, ended) == {
        "web1": {"from": "1", "to": "2", "outcome": "rolled_back", "why": "it was not healthy"},
        "web2": {"from": "1", "to": "2", "outcome": "pending", "why": "oncall: disk"},
        "web3": {"from": None, "to": "2", "outcome": "pending", "why": ""},
    }


def test_why_in_one_line() -> None:
    errors = {"web1": "not begun", "web2": "it was not healthy"}
    assert hook_variables.why_of(["web2"], errors, "the budget is spent") == "web2: it was not healthy"
    assert hook_variables.why_of([], errors, "the start hook failed: no") == "the start hook failed: no"
    assert hook_variables.why_of(["web3"], errors, "") == ""


def test_no_name_is_given_twice() -> None:
    assert sorted(set(hook_variables.RESERVED)) == sorted(hook_variables.RESERVED)
    assert {*hook_variables.OF_HOST, *hook_variables.AT_END} == {*hook_variables.RESERVED}
