"""What Event-Driven Ansible takes from the collection: event sources that document what they accept, and rulebooks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ansible_collections.hitless.consul.plugins.module_utils._eda import source
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from lab.testkit import link_tree
from tests.unit.test_plugin_files import HEADER

EDA = link_tree.COLLECTIONS / "ansible_collections" / "hitless" / "consul" / "extensions" / "eda"
SOURCES = sorted((EDA / "plugins" / "event_source").glob("*.py"))
RULEBOOKS = sorted((EDA / "rulebooks").glob("*.yml"))
PLAYBOOKS = {
    "promote-on-approval": ("control",),
    "rollout-on-request": ("request", "recover"),
    "rollout-on-request-awx": ("request", "recover"),
}
"""Rulebook -> the playbooks that it starts."""
OWN = {"kv": ("key", "prefix"), "health": ("services",)}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sources_of(rulebook: Path) -> list[tuple[str, dict[str, Any]]]:
    rulesets = yaml.safe_load(rulebook.read_text(encoding="utf-8"))
    named = [one for ruleset in rulesets for one in ruleset["sources"]]
    return [(name, args) for one in named for name, args in one.items() if name != "name"]


def test_there_are_some() -> None:
    assert {path.stem for path in SOURCES} == OWN.keys()
    assert PLAYBOOKS.keys() == {path.stem for path in RULEBOOKS}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_source_documents_what_it_accepts(path: Path) -> None:
    assert path.read_text(encoding="utf-8").splitlines()[:3] == HEADER
    module = load(path)
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    with pytest.raises(HitlessError) as error:
        source.read_options({"no such option": 1}, OWN[path.stem], {})
    told = str(error.value).partition("It has ")[2].rstrip(".")
    assert sorted(documented) == told.split(", ")
    assert all(option.keys() >= {"description", "type"} for option in documented.values())
    examples = yaml.safe_load(module.EXAMPLES)
    assert [name for ruleset in examples for one in ruleset["sources"] for name in one] == [
        f"hitless.consul.{path.stem}"
    ]


@pytest.mark.parametrize("path", RULEBOOKS, ids=lambda path: path.stem)
def test_a_rulebook_names_what_there_is(path: Path) -> None:
    for name, args in sources_of(path):
        documented = yaml.safe_load(load(EDA / "plugins/event_source" / f"{name.rpartition('.')[2]}.py").DOCUMENTATION)
        assert args.keys() <= documented["options"].keys()
    text = path.read_text(encoding="utf-8")
    for playbook in PLAYBOOKS[path.stem]:
        assert (link_tree.CHECKOUT / "playbooks" / f"{playbook}.yml").is_file()
        assert f"default('hitless.consul.{playbook}')" in text or f"{playbook}_template" in text


def test_both_rulebooks_have_the_same_rules() -> None:
    """They differ only in what starts the playbooks."""
    rules = []
    for path in [path for path in RULEBOOKS if path.stem.startswith("rollout-on-request")]:
        (ruleset,) = yaml.safe_load(path.read_text(encoding="utf-8"))
        rules.append([ruleset["sources"], [{**rule, "action": None} for rule in ruleset["rules"]]])
    assert rules[0] == rules[1]
