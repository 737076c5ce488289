"""Fixtures of whole playbooks: the installed collection and Ansible's commands."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab
from lab.testkit.ansible_run import Ansible, install_collection
from tests.rollout.drive import VARIABLES, Drive


@pytest.fixture(scope="session")
def collection() -> Path:
    """The collections path that holds the artifact built from this checkout, and nothing else."""
    return install_collection()


@pytest.fixture
def ansible(collection: Path, tmp_path: Path) -> Iterator[Ansible]:
    """Ansible's commands as a user runs them: ``ansible.playbook("site.yml", "-e", "x=1").recap["host"]["ok"]``."""
    # Short: ssh keeps the sockets of its connections in there, whose paths Unix limits to 108 bytes.
    with tempfile.TemporaryDirectory(prefix="home", ignore_cleanup_errors=True) as home:
        # Ansible looks each millisecond whether a task has ended, which costs where many labs share two processors.
        (Path(home) / ".ansible.cfg").write_text("[defaults]\ninternal_poll_interval = 0.02\n", encoding="utf-8")
        yield Ansible(collection, Path(home), tmp_path / "logs")


@pytest.fixture
def drive(ansible: Ansible, fleet: Lab) -> Drive:
    """The collection's playbooks on the lab of the file, which is as it began."""
    fleet.write_inventory(VARIABLES)
    return Drive(ansible, fleet)
