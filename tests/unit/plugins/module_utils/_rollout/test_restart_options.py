"""What the options of a rollout mean to a restart, and what is refused."""

from __future__ import annotations

import pytest

from tests.unit.plugins.module_utils._rollout.test_option_reader import FakeInventory, read, refused

RESTART = {"rollout_direction": "restart", "rollout_service": "web"}
REBOOT = {**RESTART, "rollout_direction": "reboot"}
SERVICE = {"rollout_version": "2.0.0", "rollout_deploy_role": "my.own.role", "rollout_prepare_tasks": "/nowhere.yml"}


@pytest.mark.parametrize("play", [RESTART, REBOOT])
def test_what_is_set_for_rollouts_is_left_aside(play: dict[str, str]) -> None:
    found = read(needed=False, play=play, inventory=FakeInventory({"web1": {**SERVICE}, "web2": {**SERVICE}}))
    assert found.steps == ["turn"]
    wanted = {"version": None, "deploy_role": None, "prepare_tasks": None, "rollback": "none"}
    assert found.options.items() >= wanted.items()
    assert found.hooks == []


def test_a_version_that_is_given_with_the_start_is_refused() -> None:
    told = refused(needed=False, play=RESTART, extra={"rollout_version": "2.0.0"})
    assert told.startswith("rollout_version is set (2.0.0), and a restart changes no version.")


def test_a_reboot_needs_connections() -> None:
    told = refused(needed=False, play=REBOOT, extra={"rollout_mode": "agent"})
    assert told.startswith("A reboot is made over the hosts' connections, and rollout_mode is agent.")


def test_the_time_of_a_reboot_is_part_of_a_turn() -> None:
    told = refused(needed=False, play=REBOOT, extra={"rollout_reboot_deadline": 4000})
    assert "rollout_reboot_deadline 4000" in told
    assert "rollout_deploy_timeout" not in told


def test_it_undoes_nothing() -> None:
    told = refused(needed=False, play=RESTART, extra={"rollback_deployment": "1"})
    assert "rollback_deployment" in told
