"""The project to copy, as it stands, from the folder that a user gets with the collection."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from lab import Lab
from lab.testkit.ansible_run import Ansible, Result, flat
from tests.rollout.awx import EXAMPLES
from tests.rollout.drive import Drive, Load


class Project:
    """A copy of examples/project, with the lab instead of machines."""

    def __init__(self, ansible: Ansible, lab: Lab, folder: Path) -> None:
        self.ansible, self.lab, self.folder = ansible, lab, folder
        shutil.copytree(ansible.collections / EXAMPLES / "project", folder)

    def __call__(self, name: str, *more: str) -> Result:
        return self.ansible.playbook(f"{name}.yml", "-e", "@lab.yml", *more, cwd=self.folder, env=self.lab.environment)


@pytest.fixture
def project(ansible: Ansible, fleet: Lab, tmp_path: Path) -> Project:
    return Project(ansible, fleet, tmp_path / "project")


@pytest.mark.oldest
def test_it_runs_against_the_lab_unchanged(project: Project, drive: Drive) -> None:
    two = ("-e", "rollout_version=2.0.0", "-e", "rollout_hosts=web1:web2")
    told = project("rollout", *two, "--check")
    assert told.rc == 0, told.output
    assert "web 1.0.0 -> 2.0.0 on 2 hosts" in told.stdout
    assert drive.all_keys() == []
    with Load(drive.lab) as load:
        done = project("rollout", *two)
    assert done.rc == 0, done.output
    load.check_nothing_lost()
    assert drive.running() == ["2.0.0"] * 2 + ["1.0.0"] * 3
    assert [drive.results()[name]["batch"] for name in ("web1", "web2")] == [1, 2]
    assert drive.is_settled()
    status = project("status")
    assert "2 changed" in status.stdout, status.output
    story = project("status", "-e", "status_id=last").stdout
    assert "log of web2\n  | == " in story
    assert re.search(r"web2 +draining \d\d:\d\d:\d\d, deploying \+.*, returning \+.*, ok \+", story), story
    recover = project("recover", "--check")
    assert "nothing to recover" in recover.stdout, recover.output


@pytest.mark.slow
def test_what_fails_is_put_back_and_what_worked_can_be(project: Project, drive: Drive) -> None:
    with Load(drive.lab) as load:
        assert project("rollout", "-e", "rollout_version=2.0.0", "-e", "rollout_hosts=web1:web2").rc == 0
        assert project("rollout", "-e", "rollout_version=3.0.0-broken").rc != 0
        assert drive.running() == ["2.0.0", "2.0.0", "1.0.0", "1.0.0", "1.0.0"]
        limited = project("recover", "--limit", "web1")
        assert limited.rc != 0
        assert "relaunch on all hosts" in flat(limited.output), limited.output
        put_back = project("rollback")
        assert put_back.rc == 0, put_back.output
        assert "nothing to undo" in put_back.stdout
        assert drive.running() == ["2.0.0", "2.0.0", "1.0.0", "1.0.0", "1.0.0"]
        named = re.search(r"rollback_deployment=(\S+)", put_back.stdout)
        assert named, put_back.output
        back = project("rollback", "-e", f"rollback_deployment={named[1]}")
        assert back.rc == 0, back.output
    load.check_nothing_lost()
    assert load.report.by_version.keys() == {"1.0.0", "2.0.0"}
    assert drive.running() == ["1.0.0"] * 5
    assert drive.is_settled()


@pytest.mark.slow
def test_the_smoke_test_is_the_project_s(project: Project, drive: Drive) -> None:
    """A hook beside the playbook is found although the playbook that runs it is the collection's."""
    smoke = project.folder / "hooks" / "smoke.yml"
    text = smoke.read_text(encoding="utf-8")
    smoke.write_text(text.replace("{{ web_address }}", "{{ consul_address }}:9"), encoding="utf-8")
    failed = project(
        "rollout", "-e", "rollout_version=2.0.0", "-e", "rollout_rollback=none", "-e", "rollout_hosts=web1"
    )
    assert failed.rc != 0
    assert "The front page is there" in flat(failed.output), failed.output
    assert drive.maintenance().keys() == {"web1"}
