"""What holds for every plugin of the collection. Read from the files, so that a new plugin is covered too."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from lab.testkit import link_tree

PLUGINS = link_tree.CHECKOUT / "plugins"
BIN = Path(sys.executable).parent
HEADER = [
    "# Copyright (c) 2026, Hitless contributors",
    "# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
    "# SPDX-License-Identifier: GPL-3.0-or-later",
]
# Kinds of plugins that ansible-doc knows, by the folder they live in.
DOCUMENTED = {"modules": "module", "inventory": "inventory", "callback": "callback", "lookup": "lookup"}
PARTS_OF_A_PLAY = {"hosts", "tasks", "import_playbook"}


INTERNAL = "rollout_step"
"""A module that the role is made of, and that is for nobody else."""


def names(folder: str) -> list[str]:
    return sorted(path.stem for path in (PLUGINS / folder).glob("*.py") if not path.stem.startswith("_"))


MODULES = names("modules")
PYTHON = sorted(str(path.relative_to(PLUGINS)) for path in PLUGINS.rglob("*.py"))
DOMAIN = [path for path in PYTHON if path.startswith("module_utils/")]


def load(folder: str, name: str) -> ModuleType:
    return importlib.import_module(f"ansible_collections.hitless.consul.plugins.{folder}.{name}")


def imported(path: str) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse((PLUGINS / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def ansible_doc(kind: str, plugins: list[str], home: Path, *options: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(link_tree.COLLECTIONS),
    }
    full = [f"hitless.consul.{name}" for name in plugins]
    done = subprocess.run(
        [BIN / "ansible-doc", "-t", kind, *options, *full], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # Ansible 2.21 says of a collection of its own, where it lists roles, that it has no version.
    warnings = [line for line in done.stderr.splitlines() if "[WARNING]" in line and "_protomatter" not in line]
    assert warnings == [], done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def module_docs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Module -> doc, examples, return as Ansible merges them with their fragments."""
    text = ansible_doc("module", MODULES, tmp_path_factory.mktemp("home"), "--json")
    return {name.rpartition(".")[2]: entry for name, entry in json.loads(text).items()}


@pytest.mark.parametrize("path", PYTHON)
def test_licence_header(path: str) -> None:
    lines = (PLUGINS / path).read_text(encoding="utf-8").splitlines()
    if lines and lines[0].startswith("#!"):
        lines.pop(0)
    # A file that only makes its folder a package is empty: ansible-test insists.
    assert lines[:3] == HEADER or (path.endswith("__init__.py") and not lines)


@pytest.mark.parametrize("path", DOMAIN)
def test_the_domain_knows_neither_ansible_nor_the_library(path: str) -> None:
    """One file imports the Consul library."""
    roots = {name.partition(".")[0] for name in imported(path)}
    assert "ansible" not in roots
    assert "consul" not in roots or path == "module_utils/_consul/transport.py"
    # The programs for the host are a package of their own there.
    absolute = not any(name.startswith(".") for name in imported(path))
    assert absolute or path.startswith("module_utils/_remote/programs/"), "imports are absolute in a collection"


