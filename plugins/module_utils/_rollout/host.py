# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's part of a deployment: drain, deploy, verify, return, and back (a private helper of this collection).

Its states, and the decision on a failure, are in states.py, and what is written of it in recorded_host.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_watch import put_back
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulUnavailable,
    HitlessError,
    HostLost,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout import alike, states
from ansible_collections.hitless.consul.plugins.module_utils._rollout import drain as observed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.command import run_command
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import ALIKE, Halt
from ansible_collections.hitless.consul.plugins.module_utils._rollout.halting import record_stop
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_version
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.reboot import Reboot
from ansible_collections.hitless.consul.plugins.module_utils._rollout.recorded_host import RecordedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._rollout.verification import (
    verify_node,
    wait_until_passing,
)


class TakenOut(NamedTuple):
    """A host that is in maintenance, seen in the catalog.

    :param shown_at: when the catalog showed it, on the monotonic clock.
    :param by_this: whether this very deployment had taken it out before, and it stayed so: nothing is left to drain.
    :param result: of the task.
    """

    shown_at: float
    by_this: bool
    result: dict[str, Any]


class HostDeployment(RecordedHost):
    """Its methods are the steps of a host; each leaves ``turn`` as the next one needs it."""

    _shown: Answer | None = None
    """What the catalog says of the service on the node as its maintenance began, in this process alone."""

    # -- out of rotation ------------------------------------------------------------------------------------------

    def drain(self) -> dict[str, Any]:
        """:meth:`leave` and :meth:`wait_until_drained`, with nothing in between."""
        out = self.take_out(self._batch_begun())
        return {**out.result, **self.wait_until_drained(out.shown_at, at_once=out.by_this)}

    def leave(self) -> dict[str, Any]:
        """Maintenance on, seen in the catalog."""
        return self.take_out(self._batch_begun()).result

    def _batch_begun(self) -> list[dict[str, Any]]:
        """The operation that says that the host's batch has begun; its rollback begins none."""
        if self.turn.rolling_back:
            return []
        return [Progress(batch=self.planned.batch or 0).op(self.keys, self.turn.deployment)]

    def take_out(self, begun: Sequence[dict[str, Any]] = (), seen: Answer | None = None) -> TakenOut:
        """Maintenance on, seen in the catalog.

        A maintenance that an interrupted deployment of the service has set is taken over as it is: Consul keeps the
        first reason, and taking it off for a moment would send traffic to whatever that deployment left there.

        :param begun: the operations that say so, in the transaction of its first write.
        :param seen: what the catalog says of the service on the node, where that was read just now.
        :raises HitlessError: a maintenance set by someone else is there (``details["other_owner"]``).
        """
        began = time.monotonic()
        cluster, targets = self.task.consul, self.targets
        own = self.keys.service
        found = [seen if seen and target.service == own else target.read(cluster) for target in targets]
        # The node's maintenance has no service of its own.
        services = {one.service or self.keys.service: one.tags if one.service else self.tags for one in targets}
        known = {target.service: answer.data for target, answer in zip(targets, found, strict=True) if target.service}
        known |= {own: seen.data} if seen else {}
        watched = observed.find_on_node(cluster, self.run.options["load_balancers"], self.node, services, known)
        out_already = any(target.is_out(answer.data) for target, answer in zip(targets, found, strict=True))
        back = self.turn.rolling_back
        self.turn = replace(self.turn, started=self.turn.started or timestamp())
        if back and self.end_guard():
            self.turn = replace(self.turn, dropped=True)
        # Draining is recorded only while nothing can have been deployed there, so that a later run may trust it.
        recorded = states.DEPLOYING if out_already and not back else ""
        self.enter(states.DRAINING, recorded=recorded, also=begun)
        changes = maintenance.enable_all(cluster, self.task.agent, targets, self.reason, self.ours, found)
        shown_at = max(change.shown_at for change in changes)
        before = {reason for change in changes for reason in change.before.values()}
        # Of several answers the oldest: what has happened since any of them is looked at.
        index = min(change.index for change in changes)
        self._shown = next((Answer(one.shown, one.index, 200) for one in changes if one.target.service == own), None)
        self.turn = replace(self.turn, watched=[asdict(one) for one in watched], index=index)
        if self.guard:
            # A process of its own takes over no connection of this one.
            self.guard.start(lambda: self.watch(task=replace(self.task)))
        result = {
            "changed": any(change.changed for change in changes),
            "instances": [name for change in changes for name in change.after],
            "shown_after": round(shown_at - began, 3),
        }
        # What an earlier deployment had taken out is drained again: nobody knows what it did since.
        is_drained = before == {self.reason} and not self.turn.dropped
        self.turn = replace(self.turn, dropped=False)
        return TakenOut(shown_at, is_drained, result)

    def wait_until_drained(self, since: float | None = None, *, at_once: bool = False) -> dict[str, Any]:
        """Return when the host is drained: from then on the deployment may have begun.

        A maintenance that ends meanwhile is put back, and the drain begins anew.

        :param since: when the drain began, on the monotonic clock; now where not given.
        :raises LockLost: the drain was long enough to lose the lock in; nothing is deployed without it.
        :raises HitlessError: an operator has aborted the rollout.
        """
        self.turn = replace(self.turn, restored=False)
        since = time.monotonic() if since is None else since
        notes: list[str] = []
        longest = self.run.options["drain_deadline" if self.turn.watched else "drain_time"]
        told = self.telling.waiting(lambda passed: f"draining, {passed:.0f} of {longest:g} s")
        with told, self.watched() as watch, self.hearing() as sleep:
            while True:
                if not at_once:
                    notes += observed.wait_as_set(self.turn.watched, since, self.run.options, sleep)
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

    def deploy(self, command: str) -> dict[str, Any]:
        """Run the user's command line on the host, one at a time there, with a time limit; its output is kept.

        :raises HitlessError: it did not succeed; ``details`` hold its output.
        """
        environment = {
            "DEPLOY_SERVICE": self.keys.service,
            "DEPLOY_VERSION": self.version if self.run.kind.keeps_version else checked_version(self.version),
            "DEPLOY_PREVIOUS_VERSION": self.replaced_version,
            "DEPLOY_ID": self.turn.deployment,
            "DEPLOY_REASON": self.why,
        }
        longest = self.run.options["deploy_timeout"]
        doing = f"{self.run.kind.doing}{self.version_told}"
        text = f"{doing}, {{:.0f}} of at most {{:g}} s".format
        with self.watched() as watch, self.telling.waiting(lambda passed: text(passed, longest)):
            return run_command(self.task, self.run, self.planned, self.turn.deployment, command, environment, watch)

    def reboot(self, command: str, boot_id_command: str) -> dict[str, Any]:
        """Reboot the machine, and wait until it is back, its Consul agent and the service on it.

        A maintenance that ends meanwhile is put back.

        :raises HitlessError: it is not back in time; it could not be sent down (``details["untouched"]``).
        """
        reboot = Reboot(self.task, self.run, self.planned, self.turn.deployment, boot_id_command)
        longest = self.run.options["reboot_deadline"]
        told = self.telling.waiting(lambda passed: f"rebooting, {passed:.0f} of at most {longest:g} s")
        with told, self.watched() as watch:
            result = reboot.begin(command)
            reboot.wait_until_back()
        for note in watch.note(self.planned.host, "ended while it rebooted"):
            self.task.warn(note)
        return result

    # -- and back -------------------------------------------------------------------------------------------------

    def verify(self, health_url: str, health_match: str) -> tuple[dict[str, Any], Answer | None]:
        """The new process answers, its own checks pass and stay so, while the host gets no traffic.

        A maintenance that ends meanwhile is put back.

        :param health_url: asked from the host until it answers well, and matches ``health_match``.
        :returns: the result, and the catalog's last answer, for :meth:`return_to_rotation` right after.
        :raises HitlessError: names the failing checks, or the URL's last answer.
        """
        self.enter(states.VERIFYING)
        match = self.match_of(health_match)
        return verify_node(
            self.task, self.run, self.targets, self.watched, health_url, match, self.telling, self._shown
        )

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
        self.end_guard()
        changes = [
            maintenance.disable(
                self.task.consul, self.task.agent, target, self.ours, first=seen if target.service == service else None
            )
            for target in self.targets
        ]
        shown = next((change.shown for change in changes if change.target.service == service), None)
        wait_until_passing(self.task, self.run, self.node, shown)
        return any(change.changed for change in changes)

    def end_guard(self) -> bool:
        """Nothing keeps the host in maintenance any more; somebody who had ended it meanwhile is told of.

        :returns: whether somebody had.
        """
        dropped = bool(self.guard and self.guard.end())
        if dropped:
            self.task.warn(put_back(self.node, "ended during its deployment"))
        return dropped

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
            stays=bool(self.run.undoes) or self.run.kind.keeps_version,
            drained_by_hook=drains,
            never_began=bool(failed.get("untouched"))
            or states.never_began(failed, task_name, action, self.run.first_tasks),
            restore_failed=drains and self.turn.phase == states.RETURNING and not self.turn.restored,
            trouble_of_all=self._trouble_of_all(failure),
            earlier=self.turn.error,
        )
        return self._follow(*states.decide_on_failure(failure, at), failure)

    def _trouble_of_all(self, failure: states.Failure) -> str:
        """Why the failure is not the host's own: neither the version nor the one before would do better now."""
        is_rollout = self.run.options["direction"] != "rollback" and self.turn.deployment == self.run.id
        if not is_rollout or failure.lost or failure.lock_lost or self.turn.state in states.NOTHING_DEPLOYED:
            return ""
        try:
            return alike.trouble_of_all(self.task, self.run, went_back=self.turn.rolling_back)
        except HitlessError:  # then it counts as its own
            return ""

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
            elif decision in (states.HOLD, states.DEFER):
                if decision == states.DEFER:
                    halt = Halt(ALIKE, f"{self.planned.host} failed in its turn: {why.rstrip('.')}")
                    record_stop(self.task, self.run, "its next host", halt.why, self.planned.batch or 0, halt)
                if not self.run.by_agents:
                    self.hold()
            elif decision == states.END_MAINTENANCE and not self.run.by_agents:
                self.undo(other_owner=other_owner)
        except LockLost:
            raise
        except HitlessError as error:
            is_away = isinstance(error, ConsulUnavailable) and decision == states.END_MAINTENANCE
            # Whether it is in maintenance nobody knows then: that it stays so would be told of one that serves.
            decision = states.GIVE_UP if is_away or isinstance(error, HostLost) else states.HOLD
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
        self.end_guard()
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
