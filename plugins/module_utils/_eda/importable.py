# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes this collection importable in a Python that is not Ansible's (a private helper of this collection).

ansible-rulebook runs an event source as a file, in a process that knows nothing of collections. Where the package
``ansible`` is installed there, its ``ansible_collections`` hides every other one.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_NAMES = ("ansible_collections", "hitless", "consul")


def make_importable() -> None:
    """``ansible_collections.hitless.consul`` is the collection that this file belongs to, before any other.

    Does nothing in a checkout that is not in folders of these names: then somebody else has to have done it.
    """
    collection = Path(__file__).absolute().parents[3]
    if collection.parts[-len(_NAMES) :] != _NAMES:
        return
    folder = collection.parents[len(_NAMES) - 1]
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
    name = ""
    for part in _NAMES:
        name, folder = f"{name}.{part}".lstrip("."), folder / part
        package = importlib.import_module(name)
        others = [path for path in package.__path__ if path != str(folder)]
        package.__path__ = [str(folder), *others]
