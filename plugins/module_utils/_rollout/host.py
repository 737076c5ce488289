# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's part of a deployment: drain, deploy, verify, return, and back (a private helper of this collection).

Its states, and the decision on a failure, are in states.py. Each change is fenced: the host's status is written in one
transaction with a check that the deployment's lock is still held, so that a run which was stopped for longer than its
lock lived does nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_check_session
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_watch import MaintenanceWatch
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    HitlessError,
    HostLost,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout import drain as observed
from ansible_collections.hitless.consul.plugins.module_utils._rollout import states
from ansible_collections.hitless.consul.plugins.module_utils._rollout.command import run_command
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_version
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import outcome_ops, progress_op, status_op
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn
from ansible_collections.hitless.consul.plugins.module_utils._rollout.verification import (
    verify_node,
    wait_until_passing,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import FORGET, version_ops


class HostDeployment:
    """A host in a deployment. Its methods are the steps; each leaves ``turn`` as the next one needs it.

    :param scope: what is in maintenance; that of rollout_maintenance where not given.
    """

    def __init__(self, task: Task, run: Run, planned: PlannedHost, turn: Turn, scope: Sequence[str] = ()) -> None:
        self.task = task
        self.run = run
        self.planned = planned
        self.turn = turn
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
    def reason(self) -> str:
        return str(maintenance.DeploymentReason(self.turn.deployment, self.keys.service))

    @property
    def ours(self) -> Callable[[str], bool]:
        """Whether a reason is that of a deployment of the service, this one or an interrupted one."""
        return maintenance.set_by_deployment_of(self.keys.service)

    @property
    def targets(self) -> list[maintenance.Target]:
        return maintenance.targets_of(self.node, self.keys.service, self.scope, self.tags)

    def watch(self, since: int = 0) -> MaintenanceWatch:
        """Keeps the host in maintenance from now on, see there.

        :param since: index of a later answer that showed its maintenance than the one that the drain began with.
        """
        cluster, agent, fence = self.task.consul, self.task.agent, [self.fence()]
        return MaintenanceWatch(cluster, agent, self.targets, self.reason, fence, since=since or self.turn.index)

    # -- fenced writes --------------------------------------------------------------------------------------------

    def fence(self) -> dict[str, Any]:
        return kv_check_session(self.keys.lock, self.run.session)

    def _is_unsure(self, state: str) -> bool:
        """Until something is deployed, what an earlier deployment left open stays so."""
        return self.planned.unsure and state in states.NOTHING_DEPLOYED

    def _status(self, state: str) -> dict[str, Any]:
        unsure = self._is_unsure(state)
        return status_op(self.keys, self.node, self.turn.deployment, state, self.turn.error, unsure=unsure)

    def enter(self, phase: str, *, recorded: str = "", also: Sequence[dict[str, Any]] = ()) -> None:
        """Begin a phase: its state in the host's status, in one transaction with ``also``.

        :param recorded: the state that the status gets where it is another one.
        :raises LockLost: the lock is no longer ours.
        """
        state = states.ROLLING_BACK if self.turn.rolling_back else phase
        states.require_transition(self.turn.state, state)
        self.task.consul.txn([self.fence(), self._status(recorded or state), *also])
        self.turn = replace(self.turn.at(phase), phase=phase)

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
        ended = outcome_ops(self.keys, self.turn.deployment, result, unsure=self._is_unsure(outcome))
        try:
            self.task.consul.txn([self.fence(), *also, *ended])
        except LockLost:
            raise
        except ConsulError as error:
            return str(error)
        return ""

    def end_well(self, *, version_is_recorded: bool = False) -> dict[str, Any]:
        """Record a host that is in rotation: what cannot be recorded is told, and never a reason to roll it back.

        :param version_is_recorded: by the machine's own agent, in one transaction with the end of its request.
        """
        back = self.turn.rolling_back
        # After a rollback by hand a second one must not go to the version that was rolled back; an automatic one leaves
        # what is recorded as previous as it was.
        previous = FORGET if self.run.options["direction"] == "rollback" else self.planned.from_version
        version = version_ops(self.keys, self.node, self.version, None if back else previous)
        try:
            problem = self.end(states.ROLLED_BACK if back else states.OK, also=() if version_is_recorded else version)
        except LockLost as error:
            problem = str(error)
        if not problem:
            return {}
        self.task.warn(f"{self.node} is in rotation on {self.version}, and that could not be recorded: {problem}")
        return {"unrecorded": problem}

    # -- out of rotation ------------------------------------------------------------------------------------------

    def drain(self) -> dict[str, Any]:
        """:meth:`leave` and :meth:`wait_until_drained`, with nothing in between."""
        result, shown_at, drained_before = self._leave()
        # Nothing is left to drain where this very deployment had taken it out before.
        return {**result, **self.wait_until_drained(shown_at, at_once=drained_before)}

    def leave(self) -> dict[str, Any]:
        """Maintenance on, seen in the catalog."""
        return self._leave()[0]

    def _leave(self) -> tuple[dict[str, Any], float, bool]:
        """The result, when the catalog showed it, and whether this deployment had taken the host out before.

        A maintenance that an interrupted deployment of the service has set is taken over as it is: Consul keeps the
        first reason, and taking it off for a moment would send traffic to whatever that deployment left there.

        :raises HitlessError: a maintenance set by someone else is there (``details["other_owner"]``).
        """
        began = time.monotonic()
        cluster, targets = self.task.consul, self.targets
        found = [target.read(cluster) for target in targets]
        # The node's maintenance has no service of its own.
        services = {one.service or self.keys.service: one.tags if one.service else self.tags for one in targets}
        watched = observed.find_on_node(cluster, self.run.options["load_balancers"], self.node, services)
        out_already = any(target.is_out(answer.data) for target, answer in zip(targets, found, strict=True))
        back = self.turn.rolling_back
        begun = [] if back else [progress_op(self.keys, self.turn.deployment, self.planned.batch or 0)]
        self.turn = replace(self.turn, started=self.turn.started or timestamp())
        # Draining is recorded only while nothing can have been deployed there, so that a later run may trust it.
        recorded = states.DEPLOYING if out_already and not back else ""
        self.enter(states.DRAINING, recorded=recorded, also=begun)
        changes = maintenance.enable_all(cluster, self.task.agent, targets, self.reason, self.ours, found)
        shown_at = max(change.shown_at for change in changes)
        before = {reason for change in changes for reason in change.before.values()}
        # Of several answers the oldest: what has happened since any of them is looked at.
        index = min(change.index for change in changes)
        self.turn = replace(self.turn, watched=[asdict(one) for one in watched], index=index)
        result = {
            "changed": any(change.changed for change in changes),
            "instances": [name for change in changes for name in change.after],
            "shown_after": round(shown_at - began, 3),
        }
        # What an earlier deployment had taken out is drained again: nobody knows what it did since.
        return result, shown_at, before == {self.reason}

    def wait_until_drained(self, since: float | None = None, *, at_once: bool = False) -> dict[str, Any]:
        """Return when the host is drained: from then on the deployment may have begun.

        A maintenance that ends meanwhile is put back, and the drain begins anew.

        :param since: when the drain began, on the monotonic clock; now where not given.
        :raises LockLost: the drain was long enough to lose the lock in; nothing is deployed without it.
        """
        self.turn = replace(self.turn, restored=False)
        since = time.monotonic() if since is None else since
        notes: list[str] = []
        with self.watch() as watch:
            while True:
                notes += [] if at_once else observed.wait_as_set(self.turn.watched, since, self.run.options)
                back = watch.back_since()
                if back is None or back <= since:
                    break
                notes.append("Its maintenance ended while it was draining: it was put back, and is drained anew.")
                since, at_once = back, False
            self.enter(states.DEPLOYING)
        for note in notes:
            self.task.warn(f"{self.planned.host}: {note}")
        return {"drain_notes": notes}

    # -- the deployment -------------------------------------------------------------------------------------------

    @property
    def why(self) -> str:
        """What its steps are for, DEPLOY_REASON for the user's command: deploy or rollback."""
        return "rollback" if self.turn.rolling_back else str(self.run.options["direction"])

    @property
    def replaced_version(self) -> str:
        """The version that its steps replace; empty where it is not known."""
        return str((self.planned.to_version if self.turn.rolling_back else self.planned.from_version) or "")

    def deploy(self, command: str) -> dict[str, Any]:
        """Run the user's command line on the host, one at a time there, with a time limit; its output is kept.

        :raises HitlessError: it did not succeed; ``details`` hold its output.
        """
        environment = {
            "DEPLOY_SERVICE": self.keys.service,
            "DEPLOY_VERSION": checked_version(self.version),
            "DEPLOY_PREVIOUS_VERSION": self.replaced_version,
            "DEPLOY_ID": self.turn.deployment,
            "DEPLOY_REASON": self.why,
        }
        watch = self.watch()
        return run_command(self.task, self.run, self.planned, self.turn.deployment, command, environment, watch)

    # -- and back -------------------------------------------------------------------------------------------------

    def verify(self, health_url: str, health_match: str) -> tuple[dict[str, Any], Answer | None]:
        """The new process answers, its own checks pass and stay so, while the host gets no traffic.

        A maintenance that ends meanwhile is put back.

        :param health_url: asked from the host until it answers well, and matches ``health_match``.
        :returns: the result, and the catalog's last answer, for :meth:`return_to_rotation` right after.
        :raises HitlessError: names the failing checks, or the URL's last answer.
        """
        self.enter(states.VERIFYING)
        return verify_node(self.task, self.run, self.targets, self.watch, health_url, health_match)

    def begin_restore(self) -> dict[str, Any]:
        """It is healthy, and the user's restore tasks come next, in maintenance."""
        self.enter(states.RETURNING)
        return {"changed": False}

    def return_to_rotation(self, seen: Answer | None = None) -> dict[str, Any]:
        """Maintenance off, passing in rotation, and recorded."""
        self.turn = replace(self.turn, restored=True)
        self.enter(states.RETURNING)
        return {"changed": self.end_maintenance(seen), **self.end_well()}

    def end_maintenance(self, seen: Answer | None = None) -> bool:
        """Maintenance off, seen in the catalog, and passing in rotation -> whether anything changed.

        :param seen: what :meth:`verify` saw just now of the service on the node, so that it need not be read again.
        """
        service = self.keys.service
        changes = [
            maintenance.disable(
                self.task.consul, self.task.agent, target, self.ours, first=seen if target.service == service else None
            )
            for target in self.targets
        ]
        shown = next((change.shown for change in changes if change.target.service == service), None)
        wait_until_passing(self.task, self.run, self.node, shown)
        return any(change.changed for change in changes)

    # -- what fails -----------------------------------------------------------------------------------------------

    def on_failure(self, failed: Mapping[str, Any], task_name: str, action: str = "") -> dict[str, Any]:
        """Decide how to handle the failure of a task, do it, and record it where it is final.

        With the decision ``roll_back`` the same steps are to be taken again: ``turn`` is then that of the rollback.

        :param action: of the task, as it is written there.
        """
        failure = states.Failure.of(failed, task_name)
        drains = self.run.drains_by_hook
        at = states.Situation(
            state=self.turn.state,
            to_version=self.planned.to_version or "",
            from_version=self.planned.from_version or "",
            rollback_to=self.planned.rollback_to or "",
            wants_rollback=self.run.options["rollback"] != "none",
            drained_by_hook=drains,
            never_began=states.never_began(failed, task_name, action, self.run.first_tasks),
            restore_failed=drains and self.turn.phase == states.RETURNING and not self.turn.restored,
            earlier=self.turn.error,
        )
        return self._follow(*states.decide_on_failure(failure, at), failure)

    def after_undrain(self, failed: Mapping[str, Any], task_name: str) -> dict[str, Any]:
        """The same once the user's restore tasks have run for a host that was only drained.

        :param failed: the result of the one that failed, empty where they did well.
        """
        failure = states.Failure.of(failed, task_name) if failed else None
        decision, why = states.decide_after_undrain(failure, self.turn.error)
        return self._follow(decision, why, failure or states.Failure(self.turn.error, self.turn.output))

    def _follow(self, decision: str, why: str, failure: states.Failure) -> dict[str, Any]:
        self.turn = replace(self.turn, error=why, output=failure.output or self.turn.output)
        if decision != states.STOP:
            try:
                decision, why = self._act(decision, why, other_owner=failure.other_owner)
            except LockLost as error:
                decision, why = states.STOP, f"{why} And {error}"
        # Shown where it happened, not only in the table at the end.
        self.task.warn(f"{self.planned.host}: {why}")
        self.turn = replace(self.turn, decision=decision, error=why)
        return {"changed": decision != states.STOP}

    def _act(self, decision: str, why: str, *, other_owner: bool) -> tuple[str, str]:
        """Do what was decided -> what it came to, and why.

        :raises LockLost: the lock is no longer ours, and nothing further is done.
        """
        try:
            if decision == states.ROLL_BACK:
                self.roll_back()
            elif decision == states.HOLD and not self.run.by_agents:
                self.hold()
            elif decision == states.END_MAINTENANCE and not self.run.by_agents:
                self.undo(other_owner=other_owner)
        except LockLost:
            raise
        except HitlessError as error:
            decision = states.GIVE_UP if isinstance(error, HostLost) else states.HOLD
            why = f"{why} And {error}"
        outcome = states.outcome_of(decision, other_owner=other_owner)
        if outcome:
            self.turn = replace(self.turn, error=why)
            problem = self.end(outcome)
            if problem:  # the last play finds the host without an outcome, and so lost
                self.task.warn(f"{self.node}: what became of it could not be recorded: {problem}")
        return decision, why

    def roll_back(self) -> None:
        """Begin its way back: the same steps, to the previous version.

        :raises LockLost: the lock is no longer ours.
        """
        self.note(states.ROLLING_BACK)
        self.turn = replace(self.turn.at(states.ROLLING_BACK), rolling_back=True, phase=states.PENDING)

    def hold(self) -> None:
        """Keep it in maintenance, and put it back where somebody ended that.

        :raises LockLost: the lock is no longer ours.
        """
        self.task.consul.txn([self.fence()])
        maintenance.enable_all(self.task.consul, self.task.agent, self.targets, self.reason, self.ours)

    def undo(self, *, other_owner: bool = False) -> None:
        """End this deployment's own maintenance: nothing was deployed.

        :param other_owner: one set by someone else was in the way of a drain: it stays, what went out before returns.
        :raises LockLost: the lock is no longer ours.
        """
        if self.turn.phase == states.PENDING:
            return
        cluster, agent = self.task.consul, self.task.agent
        cluster.txn([self.fence()])
        maintenance.lift(agent, self.node, self.reason)
        for target in self.targets:
            answer = target.read(cluster)
            if not target.is_there(answer.data):
                continue  # nothing is registered that could be in maintenance
            try:
                # What an earlier, interrupted deployment had taken out may be broken: only this one's own ends.
                maintenance.disable(cluster, agent, target, lambda found: found == self.reason, first=answer)
            except HitlessError as error:
                if not (other_owner and error.details.get("other_owner")):
                    raise
