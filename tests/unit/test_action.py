"""The base of the actions: what they take from Ansible."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

pytestmark = pytest.mark.oldest

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
