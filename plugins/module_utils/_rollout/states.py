# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of a host in a deployment, and what follows a failure there (a private helper of this collection).

Pure: plain data in and out. host.py acts on it; ``scripts/write-options`` writes the table into docs/keys.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_tasks import STAYS_HERE

PENDING, DRAINING, DEPLOYING, VERIFYING, RETURNING, ROLLING_BACK = (
    "pending",
    "draining",
    "deploying",
    "verifying",
    "returning",
    "rolling_back",
)
OK, CURRENT, SKIPPED, UNTOUCHED, ROLLED_BACK, REGRESSED, FAILED, LOST, DEFERRED = (
    "ok",
    "current",
    "skipped",
    "untouched",
    "rolled_back",
    "regressed",
    "failed",
    "lost",
    "deferred",
)


@dataclass(frozen=True)
class State:
    """A state of a host.

    :param next: the states that may follow; none for an outcome.
    :param version_is_trusted: whether the version that is recorded for the host runs there.
    :param is_good: a successful deployment may have such hosts.
    :param spends_budget: the failure budget counts it.
    """

    description: str
    next: tuple[str, ...] = ()
    version_is_trusted: bool = True
    is_good: bool = False
    spends_budget: bool = False


STATES: Mapping[str, State] = {
    PENDING: State("its turn has not begun", (DRAINING, UNTOUCHED, SKIPPED, LOST)),
    DRAINING: State(
        "in maintenance, serving what it has begun; nothing was deployed", (DEPLOYING, UNTOUCHED, SKIPPED, FAILED, LOST)
    ),
    DEPLOYING: State(
        "the deployment may have changed it", (VERIFYING, UNTOUCHED, ROLLING_BACK, FAILED, LOST, DEFERRED), False
    ),
    VERIFYING: State(
        "in maintenance until the new process is verified as healthy",
        (RETURNING, ROLLING_BACK, FAILED, LOST, DEFERRED),
        False,
    ),
    RETURNING: State("healthy; its maintenance ends", (OK, ROLLING_BACK, FAILED, LOST, DEFERRED), False),
    ROLLING_BACK: State(
        "goes back to its previous version by the same steps", (ROLLED_BACK, FAILED, LOST, DEFERRED), False
    ),
    OK: State("changed, healthy, in rotation", (REGRESSED, LOST), is_good=True),
    CURRENT: State("had the version already and was left alone", is_good=True),
    SKIPPED: State("in maintenance set by someone else, or unreachable: left alone", is_good=True),
    UNTOUCHED: State("nothing was deployed; in rotation as before", spends_budget=True),
    ROLLED_BACK: State("runs its previous version again, in rotation", spends_budget=True),
    REGRESSED: State("changed and healthy, and then no longer", spends_budget=True),
    FAILED: State("stays in maintenance", version_is_trusted=False, spends_budget=True),
    LOST: State(
        "its turn had begun, and it could not be reached any more", version_is_trusted=False, spends_budget=True
    ),
    DEFERRED: State(
        "stays in maintenance, since all instances fail alike; its turn is to come again",
        (DRAINING,),
        version_is_trusted=False,
    ),
}
"""The only list of a host's states."""

OUTCOMES = (OK, CURRENT, ROLLED_BACK, UNTOUCHED, REGRESSED, FAILED, LOST, SKIPPED, DEFERRED, PENDING)
"""What a host may have ended as, in the order in which they are told; pending where its turn never began."""
GOOD = tuple(name for name in OUTCOMES if STATES[name].is_good)
TO_COME = (DEFERRED, PENDING)
"""Outcomes of a host whose turn is to come, for the first time or again, where a paused deployment goes on."""
SPENDING = tuple(name for name in OUTCOMES if STATES[name].spends_budget)
NOTHING_DEPLOYED = (PENDING, DRAINING, UNTOUCHED, SKIPPED)
"""States of a turn in which the host runs what it ran before."""


def require_transition(before: str, after: str) -> None:
    """Refuse a change of state that :data:`STATES` does not have; a state may be entered again."""
    if after != before and after not in STATES[before].next:
        raise HitlessError(f"A host that is {before} cannot become {after}.")


