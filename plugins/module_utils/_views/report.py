# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and sentences about deployments (a private helper of this collection).

Pure, and plain ASCII (a log's lines: plain text) without any control character: what comes from Consul is not trusted
to be fit for a terminal.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    CANCELLED,
    INTERRUPTED,
    SUCCESSFUL,
    Outcome,
    PlannedHost,
    Record,
    summary_of,
    within_budget,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
    FAILED,
    GOOD,
    LOST,
    OK,
    PENDING,
    ROLLED_BACK,
    SKIPPED,
    UNTOUCHED,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import parse_timestamp

WIDTH = 110
"""Columns of a table; a longer last column is cut, or goes on in the next line."""
ROWS = 60
"""Rows of a table of hosts; more that are ok, current or skipped are only counted."""

_SAID = {
    OK: "changed",
    CURRENT: "already there",
    ROLLED_BACK: "rolled back",
    FAILED: "failed",
    LOST: "lost",
    SKIPPED: "skipped",
    UNTOUCHED: "put back untouched",
    PENDING: "not begun",
}
_NAMED = 3
"""Hosts that a sentence names of each kind."""


def plain(text: object) -> str:
    """One line of printable ASCII."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    return re.sub(r"[^ -~]", "?", line)


def printable(line: str) -> str:
    """A line of a log as it may be shown: its spaces as they are, and nothing that a terminal takes for a command."""
    return "".join(one if one.isprintable() else "?" for one in line.expandtabs())


def cut(text: object, width: int) -> str:
    """The text in at most ``width`` columns."""
    line = plain(text)
    return line if len(line) <= width else line[: max(0, width - 3)] + "..."


def duration(seconds: float | None) -> str:
    """``0.4 s``, ``12 s``, ``1 m 12 s``, ``2 h 3 m``, ``3 d 4 h``; a dash where it is unknown."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def ago(text: str | None, now: datetime) -> str:
    """``3 m 2 s ago`` for a time as keys hold it."""
    at = parse_timestamp(text)
    return f"{duration(round((now - at).total_seconds()))} ago" if at else "-"


def moment(text: str | None) -> str:
    """A time as keys hold it, for a person: ``2026-11-23 14:22:33``, in UTC."""
    at = parse_timestamp(text)
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "-"


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, width: int = WIDTH, indent: int = 0, wrap: bool = False
) -> str:
    """Aligned columns, two spaces between them.

    :param wrap: whether what is longer than the last column goes on in the next line; it is cut otherwise.
    """
    lines = [tuple(plain(cell) or "-" for cell in row) for row in rows]
    lines = [tuple(head), *lines]
    sizes = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    left = max(30 if wrap else 20, width - indent - sum(sizes) - 2 * len(sizes))
    out = []
    for line in lines:
        parts = textwrap.wrap(line[-1], left, break_on_hyphens=False) if wrap else [cut(line[-1], left)]
        cells = [cell.ljust(size) for cell, size in zip(line, sizes, strict=False)]
        for part in parts or [""]:
            out.append((" " * indent + "  ".join([*cells, part])).rstrip())
            cells = [" " * size for size in sizes]
    return "\n".join(out)


def hosts_table(record: Record, outcomes: Mapping[str, Outcome], *, width: int = WIDTH, rows: int = ROWS) -> str:
    """The hosts of a deployment: from, to, outcome, seconds, why. The full texts are in the record."""
    if not record.hosts:
        return "No hosts."
    shown = [_host_row(planned, outcomes.get(name)) for name, planned in record.hosts.items()]
    hidden = 0
    if len(shown) > rows:
        bad = sum(row[3] not in GOOD for row in shown)
        room = max(0, rows - bad)
        kept = []
        for row in shown:
            if row[3] in GOOD and room == 0:
                hidden += 1
                continue
            room -= row[3] in GOOD
            kept.append(row)
        shown = kept
    text = table(("host", "from", "to", "outcome", "seconds", "why"), shown, width=width)
    return text + (f"\n... and {hidden} more that are ok, current or skipped" if hidden else "")


