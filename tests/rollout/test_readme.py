"""What the README shows, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import Lab
from lab.testkit.ansible_run import CHECKOUT
from tests.rollout.drive import Drive, Load

SYSTEMD = "ansible.builtin.systemd_service: {name: web, state: restarted}"
RESTART = 'ansible.builtin.command: "{{ lab_vm_dir }}/deploy 1.0.0-slow2"'


@pytest.mark.slow
def test_the_rolling_restart_in_fifteen_lines(drive: Drive, fleet: Lab, tmp_path: Path) -> None:
    """Only what restarts the lab's service differs: nothing of systemd runs there."""
    shown = re.findall(r"```yaml\n(- hosts: service_web\n.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    (text,) = shown
    assert len(text.splitlines()) == 15
    assert SYSTEMD in text
    playbook = tmp_path / "restart.yml"
    playbook.write_text(text.replace(SYSTEMD, RESTART).replace("      become: true\n", ""), encoding="utf-8")
    inventory = fleet.directory / "inventory" / "local" / "web.consul.yml"
    with Load(fleet) as load:
        done = drive.ansible.playbook("-i", inventory, playbook, "--limit", "web1,web2", env=fleet.environment)
    assert done.rc == 0, done.output
    load.check_nothing_lost()
    assert drive.running() == ["1.0.0-slow2"] * 2 + ["1.0.0"] * 3
    assert drive.is_settled()
