"""scripts/release in a clone: what it writes, and what it leaves alone. The checks that it runs are left out here."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from lab.testkit import link_tree

pytestmark = pytest.mark.slow


class Clone:
    """This checkout as it is committed, with scripts/test and scripts/galaxy-import that only say that they ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", link_tree.CHECKOUT, folder], check=True)
        (folder / ".venv").symlink_to(link_tree.CHECKOUT / ".venv")
        with (folder / ".git" / "info" / "exclude").open("a", encoding="utf-8") as file:
            file.write(".venv\n")
        for name in ("test", "galaxy-import"):
            (folder / "scripts" / name).write_text(f'#!/bin/sh\necho "{name} $*" >>build/ran\n', encoding="utf-8")
        (folder / "build").mkdir()
        self.git("commit", "--quiet", "--all", "--message", "Leave out the checks")

    def git(self, *arguments: str) -> str:
        someone = ["-c", "user.name=someone", "-c", "user.email=someone@example.com"]
        # Whoever runs the tests may have every commit signed.
        env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
        return subprocess.run(
            ["git", *someone, *arguments], cwd=self.folder, env=env, check=True, capture_output=True, text=True
        ).stdout

    def release(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["scripts/release"],
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


def test_it_checks_writes_the_changelog_builds_and_stops(clone: Clone) -> None:
    before = clone.git("rev-parse", "HEAD")
    version = yaml.safe_load((clone.folder / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    done = clone.release()
    assert done.returncode == 0, done.stdout + done.stderr
    artifact = f"build/hitless-consul-{version}.tar.gz"
    assert (clone.folder / "build" / "ran").read_text().splitlines() == ["test --all", f"galaxy-import {artifact}"]
    changes = yaml.safe_load((clone.folder / "changelogs" / "changelog.yaml").read_text(encoding="utf-8"))
    assert "release_summary" in changes["releases"][version]["changes"]
    assert not list((clone.folder / "changelogs" / "fragments").glob("*.yml"))
    with tarfile.open(clone.folder / artifact) as archive:
        assert {"CHANGELOG.md", "changelogs/changelog.yaml"} <= set(archive.getnames())
    assert (clone.git("rev-parse", "HEAD"), clone.git("tag")) == (before, "")
    assert "ansible-galaxy collection publish" in done.stdout


def test_it_refuses_what_is_not_committed_and_what_is_released(clone: Clone) -> None:
    version = yaml.safe_load((clone.folder / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    clone.git("tag", f"v{version}")
    assert f"v{version} is tagged already" in clone.release().stderr
    (clone.folder / "README.md").write_text("changed", encoding="utf-8")
    assert "commit first" in clone.release().stderr
    assert not (clone.folder / "build" / "ran").exists()
