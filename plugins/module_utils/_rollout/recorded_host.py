# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a deployment, and the record of its turn (a private helper of this collection).

Each change is fenced: the host's status is written in one transaction with a check that the deployment's lock is still
held, so that a run which was stopped for longer than its lock lived does nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_check_session, kv_read
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_guard import MaintenanceGuard
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_watch import MaintenanceWatch
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    HitlessError,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout import states
from ansible_collections.hitless.consul.plugins.module_utils._rollout.abort_listener import Aborted, AbortListener
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import ABORT, Control
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import record_stop
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import ended_ops
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import outcome_ops, status_op
from ansible_collections.hitless.consul.plugins.module_utils._rollout.telling import Telling
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import FORGET, version_ops

STEPS_TOLD: Mapping[str, str] = {
    states.DRAINING: "draining",
    states.DEPLOYING: "{doing}{version}",
    states.VERIFYING: "verifying{version}",
}
"""What a person sees as a phase begins; a return to rotation takes a moment."""


class RecordedHost:
    """What a host in a deployment is, and what may be written of it.

    :param scope: what is in maintenance; that of rollout_maintenance where not given.
    :param guard: keeps it there between the steps; without one only the steps do.
    """

    def __init__(
        self,
        task: Task,
        run: Run,
        planned: PlannedHost,
        turn: Turn,
        scope: Sequence[str] = (),
        guard: MaintenanceGuard | None = None,
    ) -> None:
        self.task = task
        self.run = run
        self.planned = planned
        self.turn = turn
        self.guard = guard
        self.telling = Telling(task.show, planned.host, *run.place_of(planned.host))
        self.has_ended = False
        self._watch: MaintenanceWatch | None = None
        self._control: Control | None = None
        self.keys = run.keys(task)
        self.node = planned.node
        self.tags = tuple(run.options["tags"])
        wanted = run.options["maintenance"]
        self.scope = list(scope or ([wanted] if isinstance(wanted, str) else wanted))

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """The version that its steps deploy: the new one, or that of its rollback."""
        return str((self.planned.rollback_to if self.turn.rolling_back else self.planned.to_version) or "")

    @property
    def version_told(self) -> str:
        """The same behind what is done with it, `` 1.4.2``; empty where it stays as it is."""
        return "" if self.run.kind.keeps_version else f" {self.version}"

    @property
    def reason(self) -> str:
        return str(maintenance.DeploymentReason(self.turn.deployment, self.keys.service))

    @property
    def ours(self) -> Callable[[str], bool]:
        """Whether a reason is that of a deployment of the service, this one or an interrupted one."""
        return maintenance.set_by_deployment_of(self.keys.service)

    @property
    def why(self) -> str:
        """What its steps are for, DEPLOY_REASON for the user's command: deploy, rollback, restart or reboot."""
        return "rollback" if self.turn.rolling_back else str(self.run.options["direction"])

    def match_of(self, health_match: str) -> str:
        """What the health URL's answer has to match: nothing where nobody knows which version that would be."""
        is_unknown = self.run.kind.keeps_version and (self.planned.unsure or not self.version)
        return "" if is_unknown else health_match

    @property
    def replaced_version(self) -> str:
        """The version that its steps replace; empty where it is not known."""
        return str((self.planned.to_version if self.turn.rolling_back else self.planned.from_version) or "")

    @property
    def targets(self) -> list[maintenance.Target]:
        return maintenance.targets_of(self.node, self.keys.service, self.scope, self.tags)

    @contextmanager
    def watched(self, since: int = 0) -> Iterator[MaintenanceWatch]:
        """Several steps, or one, with one watch over all of them; see :meth:`watch`."""
        if self._watch:
            yield self._watch
            return
        with self.watch(since) as watch:
            self._watch = watch
            try:
                yield watch
            finally:
                self._watch = None
                self.turn = replace(self.turn, dropped=self.turn.dropped or watch.dropped)

    def watch(self, since: int = 0, task: Task | None = None) -> MaintenanceWatch:
        """Keeps the host in maintenance from now on, see there.

        :param task: asks, this host's own where not given.
        :param since: index of a later answer that showed its maintenance than the one that the drain began with.
        """
        asking, fence = task or self.task, [self.fence()]
        return MaintenanceWatch(
            asking.consul, asking.agent, self.targets, self.reason, fence, since=since or self.turn.index
        )

    # -- fenced writes --------------------------------------------------------------------------------------------

    def fence(self) -> dict[str, Any]:
        return kv_check_session(self.keys.lock, self.run.session)

    def _status(self, state: str) -> dict[str, Any]:
        unsure = self.run.is_unsure(self.planned, state)
        return status_op(self.keys, self.node, self.turn.deployment, state, self.turn.error, unsure=unsure)

    def enter(self, phase: str, *, recorded: str = "", also: Sequence[dict[str, Any]] = ()) -> None:
        """Begin a phase: its state in the host's status, in one transaction with ``also``.

        :param recorded: the state that the status gets where it is another one.
        :raises LockLost: the lock is no longer ours.
        :raises HitlessError: an operator has aborted the rollout, and the host can go back from here: then its turn is
            still in the phase before.
        """
        state = states.ROLLING_BACK if self.turn.rolling_back else phase
        states.require_transition(self.turn.state, state)
        operations = [self.fence(), self._status(recorded or state), *also]
        self._control = self._read_control(operations)
        if self._is_aborted(self._control, phase):
            self._abort(self._control)
        told = STEPS_TOLD.get(phase)
        if told:
            back = " (rollback)" if self.turn.rolling_back else ""
            self.telling.tell(told.format(doing=self.run.kind.doing, version=self.version_told) + back)
        self.turn = replace(self.turn.at(phase), phase=phase)

    @contextmanager
    def hearing(self) -> Iterator[Callable[[float], None]]:
        """A sleep that an abort ends, which raises :class:`HitlessError` then."""
        if not self._may_be_aborted:
            yield time.sleep
            return
        seen = self._control or self._read_control()
        with AbortListener(self.task.consul, self.keys.control, seen.noted.used) as listener:
            try:
                yield listener.sleep
            except Aborted as heard:
                self._abort(replace(seen, order=heard.order))

    @property
    def _may_be_aborted(self) -> bool:
        """Neither what goes back already, nor what recovers the host of another deployment."""
        return self.turn.deployment == self.run.id and not self.turn.rolling_back

    def _read_control(self, operations: Sequence[dict[str, Any]] = ()) -> Control:
        """What operators want, read in one transaction with the operations."""
        reads = [kv_read(key) for key in (self.keys.control, self.keys.controlled(self.turn.deployment))]
        found = self.task.consul.txn([*operations, *reads])
        return Control.of(self.keys, self.turn.deployment, {item["Key"]: item for item in found})

    def _is_aborted(self, control: Control, phase: str) -> bool:
        """Whether an operator has aborted the rollout, and the host goes back at the beginning of a phase for that.

        Where it has no version to go back to it ends its turn.
        """
        order = control.pending
        if order is None or order.word != ABORT or not self._may_be_aborted:
            return False
        back, planned = self.run.options["rollback"] != "none", self.planned
        can_go_back = back and planned.rollback_to and planned.rollback_to != planned.to_version
        return phase in (states.DRAINING, states.DEPLOYING) or (phase == states.VERIFYING and bool(can_go_back))

    def _abort(self, control: Control) -> None:
        halt = control.halt(str(self.run.options["direction"]), "")
        why = halt.why if halt else "it is aborted"
        record_stop(self.task, self.run, "its next host", why, self.planned.batch or 0, halt)
        raise HitlessError(f"{why[0].upper()}{why[1:]}.")

    def note(self, state: str) -> None:
        """Only the host's status; raises :class:`LockLost`."""
        states.require_transition(self.turn.state, state)
        self.task.consul.txn([self.fence(), self._status(state)])

    def end(self, outcome: str, *, also: Sequence[dict[str, Any]] = ()) -> str:
        """Record how the host ended, in one transaction with ``also`` -> what kept that from being recorded.

        :raises LockLost: the lock is no longer ours.
        """
        states.require_transition(self.turn.state, outcome)
        result = self.turn.ended(self.planned, outcome, by_agent=self.run.by_agents)
        ended = outcome_ops(self.keys, self.turn.deployment, result, unsure=self.run.is_unsure(self.planned, outcome))
        try:
            if self.run.is_window:
                ended += ended_ops(self.keys, self.run.id, result)
            self.task.consul.txn([self.fence(), *also, *ended])
            self.has_ended = True
            self.telling.tell(f"{outcome.replace('_', ' ')}: {self._stands_as(outcome)}")
        except LockLost:
            raise
        except ConsulError as error:
            return str(error)
        return ""

    def _stands_as(self, outcome: str) -> str:
        """How an outcome leaves the host, in words."""
        if outcome in (states.OK, states.ROLLED_BACK):
            return f"in rotation{f' on {self.version}' if self.version else ''}"
        return states.STATES[outcome].description

    def end_well(self, *, version_is_recorded: bool = False) -> dict[str, Any]:
        """Record a host that is in rotation: what cannot be recorded is told, and never a reason to roll it back.

        :param version_is_recorded: by the machine's own agent, in one transaction with the end of its request.
        """
        back = self.turn.rolling_back
        # After a rollback by hand a second one must not go to the version that was rolled back; an automatic one leaves
        # what is recorded as previous as it was.
        previous = FORGET if self.run.options["direction"] == "rollback" else self.planned.from_version
        is_recorded = version_is_recorded or self.run.kind.keeps_version
        version = [] if is_recorded else version_ops(self.keys, self.node, self.version, None if back else previous)
        try:
            problem = self.end(states.ROLLED_BACK if back else states.OK, also=version)
        except LockLost as error:
            problem = str(error)
        if not problem:
            return {}
        self.task.warn(f"{self.node} is {self._stands_as(states.OK)}, and that could not be recorded: {problem}")
        return {"unrecorded": problem}
