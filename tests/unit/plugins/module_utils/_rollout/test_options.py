"""The table of options: what is made from it is as it says, and no default stands anywhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import (
    BY_NAME,
    DEFAULTS,
    OPTIONS,
    PREFIX,
    argument_spec,
    options_table,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import SETTINGS

CHECKOUT = Path(__file__).resolve().parents[5]
STALE = "run scripts/write-options"


# --- what is made from it ------------------------------------------------------------------------------------


def test_the_documentation_has_the_table() -> None:
    text = (CHECKOUT / "docs" / "options.md").read_text(encoding="utf-8")
    table = text.partition("<!-- table of options -->\n\n")[2].partition("\n<!-- end of the table -->")[0]
    assert table == options_table(), STALE


def test_the_role_s_argument_specs_are_the_table() -> None:
    text = (CHECKOUT / "roles" / "rollout" / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    written = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    assert list(written.items()) == list(argument_spec().items()), STALE


def test_what_a_record_keeps_are_options() -> None:
    assert set(SETTINGS) <= set(BY_NAME)


@pytest.mark.parametrize("old", ["drain_least", "drain_most", "drain_observe", "pickup_deadline"])
def test_no_old_name_is_left(old: str) -> None:
    assert old not in BY_NAME
    folders = ("plugins", "roles", "playbooks", "docs", "examples", "lab", "bench", "changelogs", "extensions")
    files = [file for folder in folders for file in (CHECKOUT / folder).rglob("*") if file.suffix in TEXTS]
    assert [file.name for file in [*files, CHECKOUT / "README.md"] if old in file.read_text("utf-8")] == []


TEXTS = {".py", ".yml", ".yaml", ".md", ".j2", ".sh"}


# --- no default stands anywhere else -------------------------------------------------------------------------

NAMES = {option.name for option in OPTIONS if option.default not in (None, "", []) and option.name != "direction"}
"""Options with a default that could differ elsewhere; ``direction`` is no setting of anybody's."""
TABLE = "plugins/module_utils/_rollout/options.py"
ELSEWHERE = {("plugins/module_utils/_rollout/record.py", "failure_budget"): "of a record that cannot be read"}
PYTHON = sorted(
    str(file.relative_to(CHECKOUT))
    for folder in ("plugins", "roles/deploy_agent")
    for file in (CHECKOUT / folder).rglob("*.py")
    # Consul's own words know nothing of rollouts; the documentation of modules is compared with their specs.
    if not {"_consul", "modules"} & set(file.parts)
)


def is_literal(value: ast.expr | None) -> bool:
    """Whether it is a plain value, or the spec of a parameter with a default that is one."""
    if isinstance(value, ast.Dict):
        named = dict(zip((ast.unparse(key) for key in value.keys if key), value.values, strict=False))
        return is_literal(named.get("'default'"))
    try:
        return value is not None and ast.literal_eval(value) not in (None, "")
    except ValueError:
        return False


def defaults_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that get a plain value by default: fields, parameters, entries of a dictionary, and lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_literal(node.value):
            yield node.target.id, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            given = node.args
            positional = [*given.posonlyargs, *given.args]
            pairs = [*zip(reversed(positional), reversed(given.defaults), strict=False)]
            pairs += [(one, value) for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if value]
            yield from ((one.arg, value.lineno) for one, value in pairs if is_literal(value))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and is_literal(value):
                    yield str(key.value), value.lineno


@pytest.mark.parametrize("file", [file for file in PYTHON if file != TABLE])
def test_no_python_file_has_a_default_of_its_own(file: str) -> None:
    tree = ast.parse((CHECKOUT / file).read_text(encoding="utf-8"))
    found = [(name, line) for name, line in defaults_in(tree) if name in NAMES and (file, name) not in ELSEWHERE]
    assert found == [], "take it from DEFAULTS, or let it be given"


def test_a_default_of_its_own_would_be_found() -> None:
    code = """
class Order:
    drain_time: float = 10.0
def plan(a, /, unreachable="fail", *, accept_warning=False, mode=None, tags=(), strict): ...
SPEC = {"check_interval": {"type": "float", "default": 30}, "rollback": {"type": "str"}, "deploy_timeout": 86400}
GOOD = {"check_interval": {"type": "float", "default": DEFAULTS["check_interval"]}, "drain_time": options["drain_time"]}
"""
    found = {name for name, _line in defaults_in(ast.parse(code)) if name in NAMES}
    assert found == {"drain_time", "unreachable", "accept_warning", "check_interval", "deploy_timeout"}


@pytest.mark.parametrize("folder", ["roles", "playbooks", "examples"])
def test_no_yaml_file_has_a_default_of_its_own(folder: str) -> None:
    given = re.compile(r"rollout_(\w+)\s*\|\s*default\(\s*([^)\s][^)]*)\)")
    files = [file for file in (CHECKOUT / folder).rglob("*") if file.suffix in (".yml", ".j2")]
    found = [(file.name, *match) for file in files for match in given.findall(file.read_text(encoding="utf-8"))]
    # Empty says no more than that it is not set.
    assert [one for one in found if one[1] in NAMES and one[2] not in ("''", "omit")] == []


def test_what_modules_call_by_another_name_has_the_default_of_the_option() -> None:
    from ansible_collections.hitless.consul.plugins.action import health_wait, lock

    assert health_wait.ARGUMENT_SPEC["deadline"]["default"] == DEFAULTS["healthy_deadline"]
    assert lock.ARGUMENT_SPEC["wait"]["default"] == DEFAULTS["lock_wait"]


def test_the_readme_has_the_defaults_of_the_table() -> None:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`rollout_[^|]*) \| ([^|]*) \|", text, re.MULTILINE)
    checked = set()
    for names, values in rows:
        variables = re.findall(r"`rollout_(\w+)`", names)
        defaults = [value.strip(" `").strip('"') for value in values.split(",")]
        for name, default in zip(variables, defaults, strict=False):
            if name in NAMES:
                assert default == shown(DEFAULTS[name]), name
                checked.add(name)
    assert checked >= {"batch_size", "min_healthy", "drain_time", "healthy_deadline", "min_healthy_time", "rollback"}


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_prose_tells_no_default() -> None:
    """It would be wrong one day: docs/options.md has them."""
    told = re.compile(rf"`({PREFIX}\w+)`:? \(\d[^)]*\)")
    found = {file.name: told.findall(file.read_text("utf-8")) for file in (CHECKOUT / "docs").glob("*.md")}
    assert {name: names for name, names in found.items() if names} == {}
