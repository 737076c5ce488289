"""What every test relies on: the collection is importable, a test is marked by its folder, and there is a lab."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from lab import Lab

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS.parent))

from ansible.plugins.loader import init_plugin_loader  # noqa: E402

from lab.testkit import link_tree  # noqa: E402 - needs the path above

# Ansible's own importer, and before anybody imports ansible_collections: a package that Python's importer has loaded
# first has no file, and Ansible's plugin loaders then fail with it.
sys.path.insert(0, str(link_tree.make()))
init_plugin_loader()


# A shell that runs the tests in the background has them ignore SIGINT, and whatever they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# How fast examples come is a matter of the machine, and of what else it does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test unit, integration or rollout by its folder."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in {"unit", "integration", "rollout"}:
            item.add_marker(folder)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Five VMs with SSH behind a load balancer that tries nothing again; shared by the tests of a file.

    The Consul is 1.8.7 in the oldest column, the newest that is cached in the newest.
    """
    from lab import Lab
    from tests.fleet import CONSUL

    with Lab(vms=5, consul=CONSUL) as running:
        yield running


@pytest.fixture
def fleet(lab: Lab) -> Lab:
    """The lab of the file as it began: first version everywhere, all in rotation, no keys, no locks."""
    from tests.fleet import reset

    reset(lab)
    return lab


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A home for ssh, which keeps the sockets of its connections there: Unix limits their paths to 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="home", ignore_cleanup_errors=True) as home:
        yield Path(home)
