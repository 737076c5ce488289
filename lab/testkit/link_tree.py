# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the checkout importable as ``ansible_collections.hitless.consul`` for the lab, for tests and type checks.

``.cache/collections`` gets a folder of that name with one link for each part of the collection. The folder itself is
real: a link to the checkout would contain itself.
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
COLLECTIONS = CHECKOUT / ".cache" / "collections"
PARTS = ("extensions", "galaxy.yml", "meta", "playbooks", "plugins", "roles")


def make() -> Path:
    """Create what is missing and return the folder that belongs on ``sys.path`` (or ANSIBLE_COLLECTIONS_PATH)."""
    collection = COLLECTIONS / "ansible_collections" / "hitless" / "consul"
    collection.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        link = collection / part
        target = os.path.relpath(CHECKOUT / part, collection)
        if link.is_symlink() and os.readlink(link) == target:
            continue
        # Test workers may do this at the same moment: a rename replaces, whoever comes last.
        fresh = collection / f".{part}.{os.getpid()}"
        fresh.symlink_to(target)
        fresh.replace(link)
    return COLLECTIONS


if __name__ == "__main__":
    print(make())