def not_begun(planned: PlannedHost) -> str:
    """What is said of a host whose turn never came: ``not begun (still on 1.4.2)``."""
    return f"not begun (still on {planned.from_version})" if planned.from_version else "not begun"


def reasons(record: Record, outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Host -> why it did not end well, for those that say so."""
    found = {}
    for name, planned in record.hosts.items():
        one = outcomes.get(name)
        why = one.error if one and one.outcome != PENDING else not_begun(planned)
        if why:
            found[name] = why
    return found


def _host_row(planned: PlannedHost, outcome: Outcome | None) -> tuple[str, ...]:
    host, from_version, to_version = planned.host, planned.from_version, planned.to_version
    if outcome is None or outcome.outcome == PENDING:
        return (host, from_version or "-", to_version or "-", PENDING, "-", not_begun(planned))
    seconds = "-" if outcome.seconds is None else f"{outcome.seconds:.1f}"
    return (
        host,
        outcome.from_version or from_version or "-",
        outcome.to_version or to_version or "-",
        outcome.outcome,
        seconds,
        outcome.error or "-",
    )


def plan_table(hosts: Mapping[str, Mapping[str, Any]], *, width: int = WIDTH) -> str:
    """What a plan means for each host, in the order of their turns; those without a turn last.

    :param hosts: host -> what the plan says of it, as M(hitless.consul.plan) returns it.
    """
    ordered = sorted(hosts.items(), key=lambda item: (item[1]["batch"] is None, item[1]["batch"] or 0))
    rows = [
        (
            plan["batch"] or "-",
            host,
            plan["from"] or "?",
            plan["to"] or "-",
            plan["rollback_to"] or "-",
            plan["why"] or ("" if plan["healthy"] else "not healthy now"),
        )
        for host, plan in ordered[:ROWS]
    ]
    shown = table(("batch", "host", "from", "to", "back to", "note"), rows, width=width)
    more = len(hosts) - len(rows)
    return f"{shown}\n... and {more} more hosts" if more else shown


def counted(
    outcomes: Mapping[str, str],
    *,
    running: bool = False,
    interrupted: bool = False,
    under_way: Mapping[str, str] | None = None,
) -> str:
    """``4 changed, 1 rolled back (web-3)``: hosts by outcome, those that did not end well by name.

    :param interrupted: whether the run was, so that the hosts whose turn it was were cut off.
    :param under_way: host -> the step it is at.
    """
    doing = ", ".join(f"{host} {step}" for host, step in list((under_way or {}).items())[:_NAMED])
    more = ", ..." if len(under_way or {}) > _NAMED else ""
    parts = [f"{len(under_way)} under way ({doing}{more})"] if under_way else []
    outcomes = {host: outcome for host, outcome in outcomes.items() if host not in (under_way or {})}
    for outcome, number in summary_of(outcomes.values()).items():
        names = [host for host, one in outcomes.items() if one == outcome]
        told = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        to_come = running and outcome == PENDING
        named = "" if outcome in (OK, CURRENT) or to_come else f" ({told})"
        parts.append(f"{number} {'to come' if to_come else _word(outcome, interrupted)}{named}")
    return ", ".join(parts) or "no hosts"


def _word(outcome: str, interrupted: bool) -> str:
    """An outcome for a person. Where the run was interrupted, a host without an outcome may be perfectly alive."""
    return "cut off" if interrupted and outcome == LOST else _SAID.get(outcome, outcome)


def title(record: Record) -> str:
    """``Deployment of web 1.4.2``, ``Rollback of web``."""
    what = "Rollback" if record.direction == "rollback" else "Deployment"
    to = f" to {record.version}" if record.direction == "rollback" and record.version else f" {record.version or ''}"
    return f"{what} of {record.service}{to}".rstrip()


def verdict_sentence(record: Record, outcomes: Mapping[str, Outcome], reason: str = "") -> str:
    """How a deployment ended, in one sentence."""
    results = {host: outcomes[host].outcome if host in outcomes else PENDING for host in record.hosts}
    how, more = record.state, ""
    interrupted = record.state == INTERRUPTED
    if record.state not in (SUCCESSFUL, CANCELLED, INTERRUPTED) and within_budget(
        list(results.values()), record.failure_budget
    ):
        more = f" (completed within its failure budget of {record.failure_budget})"
    took = f" after {duration(record.seconds)}" if record.seconds is not None else ""
    because = f" It stopped because {plain(reason).rstrip('.')}." if plain(reason) else ""
    became = counted(results, interrupted=interrupted)
    return plain(f"{title(record)} {how}{took}{more}: {became}.{because}{_not_covered(record)}")


def _not_covered(record: Record) -> str:
    """A fleet may be mixed though its deployment was successful."""
    nodes = record.uncovered
    told = ", ".join(nodes[:_NAMED]) + (f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else "")
    return f" Not covered: {record.service} on {told}." if nodes else ""


def ended(record: Record, outcomes: Mapping[str, Outcome], *, width: int = WIDTH) -> str:
    """What a person sees at the end of a run: the table and the sentence."""
    return f"{hosts_table(record, outcomes, width=width)}\n\n{record.description}"


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
    if record.message:
        lines.append(f"  message   {plain(record.message)}")
    if record.options:
        lines.append("  options   " + plain(", ".join(f"{name}={value}" for name, value in record.options.items())))
    lines += [f"  batch {number:<3} {plain(' '.join(batch))}" for number, batch in enumerate(record.batches, 1)]
    return "\n".join(lines)


def story(
    state: str,
    record: Record,
    outcomes: Mapping[str, Outcome],
    steps: Mapping[str, Sequence[Mapping[str, str]]],
    log: Mapping[str, str],
) -> str:
    """One deployment told: who, when, the plan, each host with its times, its steps and its whole error, the log.

    :param steps: host -> {state, at} of each of its steps.
    :param log: host -> what was written of it.
    """
    lines = [beginning(state, record)]
    rows = []
    for name, planned in record.hosts.items():
        one = outcomes.get(name)
        first = _host_row(planned, one)
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


def steps_taken(steps: Sequence[Mapping[str, str]]) -> str:
    """``draining 14:22:40, deploying +10 s, returning +14 s, ok +15 s``: each step, by when it began."""
    first = parse_timestamp(steps[0].get("at")) if steps else None
    told = []
    for number, step in enumerate(steps):
        at = parse_timestamp(step.get("at"))
        when = f" +{duration((at - first).total_seconds())}" if at and first else ""
        told.append(f"{step.get('state')}{when if number else ' ' + moment(step.get('at'))[11:]}")
    return plain(", ".join(told))


def held(service: str, holder: str, description: str, steps: Mapping[str, str]) -> str:
    """Why there is nothing to recover yet: somebody holds the lock, and what they are doing.

    :param description: of the record, where its keeper has seen the end of its controller.
    :param steps: host -> the step it is at.
    """
    doing = ", ".join(f"{host} {step}" for host, step in steps.items())
    return plain(
        f"A rollout of {service} is in progress; nothing was changed. Its lock is held by {holder}. {description} "
        + (f"Now: {doing}. " if doing else "")
        + "Wait for its end with rollout_lock_wait."
    )


_TO_DO = {
    "end_maintenance": "recover: end the maintenance",
    "verify": "recover: verify, then return",
    "leave": "deploy a version that works",
}
"""What to do with a host, by its advice: ``recover`` does it, or a person."""


def remains(service: str, interrupted: Iterable[Mapping[str, Any]], hosts: Sequence[Mapping[str, Any]]) -> str:
    """What deployments left behind, be they interrupted or failed.

    :param interrupted: ``Deployment.as_dict()`` of each; ``hosts``: ``Left.as_dict()`` of each maintenance.
    """
    parts = []
    runs = [
        f"  {one['id']} of {plain(one['holder']) or '-'}, started {moment(one['started'])} UTC" for one in interrupted
    ]
    if runs:
        parts.append("\n".join([f"{service}: interrupted deployments", *runs]))
    if hosts:
        rows = [
            (
                one["host"],
                one["service_id"] or "the node",
                one["deployment"],
                _TO_DO.get(one["advice"], one["advice"]),
                one["why"],
            )
            for one in hosts
        ]
        shown = table(("host", "in maintenance", "deployment", "what to do", "why"), rows, indent=2, wrap=True)
        parts.append(f"{service}: still in a deployment's maintenance\n{shown}")
    return "\n\n".join(parts) or f"{service}: nothing to recover."


def status(service: Mapping[str, Any], now: datetime | None = None, *, width: int = WIDTH) -> str:
    """One service on one screen: what runs where, what is running now, the lock, how the last deployments ended.

    :param service: as ``deployment_info`` returns it.
    """
    at = now or datetime.now(timezone.utc)
    lines = [f"{plain(service['service'])}"]
    rows: list[tuple[str, ...]] = [
        (
            node,
            data.get("version_told") or data.get("version") or "-",
            data.get("previous") or "-",
            data.get("health") or "not registered",
            data.get("why") or data.get("reason") or "-",
        )
        for node, data in service["nodes"].items()
    ]
    if rows:
        rows, more = _fit(rows, ROWS)
        lines.append(table(("node", "version", "previous", "health", "why"), rows, width=width, indent=2, wrap=True))
        lines += [f"  ... and {more} more in rotation"] if more else []
    else:
        lines.append("  no instances")
    lines += ["", _running_line(service.get("running"), at), _lock_line(service.get("lock"), at)]
    if service["deployments"]:
        lines += ["", "  last deployments"]
        done = [
            (
                one["id"],
                one["state"],
                ago(one.get("started"), at),
                duration(one.get("seconds")),
                one.get("holder") or "-",
                _how(one),
            )
            for one in service["deployments"]
        ]
        lines.append(table(("id", "state", "started", "took", "by", "how"), done, width=width, indent=2))
    else:
        lines += ["", "  no deployments yet"]
    return "\n".join(lines)


def _fit(rows: list[tuple[str, ...]], limit: int) -> tuple[list[tuple[str, ...]], int]:
    """The rows that fit, those that are not in rotation first, and the number left away."""
    if len(rows) <= limit:
        return rows, 0
    bad = [row for row in rows if row[3] != "in rotation"]
    good = [row for row in rows if row[3] == "in rotation"]
    room = max(0, limit - len(bad))
    return [*bad, *good[:room]], len(good) - len(good[:room])


def _running_line(running: Mapping[str, Any] | None, now: datetime) -> str:
    if not running:
        return "  running  nothing"
    told = (
        f"{running['id']} ({running['direction']}), started {ago(running.get('started'), now)} by "
        f"{running.get('holder') or '-'}, {_progress(running)}: "
        f"{counted(running.get('results', {}), running=True, under_way=running.get('under_way'))}"
    )
    return f"  running  {plain(told)}"


def _progress(running: Mapping[str, Any]) -> str:
    begun, all_of_them = running.get("batch", 0), running.get("batches", 0)
    return f"batch {begun} of {all_of_them}" if begun else f"none of {all_of_them} batches begun"


def _how(one: Mapping[str, Any]) -> str:
    """How a deployment in a list ended: its hosts by outcome, or what it says of itself."""
    interrupted = one.get("state") == INTERRUPTED
    summary = one.get("summary", {})
    hosts = ", ".join(f"{number} {_word(outcome, interrupted)}" for outcome, number in summary.items())
    told = hosts or one.get("description") or "-"
    return f"rollback: {told}" if one.get("direction") == "rollback" else told


def _lock_line(lock: Mapping[str, Any] | None, now: datetime) -> str:
    if not lock:
        return "  lock     free"
    said = f" ({plain(lock['message'])})" if lock.get("message") else ""
    return f"  lock     taken {ago(lock.get('since'), now)} by {plain(lock.get('holder') or 'somebody')}{said}"
