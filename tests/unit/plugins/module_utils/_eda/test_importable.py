"""An event source imports its own collection, in whatever Python ansible-rulebook runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import link_tree

COLLECTION = link_tree.COLLECTIONS / "ansible_collections" / "hitless" / "consul"
SOURCES = sorted(path.name for path in (link_tree.CHECKOUT / "extensions/eda/plugins/event_source").glob("*.py"))
RUN = """
import runpy, sys
main = runpy.run_path(sys.argv[1])["main"]
print(sys.modules["ansible_collections.hitless.consul.plugins.module_utils._eda.watches"].__file__)
"""


def imported_from(source: str, *paths: Path, code: str = RUN) -> str:
    """Where the collection's own modules come from, in a Python that has these folders on its path."""
    done = subprocess.run(
        [sys.executable, "-c", code, COLLECTION / "extensions/eda/plugins/event_source" / source],
        env={"PYTHONPATH": ":".join(str(path) for path in paths), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("source", SOURCES)
def test_it_finds_its_collection(source: str) -> None:
    assert imported_from(source) == str(COLLECTION / "plugins/module_utils/_eda/watches.py")


def test_not_the_one_of_another_place(tmp_path: Path) -> None:
    """The package ansible has an ansible_collections with an __init__.py, which hides all others."""
    other = tmp_path / "ansible_collections" / "hitless" / "consul"
    (other / "plugins" / "module_utils" / "_eda").mkdir(parents=True)
    (other / "plugins" / "module_utils" / "_eda" / "watches.py").write_text("raise ImportError('the other one')\n")
    for folder in (other, other.parent, other.parent.parent):
        (folder / "__init__.py").touch()
    mine = str(COLLECTION / "plugins/module_utils/_eda/watches.py")
    assert imported_from("kv.py", tmp_path) == mine
    assert imported_from("kv.py", tmp_path, code="import ansible_collections.hitless.consul\n" + RUN) == mine