@pytest.mark.parametrize("path", [path for path in PYTHON if not path.startswith("module_utils/")])
def test_nothing_else_imports_the_library(path: str) -> None:
    assert "consul" not in {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", [path for path in PYTHON if path.startswith(("module_utils/", "plugin_utils/"))])
def test_helpers_are_private(path: str) -> None:
    """Nothing but the plugins themselves is for others to import."""
    assert any(part.startswith("_") for part in Path(path).parts[1:])


def test_each_public_module_is_in_the_action_group() -> None:
    """The internal one is not: a user's module_defaults must not reach the steps of a rollout."""
    runtime = yaml.safe_load((link_tree.CHECKOUT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    assert runtime["action_groups"]["all"] == [name for name in MODULES if name != INTERNAL]


def test_each_module_has_an_action_and_each_action_a_module() -> None:
    assert names("action") == MODULES


def test_modules_are_nouns_of_the_user() -> None:
    """What is a step of a rollout is no module."""
    public = {"control", "lock", "maintenance", "health_wait", "version", "version_info", "deployment_info"}
    assert set(MODULES) - {INTERNAL} == public | {"service_registration", "rollout_request"}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_documentation_and_its_action_does_the_work(name: str) -> None:
    tree = ast.parse((PLUGINS / "modules" / f"{name}.py").read_text(encoding="utf-8"))
    assert {type(node) for node in tree.body} == {ast.Expr, ast.ImportFrom, ast.Assign}
    action = load("action", name)
    assert action.ActionModule.argument_spec is action.ARGUMENT_SPEC
    assert action.ActionModule._supports_async is False, "it would take the token to the host"


@pytest.mark.parametrize("path", [path for path in PYTHON if not path.endswith("_ansible_internals.py")])
def test_private_parts_of_ansible_are_used_in_one_file(path: str) -> None:
    """Where they are tested, one by one. The base of inventories is private by what it asks of those that extend it."""
    text = (PLUGINS / path).read_text(encoding="utf-8")
    private = (
        "unsafe_proxy",
        "_collection_finder",
        "_final_q",
        "_play.vars",
        "._variable_manager",
        "hostvars._inv",
        "Templar(",
    )
    assert [name for name in private if name in text] == []


def compared(options: dict[str, Any]) -> dict[str, Any]:
    """The part of options that documentation and argument spec both state, in one form."""
    return {
        name: {
            "type": option.get("type", "str"),
            "required": bool(option.get("required", False)),
            "default": option.get("default"),
            "choices": list(option["choices"]) if option.get("choices") else None,
            "elements": option.get("elements"),
            "aliases": sorted(option.get("aliases") or []),
            "options": compared(option["options" if "options" in option else "suboptions"])
            if option.get("options") or option.get("suboptions")
            else None,
        }
        for name, option in options.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_the_documented_options_are_the_argument_spec(name: str, module_docs: dict[str, Any]) -> None:
    assert compared(module_docs[name]["doc"]["options"]) == compared(load("action", name).ARGUMENT_SPEC)


@pytest.mark.parametrize("name", MODULES)
def test_documentation_says_what_is_expected(name: str, module_docs: dict[str, Any]) -> None:
    doc = module_docs[name]["doc"]
    assert doc["version_added"]
    assert doc["author"]
    assert not doc["short_description"].endswith(".")
    assert {"check_mode", "diff_mode", "idempotent"} <= set(doc["attributes"])
    assert all(attribute["support"] for attribute in doc["attributes"].values())


def without_sample(values: dict[str, Any], path: str = "") -> list[str]:
    """Values that have no sample, neither of their own nor in all that they contain."""
    missing = []
    for name, value in values.items():
        if "sample" not in value:
            parts = value.get("contains")
            missing += without_sample(parts, f"{path}{name}.") if parts else [f"{path}{name}"]
    return missing


@pytest.mark.parametrize("name", MODULES)
def test_each_return_value_has_a_sample(name: str, module_docs: dict[str, Any]) -> None:
    values = module_docs[name]["return"]
    assert values, "RETURN is missing"
    assert without_sample(values) == []


def tasks_of(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All tasks of an example, those of plays and blocks too."""
    found = []
    for entry in entries:
        nested = [task for key in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")
                  for task in entry.get(key) or []]  # fmt: skip
        found += tasks_of(nested)
        if not (set(entry) & PARTS_OF_A_PLAY or "block" in entry):
            found.append(entry)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_tasks_with_full_names_and_known_options(name: str, module_docs: dict[str, Any]) -> None:
    tasks = tasks_of(yaml.safe_load(module_docs[name]["examples"]))
    uses = [task for task in tasks if f"hitless.consul.{name}" in task]
    assert uses, "no example uses the module by its full name"
    for task in uses:
        assert set(task[f"hitless.consul.{name}"] or {}) <= set(load("action", name).ARGUMENT_SPEC)
    for task in tasks:
        assert task.get("name"), f"an example task has no name: {task}"
        assert any("." in key for key in task), f"an example task uses a short module name: {task}"


@pytest.mark.parametrize("folder", DOCUMENTED)
def test_documentation_renders(folder: str, tmp_path: Path) -> None:
    plugins = names(folder)
    if plugins:
        text = ansible_doc(DOCUMENTED[folder], plugins, tmp_path)
        for name in plugins:
            assert f"hitless.consul.{name}".upper() in text.upper()


def test_each_role_documents_its_variables(tmp_path: Path) -> None:
    roles = sorted(path.name for path in (link_tree.CHECKOUT / "roles").glob("[a-z]*") if path.is_dir())
    if roles:
        documented = json.loads(ansible_doc("role", roles, tmp_path, "--json"))
        assert sorted(documented) == [f"hitless.consul.{role}" for role in roles]
        for role in documented.values():
            assert role["entry_points"]["main"]["short_description"]
