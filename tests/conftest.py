"""What every test relies on: the collection is importable, and a test is marked by the folder it lives in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS.parent))

from ansible.plugins.loader import init_plugin_loader  # noqa: E402

from tests import link_tree  # noqa: E402 - needs the path above

# Ansible's own importer, and before anybody imports ansible_collections: a package that Python's importer has loaded
# first has no file, and Ansible's plugin loaders then fail with it.
sys.path.insert(0, str(link_tree.make()))
init_plugin_loader()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test unit, integration or rollout by its folder."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in {"unit", "integration", "rollout"}:
            item.add_marker(folder)
