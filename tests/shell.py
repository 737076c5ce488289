"""What a connection plugin does with a command line: it is run by a shell, with its standard input."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping


def in_a_shell(line: str, data: bytes, environment: Mapping[str, str] | None = None) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and standard error."""
    done = subprocess.run(["/bin/sh", "-c", line], input=data, capture_output=True, check=False, env=environment)
    return done.returncode, done.stdout, done.stderr
