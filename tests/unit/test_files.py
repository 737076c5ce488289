"""How large files are, and where each is tested."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from lab.testkit.link_tree import CHECKOUT

LIMIT = 400
"""Lines that a reader still keeps in mind as one thing. A larger file holds a second one, with a name of its own."""
PRODUCT = ("plugins", "extensions", "roles/*/files", "lab", "bench")
TESTS = CHECKOUT / "tests"

ELSEWHERE = {
    "_consul/answer.py": "unit/plugins/module_utils/_consul/test_client.py",
    "_consul/connection.py": "unit/plugins/module_utils/_consul/test_client.py",
    "_consul/keeper_start.py": "integration/test_lock.py",
    "_consul/lock.py": "integration/test_lock.py",
    "_consul/maintenance_guard.py": "integration/test_maintenance_guard.py",
    "_consul/process_file.py": "integration/test_maintenance_guard.py",
    "_consul/transport.py": "unit/plugins/module_utils/_consul/test_client.py",
    "_consul/maintenance_watch.py": "integration/test_maintenance_watch.py",
    "_eda/watches.py": "integration/test_event_sources.py",
    "_remote/programs/http.py": "unit/plugins/module_utils/_remote/test_host.py",
    "_remote/programs/terminal.py": "unit/plugins/module_utils/_remote/programs/test_probe.py",
    "_errors.py": "unit/plugins/module_utils/_consul/test_client.py",
    "_rollout/agent_protocol.py": "integration/test_protocol.py",
    "_rollout/agent_turn.py": "integration/test_protocol.py",
    "_rollout/alike.py": "integration/test_regression.py",
    "_rollout/analyst.py": "integration/test_analysis.py",
    "_rollout/bake.py": "integration/test_regression.py",
    "_rollout/beside.py": "integration/test_analysis.py",
    "_rollout/beginning.py": "integration/test_plan.py",
    "_rollout/command.py": "integration/test_host.py",
    "_rollout/ending.py": "integration/test_deployment.py",
    "_rollout/finishing.py": "integration/test_deployment.py",
    "_rollout/halting.py": "integration/test_control.py",
    "_rollout/hook_reader.py": "unit/plugins/module_utils/_rollout/test_hook_tasks.py",
    "_rollout/host.py": "integration/test_host.py",
    "_rollout/looking.py": "integration/test_window.py",
    "_rollout/option_files.py": "unit/plugins/module_utils/_rollout/test_options.py",
    "_rollout/option_kinds.py": "unit/plugins/module_utils/_rollout/test_options.py",
    "_rollout/option_sources.py": "integration/test_rollout_options.py",
    "_rollout/plan_reader.py": "integration/test_plan.py",
    "_rollout/probing.py": "integration/test_probing.py",
    "_rollout/pruning.py": "integration/test_deployment.py",
    "_rollout/reach.py": "integration/test_reach.py",
    "_rollout/recorded_host.py": "integration/test_host.py",
    "_rollout/run.py": "integration/test_deployment.py",
    "_rollout/store.py": "integration/test_deployment.py",
    "_rollout/verification.py": "integration/test_host.py",
    "_rollout/whole_turn.py": "integration/test_whole_turn.py",
    "_views/log.py": "integration/test_log.py",
}
"""File of plugins/module_utils without a unit test file of its own -> the test that holds it, most by a real Consul."""


def product_files() -> list[Path]:
    return [file for folder in PRODUCT for top in CHECKOUT.glob(folder) for file in sorted(top.rglob("*.py"))]


def test_no_product_file_is_too_long() -> None:
    sizes = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in product_files()}
    assert len(sizes) > 150
    assert {str(file.relative_to(CHECKOUT)): size for file, size in sizes.items() if size > LIMIT} == {}


def has_logic(file: Path) -> bool:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))


MODULE_UTILS = CHECKOUT / "plugins" / "module_utils"
DOMAIN = sorted(str(file.relative_to(MODULE_UTILS)) for file in MODULE_UTILS.rglob("*.py") if has_logic(file))


def of_its_own(path: str) -> Path:
    """Where the unit test of a file of plugins/module_utils stands: the same folder below tests/unit."""
    file = TESTS / "unit" / "plugins" / "module_utils" / path
    return file.with_name(f"test_{file.name.lstrip('_')}")


@pytest.mark.parametrize("path", DOMAIN)
def test_each_file_of_the_domain_is_held_by_a_test(path: str) -> None:
    own = of_its_own(path).is_file()
    assert own != (path in ELSEWHERE), (
        "give it a unit test file of its own, or name in ELSEWHERE the test that holds it"
    )
    assert own or (TESTS / ELSEWHERE[path]).is_file()


def test_nothing_is_told_of_files_that_are_gone() -> None:
    assert sorted(ELSEWHERE.keys() - set(DOMAIN)) == []


def test_each_unit_test_of_a_plugin_stands_beside_what_it_tests() -> None:
    lost = []
    for test in (TESTS / "unit" / "plugins").rglob("test_*.py"):
        folder = CHECKOUT / test.parent.relative_to(TESTS / "unit")
        name = test.name.removeprefix("test_")
        if not ((folder / name).is_file() or (folder / f"_{name}").is_file()):
            lost.append(str(test.relative_to(TESTS)))
    assert lost == []
