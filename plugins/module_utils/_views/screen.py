# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One service on one screen (a private helper of this collection). Pure; see text.py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import Order, frozen_told
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import DEPLOY, kind_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import INTERRUPTED
from ansible_collections.hitless.consul.plugins.module_utils._views.report import ROWS, counted, word
from ansible_collections.hitless.consul.plugins.module_utils._views.text import WIDTH, ago, duration, plain, table


def service_screen(service: Mapping[str, Any], now: datetime | None = None, *, width: int = WIDTH) -> str:
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
    lines += ["", _running_line(service.get("running"), at)]
    lines += _paused_lines(service.get("paused")) + [_frozen_line(one) for one in service.get("frozen") or ()]
    lines.append(_lock_line(service.get("lock"), at))
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
    described = (
        f"{running['id']} ({running['direction']}), started {ago(running.get('started'), now)} by "
        f"{running.get('holder') or '-'}, {_progress(running)}: "
        f"{counted(running.get('results', {}), running=True, under_way=running.get('under_way'))}"
    )
    analysis = running.get("analysis")
    return f"  running  {plain(described)}" + (f"\n  analysis {plain(analysis)}" if analysis else "")


def _paused_lines(paused: Mapping[str, Any] | None) -> list[str]:
    """What a deployment waits for, and the commands that go on."""
    if not paused:
        return []
    why = f"  paused   {plain(paused['id'])}, since {plain(paused['why'])}"
    return [f"{why}; {plain(paused['said'])}" if paused["said"] else why, f"           {plain(paused['goes_on'])}"]


def _frozen_line(freeze: Mapping[str, Any]) -> str:
    return f"  frozen   {plain(frozen_told(Order(**freeze)))}"


def _progress(running: Mapping[str, Any]) -> str:
    begun, all_of_them = running.get("batch", 0), running.get("batches", 0)
    wave = f"{running['wave']}, " if running.get("wave") else ""
    if running.get("stages"):
        return f"{wave}stage {max(begun, 1)} of {all_of_them}" if all_of_them > 1 else f"{wave}its hosts"
    return f"{wave}batch {begun} of {all_of_them}" if begun else f"none of {all_of_them} batches begun"


def _how(one: Mapping[str, Any]) -> str:
    """How a deployment in a list ended: its hosts by outcome, or what it says of itself."""
    interrupted, kind = one.get("state") == INTERRUPTED, kind_of(one.get("direction"))
    summary = one.get("summary", {})
    hosts = ", ".join(f"{number} {word(outcome, interrupted, kind)}" for outcome, number in summary.items())
    how = hosts or one.get("description") or "-"
    return how if kind.direction == DEPLOY else f"{kind.direction}: {how}"


def _lock_line(lock: Mapping[str, Any] | None, now: datetime) -> str:
    if not lock:
        return "  lock     free"
    message = f" ({plain(lock['message'])})" if lock.get("message") else ""
    return f"  lock     taken {ago(lock.get('since'), now)} by {plain(lock.get('holder') or 'somebody')}{message}"
