"""Who may import whom: the lab and the bench stand on their own, and the tests build on them."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
# Of each folder of tests, what it may import of the tests; beside that only what stands directly in tests/.
FOLDERS = {"unit": {"unit"}, "integration": {"integration"}, "rollout": {"integration", "rollout"}}


def imports(file: Path) -> set[str]:
    """The full names of all modules (and of what may be modules) that a file imports, for type checks as well."""
    package = file.relative_to(CHECKOUT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def is_of(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def module_name(file: Path) -> str:
    parts = file.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("folder", ["lab", "bench"])
def test_neither_lab_nor_bench_imports_tests(folder: str) -> None:
    files = sorted((CHECKOUT / folder).rglob("*.py"))
    assert files
    found = {(module_name(file), name) for file in files for name in imports(file) if is_of(name, "tests")}
    assert sorted(found) == []


def test_the_lab_knows_nothing_private_of_the_collection() -> None:
    """It renders the roles' templates, and starts the programs that roles bring; Ansible does the rest."""
    files = (CHECKOUT / "lab").rglob("*.py")
    found = {(file.name, name) for file in files for name in imports(file) if is_of(name, "ansible_collections")}
    assert sorted(found) == []


def test_the_lab_s_modules_import_one_way() -> None:
    files = {module_name(file): file for file in (CHECKOUT / "lab").rglob("*.py")}
    # A package's own name stands for its door, which every module below it may have come through.
    graph = {name: imports(file) & set(files) - {"lab"} for name, file in files.items() if name != "lab"}
    # Raises CycleError, which names the circle.
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(graph)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_tests_builds_on_no_higher_one(folder: str) -> None:
    found = {
        (file.name, name)
        for file in (CHECKOUT / "tests" / folder).rglob("*.py")
        for name in imports(file)
        for other in FOLDERS.keys() - FOLDERS[folder]
        if is_of(name, f"tests.{other}")
    }
    assert sorted(found) == []
