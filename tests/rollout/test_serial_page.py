"""docs/from-your-serial-playbook.md: each of its playbooks, as it stands there, but for the program that installs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lab import Lab
from lab.testkit.ansible_run import CHECKOUT
from tests.rollout.drive import Drive, Load

PAGE = CHECKOUT / "docs" / "from-your-serial-playbook.md"
INSTALL = "/usr/local/bin/install-web"
OF_THE_LAB = {
    "agent": "http://{{ consul_address }}:8500",
    "app": "http://{{ consul_address }}:8080",
    "rollout_drain_time": 2,
    "rollout_min_healthy_time": 1,
    "rollout_bake_time": 1,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page. The lab's machines are drained within two seconds."""
    for name, text in re.findall(r"```yaml\n# (\S+\.yml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        here = text.replace(INSTALL, "/usr/bin/env {{ lab_vm_dir }}/deploy").replace("{timeout: 10}", "{timeout: 2}")
        (tmp_path / name).write_text(here, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "version", "refused"),
    [
        ("before", "2.0.0", ""),
        ("step1", "2.0.0", ""),
        ("step2", "2.0.0", "3.0.0-broken"),
        ("step3", "2.0.0", ""),
    ],
)
def test_each_step_loses_no_request(
    drive: Drive, fleet: Lab, folder: Path, name: str, version: str, refused: str
) -> None:
    def run(to: str) -> int:
        is_rollout = name in ("step2", "step3")
        about = {("rollout_version" if is_rollout else "version"): to, **(OF_THE_LAB if is_rollout else {})}
        about |= {one: OF_THE_LAB[one] for one in ("agent", "app")}
        about |= {"rollout_hosts": "web1:web2", "rollout_healthy_deadline": 5} if is_rollout else {}
        # The lab's inventory has a command of its own.
        about |= {"rollout_deploy_command": ""} if name == "step2" else {}
        arguments = ["-e", json.dumps(about), *([] if is_rollout else ["--limit", "web1,web2"])]
        inventory = fleet.directory / "inventory" / "local" / "web.consul.yml"
        done = drive.ansible.playbook("-i", inventory, folder / f"{name}.yml", *arguments, env=fleet.environment)
        assert done.rc == 0 or to == refused, done.output
        return done.rc

    with Load(fleet) as load:
        assert run(version) == 0
        if refused:
            assert run(refused) != 0
    load.check_nothing_lost()
    assert drive.running() == [version] * 2 + ["1.0.0"] * 3
    assert drive.is_settled()
