"""An execution environment gets what the collection really imports, as ansible-builder sees it."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from lab.testkit import link_tree
from lab.testkit.ansible_run import BIN, install_collection

BUILDER = BIN / "ansible-builder"
DEFINITION = link_tree.CHECKOUT / "execution-environment.yml"
OF_ANSIBLE = {"ansible", "ansible-core", "jinja2", "pyyaml"}

pytestmark = pytest.mark.skipif(not BUILDER.exists(), reason="ansible-builder is only in the newest column")


def build(*arguments: str | Path) -> str:
    done = subprocess.run([BUILDER, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def imported(collection: Path) -> set[str]:
    """The distributions of all modules that the collection's plugins import, less Ansible's own and Python's."""
    modules = set()
    for file in (collection / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules |= {str(name).partition(".")[0] for name in names}
    known = packages_distributions()
    outside = modules - set(sys.stdlib_module_names) - {"ansible_collections"}
    return {name.lower() for module in outside for name in known.get(module, [module])} - OF_ANSIBLE


def test_it_names_what_is_imported() -> None:
    collections = install_collection()
    found = yaml.safe_load(build("introspect", collections))
    # Text that ends in: ... # from collection hitless.consul
    python = [line.partition("#")[0].strip() for line in found["python"]]
    assert {line.partition(">")[0] for line in python} == imported(
        collections / "ansible_collections" / "hitless" / "consul"
    )
    assert {line.split()[0] for line in found["system"]} == {"openssh-clients", "openssh-client"}


def test_the_example_definition_is_one(tmp_path: Path) -> None:
    build("create", "-f", DEFINITION, "-c", tmp_path, "--output-filename", "Containerfile")
    made = (tmp_path / "Containerfile").read_text(encoding="utf-8")
    assert 'PYCMD="/usr/bin/python3.12"' in made
    galaxy = yaml.safe_load((tmp_path / "_build" / "requirements.yml").read_text(encoding="utf-8"))
    assert [one["name"] for one in galaxy["collections"]] == ["hitless.consul"]
