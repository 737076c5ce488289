"""What every test relies on: the collection is importable, a test is marked by its folder, and there is a lab."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
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
from tests.fleet import Shared, reset  # noqa: E402

# Ansible's own importer, and before anybody imports ansible_collections: a package that Python's importer has loaded
# first has no file, and Ansible's plugin loaders then fail with it.
sys.path.insert(0, str(link_tree.make()))
init_plugin_loader()


# In the background they would ignore SIGINT, by nohup SIGHUP, and so would whatever they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# How fast examples come is a matter of the machine, and of what else it does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark each test by its folder; then put those that were asked for in order."""
    for item in items:
        if _folder(item) in {"unit", "simulation", "integration", "rollout"}:
            item.add_marker(_folder(item))
    yield
    _order(items)


def _folder(item: pytest.Item) -> str:
    return _first_part(item.path)


@cache
def _first_part(path: Path) -> str:
    """Cached: each worker asks this several times of each of some thousand tests."""
    return path.relative_to(TESTS).parts[0]


def _has_shared_lab(item: pytest.Item) -> bool:
    """Whether the lab of this test is the one of its worker, and not of its file alone."""
    return "shared_lab" in getattr(item, "fixturenames", ())


def _order(items: list[pytest.Item]) -> None:
    """The files with the most tests of a folder first, so that all workers end at about the same time.

    Beside rollouts those with the shared lab come before, so that no worker keeps it beside tests of something else.
    """
    size = Counter(item.path for item in items)
    with_lab = {item.path for item in items if _has_shared_lab(item)}
    folders = list(dict.fromkeys(_folder(item) for item in items))

    def place(item: pytest.Item) -> tuple[int, bool, int]:
        folder = _folder(item)
        return folders.index(folder), folder != "rollout" and item.path not in with_lab, -size[item.path]

    items.sort(key=place)


SHARED = pytest.StashKey[Shared]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SHARED] = Shared()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """A lab takes time of the processor also while nobody uses it: it ends where other tests than rollouts follow."""
    if nextitem is None or not (_has_shared_lab(nextitem) or _folder(nextitem) == "rollout"):
        item.config.stash[SHARED].close()


@pytest.fixture(scope="session")
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """What keeps the lab of this worker."""
    yield request.config.stash[SHARED]
    request.config.stash[SHARED].close()


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, shared_lab: Shared) -> Iterator[Lab]:
    """Five VMs with SSH behind a load balancer that tries nothing again; of the files of a worker, one after the other.

    The Consul is 1.8.7 in the oldest column, the newest that is cached in the newest. No file gets the lab in which a
    test of another has failed.
    """
    failed = request.session.testsfailed
    yield shared_lab.get()
    if request.session.testsfailed != failed:
        shared_lab.close()


@pytest.fixture
def fleet(lab: Lab) -> Lab:
    """The lab as it began: first version everywhere, all in rotation, no keys, no locks."""
    reset(lab)
    return lab


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A home for ssh, which keeps the sockets of its connections there: Unix limits their paths to 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="home", ignore_cleanup_errors=True) as home:
        yield Path(home)
