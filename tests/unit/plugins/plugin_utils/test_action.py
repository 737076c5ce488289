"""The base of the actions: what they take from Ansible."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.template import Templar

from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

pytestmark = pytest.mark.oldest


def run(monkeypatch: pytest.MonkeyPatch, error: Exception) -> dict[str, Any]:
    monkeypatch.setattr(ActionBase, "run", lambda *_args: {})
    action = HitlessAction.__new__(HitlessAction)

    def perform(_task: object) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(action, "perform", perform)
    action._task = SimpleNamespace(async_val=0, diff=False, action="hitless.consul.lock")
    monkeypatch.setattr(action, "task_of", lambda _variables: None)
    return action.run(None, {})


def test_a_fault_of_its_own_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, KeyError(0))
    assert result["failed"] is True
    assert "A fault of hitless.consul.lock itself stopped it (KeyError: 0). Please report it" in result["msg"]
    assert "Traceback" in result["exception"]


def test_errors_of_ansible_are_left_to_ansible(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnsibleError, match="undefined"):
        run(monkeypatch, AnsibleError("undefined"))


DISCOVERED = {"ansible_facts": {"discovered_interpreter_python": "/opt/discovered"}}


@pytest.mark.parametrize(
    ("configured", "variables", "expected"),
    [
        ("", {}, None),
        ("", {"ansible_python_interpreter": "/opt/variable"}, "/opt/variable"),
        ("/opt/configured", {}, "/opt/configured"),
        ("/opt/configured", {"ansible_python_interpreter": "/opt/variable", **DISCOVERED}, "/opt/variable"),
        ("", DISCOVERED, "/opt/discovered"),
        ("auto_silent", DISCOVERED, "/opt/discovered"),
        ("/opt/configured", {"ansible_python_interpreter": "auto"}, None),
    ],
)
def test_the_interpreter_is_the_one_that_modules_get(
    monkeypatch: pytest.MonkeyPatch, configured: str, variables: dict[str, Any], expected: str | None
) -> None:
    if configured:
        monkeypatch.setenv("ANSIBLE_PYTHON_INTERPRETER", configured)
    else:
        monkeypatch.delenv("ANSIBLE_PYTHON_INTERPRETER", raising=False)
    action = HitlessAction.__new__(HitlessAction)
    action._templar = Templar(loader=DataLoader(), variables=variables)
    assert action._interpreter(variables) == expected
