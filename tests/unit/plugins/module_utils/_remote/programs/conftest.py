"""What the tests of the programs share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a lock that only this test uses."""
    name = f"hitless-test-{os.getpid()}-{time.monotonic_ns()}"
    yield name
    for folder in ("/run/lock", "/tmp"):
        Path(folder, f"hitless-{name}.lock").unlink(missing_ok=True)
