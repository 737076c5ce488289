# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the plan of a deployment: which hosts, in which exact batches (a private helper of this collection).

Pure: :func:`make_plan` is a function of what fleet.py has read. Its promise: as long as batches succeed, what we do
ourselves never leaves fewer healthy instances than the minimum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import minimum_of, sizes_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import CURRENT


def make_plan(hosts: Sequence[HostState], settings: PlanSettings) -> Plan:
    """The plan, or a refusal that says what cannot work and what to set.

    :param hosts: in the order they are to be changed in.
    :raises HitlessError: what is asked for cannot work; nothing has been changed.
    """
    refuse_what_cannot_be(hosts, settings)
    states = {one.host: _state(one, settings) for one in hosts}
    refuse_skipped(hosts, states, settings)
    chosen = [one for one in hosts if states[one.host][0] == TO_CHANGE]
    refuse_without_target(chosen, settings)
    if settings.direction != "rollback":  # what warns may be what the version is taken back for
        refuse_warning(chosen)
    refuse_unverifiable(chosen, settings)
    minimum = minimum_of(settings.min_healthy, settings.registered_total)
    # Those that serve nothing take nothing away, and count as healthy once they are repaired.
    ordered = sorted(chosen, key=lambda one: not _is_broken(one))
    windows: list[int] = []
    if settings.in_window:
        batches, windows = _stages(ordered, settings, minimum)
    else:
        batches = _batches(ordered, settings, minimum)
    plans: dict[str, HostPlan] = {}
    for one in hosts:
        state, why = states[one.host]
        running = _running(one, settings)
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
        _description(settings, plans, _windows_told(names, windows) if windows else _sizes_told(names), minimum),
        warnings_of(plans, chosen, settings),
        settings.uncovered,
        tuple(windows),
        max((one.serving for one in chosen), default=0),
        settings.undoes,
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


def _sizes(ordered: Sequence[HostState], settings: PlanSettings) -> list[int]:
    """A rollback is in a hurry: a quarter of eight is two, also where seven have to go back."""
    return sizes_of(
        settings.batch_size, settings.registered_total if settings.direction == "rollback" else len(ordered)
    )


def _batches(ordered: Sequence[HostState], settings: PlanSettings, minimum: int) -> list[list[HostState]]:
    """As many hosts a batch as its size and the minimum allow, in order."""
    sizes = _sizes(ordered, settings)
    healthy = settings.serving_total
    batches: list[list[HostState]] = []
    rest = list(ordered)
    while rest:
        size = sizes[min(len(batches), len(sizes) - 1)]
        batch: list[HostState] = []
        taken = 0
        for one in rest[:size]:
            if one.serving and healthy - taken - one.serving < minimum:
                break
            taken += one.serving
            batch.append(one)
        if not batch:
            raise _too_few(rest[0], settings, healthy, minimum)
        healthy += sum(one.registered - one.serving for one in batch if not one.blocked)
        rest = rest[len(batch) :]
        batches.append(batch)
    return batches


def _stages(
    ordered: Sequence[HostState], settings: PlanSettings, minimum: int
) -> tuple[list[list[HostState]], list[int]]:
    """Hosts in order, and how many of each stage may be in flight at once.

    The last size is the window of all that are left. The gate keeps to the minimum; a window wider than that would
    only let workers stand there.
    """
    sizes = _sizes(ordered, settings)
    healthy = settings.serving_total
    stages: list[list[HostState]] = []
    windows: list[int] = []
    rest = list(ordered)
    while rest:
        size = sizes[min(len(stages), len(sizes) - 1)]
        stage = rest if len(stages) >= len(sizes) - 1 else rest[:size]
        for one in stage:
            if one.serving and healthy - one.serving < minimum:
                raise _too_few(one, settings, healthy, minimum)
            healthy += 0 if one.blocked else one.registered - one.serving
        largest = max(one.serving for one in stage)
        room = (healthy - minimum) // largest if largest else size
        windows.append(max(1, min(size, room, len(stage))))
        stages.append(list(stage))
        rest = rest[len(stage) :]
    return stages, windows


def _too_few(one: HostState, settings: PlanSettings, healthy: int, minimum: int) -> HitlessError:
    total = settings.registered_total
    share = f" ({settings.min_healthy} of {total})" if isinstance(settings.min_healthy, str) else ""
    repaired = "" if healthy == settings.serving_total else " once the broken hosts are repaired"
    have = f"{healthy} of its {total} instance{'' if total == 1 else 's'} {'is' if healthy == 1 else 'are'} healthy"
    lower = healthy - one.serving
    hint = f"Set rollout_min_healthy: {max(lower, 0)} to accept {'the downtime' if lower <= 0 else 'fewer'}."
    if healthy < total:
        hint = f"Repair the others first, or set rollout_min_healthy: {max(lower, 0)}" + (
            " to accept the downtime." if lower <= 0 else " to accept fewer."
        )
    return HitlessError(
        f"{settings.service} cannot be rolled over {one.host}: {have}{repaired}, and {minimum}{share} must stay so; "
        "nothing was changed.",
        hint=hint,
    )


def _description(settings: PlanSettings, plans: dict[str, HostPlan], sizes: str, minimum: int) -> str:
    change = Counter(
        (one.from_version or "unknown", one.to_version) for one in plans.values() if one.state == TO_CHANGE
    )
    count = sum(change.values())
    hosts = f"{count} host{'' if count == 1 else 's'}"
    if not change and settings.nothing:
        return settings.nothing
    if not change:
        parts = [f"{settings.service}: nothing to do"]
    elif len(change) == 1:
        before, after = next(iter(change))
        parts = [f"{settings.service} {before} -> {after} on {hosts} {sizes}"]
    else:
        ways = ", ".join(f"{number} from {before} to {after}" for (before, after), number in change.items())
        parts = [f"{settings.service} on {hosts} ({ways}) {sizes}"]
    if change:
        parts.append(f"at least {minimum} of {settings.registered_total} stay healthy")
    broken = [one.host for one in plans.values() if one.state == TO_CHANGE and not one.healthy]
    if broken:
        parts.append(f"not healthy now: {', '.join(broken[:NAMED])}" + (", ..." if len(broken) > NAMED else ""))
    for state, text in (
        (CURRENT, "not changed by it" if settings.undoes else "already current"),
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
