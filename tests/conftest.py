"""What every test relies on: the collection is importable, and a test is marked by the folder it lives in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS.parent))

from tests import link_tree  # noqa: E402 - needs the path above

sys.path.insert(0, str(link_tree.make()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test unit, integration or rollout by its folder."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in {"unit", "integration", "rollout"}:
            item.add_marker(folder)
