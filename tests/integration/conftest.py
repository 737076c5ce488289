"""What this machine's Consul cannot show is not collected, and the first lines say so."""

from __future__ import annotations

from lab.binaries import BinaryError, consul_version, find_consul
from tests.fleet import CONSUL

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
