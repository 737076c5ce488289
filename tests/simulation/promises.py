"""What is promised of each deployment, looked at whenever something happens, by what the world knows and nobody else.

Nothing here asks the product what it thinks: a promise is held against the machines as they are, and against the keys
as they are written. A read is some milliseconds old when it is acted upon, and so :data:`SOON` is left where a promise
is about what others do at the same time; while Consul has no leader requests wait, and such promises with them.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import STATES

from .clock import Process
from .consul import SERVICE
from .machine import Machine, State

if TYPE_CHECKING:
    from .world import World

PROMISES = {
    "minimum": "our own action leaves no fewer instances in rotation than the minimum",
    "drain": "nothing is deployed on a host that is not in maintenance, and drained for drain_time",
    "waves": "no stage has hosts of two waves, and no wave begins before the one in front of it has ended",
    "minimum of a wave": "nor are fewer left in a wave than its share of the minimum",
    "joiners": "what joins while a rollout runs that is successful has its version at the end, or is named",
    "window": "no more hosts are in flight than the window",
    "stop": "no host begins once a stop is recorded",
    "budget": "no host begins once the failure budget is spent",
    "lock": "nothing begins, is deployed or returns without the lock",
    "control": "no host begins once an operator has paused, stopped, aborted or frozen it",
    "windows": "no host of a rollout begins outside of rollout_windows",
    "analysis": "no host begins once an analysis has found the version bad, and what was changed goes back",
    "verified": "a host that does not work is not returned to rotation",
    "other owner": "a maintenance of somebody else is not ended",
    "one outcome": "a host ends once, but that what was ok may be found regressed or lost",
    "outcome agrees": "a host's outcome is what runs there",
    "record agrees": "a record ends in a final state, which is what its outcomes come to",
    "fleet rollback": "after a failure what was changed runs its old version, or is named",
    "regression": "a host that was changed and turns bad is recorded, and stops the deployment",
    "watch": "no host begins later than a moment after one that was changed has failed, until it is known what that is",
    "alike": "a host is not rolled back, nor given up, for a trouble that all instances have; its turn comes again",
    "flap": "one that is bad for less than the grace is none",
    "clean": "a run that has told a verdict leaves no lock, nobody in flight, and nobody well in our maintenance",
}
SOON = 1.0
"""Seconds from what is read to what is done by it."""
READ = 0.05
"""Seconds from the read of a host's own instances to the beginning of its turn."""
KEYS = Keys(SERVICE)
OURS = "deploy:"


@dataclass
class Seen:
    """What was seen of one deployment.

    :param outcomes: node -> outcome; ``ok_at``: node -> when it became ok.
    :param had: node -> its version as the plan has it.
    :param well: nodes that were in rotation for a while as a run of it began.
    :param bad_at: when an analysis has found the version bad; ``kind``: what it has come to a halt by.
    :param spent_at: when each host has spent of the budget; ``stopped_at``: when its stop was written.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    ok_at: dict[str, float] = field(default_factory=dict)
    spent_at: list[float] = field(default_factory=list)
    stopped_at: float = math.inf
    stop: str = ""
    state: str = "running"
    direction: str = "deploy"
    resumes: str = ""
    bad_at: float = math.inf
    kind: str = ""
    current: set[str] = field(default_factory=set)
    waves: list[str] = field(default_factory=list)
    """Of each host that has begun."""
    whole: set[str] = field(default_factory=set)
    """The waves of which all hosts were in rotation when it was planned."""
    well: set[str] = field(default_factory=set)
    had: dict[str, str | None] = field(default_factory=dict)


def word_of(text: str) -> str:
    """The word that an operator has written, as JSON or plain."""
    return str(json.loads(text)["word"]) if text.startswith("{") else text


def moment(text: str) -> datetime:
    """A time as keys hold it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