_ABANDONED = "abandoned"
"""The state of a request to a machine's own agent, beside those above, in which another version may run."""


def version_is_trusted(state: str | None) -> bool:
    """Whether the version recorded for a host whose status says so runs there; None for no status."""
    known = STATES.get(state or "")
    return known.version_is_trusted if known else state != _ABANDONED


def states_table() -> str:
    """The table of docs/keys.md."""
    rows = ["| state | meaning | may become | counts as current | spends the failure budget |", "|---|---|---|---|---|"]
    for name, state in STATES.items():
        following = ", ".join(f"`{one}`" for one in state.next) or "-"
        trusted, spends = "yes" if state.version_is_trusted else "no", "yes" if state.spends_budget else ""
        rows.append(f"| `{name}` | {state.description} | {following} | {trusted} | {spends} |")
    return "\n".join(rows) + "\n"


# -- failures -----------------------------------------------------------------------------------------------------

ROLL_BACK, UNDO_DRAIN, END_MAINTENANCE, HOLD, DEFER, GIVE_UP, STOP = (
    "roll_back",
    "undo_drain",
    "end_maintenance",
    "hold",
    "defer",
    "give_up",
    "stop",
)
"""What follows a failure: the same steps back; the user's restore tasks, and then the decision again; the end of its
maintenance, as it was before; held in maintenance; the same, until its turn comes again; out of reach; nothing at all,
since another run may be at work."""

NO_REASON = "no error was returned; see the output above (a hook that includes a missing file, for instance)"
"""Where a rescue has neither a result nor a task: a failed include leaves none."""


@dataclass(frozen=True)
class Failure:
    """A task's failed result, in so far as it matters.

    :param what: the step and what it said, one sentence.
    :param output: the end of what it printed.
    :param lost: the host's connection failed; ``lock_lost``: the deployment's lock is no longer ours.
    :param other_owner: a maintenance set by someone else was in the way.
    """

    what: str
    output: str = ""
    lost: bool = False
    lock_lost: bool = False
    other_owner: bool = False

    @classmethod
    def of(cls, result: Mapping[str, Any], task: str = "") -> Failure:
        """What a failed result tells, whoever's task it was: ours, a command, a module, an item of a loop."""
        items = [one for one in result.get("results") or () if isinstance(one, Mapping)]
        item = next((one for one in items if one.get("failed") or one.get("unreachable")), result)
        message = str(item.get("msg") or item.get("reason") or item.get("exception") or NO_REASON)
        printed = [str(item.get(name) or "").strip() for name in ("stdout", "stderr")]
        if not any(printed):
            printed = [str(item.get(name) or "").strip() for name in ("module_stdout", "module_stderr")]
        return cls(
            what=f"{task}: {sentence(message)}" if task else sentence(message),
            output="\n".join(part for part in printed if part),
            lost=bool(item.get("lost") or item.get("unreachable")),
            lock_lost=bool(item.get("lock_lost")),
            other_owner=bool(item.get("other_owner")),
        )


@dataclass(frozen=True)
class Situation:
    """Where a host was when its step failed.

    :param state: one of :data:`STATES`, before the failure.
    :param to_version: what was to run; ``from_version``: what ran before; ``rollback_to``: where a rollback goes.
    :param wants_rollback: rollout_rollback.
    :param stays: there is nowhere to go back to: it is on its way back, or keeps its version.
    :param drained_by_hook: the user's drain tasks may have taken it out of a load balancer.
    :param never_began: the first task of the deployment failed before it was sent to the host, see :func:`never_began`.
    :param restore_failed: the user's restore tasks are what failed: the version runs, and is verified as healthy.
    :param trouble_of_all: why the failure is not its own, see alike.py; empty where it may be.
    :param earlier: why the deployment failed, where the rollback did now.
    """

    state: str
    to_version: str = ""
    from_version: str = ""
    rollback_to: str = ""
    wants_rollback: bool = True
    stays: bool = False
    drained_by_hook: bool = False
    never_began: bool = False
    restore_failed: bool = False
    trouble_of_all: str = ""
    earlier: str = ""


