# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the plan of a deployment: which hosts, in which exact batches (a private helper of this collection).

Pure: :func:`make_plan` is a function of what fleet.py has read. Its promise: as long as batches succeed, what we do
ourselves never leaves fewer healthy instances than the minimum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import (
    NAMED,
    HostPlan,
    HostState,
    Plan,
    PlanSettings,
    coordinator_name,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan_checks import (
    refuse_skipped,
    refuse_unverifiable,
    refuse_warning,
    refuse_what_cannot_be,
    refuse_without_target,
    warnings_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    CHANGED_SINCE,
    OTHER_OWNER,
    TO_CHANGE,
    UNREACHABLE,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import (
    minimum_in_wave,
    minimum_of,
    sizes_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import CURRENT
from ansible_collections.hitless.consul.plugins.module_utils._rollout.waves import Wave, Waves


def make_plan(hosts: Sequence[HostState], settings: PlanSettings) -> Plan:
    """The plan, or a refusal that says what cannot work and what to set.

    :param hosts: in the order they are to be changed in.
    :raises HitlessError: what is asked for cannot work; nothing has been changed.
    """
    refuse_what_cannot_be(hosts, settings)
    states = {one.host: _state(one, settings) for one in hosts}
    refuse_skipped(hosts, states, settings)
    chosen = [one for one in hosts if states[one.host][0] == TO_CHANGE]
    if not settings.kind.keeps_version:
        refuse_without_target(chosen, settings)
    if settings.direction != "rollback":  # what warns may be what the version is taken back for
        refuse_warning(chosen)
    refuse_unverifiable(chosen, settings)
    minimum = minimum_of(settings.min_healthy, settings.registered_total)
    # Those that serve nothing take nothing away, and count as healthy once they are repaired.
    ordered = sorted(chosen, key=lambda one: not _is_broken(one))
    waves = _waves(hosts, settings)
    # A rollback is in a hurry: the minimum in each wave holds, and their order does not.
    names_of_waves = [wave.name for wave in waves.each] if settings.direction != "rollback" else []
    parts = [[one for one in ordered if one.wave == name] for name in names_of_waves] if names_of_waves else [ordered]
    room = Room(hosts, settings, minimum, waves)
    batches: list[list[HostState]] = []
    windows: list[int] = []
    for number, part in enumerate(parts):
        before = len(batches)
        if settings.in_window:
            _add_stages(batches, windows, part, settings, room)
        else:
            _add_batches(batches, part, settings, room)
        if names_of_waves:
            waves = waves.with_stages(number, len(batches) - before)
    plans: dict[str, HostPlan] = {}
    for one in hosts:
        state, why = states[one.host]
        running = one.version if settings.kind.keeps_version else _running(one, settings)
        to = one.target if state == TO_CHANGE else None
        back = running if state == TO_CHANGE and running != to and one.returns else None
        plans[one.host] = HostPlan(
            one.host, one.node, state, running, to, back, one.is_healthy, why, unsure=not one.sure
        )
    for number, batch in enumerate(batches, 1):
        leader = None if windows else coordinator_name(settings.service, number, len(batches))
        for one in batch:
            plans[one.host] = replace(plans[one.host], batch=number, coordinator=leader)
    names = [[one.host for one in batch] for batch in batches]
    return Plan(
        settings.service,
        plans,
        names,
        minimum,
        settings.registered_total,
        settings.serving_total,
        _description(settings, plans, _groups_told(names, windows, waves), minimum, waves),
        warnings_of(plans, chosen, settings),
        settings.uncovered,
        tuple(windows),
        max((one.serving for one in chosen), default=0),
        settings.undoes,
        waves,
        {one.node: one.wave for one in hosts if one.wave},
    )


def _is_broken(one: HostState) -> bool:
    return one.serving == 0


def _state(one: HostState, settings: PlanSettings) -> tuple[str, str | None]:
    if one.decided:
        return one.decided
    if one.maintenance and not one.maintenance.ours:
        return OTHER_OWNER, f"in maintenance set by someone else: {one.maintenance.reason or 'no reason given'}"
    if (
        settings.skip_current
        and not settings.kind.keeps_version
        and one.is_healthy
        and not one.maintenance
        and one.target is not None
        and one.version == one.target
        and one.sure
    ):
        return CURRENT, f"already healthy on {one.target}"
    if one.unreachable:
        return UNREACHABLE, one.unreachable
    return TO_CHANGE, one.note or None


def _running(one: HostState, settings: PlanSettings) -> str | None:
    """What runs there: as recorded, else as given, else as the service's meta tells."""
    return one.version if one.version_source == "recorded" else settings.previous_version or one.version


def _waves(hosts: Sequence[HostState], settings: PlanSettings) -> Waves:
    """The waves with what is registered in each, and what must stay in rotation there.

    A rollback can always take one host of a wave: it may be what repairs the others.
    """
    found = []
    for name in settings.waves:
        mine = [one for one in hosts if one.wave == name]
        sizes = [one.registered for one in mine]
        registered, largest = sum(sizes), max(sizes, default=0)
        minimum = minimum_in_wave(settings.min_healthy, registered, settings.registered_total, largest)
        if settings.direction == "rollback":
            minimum = max(0, min(minimum, sum(one.serving for one in mine) - largest))
        found.append(Wave(name, registered=registered, minimum=minimum))
    return Waves(tuple(found))


def _sizes(part: Sequence[HostState], settings: PlanSettings) -> list[int]:
    """A rollback is in a hurry: a quarter of eight is two, also where seven have to go back."""
    return sizes_of(settings.batch_size, settings.registered_total if settings.direction == "rollback" else len(part))


def _add_batches(batches: list[list[HostState]], part: Sequence[HostState], settings: PlanSettings, room: Room) -> None:
    """As many hosts a batch as its size and the minimum allow, in order."""
    sizes, rest = _sizes(part, settings), list(part)
    while rest:
        size = sizes[min(len(batches), len(sizes) - 1)]
        batch: list[HostState] = []
        taken: Counter[str] = Counter()
        for one in rest[:size]:
            if room.short_without(one, taken) is not None:
                break
            batch.append(one)
            taken.update(dict.fromkeys((_ALL, one.wave), one.serving))
        if not batch:
            raise room.too_few(rest[0])
        room.deploy(batch)
        rest = rest[len(batch) :]
        batches.append(batch)


def _add_stages(
    stages: list[list[HostState]], windows: list[int], part: Sequence[HostState], settings: PlanSettings, room: Room
) -> None:
    """Hosts in order, and how many of each stage may be in flight at once.

    The last size is the window of all that are left. The gate keeps to the minimum; a window wider than that would
    only let workers stand there.
    """
    sizes, rest = _sizes(part, settings), list(part)
    while rest:
        size = sizes[min(len(stages), len(sizes) - 1)]
        stage = rest if len(stages) >= len(sizes) - 1 else rest[:size]
        for one in stage:
            if room.short_without(one) is not None:
                raise room.too_few(one)
            room.deploy([one])
        windows.append(max(1, min(size, room.window(stage, size), len(stage))))
        stages.append(list(stage))
        rest = rest[len(stage) :]


class Room:
    """How many instances may get traffic as the turns go on, in all and in each wave, and how many must."""

    def __init__(self, hosts: Sequence[HostState], settings: PlanSettings, minimum: int, waves: Waves) -> None:
        self._settings = settings
        self._serving = Counter({_ALL: settings.serving_total})
        for one in hosts:
            if one.wave:
                self._serving[one.wave] += one.serving
        self._waves = {wave.name: wave for wave in waves.each}
        self._minimum = {_ALL: minimum, **{wave.name: wave.minimum for wave in waves.each}}

    def short_without(self, one: HostState, taken: Mapping[str, int] | None = None) -> str | None:
        """Where too few would be left without a host: in a wave, or in all.

        None where it fits: what serves nothing takes nothing away.

        :param taken: place -> instances that are taken out beside it.
        """
        if not one.serving:
            return None
        places = [_ALL, *([one.wave] if one.wave in self._minimum else [])]
        left = {place: self._serving[place] - (taken or {}).get(place, 0) - one.serving for place in places}
        return next((place for place in places if left[place] < self._minimum[place]), None)

    def deploy(self, batch: Sequence[HostState]) -> None:
        """These are healthy afterwards, but where their nodes cannot be."""
        for one in batch:
            gained = 0 if one.blocked else one.registered - one.serving
            for place in dict.fromkeys((_ALL, one.wave)):
                self._serving[place] += gained

    def window(self, stage: Sequence[HostState], size: int) -> int:
        """How many of these hosts fit beside each other."""
        largest = max(one.serving for one in stage)
        room = (self._serving[_ALL] - self._minimum[_ALL]) // largest if largest else size
        waves = {one.wave for one in stage}
        if not waves <= self._waves.keys():
            return room
        in_waves = sum(max(1, (self._serving[name] - self._minimum[name]) // max(1, largest)) for name in waves)
        return min(room, in_waves)

    def too_few(self, one: HostState) -> HitlessError:
        """Why a host cannot have its turn."""
        place = self.short_without(one) or _ALL
        settings, minimum, healthy = self._settings, self._minimum[place], self._serving[place]
        wave = self._waves.get(place)
        total = wave.registered if wave else settings.registered_total
        where = f" in wave {wave.name}" if wave else ""
        share = f" ({settings.min_healthy} of {total})" if isinstance(settings.min_healthy, str) else ""
        repaired = "" if healthy == settings.serving_total or wave else " once the broken hosts are repaired"
        are = "is" if healthy == 1 else "are"
        have = f"{healthy} of its {total} instance{'' if total == 1 else 's'}{where} {are} healthy"
        lower = healthy - one.serving
        hint = f"Set rollout_min_healthy: {max(lower, 0)} to accept {'the downtime' if lower <= 0 else 'fewer'}."
        if healthy < total:
            hint = f"Repair the others first, or set rollout_min_healthy: {max(lower, 0)}" + (
                " to accept the downtime." if lower <= 0 else " to accept fewer."
            )
        if wave:
            hint = "Repair the others of that wave first, or set a lower rollout_min_healthy."
        return HitlessError(
            f"{settings.service} cannot be rolled over {one.host}: {have}{repaired}, and {minimum}{share} must stay "
            "so; nothing was changed.",
            hint=hint,
        )


_ALL = ""
"""The place that is no wave: all instances."""


def _description(settings: PlanSettings, plans: dict[str, HostPlan], sizes: str, minimum: int, waves: Waves) -> str:
    change = Counter(
        (one.from_version or "unknown", one.to_version) for one in plans.values() if one.state == TO_CHANGE
    )
    count = sum(change.values())
    hosts = f"{count} host{'' if count == 1 else 's'}"
    kind = settings.kind
    if not change and settings.nothing:
        return settings.nothing
    if not change:
        parts = [f"{settings.service}: nothing to do"]
    elif kind.keeps_version:
        parts = [f"{kind.direction} {settings.service} on {hosts} {sizes}, no version changes"]
    elif len(change) == 1:
        before, after = next(iter(change))
        parts = [f"{settings.service} {before} -> {after} on {hosts} {sizes}"]
    else:
        ways = ", ".join(f"{number} from {before} to {after}" for (before, after), number in change.items())
        parts = [f"{settings.service} on {hosts} ({ways}) {sizes}"]
    if change:
        parts.append(f"at least {minimum} of {settings.registered_total} stay healthy{_minimums_told(waves)}")
    current = "not changed by it" if settings.undoes else kind.already if kind.keeps_version else "already current"
    broken = [one.host for one in plans.values() if one.state == TO_CHANGE and not one.healthy]
    if broken:
        parts.append(f"not healthy now: {', '.join(broken[:NAMED])}" + (", ..." if len(broken) > NAMED else ""))
    for state, text in (
        (CURRENT, current),
        (OTHER_OWNER, "in other maintenance"),
        (UNREACHABLE, "unreachable"),
        (CHANGED_SINCE, "changed since"),
    ):
        found = sum(one.state == state for one in plans.values())
        if found:
            parts.append(f"{found} {text}")
    if settings.uncovered:
        parts.append(f"{len(settings.uncovered)} not covered")
    if settings.direction == "rollback":
        parts[0] = f"undo {settings.undoes}: {parts[0]}" if settings.undoes else f"roll back {parts[0]}"
    return "; ".join(parts)


def _groups_told(groups: list[list[str]], windows: Sequence[int], waves: Waves) -> str:
    """``one at a time, in 3 waves: eu-1 (3 hosts), eu-2 (3 hosts), eu-3 (nothing to do)``."""

    def sizes(first: int, after: int) -> str:
        part = groups[first:after]
        return _windows_told(part, windows[first:after]) if windows else _sizes_told(part)

    if not any(wave.stages for wave in waves.each):
        return sizes(0, len(groups)) if groups else ""
    first, by_wave = 0, []
    for wave in waves.each:
        after = first + wave.stages
        hosts = sum(map(len, groups[first:after]))
        by_wave.append((wave.name, hosts, sizes(first, after) if hosts else ""))
        first = after
    ways = {told for _name, hosts, told in by_wave if hosts}
    listed = []
    for name, hosts, told in by_wave[:NAMED]:
        count = f"{hosts} host{'' if hosts == 1 else 's'}" if hosts else "nothing to do"
        listed.append(f"{name} ({count}{f' {told}' if hosts and len(ways) > 1 else ''})")
    more = ", ..." if len(by_wave) > NAMED else ""
    count = f"{len(by_wave)} wave{'' if len(by_wave) == 1 else 's'}"
    return f"{f'{ways.pop()}, ' if len(ways) == 1 else ''}in {count}: {', '.join(listed)}{more}"


def _minimums_told(waves: Waves) -> str:
    """``, and 1 of 3 in each wave``."""
    told = {f"{wave.minimum} of {wave.registered}" for wave in waves.each}
    if len(told) < 2:
        return f", and {told.pop()} in each wave" if told else ""
    listed = [f"{wave.minimum} of {wave.registered} in {wave.name}" for wave in waves.each[:NAMED]]
    return f", and {', '.join(listed)}{', ...' if len(waves.each) > NAMED else ''}"


def _sizes_told(batches: list[list[str]]) -> str:
    sizes = [len(batch) for batch in batches]
    if len(sizes) == 1:
        return "in 1 batch"
    if len(set(sizes)) == 1:
        return f"in {len(sizes)} batches of {sizes[0]}"
    return f"in {len(sizes)} batches of {', '.join(map(str, sizes[:8]))}" + (", ..." if len(sizes) > 8 else "")


def _windows_told(stages: list[list[str]], windows: Sequence[int]) -> str:
    if len(stages) == 1:
        return "one at a time" if windows[0] == 1 else f"{windows[0]} at a time"
    told = [
        f"{len(stage)} ({window} at a time)" if window < len(stage) else str(len(stage))
        for stage, window in zip(stages, windows, strict=True)
    ]
    return f"in {len(stages)} stages of {', '.join(told)}"
