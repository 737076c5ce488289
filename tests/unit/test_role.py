"""What is written from the code, by scripts/write-options, says what the code says; and the role makes few facts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import states_table

CHECKOUT = Path(__file__).resolve().parents[2]
ROLE = CHECKOUT / "roles" / "rollout"


FILES = sorted(ROLE.parent.glob("*/*/*.yml"))


@pytest.mark.parametrize(
    "path",
    [file for file in FILES if file.parent.name in ("tasks", "handlers")],
    ids=lambda file: "-".join(file.parts[-3:]),
)
def test_no_task_hands_a_token_to_a_command(path: Path) -> None:
    """What a command gets in its environment, or as an argument, stands in lists of processes and logs."""
    for task in yaml.safe_load(path.read_text(encoding="utf-8")):
        given = [task.get(key) for key in ("environment", "ansible.builtin.command", "ansible.builtin.shell")]
        assert "token" not in str(given).lower(), task["name"]


def test_the_states_of_a_host_are_documented_as_they_are() -> None:
    text = (CHECKOUT / "docs" / "keys.md").read_text(encoding="utf-8")
    table = text.partition("<!-- table of states -->\n\n")[2].partition("\n<!-- end of the table -->")[0]
    assert table == states_table(), "run scripts/write-options"


@pytest.mark.parametrize("role", sorted(path.name for path in (CHECKOUT / "roles").iterdir() if path.is_dir()))
def test_the_facts_of_a_role_begin_with_its_name(role: str) -> None:
    """Those of the rollout's, which its playbooks share, with that of the collection: rollout_ is for options."""
    prefix = "hitless_" if role == "rollout" else f"{role}_"
    made = set()
    for file in (CHECKOUT / "roles" / role).rglob("*.yml"):
        text = file.read_text("utf-8")
        made |= set(re.findall(r"^\s*(?:register|loop_var): (\w+)", text, re.MULTILINE))
        made |= set(re.findall(r"set_fact:\n\s+(\w+):", text))
    assert [name for name in made if not name.lstrip("_").startswith(prefix)] == []


def test_the_role_and_the_playbooks_make_few_facts() -> None:
    """Python knows none of their names: a task names the variable."""
    files = [*ROLE.rglob("*.yml"), *(CHECKOUT / "playbooks").glob("*.yml")]
    found = {name for file in files for name in re.findall(r"\b(?:_rollout|hitless)_[a-z_]+", file.read_text("utf-8"))}
    facts = {name for name in found if not name.startswith("hitless_consul")}
    assert len(facts) <= 12, sorted(facts)
    python = "\n".join(
        file.read_text("utf-8") for file in (CHECKOUT / "plugins").rglob("*.py") if file.parts[-2] != "modules"
    )
    named = {name for name in facts if re.search(rf"\b{name}\b", python)}
    assert named <= {"hitless_run"}, "in an example of a comment"


def test_the_tag_of_a_block_is_a_text() -> None:
    """ansible-core before 2.19 refuses a list that a template makes, and only once a rescue in the block begins."""

    def blocks(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for entry in entries:
            inside = [one for part in ("tasks", "block", "rescue", "always") for one in entry.get(part, [])]
            yield from [entry] if "block" in entry else []
            yield from blocks(inside)

    files = [*(ROLE / "tasks").rglob("*.yml"), *(CHECKOUT / "playbooks").glob("*.yml")]
    found = [(file.name, block) for file in files for block in blocks(yaml.safe_load(file.read_text("utf-8")))]
    assert len(found) > 10
    assert [(name, block["name"]) for name, block in found if "['never']" in str(block.get("tags"))] == []