def decide_on_failure(failure: Failure, at: Situation) -> tuple[str, str]:
    """What to do with the host, and why as the record tells it."""
    rolling_back = at.state == ROLLING_BACK
    if failure.lock_lost:
        return STOP, f"{failure.what} The host is left as it is."
    if at.restore_failed:
        runs = f"{at.earlier} Its previous version runs again" if rolling_back else f"{at.to_version} runs"
        return HOLD, f"{runs} and is healthy, but it was not restored. {failure.what} It stays in maintenance."
    if at.trouble_of_all and not failure.lost and not (at.never_began or at.state in NOTHING_DEPLOYED):
        earlier = f"{at.earlier} The rollback failed too: " if rolling_back else ""
        return DEFER, f"{earlier}{failure.what} {at.trouble_of_all} It stays in maintenance until its turn comes again."
    if rolling_back:
        why = f"{at.earlier} The rollback failed too: {failure.what} It stays in maintenance."
        return (GIVE_UP if failure.lost else HOLD), why
    if failure.lost:
        return GIVE_UP, f"{failure.what} It is left as it is."
    if at.state in (PENDING, DRAINING) or at.never_began:
        drained = at.state != PENDING and at.drained_by_hook
        return (UNDO_DRAIN if drained else END_MAINTENANCE), f"{failure.what} Nothing was deployed."
    if at.stays:
        return HOLD, f"{failure.what} It stays in maintenance."
    if not at.wants_rollback:
        return HOLD, f"{failure.what} It stays in maintenance (rollout_rollback: none)."
    if (at.rollback_to or at.from_version) == at.to_version:
        return HOLD, f"{failure.what} The previous version is the same, so that it stays in maintenance."
    if not at.rollback_to:
        return HOLD, f"{failure.what} No previous version is known, so that it stays in maintenance."
    return ROLL_BACK, failure.what


_BEFORE_SENT = re.compile(r"undefined|has no (attribute|element)|Finalization of task args|[Tt]emplate error")
"""What Ansible says of a template that it cannot resolve (ansible-core 2.16 to 2.21)."""
_OF_EVERY_FAILURE = {"failed", "msg", "exception", "changed", "warnings", "deprecations", "timedout"}
"""``timedout`` comes from the role with each; a task whose time was up says so in its message."""


def never_began(result: Mapping[str, Any], name: str, action: str, first_tasks: Iterable[Mapping[str, str]]) -> bool:
    """Whether the deployment has surely not touched the host: its very first task failed before it was sent there.

    :param result: of the task that failed; ``name`` and ``action`` are that task's.
    :param first_tasks: the tasks of the deployment before which nothing has touched the host.
    """
    if {"name": name, "action": action} not in [dict(task) for task in first_tasks]:
        return False
    if action.rpartition(".")[2] in STAYS_HERE:
        return True
    # What a module or a connection answers has more in it.
    keys = {key for key in result if not key.startswith("_ansible")}
    return keys <= _OF_EVERY_FAILURE and bool(_BEFORE_SENT.search(str(result.get("msg", ""))))


def decide_after_undrain(failure: Failure | None, earlier: str) -> tuple[str, str]:
    """What to do with a host that was drained and not deployed, once the user's restore tasks have run.

    :param failure: theirs, None where they did well.
    :param earlier: why nothing was deployed.
    """
    if failure is None:
        return END_MAINTENANCE, earlier
    if failure.lock_lost:
        return STOP, f"{earlier} And {failure.what} The host is left as it is."
    return HOLD, f"{earlier} It was not restored either: {failure.what} It stays in maintenance."


def outcome_of(decision: str, *, other_owner: bool = False) -> str | None:
    """The outcome of a host by the decision on its failure; None where it has none yet, or must get none."""
    if decision == END_MAINTENANCE:
        return SKIPPED if other_owner else UNTOUCHED
    return {HOLD: FAILED, DEFER: DEFERRED, GIVE_UP: LOST}.get(decision)


def sentence(text: str) -> str:
    """On one line and with its full stop, since more is said after it."""
    line = re.sub(r"\s+", " ", text).strip()
    return line if line.endswith((".", "!", "?")) else f"{line}."
