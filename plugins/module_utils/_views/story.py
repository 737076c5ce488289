# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One deployment told from its beginning to its end (a private helper of this collection). Pure; see text.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import GOOD
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import parse_timestamp
from ansible_collections.hitless.consul.plugins.module_utils._views.report import host_row, title
from ansible_collections.hitless.consul.plugins.module_utils._views.text import (
    duration,
    moment,
    plain,
    printable,
    table,
)


def beginning(state: str, record: Record) -> str:
    """What is known of a deployment before its first host: who, when, the options, the plan.

    :param state: as readers see it; the record may still say running.
    """
    lines = [
        f"{title(record)}: {state}",
        f"  id        {record.id}",
        f"  by        {plain(record.holder) or '-'}" + (f" from {plain(record.origin)}" if record.origin else ""),
        f"  started   {moment(record.started)} UTC",
        f"  finished  {moment(record.finished)}" + (f" UTC ({duration(record.seconds)})" if record.finished else ""),
        f"  budget    {record.failure_budget}",
    ]
    for what, other in (("resumes", record.resumes), ("undoes", record.undoes)):
        lines += [f"  {what:<9} {plain(other)}"] if other else []
    if record.message:
        lines.append(f"  message   {plain(record.message)}")
    if record.options:
        lines.append("  options   " + plain(", ".join(f"{name}={value}" for name, value in record.options.items())))
    group = "stage" if record.windows else "batch"
    for number, batch in enumerate(record.batches, 1):
        lines += [f"  {record.waves.told(number)}"] if record.waves.begins_with(number) else []
        lines.append(f"  {group} {number:<3} {plain(' '.join(batch))}")
    return "\n".join(lines)


def story(
    state: str,
    record: Record,
    outcomes: Mapping[str, Outcome],
    steps: Mapping[str, Sequence[Mapping[str, str]]],
    log: Mapping[str, str],
    uses: Sequence[Mapping[str, Any]] = (),
    analysis: str = "",
) -> str:
    """One deployment told: who, when, the plan, each host with its times, its steps and its whole error, the log.

    :param steps: host -> {state, at} of each of its steps.
    :param log: host -> what was written of it.
    :param analysis: what new instances against old ones came to; empty where that was not asked for.
    :param uses: what operators said to it, see ``control.Controlled``.
    """
    lines = [beginning(state, record), *map(_said, uses)]
    lines += [f"  analysis  {plain(analysis)}"] if analysis else []
    rows = []
    for name, planned in record.hosts.items():
        one = outcomes.get(name)
        first = host_row(planned, one)
        rows.append((*first[:5], moment(one.started)[11:] if one else "-", moment(one.finished)[11:] if one else "-"))
    lines += ["", table(("host", "from", "to", "outcome", "seconds", "started", "finished"), rows)]
    taken = [(name, steps_taken(steps[name])) for name in record.hosts if steps.get(name)]
    lines += ["", table(("host", "steps"), taken, width=1000)] if taken else []
    for name, one in outcomes.items():
        if one.error:
            lines += ["", f"{plain(name)}: {plain(one.error)}"]
        if one.output and one.outcome not in GOOD:
            lines += ["  | " + plain(line) for line in one.output.splitlines()]
    for name, text in log.items():
        lines += ["", f"log of {plain(name)}", *(f"  | {printable(line)}" for line in text.splitlines())]
    if record.description:
        lines += ["", plain(record.description)]
    return "\n".join(lines)


def _said(use: Mapping[str, Any]) -> str:
    """``promote 2026-11-23 14:22:33 by anna@ci from ci:/srv: errors as before``."""
    who = f"by {use['by']}" if use.get("by") else "by hand"
    where, why = (f" from {use['origin']}" if use.get("origin") else "", f": {use['why']}" if use.get("why") else "")
    return "  " + f"{plain(use.get('word')):<9} " + plain(f"{moment(str(use.get('at')))} UTC {who}{where}{why}")


def steps_taken(steps: Sequence[Mapping[str, str]]) -> str:
    """``draining 14:22:40, deploying +10 s, returning +14 s, ok +15 s``: each step, by when it began."""
    first = parse_timestamp(steps[0].get("at")) if steps else None
    lines = []
    for number, step in enumerate(steps):
        at = parse_timestamp(step.get("at"))
        when = f" +{duration((at - first).total_seconds())}" if at and first else ""
        lines.append(f"{step.get('state')}{when if number else ' ' + moment(step.get('at'))[11:]}")
    return plain(", ".join(lines))
