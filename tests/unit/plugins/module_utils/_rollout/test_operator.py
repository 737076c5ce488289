"""Who runs a rollout, and from where."""

from __future__ import annotations

import getpass
import os
import socket

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.operator import operator_of, origin_of

HERE = f"{socket.gethostname()}:{os.getcwd()}"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"awx_job_id": 42, "awx_user_name": "anna"}, "anna (AWX job 42)"),
        ({"tower_job_id": "42", "tower_user_name": "anna"}, "anna (AWX job 42)"),
        ({"awx_job_id": 42, "awx_schedule_name": "nightly"}, "nightly (AWX job 42)"),
        ({"awx_job_id": 42}, "AWX (AWX job 42)"),
        ({"awx_user_name": "anna"}, f"{getpass.getuser()}@{socket.gethostname()}"),
    ],
)
def test_operator(variables: dict[str, object], expected: str) -> None:
    assert operator_of(variables) == expected


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)

    assert operator_of() == f"uid {os.getuid()}@{socket.gethostname()}"


@pytest.mark.parametrize(
    ("variables", "environment", "expected"),
    [
        ({}, {}, HERE),
        ({}, {"AWX_HOST": "https://awx.example.com"}, HERE),
        ({"awx_job_id": 42}, {"AWX_HOST": "https://awx.example.com/"}, "https://awx.example.com/#/jobs/playbook/42"),
        ({"awx_job_id": 42, "awx_job_template_name": "web: rollout"}, {}, "AWX job template web: rollout"),
        ({"tower_job_id": 42}, {}, "AWX"),
        ({"awx_job_id": 42, "ansible_eda": {"ruleset": "Requests"}}, {}, "AWX"),
        ({"ansible_eda": {"ruleset": "Requests", "rule": "one"}}, {}, f"{socket.gethostname()}, ruleset Requests"),
        ({"ansible_eda": "something else"}, {}, HERE),
    ],
)
def test_origin_of(variables: dict[str, object], environment: dict[str, str], expected: str) -> None:
    assert origin_of(variables, environment) == expected
