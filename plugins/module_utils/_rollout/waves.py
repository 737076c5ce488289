# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The waves of a rollout: parts of the fleet that are changed one after the other (a private helper).

Pure. wave_options.py reads which host is in which; planning.py gives each wave stages, or batches, of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Wave:
    """One wave.

    :param stages: of the plan, or batches, that it has; 0 where nothing of it is changed, and in a rollback.
    :param registered: instances of the service on its hosts; ``minimum``: how many of them must stay in rotation.
    """

    name: str
    stages: int = 0
    registered: int = 0
    minimum: int = 0


@dataclass(frozen=True)
class Waves:
    """All waves of a rollout, in their order; none where it has none."""

    each: tuple[Wave, ...] = ()

    @classmethod
    def of(cls, data: Sequence[Mapping[str, Any]] | None) -> Waves:
        """From what :meth:`as_list` gave; what a lookup raises is raised for anything else."""
        numbers = ("stages", "registered", "minimum")
        return cls(
            tuple(Wave(str(one["name"]), **{name: int(one.get(name) or 0) for name in numbers}) for one in data or ())
        )

    def as_list(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in self.each]

    def at(self, stage: int) -> Wave | None:
        """The wave of a stage, 1 for the first."""
        return next((wave for wave, last in self._lasts() if last - wave.stages < stage <= last), None)

    def named(self, name: str | None) -> Wave | None:
        """The wave of that name."""
        return next((wave for wave in self.each if wave.name == name), None)

    def begins_with(self, stage: int) -> bool:
        """Whether a stage is the first of its wave."""
        return any(wave.stages and last - wave.stages + 1 == stage for wave, last in self._lasts())

    def ends_with(self, stage: int) -> bool:
        """Whether a stage is the last of its wave."""
        return any(wave.stages and last == stage for wave, last in self._lasts())

    def told(self, stage: int) -> str:
        """``wave eu-1, 1 of 3``; empty where the stage is in none."""
        wave = self.at(stage)
        return f"wave {wave.name}, {self.each.index(wave) + 1} of {len(self.each)}" if wave else ""

    def with_stages(self, number: int, stages: int) -> Waves:
        """With so many stages in one of them, 0 for the first."""
        each = list(self.each)
        each[number] = replace(each[number], stages=stages)
        return Waves(tuple(each))

    def not_begun(self, begun: Iterable[int]) -> list[str]:
        """The names of those of which no stage has begun.

        :param begun: the stages that have.
        """
        has_begun = {wave.name for stage in begun if (wave := self.at(stage))}
        return [wave.name for wave in self.each if wave.stages and wave.name not in has_begun]

    def going_on(self, now: Waves) -> Waves:
        """The waves of a plan that goes on, with the instances that each has now."""
        found = {wave.name: wave for wave in now.each}
        known = {wave.name for wave in self.each}
        ours = [replace(found[wave.name], stages=wave.stages) if wave.name in found else wave for wave in self.each]
        return Waves((*ours, *(replace(wave, stages=0) for wave in now.each if wave.name not in known)))

    def _lasts(self) -> list[tuple[Wave, int]]:
        """Each wave, and its last stage."""
        last, found = 0, []
        for wave in self.each:
            last += wave.stages
            found.append((wave, last))
        return found
