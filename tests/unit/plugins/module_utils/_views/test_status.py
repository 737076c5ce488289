"""What one node shows of a service."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import parse_instances
from ansible_collections.hitless.consul.plugins.module_utils._views.status import node_dict
from tests.unit.plugins.module_utils._consul.test_health import check, entry, maintenance

DEAD = check("critical", "serfHealth", service="", Output="Agent not live or unreachable")


@pytest.mark.parametrize(
    ("checks", "health", "reason"),
    [
        ([check()], "in rotation", ""),
        ([check("warning")], "warning", "web answers is warning"),
        ([maintenance("disk"), check("critical")], "maintenance", "disk"),
        ([maintenance("")], "maintenance", "no reason given"),
        # Nothing can be done on a dead machine, in maintenance or not.
        ([DEAD, maintenance("disk")], "critical", "web answers is critical (Agent not live or unreachable)"),
    ],
)
def test_health_and_why(checks: list[dict[str, Any]], health: str, reason: str) -> None:
    found = node_dict("web", parse_instances([entry(*checks)]), None, {})
    assert (found["health"], found["reason"]) == (health, reason)
