"""Fixtures of whole playbooks: the installed collection and Ansible's commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import Lab
from tests.rollout import support
from tests.rollout.drive import VARIABLES, Drive


@pytest.fixture(scope="session")
def collection() -> Path:
    """The collections path that holds the artifact built from this checkout, and nothing else."""
    return support.install_collection()


@pytest.fixture
def ansible(collection: Path, tmp_path: Path) -> support.Ansible:
    """Ansible's commands as a user runs them: ``ansible.playbook("site.yml", "-e", "x=1").recap["host"]["ok"]``."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return support.Ansible(collection, home, tmp_path / "logs")


@pytest.fixture
def drive(ansible: support.Ansible, fleet: Lab) -> Drive:
    """The collection's playbooks on the lab of the file, which is as it began."""
    fleet.write_inventory(VARIABLES)
    return Drive(ansible, fleet)