class Promises:
    """All of them, over one world.

    :param broken: promise -> what was seen.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.broken: dict[str, list[str]] = {}
        self.seen: dict[str, Seen] = {}
        self._said = "", "", math.inf
        """The word of an operator, the deployment that it was for, and when."""
        self._frozen_at = math.inf
        self.taken: set[str] = set()
        """Nodes that were taken out of rotation by a deployment, and are not back."""

    def breaks(self, promise: str, what: str) -> None:
        """Note that one of :data:`PROMISES` was not kept."""
        at = self.now - self.world.began
        self.broken.setdefault(promise, []).append(f"at {at:.2f} s: {what}")
        self.world.log(f"BROKEN {promise}: {what}")

    @property
    def now(self) -> float:
        return self.world.scheduler.now

    @property
    def options(self) -> Mapping[str, Any]:
        return self.world.scenario.options

    def of(self, deployment: str) -> Seen:
        return self.seen.setdefault(deployment, Seen())

    def _not_held(self) -> float:
        """Seconds for which a request may have waited for Consul."""
        return SOON + self.world.away_lately()

    # -- what is written --------------------------------------------------------------------------------------

    def writes(self, process: Process, operations: Sequence[Mapping[str, Any]]) -> None:
        """A transaction is about to take place."""
        for one in operations:
            key, verb = str(one["Key"]), one["Verb"]
            if verb not in ("set", "cas") or not key.startswith(KEYS.deployments):
                continue
            deployment, _slash, rest = key.removeprefix(KEYS.deployments).partition("/")
            what, _slash, node = rest.partition("/")
            text = b64decode(one["Value"]).decode()
            if what == "in_flight" and key not in self.world.consul.keys:
                self._begins(process, deployment, self.world.machines[node])
            elif what == "nodes":
                self._ends(deployment, self.world.machines[node], json.loads(text))
            elif what == "findings" and json.loads(text)["failure"]:
                self.of(deployment).bad_at = min(self.of(deployment).bad_at, self.now)
            elif what == "control":
                self.of(deployment).kind = json.loads(text).get("kind", "")
            elif what == "progress":
                self._progresses(self.of(deployment), json.loads(text)["stop"])
            elif what == "record":
                self.of(deployment).state = json.loads(text)["state"]
                if self.of(deployment).state == "running":
                    self.of(deployment).well = {
                        one.name for one in self.world.machines.values() if self.now - one.in_since > 3 * SOON
                    }
                self.of(deployment).direction = json.loads(text)["direction"]
                self.of(deployment).resumes = json.loads(text)["resumes"]
            elif what == "plan":
                hosts = json.loads(text)["hosts"].items()
                self.of(deployment).current = {name for name, one in hosts if one["state"] == "current"}
                self.of(deployment).had = {name: one["from"] for name, one in hosts}
                out = {self.world.wave_of(one.name) for one in self.world.machines.values() if not self._is_well(one)}
                self.of(deployment).whole = set(self.world.scenario.waves) - out
            self.world.log(f"{process.name} writes {rest} = {text[:160]}")

    def _progresses(self, seen: Seen, stop: str) -> None:
        """A stop is written, or is gone, where a deployment goes on that was paused."""
        if stop != seen.stop:
            seen.stop, seen.stopped_at = stop, self.now if stop else math.inf

    def _in_flight(self, deployment: str) -> list[str]:
        prefix = KEYS.in_flight(deployment)
        return [key.removeprefix(prefix) for key in self.world.consul.keys if key.startswith(prefix)]

    def _begins(self, process: Process, deployment: str, machine: Machine) -> None:
        seen, flying = self.of(deployment), self._in_flight(deployment)
        if not self.world.holds_lock(process):
            self.breaks("lock", f"{machine.name} begins in {process.name}, which has not got the lock")
        soon, name = self._not_held(), machine.name
        word, since = self._said_to(deployment, seen.direction)
        if word and self.now - since > soon:
            self.breaks("control", f"{name} begins {self.now - since:.2f} s after {word}")
        closed, passed = self.world.scenario.closed, self.now - self.world.began
        if closed and seen.direction == "deploy" and closed[0] + soon < passed < closed[1]:
            self.breaks("windows", f"{name} begins at {passed:.2f} s, and from {closed[0]} to {closed[1]} s none may")
        if self.now - seen.bad_at > soon:
            self.breaks("analysis", f"{name} begins {self.now - seen.bad_at:.2f} s after it was found bad")
        if self.now - seen.stopped_at > soon:
            self.breaks("stop", f"{name} begins, though it was stopped at {seen.stopped_at:.2f}: {seen.stop}")
        budget = self.options["failure_budget"] if seen.direction == "deploy" else math.inf
        if sum(self.now - at > soon for at in seen.spent_at) > budget:
            self.breaks("budget", f"{name} begins, though the budget of {budget} is spent")
        regressed = [one.name for one in self.world.machines.values() if self._has_long_regressed(seen, one)]
        spent = sum(STATES[one].spends_budget for one in seen.outcomes.values())
        if regressed and spent + len(regressed) > budget:
            self.breaks("regression", f"{name} begins, though {', '.join(regressed)} turned bad")
        failing = [one.name for one in self.world.machines.values() if self._is_failing(seen, one)]
        if failing and spent + len(failing) > budget:
            self.breaks("watch", f"{name} begins, though {', '.join(failing)} fails for more than {soon:.2f} s")
        if len(flying) + 1 > self.world.window(seen.direction):
            self.breaks("window", f"{name} begins beside {', '.join(flying)}")
        self._keeps_minimum(machine, flying)
        if self.world.scenario.waves:
            self._keeps_to_waves(seen, machine, flying)

    def _is_well(self, machine: Machine) -> bool:
        return machine.shown.in_rotation and self.now - machine.in_since > 3 * SOON

    def _keeps_to_waves(self, seen: Seen, machine: Machine, flying: Sequence[str]) -> None:
        """A rollback takes all waves at once, and one host of a wave that is not whole can always go back."""
        name, wave, names = machine.name, self.world.wave_of(machine.name), list(self.world.scenario.waves)
        others = [one for one in flying if self.world.wave_of(one) != wave]
        later = [one for one in seen.waves if names.index(one) > names.index(wave)]
        if seen.direction == "deploy" and (others or later):
            self.breaks("waves", f"{name} of {wave} begins beside {', '.join(others)}, after {', '.join(later)}")
        seen.waves.append(wave)
        if not self._takes_away(machine) or (seen.direction == "rollback" and wave not in seen.whole):
            return
        serving, minimum = self._serving_beside(machine, flying), self.world.minimum_in(wave)
        left = sum(self.world.wave_of(one.name) == wave for one in serving)
        if left < minimum:
            self.breaks("minimum of a wave", f"{name} begins, and {left} of {minimum} would serve in {wave}")

    def set_by_hand(self, key: str, text: str) -> None:
        """A key is set outside of transactions: what an operator says, to the deployment that has the lock."""
        if key == KEYS.control:
            lock = self.world.consul.text(KEYS.lock)
            self._said = word_of(text), str(json.loads(lock)["deployment"]) if lock else "", self.now
        elif key == KEYS.freeze:
            self._frozen_at = self.now

    def _said_to(self, deployment: str, direction: str) -> tuple[str, float]:
        """What keeps further hosts of a deployment from beginning, and since when; empty where nothing does."""
        word, to, since = self._said
        if to == deployment and word in ("pause", "stop", "abort"):
            return word, since
        freeze = self.world.consul.text(KEYS.freeze)
        if freeze and direction == "deploy" and moment(json.loads(freeze)["until"]) > self.world.scheduler.date:
            return "freeze", self._frozen_at
        return "", math.inf

    def _takes_away(self, machine: Machine) -> bool:
        """Whether a host whose turn begins was in rotation; one that has come back since it was read was not."""
        return machine.shown.in_rotation and self.now - machine.in_since > READ + self.world.away_lately()

    def _keeps_minimum(self, machine: Machine, flying: Sequence[str]) -> None:
        if not self._takes_away(machine):
            return
        serving = self._serving_beside(machine, flying)
        if len(serving) < self.world.minimum:
            self.breaks("minimum", f"{machine.name} begins, and {len(serving)} of {self.world.minimum} would serve")

    def _serving_beside(self, machine: Machine, flying: Sequence[str]) -> list[Machine]:
        """What gets traffic beside a machine whose turn begins."""
        # One that was out when its turn began takes nothing away; once it is in rotation it has been verified.
        takes = [one for one in flying if one in self.taken]
        others = [one for one in self.world.machines.values() if one is not machine and one.name not in takes]
        return [one for one in others if one.shown.in_rotation or self.now - one.left_at <= self._not_held()]

    def _has_long_regressed(self, seen: Seen, machine: Machine) -> bool:
        """Whether it was changed, was well, and has been bad for longer than it takes to be sure."""
        if self._outcome_in_chain(seen, machine.name) != "ok" or seen.direction != "deploy" or not machine.has_agent:
            return False
        if machine.shown.maintenance is not None or machine.agent.maintenance is not None:
            return False
        return machine.bad_for(self.now) > self.world.sure_after + self.world.away_lately()

    def _is_failing(self, seen: Seen, machine: Machine) -> bool:
        """Whether it was changed and was well, and the catalog has shown for a moment that it fails."""
        if self._outcome_in_chain(seen, machine.name) != "ok" or seen.direction != "deploy":
            return False
        return self.now - machine.fails_since > self._not_held()

    def _outcome_in_chain(self, seen: Seen, name: str) -> str:
        """How a host has ended in a deployment, or where that leaves it alone, in those that it resumes."""
        if name in seen.outcomes or name not in seen.current:
            return seen.outcomes.get(name, "")
        return self._outcome_in_chain(self.seen[seen.resumes], name) if seen.resumes in self.seen else ""

    # -- how a host ends --------------------------------------------------------------------------------------

    def _ends(self, deployment: str, machine: Machine, data: Mapping[str, Any]) -> None:
        seen, name, outcome = self.of(deployment), machine.name, str(data["outcome"])
        before = seen.outcomes.get(name)
        if outcome == "failed" and self._all_fail_alike(deployment, machine):
            self.breaks("alike", f"{name} is failed, as all instances fail")
        if before == outcome:
            return
        if before not in (None, "deferred") and outcome not in STATES[before].next:
            self.breaks("one outcome", f"{name} was {before} and is {outcome}")
        seen.outcomes[name] = outcome
        if STATES[outcome].spends_budget:
            seen.spent_at.append(self.now)
        problem = self._disagrees(deployment, machine, outcome, data)
        if problem:
            self.breaks("outcome agrees", f"{name} is {outcome}, and {problem}")
        if outcome == "ok":
            seen.ok_at[name] = self.now
        elif before == "ok":
            self._is_no_flap(machine, outcome)

    def _disagrees(self, deployment: str, machine: Machine, outcome: str, data: Mapping[str, Any]) -> str:
        """What is otherwise on the machine than an outcome says."""
        is_commanded = any(one == deployment for one, _version in machine.commands)
        runs, maintenance = machine.version, machine.agent.maintenance
        if outcome == "ok" and runs != data["to"]:
            return f"runs {runs}"
        if outcome == "rolled_back" and runs != data["from"]:
            return f"runs {runs}"
        if outcome in ("ok", "rolled_back") and (maintenance or "").startswith(OURS):
            return "is in maintenance"
        if outcome in ("untouched", "skipped", "pending", "current") and is_commanded:
            return "was deployed"
        if outcome == "failed" and maintenance is None and self.now - machine.dropped_at > SOON:
            return "is in no maintenance"
        return ""

    def _all_fail_alike(self, deployment: str, machine: Machine) -> bool:
        """Whether all have been out of rotation for a while, and one on the old version was well before.

        Those that had the new version when it began tell nothing of it: it may be what fails on all of them.
        """
        seen, flying = self.of(deployment), self._in_flight(deployment)
        others = [one for one in self.world.machines.values() if one is not machine]
        ends = self._said_to(deployment, seen.direction)[0] in ("stop", "abort") or seen.stop
        if seen.direction != "deploy" or ends or seen.spent_at or self.world.away_lately():
            return False
        if any(self.now - one.out_since < self.options["watch_grace"] + 2 * SOON for one in others):
            return False
        changed = {*seen.outcomes, *seen.current, *flying}
        old = [one for one in others if one.name in seen.well and one.name not in changed]
        return any((one.shown.maintenance, one.agent.maintenance) == (None, None) for one in old)

    def _is_no_flap(self, machine: Machine, outcome: str) -> None:
        grace, interval = self.options["watch_grace"], self.world.scenario.check[0]
        # Between the last look and the writing of it some requests lie, in which it may have become well again.
        bad = machine.bad_for(self.now, SOON)
        failed = self.now - machine.critical_since if machine.shown.alive == "critical" else 0.0
        lost = self.now - machine.serf_since if machine.shown.serf == "critical" else 0.0
        if max(bad, lost) < grace - SOON / 2 and failed < interval:
            self.breaks("flap", f"{machine.name} is {outcome} after {max(bad, failed, lost):.2f} s")

    # -- what is done on a machine ----------------------------------------------------------------------------

    def deploys(self, machine: Machine) -> None:
        """A deployment command is sent."""
        process = self.world.scheduler.current.process
        if not self.world.holds_lock(process, within=self._not_held()):
            self.breaks("lock", f"{process.name} deploys on {machine.name} without the lock")

    def command(self, machine: Machine, deployment: str) -> None:
        """A deployment command begins."""
        self.world.log(f"{machine.name} runs the command of {deployment}: {machine.commands[-1][1]}")
        if self.now - machine.dropped_at <= self._not_held():
            return
        drained = self.now - machine.out_since
        if machine.shown.maintenance is None:
            self.breaks("drain", f"{machine.name} is deployed and is not in maintenance")
        elif drained < self.options["drain_time"]:
            self.breaks("drain", f"{machine.name} is deployed {drained:.3f} s after it was in rotation")

    def ends_maintenance(self, machine: Machine) -> None:
        """A controller asks an agent to end a maintenance."""
        process, reason = self.world.scheduler.current.process, machine.agent.maintenance
        self.world.log(f"{process.name} ends the maintenance of {machine.name} ({reason})")
        if reason is None:
            return
        if not reason.startswith(OURS):
            self.breaks("other owner", f"{process.name} ends {reason!r} on {machine.name}")
        if not self.world.holds_lock(process, within=self._not_held()):
            self.breaks("lock", f"{process.name} returns {machine.name} without the lock")
        if not machine.touched:
            return
        since = max(machine.command_ended, self.now - sum(self.world.scenario.check) - SOON - self._not_held())
        if machine.running or not machine.was_healthy_since(since):
            self.breaks("verified", f"{machine.name} returns and is bad ({', '.join(machine.troubles)})")

    def shown(self, machine: Machine, before: State) -> None:
        """The catalog shows another state of a machine."""
        ours = (machine.shown.maintenance or "").startswith(OURS)
        self.world.log(f"{machine.name} is shown as {machine.shown}")
        if not ours:
            self.taken.discard(machine.name)
        elif before.in_rotation:
            self.taken.add(machine.name)
            left = len(self.world.machines) - len(self.taken)
            if left < self.world.minimum:
                self.breaks("minimum", f"{left} of {self.world.minimum} are left, without {', '.join(self.taken)}")

    # -- the end ----------------------------------------------------------------------------------------------

    def baked(self, deployment: str) -> None:
        """The watch of a deployment is over: what it should have found is recorded."""
        seen = self.of(deployment)
        if not self.world.holds_lock(self.world.scheduler.current.process):
            return
        if self.now - seen.stopped_at > 0 or len(seen.spent_at) > self.options["failure_budget"]:
            return
        for machine in self.world.machines.values():
            if self._has_long_regressed(seen, machine):
                self.breaks("regression", f"{machine.name} turned bad, and nobody noticed")

    def paused(self) -> None:
        """A run has ended, and what it has begun waits: nothing is left but its record, and what has failed."""
        self._is_clean()

    def ended(self, result: Mapping[str, Any]) -> None:
        """A run has told its verdict, and nothing of it is left."""
        self._is_clean()
        for deployment, seen in self.seen.items():
            if seen.state == "running":
                self.breaks("record agrees", f"{deployment} says that it runs")
        outcomes, good = result["hosts"], result["result"] == "successful"
        if not self.of(result["id"]).stop and good != all(STATES[one].is_good for one in outcomes.values()):
            self.breaks("record agrees", f"{result['result']} with {outcomes}")
        for name, outcome in outcomes.items():
            self._stands(self.world.machines[name], outcome, result)
        self._is_undone(result)
        for machine in self.world.machines.values():
            # One that joined in between two runs is a host like any other.
            is_told = machine.name in outcomes or machine.name in result["verdict"]
            if (
                good
                and machine.version != self.world.version
                and not is_told
                and self.now - machine.joined_at > 2 * SOON
            ):
                self.breaks("joiners", f"{machine.name} runs {machine.version} and is not named")

    def _is_undone(self, result: Mapping[str, Any]) -> None:
        """What an analysis has found bad does not stay, unless too few others are healthy to take any of it away."""
        seen = self.of(result["id"])
        follows = self.seen.get(seen.resumes, Seen()).state == "successful"  # what has joined, which goes back alone
        if seen.kind != "failure" or self.options["rollback"] != "fleet" or result["rollback"] or follows:
            return
        has_it = [name for name, outcome in result["hosts"].items() if outcome == "ok"]
        others = [one for one in self.world.machines.values() if one.name not in has_it and one.shown.in_rotation]
        serving = sum(one.shown.in_rotation for one in self.world.machines.values())
        if has_it and others and serving > self.world.minimum:
            self.breaks("analysis", f"it was found bad, and {', '.join(has_it)} have it")

    def _is_clean(self) -> None:
        item = self.world.consul.keys.get(KEYS.lock)
        if item is not None:
            self.breaks("clean", f"the lock is there, held by {item.session or 'nobody'}")
        for deployment, seen in self.seen.items():
            flying = self._in_flight(deployment)
            if flying and seen.state != "interrupted":
                self.breaks("clean", f"{', '.join(flying)} are in flight in {deployment}")

    def _stands(self, machine: Machine, outcome: str, result: Mapping[str, Any]) -> None:
        """A host is at the end as the verdict says."""
        name, in_ours = machine.name, (machine.agent.maintenance or "").startswith(OURS)
        is_left = outcome != "pending" or self.world.was_left_by(result["id"], machine)
        if in_ours and is_left and outcome in ("ok", "rolled_back", "current", "untouched", "pending"):
            self.breaks("clean", f"{name} is {outcome} and in maintenance ({machine.agent.maintenance})")
        wanted = {"ok": self.world.version, "current": self.world.version, "rolled_back": machine.first_version}
        if outcome in wanted and machine.version != wanted[outcome] and result["result"] == "successful":
            self.breaks("outcome agrees", f"{name} is {outcome} and runs {machine.version}")
        self._is_back(machine, result)

    def _is_back(self, machine: Machine, result: Mapping[str, Any]) -> None:
        """After a failure all that was changed runs what it had, or is named."""
        # One that an earlier deployment has left on the new version has nothing else to go back to.
        if not result["rollback"] or machine.version in (
            machine.first_version,
            self.of(result["id"]).had.get(machine.name),
        ):
            return
        if machine.name not in result["failed_hosts"]:
            self.breaks("fleet rollback", f"{machine.name} runs {machine.version} and is not named as failed")
