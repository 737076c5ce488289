"""Options that agent mode cannot follow are refused, and never left out silently."""

from __future__ import annotations

import pytest

from tests.unit.plugins.module_utils._rollout.test_option_reader import refused

AGENT = {"rollout_service": "web", "rollout_mode": "agent", "rollout_version": "2.0.0"}


@pytest.mark.parametrize(
    ("direction", "option", "what"),
    [("deploy", "deploy_command", "deployment"), ("restart", "restart_command", "restart")],
)
def test_a_command_of_the_controller(direction: str, option: str, what: str) -> None:
    extra = {**AGENT, f"rollout_{option}": "true", "rollout_version": "2.0.0" if direction == "deploy" else ""}
    told = refused(needed=False, play={"rollout_direction": direction}, extra=extra)
    assert told.startswith(
        f"rollout_{option} is set for web1, and in agent mode a machine's own configuration says what"
    )
    assert f"what its {what} is." in told


@pytest.mark.parametrize("option", ["become", "gather_facts"])
def test_what_needs_a_connection(option: str) -> None:
    told = refused(needed=False, extra={**AGENT, f"rollout_{option}": True})
    assert told.startswith(f"rollout_{option} cannot be used with rollout_mode agent, which logs in on no host.")


def test_what_the_machine_does_itself() -> None:
    told = refused(needed=False, extra={**AGENT, "rollout_load_balancers": ["http://lb:8404/"]})
    assert "there each machine drains itself." in told
