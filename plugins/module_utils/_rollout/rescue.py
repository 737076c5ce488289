# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a host whose deployment failed (a private helper of this collection). Pure: plain data in and out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROLL_BACK, RESTORE, CLEARED, KEPT, LOST, STOPPED = "roll_back", "restore", "cleared", "kept", "lost", "stopped"


@dataclass(frozen=True)
class Failure:
    """A task's failed result, in so far as it matters.

    :param what: the step and what it said, one sentence.
    :param output: the end of what it printed.
    :param lost: the host's connection failed; ``lock_lost``: the deployment's lock is no longer ours.
    :param foreign: somebody else's maintenance was in the way.
    """

    what: str
    output: str = ""
    lost: bool = False
    lock_lost: bool = False
    foreign: bool = False


UNTOLD = "it failed for a reason that Ansible only prints (a missing file that a hook includes, for instance)"
"""Where rescue has neither a result nor a task: a failed include leaves none."""


def failure_of(result: Mapping[str, Any], step: str = "") -> Failure:
    """What a failed result tells, whoever's task it was: ours, a command, a module, an item of a loop."""
    items = [one for one in result.get("results") or () if isinstance(one, Mapping)]
    item = next((one for one in items if one.get("failed") or one.get("unreachable")), result)
    message = str(item.get("msg") or item.get("reason") or item.get("exception") or UNTOLD)
    printed = [str(item.get(name) or "").strip() for name in ("stdout", "stderr")]
    if not any(printed):
        printed = [str(item.get(name) or "").strip() for name in ("module_stdout", "module_stderr")]
    return Failure(
        what=f"{step}: {sentence(message)}" if step else sentence(message),
        output="\n".join(part for part in printed if part),
        lost=bool(item.get("lost") or item.get("unreachable")),
        lock_lost=bool(item.get("lock_lost")),
        foreign=bool(item.get("foreign")),
    )


def sentence(text: str) -> str:
    """On one line and with its full stop, since more is said after it."""
    line = re.sub(r"\s+", " ", text).strip()
    return line if line.endswith((".", "!", "?")) else f"{line}."


def judge(
    failure: Failure,
    *,
    started: bool,
    attempt: str,
    rollback: bool,
    rollback_to: str,
    to_version: str,
    from_version: str = "",
    earlier: str = "",
    drained: bool = False,
    not_restored: bool = False,
) -> tuple[str, str]:
    """The verdict, and why as the record tells it.

    :param started: the deployment may have touched the host: it was taken out and drained.
    :param attempt: ``deploy`` or ``rollback``: what failed.
    :param rollback_to: empty where there is none, or where it is the version that runs already (``from_version``).
    :param earlier: why the deployment had failed, where the rollback did now.
    :param drained: the user's drain tasks may have taken it out of a load balancer.
    :param not_restored: the user's restore tasks are what failed: the version runs, and has proven healthy.
    """
    if failure.lock_lost:
        return STOPPED, f"{failure.what} The host is left as it is."
    if not_restored:
        runs = f"{earlier} Its previous version runs again" if attempt == "rollback" else f"{to_version} runs"
        return KEPT, f"{runs} and is healthy, but it was not restored. {failure.what} It stays in maintenance."
    if attempt == "rollback":
        why = f"{earlier} The rollback failed too: {failure.what} It stays in maintenance."
        return (LOST if failure.lost else KEPT), why
    if failure.lost:
        return LOST, f"{failure.what} It is left as it is."
    if not started and drained:
        return RESTORE, f"{failure.what} Nothing was deployed."
    if not started:
        return CLEARED, f"{failure.what} Nothing was deployed."
    if not rollback:
        return KEPT, f"{failure.what} It stays in maintenance (rollout_rollback: none)."
    if (rollback_to or from_version) == to_version:
        return KEPT, f"{failure.what} The previous version is the same, so that it stays in maintenance."
    if not rollback_to:
        return KEPT, f"{failure.what} No previous version is known, so that it stays in maintenance."
    return ROLL_BACK, failure.what


def judge_undrained(failure: Failure | None, earlier: str) -> tuple[str, str]:
    """The verdict on a host that was drained and not deployed, once the user's restore tasks have run.

    :param failure: theirs, None where they did well.
    :param earlier: why nothing was deployed.
    """
    if failure is None:
        return CLEARED, earlier
    if failure.lock_lost:
        return STOPPED, f"{earlier} And {failure.what} The host is left as it is."
    return KEPT, f"{earlier} It was not restored either: {failure.what} It stays in maintenance."
