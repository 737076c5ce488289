# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and sentences about deployments (a private helper of this collection). Pure; see text.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import DEPLOY, KINDS, Kind
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome, summary_of, within_budget
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    CANCELLED,
    INTERRUPTED,
    PAUSED,
    SUCCESSFUL,
    PlannedHost,
    Record,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    CURRENT,
    DEFERRED,
    FAILED,
    GOOD,
    LOST,
    OK,
    PENDING,
    REGRESSED,
    ROLLED_BACK,
    SKIPPED,
    UNTOUCHED,
)
from ansible_collections.hitless.consul.plugins.module_utils._views.text import WIDTH, duration, moment, plain, table

ROWS = 60
"""Rows of a table of hosts; more that are ok, current or skipped are only counted."""

_SAID = {
    ROLLED_BACK: "rolled back",
    REGRESSED: "regressed",
    FAILED: "failed",
    LOST: "lost",
    SKIPPED: "skipped",
    UNTOUCHED: "put back untouched",
    DEFERRED: "deferred",
    PENDING: "not begun",
}
_NAMED = 3
"""Hosts that a sentence names of each kind."""


def hosts_table(
    record: Record, outcomes: Mapping[str, Outcome], *, width: int = WIDTH, rows: int = ROWS, told_below: bool = False
) -> str:
    """The hosts of a deployment: from, to, outcome, seconds, why. The full texts are in the record.

    :param told_below: whether the reasons of those that did not end well are told below it, in full.
    """
    if not record.hosts:
        return "No hosts."
    shown = [host_row(planned, outcomes.get(name)) for name, planned in record.hosts.items()]
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
    if told_below:
        shown = [(*row[:-1], row[-1] if row[3] == PENDING or row[-1] == "-" else "see below") for row in shown]
    text = table(("host", "from", "to", "outcome", "seconds", "why"), shown, width=width)
    return text + (f"\n... and {hidden} more that are ok, current or skipped" if hidden else "")


def not_begun(planned: PlannedHost) -> str:
    """What is said of a host whose turn never came: ``not begun (still on 1.4.2)``."""
    is_to_change = planned.from_version and planned.from_version != planned.to_version
    return f"not begun (still on {planned.from_version})" if is_to_change else "not begun"


