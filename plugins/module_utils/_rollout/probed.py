# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a probe has counted (a private helper of this collection). Pure; prober.py counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Probed:
    """The account of a deployment's probe.

    :param count: probes that have ended; ``failed``: those of them without a good answer.
    :param longest_gap: between two good answers, in seconds.
    :param last_error: what was wrong with the last one that failed; empty where none did.
    """

    count: int = 0
    failed: int = 0
    longest_gap: float = 0.0
    last_error: str = ""

    @classmethod
    def of(cls, data: object) -> Probed:
        """From what a key or a file holds; an empty account where that is none."""
        if not isinstance(data, dict):
            return cls()
        try:
            gap, error = float(data.get("longest_gap") or 0), str(data.get("last_error") or "")
            return cls(int(data.get("count") or 0), int(data.get("failed") or 0), gap, error)
        except (TypeError, ValueError):
            return cls()

    def __bool__(self) -> bool:
        return self.count > 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def and_then(self, later: Probed) -> Probed:
        """The account of both: of a deployment that was paused, and went on."""
        gap, error = max(self.longest_gap, later.longest_gap), later.last_error or self.last_error
        return Probed(self.count + later.count, self.failed + later.failed, gap, error)

    @property
    def told(self) -> str:
        """``2,914 probes, 0 failed, longest gap 0.11 s``."""
        return f"{self.count:,} probes, {self.failed:,} failed, longest gap {self.longest_gap:.2f} s"
