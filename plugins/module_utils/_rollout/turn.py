# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one step of a host's turn hands to the next (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_protocol import (
    REQUESTED,
    WAITING,
    WITHDRAWN,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    DEPLOYING,
    DRAINING,
    PENDING,
    RETURNING,
    ROLLING_BACK,
    VERIFYING,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import seconds_between, timestamp
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_version


@dataclass(frozen=True)
class Turn:
    """What one step of a host's turn hands to the next: plain data, since each step is a process of its own.

    :param deployment: whose it is; what an earlier deployment of the same run left is nobody's.
    :param phase: pending, draining, deploying, verifying, returning; a rollback takes the same phases.
    :param started: when the host was begun.
    :param steps: {state, at} of each step, for the record.
    :param watched: its instances on the load balancers, see ``drain.Watched``.
    :param index: of the answer that showed its maintenance.
    :param dropped: its maintenance has ended since it was drained, so that it may have got requests.
    :param restored: the user's restore tasks have run, so that it gets requests at their load balancer.
    :param error: why its deployment failed; ``output``: the end of what that printed.
    :param decision: on its last failure, see ``states.decide_on_failure``.
    """

    deployment: str
    phase: str = PENDING
    rolling_back: bool = False
    started: str | None = None
    steps: Sequence[Mapping[str, str]] = ()
    watched: Sequence[Mapping[str, Any]] = ()
    index: int = 0
    dropped: bool = False
    restored: bool = False
    error: str = ""
    output: str = ""
    decision: str = ""

    @classmethod
    def of(cls, data: Mapping[str, Any] | None, deployment: str) -> Turn:
        """From what the last step gave; a new one where that was none of this deployment."""
        if not data or data.get("deployment") != deployment:
            return cls(deployment)
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name in data})

    @property
    def state(self) -> str:
        return ROLLING_BACK if self.rolling_back else self.phase

    def at(self, state: str) -> Turn:
        """The turn with a further step, which begins now; the same one again is no further one."""
        if self.steps and self.steps[-1]["state"] == state:
            return self
        return replace(self, steps=[*self.steps, {"state": state, "at": timestamp()}])

    def ended(self, planned: PlannedHost, outcome: str, *, by_agent: bool) -> Outcome:
        """How the host ended, now.

        :param by_agent: whether the machine's own agent tells the end of its steps itself.
        """
        finished = timestamp()
        return Outcome(
            host=planned.host,
            node=planned.node,
            outcome=outcome,
            from_version=planned.from_version,
            to_version=planned.to_version,
            batch=planned.batch,
            started=self.started,
            finished=finished,
            seconds=seconds_between(self.started, finished),
            error=self.error,
            output=self.output,
            steps=tuple(self.steps if by_agent else [*self.steps, {"state": outcome, "at": finished}]),
        )


def read_turn(task: Task, run: Run, planned: PlannedHost) -> Turn:
    """A host's turn as far as its status in Consul tells it: for one that nobody has handed on."""
    status = read_version(task.consul, run.keys(task), planned.node).status or {}
    if status.get("deployment") != run.id:
        return Turn(run.id)
    state = str(status.get("state"))
    rolling_back = state == ROLLING_BACK
    untouched = (DRAINING,) if not run.by_agents else (REQUESTED, WAITING, WITHDRAWN)
    phase = state if state in (VERIFYING, RETURNING) else DEPLOYING
    if state in untouched:
        phase = PENDING if run.by_agents else DRAINING
    return Turn(run.id, phase, rolling_back, started=status.get("at"), error=str(status.get("message") or ""))