def reasons(record: Record, outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Host -> why it did not end well, for those that say so."""
    found = {}
    for name, planned in record.hosts.items():
        one = outcomes.get(name)
        why = one.error if one and one.outcome != PENDING else not_begun(planned)
        if why:
            found[name] = why
    return found


def host_row(planned: PlannedHost, outcome: Outcome | None) -> tuple[str, ...]:
    """Its line in the table of hosts: host, from, to, outcome, seconds, why."""
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


def plan_table(
    hosts: Mapping[str, Mapping[str, Any]],
    *,
    group: str = "batch",
    width: int = WIDTH,
    wave_of: Mapping[str, str] | None = None,
) -> str:
    """What a plan means for each host, in the order of their turns; those without a turn last.

    :param hosts: host -> what the plan says of it, as ``plan.Plan.as_dict`` gives it.
    :param group: what the hosts are taken in: batch or stage.
    :param wave_of: node -> its wave, where there are waves.
    """
    ordered = sorted(hosts.items(), key=lambda item: (item[1]["batch"] is None, item[1]["batch"] or 0))
    rows = [
        (
            *([wave_of.get(plan["node"]) or "-"] if wave_of else []),
            plan["batch"] or "-",
            host,
            plan["from"] or "?",
            plan["to"] or "-",
            plan["rollback_to"] or "-",
            plan["why"] or ("" if plan["healthy"] else "not healthy now"),
        )
        for host, plan in ordered[:ROWS]
    ]
    head = (*(["wave"] if wave_of else []), group, "host", "from", "to", "back to", "note")
    shown = table(head, rows, width=width)
    more = len(hosts) - len(rows)
    return f"{shown}\n... and {more} more hosts" if more else shown


def counted(
    outcomes: Mapping[str, str],
    *,
    running: bool = False,
    interrupted: bool = False,
    kind: Kind = KINDS[DEPLOY],
    under_way: Mapping[str, str] | None = None,
) -> str:
    """``4 changed, 1 rolled back (web-3)``: hosts by outcome, those that did not end well by name.

    :param interrupted: whether the run was, so that the hosts whose turn it was were cut off.
    :param kind: of the deployment: what became of a host that it changed.
    :param under_way: host -> the step it is at.
    """
    doing = ", ".join(f"{host} {step}" for host, step in list((under_way or {}).items())[:_NAMED])
    more = ", ..." if len(under_way or {}) > _NAMED else ""
    parts = [f"{len(under_way)} under way ({doing}{more})"] if under_way else []
    outcomes = {host: outcome for host, outcome in outcomes.items() if host not in (under_way or {})}
    for outcome, number in summary_of(outcomes.values()).items():
        names = [host for host, one in outcomes.items() if one == outcome]
        listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        to_come = running and outcome == PENDING
        named = "" if outcome in (OK, CURRENT) or to_come else f" ({listed})"
        said = word(outcome, interrupted, kind)
        parts.append(f"{number} {'to come' if to_come else said}{named}")
    return ", ".join(parts) or "no hosts"


def word(outcome: str, interrupted: bool, kind: Kind = KINDS[DEPLOY]) -> str:
    """An outcome for a person. Where the run was interrupted, a host without an outcome may be perfectly alive."""
    if outcome in (OK, CURRENT):
        return kind.done if outcome == OK else kind.already
    return "cut off" if interrupted and outcome == LOST else _SAID.get(outcome, outcome)


def title(record: Record) -> str:
    """``Deployment of web 1.4.2``, ``Rollback of web``, ``Restart of web``."""
    to = f" to {record.version}" if record.direction == "rollback" and record.version else f" {record.version or ''}"
    return f"{record.kind.title} of {record.service}{to}".rstrip()


def verdict_sentence(record: Record, outcomes: Mapping[str, Outcome], reason: str = "") -> str:
    """How a deployment ended, in one sentence."""
    results = {host: outcomes[host].outcome if host in outcomes else PENDING for host in record.hosts}
    how, more = record.state, ""
    interrupted = record.state == INTERRUPTED
    is_over = record.state not in (SUCCESSFUL, CANCELLED, INTERRUPTED, PAUSED)
    # That of a rollout's own rollback is no limit that anybody has set.
    if is_over and not record.is_automatic and within_budget(list(results.values()), record.failure_budget):
        more = f" (completed within its failure budget of {record.failure_budget})"
    took = f" after {duration(record.seconds)}" if record.seconds is not None else ""
    did = "is paused" if record.state == PAUSED else "stopped"
    because = f" It {did} because {plain(reason).rstrip('.')}." if plain(reason) else ""
    became = counted(results, interrupted=interrupted, kind=record.kind)
    missing = _not_reached(record, results)
    probed = f" {record.probed.told}." if record.probed else ""
    return plain(f"{title(record)} {how}{took}{more}: {became}.{because}{missing}{_not_covered(record)}{probed}")


def _not_reached(record: Record, results: Mapping[str, str]) -> str:
    """The waves of which no host had its turn: what was wrong has never been there."""
    begun = {planned.batch or 0 for host, planned in record.hosts.items() if results[host] not in (PENDING, CURRENT)}
    names = record.waves.not_begun(begun)
    listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f" Not reached: wave{'' if len(names) == 1 else 's'} {listed}." if names else ""


def _not_covered(record: Record) -> str:
    """A fleet may be mixed though its deployment was successful."""
    nodes = record.uncovered
    listed = ", ".join(nodes[:_NAMED]) + (f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else "")
    return f" Not covered: {record.service} on {listed}." if nodes else ""


def joined(nodes: Mapping[str, str]) -> str:
    """What registered while a deployment ran and does not run its version, as a sentence.

    :param nodes: node -> version that runs there, empty where nobody knows.
    """
    listed = ", ".join(f"{node} on {version or 'an unknown version'}" for node, version in list(nodes.items())[:_NAMED])
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return plain(f"Joined meanwhile, and not changed: {listed}{more}.")


def ended(record: Record, outcomes: Mapping[str, Outcome], *, width: int = WIDTH) -> str:
    """What a person sees at the end of a run: the sentence, and the table where it says more than the lines before."""
    if all(name in outcomes and outcomes[name].outcome in (OK, CURRENT) for name in record.hosts):
        return record.description
    return f"{hosts_table(record, outcomes, width=width, told_below=True)}\n\n{record.description}"


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
