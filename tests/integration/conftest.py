"""A real Consul, the oldest and the newest, and a service of one test alone.

What this machine's Consul cannot show is not collected, and the first lines say so.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.binaries import BinaryError, consul_version, find_consul
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import ENDS, Servers, Services

LIMITS_SINCE = (1, 15)

try:
    version = consul_version(find_consul(CONSUL))
except BinaryError as error:
    version = f"none ({error})"
    collect_ignore: list[str] = []
else:
    has_limits = tuple(int(part) for part in version.split(".")) >= LIMITS_SINCE
    collect_ignore = [] if has_limits else ["test_limits.py"]


def pytest_report_header() -> str:
    left_out = "; NOT RUN test_limits.py: Consul limits requests from 1.15 on" if collect_ignore else ""
    return f"consul: {version}{left_out}"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The servers of this worker."""
    made = Servers()
    yield made
    made.close()


# The newest Consul with the oldest of all else is one combination that make test leaves out.
@pytest.fixture(
    scope="module", params=[ENDS[0], pytest.param(ENDS[1], marks=pytest.mark.newest_consul)], ids=["oldest", "newest"]
)
def consul(request: pytest.FixtureRequest, servers: Servers) -> Server:
    return servers.get(request.param)


@pytest.fixture
def web(consul: Server) -> Services:
    return Services(consul)
