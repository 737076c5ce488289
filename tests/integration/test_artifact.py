"""The built artifact holds all that the collection needs at run time, and nothing of what develops it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from lab.testkit import link_tree
from lab.testkit.ansible_run import install_collection

NEEDED = {
    *("LICENSE", "MANIFEST.json", "FILES.json", "README.md", "bindep.txt", "execution-environment.yml"),
    *("meta/execution-environment.yml", "meta/runtime.yml", "requirements.txt"),
}
RUNTIME_FOLDERS = ("extensions/eda", "meta", "playbooks", "plugins", "roles")
ALLOWED = {
    *(".ansible-lint", "CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md"),
    *("CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("bindep.txt", "execution-environment.yml", "requirements.txt"),
    *("changelogs", "docs", "examples", "extensions", *RUNTIME_FOLDERS),
}


@pytest.fixture(scope="module")
def installed() -> Path:
    return install_collection() / "ansible_collections" / "hitless" / "consul"


def files(folder: Path) -> set[str]:
    """What the artifact listed; the folder may hold the bytecode of a run that uses it just now as well."""
    listed = json.loads((folder / "FILES.json").read_text(encoding="utf-8"))["files"]
    names = {entry["name"] for entry in listed if entry["ftype"] == "file"} | {"MANIFEST.json", "FILES.json"}
    assert all((folder / name).is_file() for name in names)
    return names


def test_nothing_needed_is_missing(installed: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *RUNTIME_FOLDERS],
        cwd=link_tree.CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    sources = {path for path in listed if path and (link_tree.CHECKOUT / path).is_file()}
    assert sorted((sources | NEEDED) - files(installed)) == []


def test_nothing_else_is_in_it(installed: Path) -> None:
    assert sorted({Path(path).parts[0] for path in files(installed)} - ALLOWED) == []
    hidden = [path for path in files(installed) if any(part.startswith(".") for part in Path(path).parts)]
    assert hidden == [".ansible-lint"]
    unwanted = ("__pycache__", "molecule", "fragments")
    assert [path for path in files(installed) if set(Path(path).parts) & set(unwanted)] == []


def test_it_says_what_it_is(installed: Path) -> None:
    info = json.loads((installed / "MANIFEST.json").read_text(encoding="utf-8"))["collection_info"]
    galaxy = yaml.safe_load((link_tree.CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))
    assert (info["namespace"], info["name"], info["version"]) == ("hitless", "consul", galaxy["version"])
    assert info["dependencies"] == {}
    runtime = yaml.safe_load((installed / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    assert runtime["requires_ansible"] == ">=2.16.0"


def test_galaxy_s_importer_can_follow_it(installed: Path) -> None:
    """It finds no playbook of a collection by its full name, and no module of another collection."""
    settings = yaml.safe_load((installed / ".ansible-lint").read_text(encoding="utf-8"))
    assert "examples/project/" in settings["exclude_paths"]
    for playbook in (installed / "playbooks").glob("*.yml"):
        plays = yaml.safe_load(playbook.read_text(encoding="utf-8"))
        named = [play["ansible.builtin.import_playbook"] for play in plays if "ansible.builtin.import_playbook" in play]
        assert all((playbook.parent / name).is_file() for name in named), playbook.name
    tasks = yaml.safe_load((installed / "examples" / "awx" / "apply.yml").read_text(encoding="utf-8"))[0]["tasks"]
    used = {name for task in tasks for name in task if name.startswith("awx.awx.")}
    assert used == set(settings["mock_modules"])
