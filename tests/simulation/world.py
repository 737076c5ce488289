"""One simulated deployment: machines, a Consul, an operator's bad days, and controllers that roll over them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ansible_collections.hitless.consul.plugins.module_utils._consul import keeper
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import control, orders
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import Order
from ansible_collections.hitless.consul.plugins.module_utils._rollout.haproxy import Server, Statistics
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys

from .clock import Process, Scheduler
from .consul import SERVICE, Consul, Network, Transport
from .machine import Machine, State
from .promises import Promises
from .scenario import BALANCER, NEW, OLD, Said, Scenario, Trouble, minimum_of

AGENT = "http://{}:8500"
CLUSTER = "http://consul:8500"
REQUESTS = 20
"""A second, to each instance."""
REASON = "the disk is being replaced"


class World:
    """What there is, and what happens to it.

    :param tells: whether the story is kept, for a person.
    """

    def __init__(self, scenario: Scenario, *, tells: bool = False) -> None:
        self.scenario = scenario
        self.rng = random.Random(scenario.seed + 1)
        self.scheduler = Scheduler(self.rng)
        self.began = self.scheduler.now
        self.version = NEW
        self.story: list[str] = []
        self._tells = tells
        self.consul = Consul(self.scheduler, self._is_away)
        self.network = Network(self.scheduler, self.rng, scenario.loses)
        self.promises = Promises(self)
        self.consul.observer = self.promises
        self.sessions: dict[str, str] = {}
        """Process -> its session."""
        self.controllers: dict[str, Any] = {}
        self._lost_at: dict[str, float] = {}
        self.machines = {name: Machine(self, name, OLD) for name in (f"web{n + 1}" for n in range(scenario.hosts))}
        self.consul.machines = dict(self.machines)
        for machine, first in zip(self.machines.values(), scenario.first, strict=True):
            self._begins_as(machine, first)
        self._counts = {name: [0.0, 0.0] for name in self.machines}
        """Requests and errors of each instance."""
        self._counted_at = self.began
        for trouble in scenario.troubles:
            self.scheduler.after(trouble.at, partial(self._happens, trouble))
        for at in scenario.joins:
            self.scheduler.after(at, self._joins)
        for number, said in enumerate(scenario.said):
            operator = Process(f"operator{number}")
            speak = partial(self.scheduler.spawn, partial(self._speak, said), operator)
            self.scheduler.after(said.at, speak)

    def log(self, text: str) -> None:
        if self._tells:
            self.story.append(f"{self.scheduler.now - self.began:9.3f} {text}")

    # -- figures ----------------------------------------------------------------------------------------------

    @property
    def minimum(self) -> int:
        """Instances that have to stay in rotation."""
        return minimum_of(self.scenario.options["min_healthy"], self.scenario.hosts)

    def minimum_in(self, wave: str) -> int:
        """Instances of a wave that have to stay in rotation: the same share, rounded down, but for one of them."""
        wanted, there = self.scenario.options["min_healthy"], len(self.scenario.waves[wave])
        total = self.scenario.hosts
        share = there * int(wanted[:-1]) // 100 if isinstance(wanted, str) else there * wanted // total
        return max(0, min(share, there - 1))

    def wave_of(self, name: str) -> str:
        """The wave of a host, the first of what has joined; empty where there are none."""
        waves = self.scenario.waves
        return next((wave for wave, hosts in waves.items() if name in hosts), next(iter(waves), ""))

    def window(self, direction: str) -> int:
        """The most hosts that may be in flight at once in any stage."""
        wanted, number = self.scenario.options["batch_size"], len(self.machines)
        if direction == "rollback":
            return number
        sizes = wanted if isinstance(wanted, list) else [wanted]
        return max(max(1, number * int(one[:-1]) // 100) if isinstance(one, str) else one for one in sizes)

    @property
    def sure_after(self) -> float:
        """Seconds after which a process that stays bad is surely found."""
        check, options = sum(self.scenario.check), self.scenario.options
        longest: float = max(options["watch_grace"], check, options["check_interval"])
        return check + longest + 6.0

    def away_lately(self) -> float:
        """Seconds for which Consul has had no leader, in the last minute."""
        passed = self.scheduler.now - self.began
        return sum(seconds + 5.0 for at, seconds in self.scenario.outages if at < passed < at + seconds + 60)

    def _is_away(self) -> bool:
        passed = self.scheduler.now - self.began
        return any(at <= passed < at + seconds for at, seconds in self.scenario.outages)

    # -- the lock ---------------------------------------------------------------------------------------------

    def holds_lock(self, process: Process, within: float = 0.0) -> bool:
        """Whether a process has the lock, or has lost it no longer ago than that."""
        item = self.consul.keys.get(Keys(SERVICE).lock)
        if item is not None and item.session and self.consul.sessions[item.session] == process.name:
            return True
        return self.scheduler.now - self._lost_at.get(process.name, float("-inf")) <= within

    def loses_lock(self, session: str) -> None:
        """Nobody has renewed it."""
        owner = self.consul.sessions.get(session)
        if owner:
            self.log(f"the session of {owner} has ended")
            self._lost_at[owner] = self.scheduler.now
            self.consul.end_session(session)

    def was_left_by(self, deployment: str, machine: Machine) -> bool:
        """Whether a maintenance is that of a deployment."""
        return f":{deployment} " in (machine.agent.maintenance or "")

    # -- requests ---------------------------------------------------------------------------------------------

    def transport(self, connection: Connection) -> Transport:
        """What carries a client's requests."""
        host = urlsplit(connection.url).hostname or ""
        return Transport(self.network, self.machines[host].ask_agent if host in self.machines else self.consul.answer)

    def tidy_up(self, session: str) -> None:
        """What the keeper of a run does, when that has been killed: its own code."""
        keys = Keys(SERVICE)
        prefix = keys.deployment("any")
        config = keeper.Config(
            http="",
            url="",
            headers={},
            tls={},
            datacenter="",
            timeout=10,
            lock=keys.lock,
            deployments=keys.deployments,
            record=keys.record("any").removeprefix(prefix),
            outcomes=keys.outcomes("any").removeprefix(prefix),
            session=session,
            ttl=15,
            progress_deadline=3600,
            controller=0,
            pipe=-1,
        )
        consul = keeper.Consul(config)
        while True:
            try:
                if consul.holds_lock():
                    consul.mark_interrupted()
                consul.release()
            except keeper.NoAnswer:
                self.scheduler.sleep(0.5)
            else:
                return

    def ask(self, _way: object, request: dict[str, Any]) -> dict[str, Any]:
        """A request of the keeper."""
        url = urlsplit(request["url"])
        params = dict(parse_qsl(url.query, keep_blank_values=True))
        answer = self.network.carry(
            request["method"], lambda: self.consul.answer(request["method"], url.path, params, request["body"])
        )
        return {"status": answer.code, "body": answer.body, "headers": answer.headers}

    def opener(self, request: dict[str, Any]) -> object:
        return request

    # -- the load balancer ------------------------------------------------------------------------------------

    def statistics(self) -> tuple[dict[str, Statistics], list[str]]:
        """What the load balancer has counted: each instance in rotation gets as many requests."""
        passed = self.scheduler.now - self.began
        if self.scenario.silent and 0 < passed - self.scenario.silent[0] < self.scenario.silent[1]:
            return {}, ["the load balancer does not answer"]
        seconds, self._counted_at = self.scheduler.now - self._counted_at, self.scheduler.now
        for machine in self.machines.values():
            if machine.shown.in_rotation:
                counts, share = self._counts[machine.name], self.scenario.errors or 0.0
                counts[0] += seconds * REQUESTS
                counts[1] += seconds * REQUESTS * (share if machine.version == NEW else 0.0)
        servers = {
            ("web", name): Server(f"10.0.0.{name.removeprefix('web')}:80", "UP", 0, 0, int(counts[0]), int(counts[1]))
            for name, counts in self._counts.items()
        }
        return {BALANCER: Statistics(servers, 0)}, []

    # -- operators --------------------------------------------------------------------------------------------

    def say(self, word: str) -> None:
        """By the playbook; what means nothing is refused."""
        keys, client = Keys(SERVICE), Client(Connection(CLUSTER))
        try:
            if word == control.FREEZE:
                until = orders.until_of(f"{self.rng.randint(5, 60)}s")
                given = orders.freeze(client, keys.freeze, SERVICE, Order(word, by="anna", until=until))
            elif word == control.UNFREEZE:
                given = orders.unfreeze(client, keys.freeze, SERVICE)
            else:
                given = orders.give(client, keys, Order(word, by="anna"))
        except HitlessError as error:
            self.log(f"an operator says {word}, and is told: {error}")
        else:
            self.log(f"an operator says {word}: {given.text}")

    def _speak(self, said: Said) -> None:
        if said.by_hand and said.word in control.WORDS:
            self.log(f"somebody writes {said.word}")
            self.consul.set_key(Keys(SERVICE).control, said.word)
        else:
            self.say(said.word)

    def _joins(self) -> None:
        """A further machine, as an image makes it."""
        name = f"web{len(self.machines) + 1}"
        self.log(f"{name} joins")
        machine = Machine(self, name, OLD)
        machine.joined_at = self.scheduler.now
        self.machines[name] = self.consul.machines[name] = machine
        self._counts[name] = [0.0, 0.0]
        self.consul.machine_changed(name)
        self.consul.set_key(Keys(SERVICE).version(name), OLD)

    # -- trouble ----------------------------------------------------------------------------------------------

    def _begins_as(self, machine: Machine, first: str) -> None:
        if first == "current":
            machine.version = machine.first_version = NEW
        elif first == "broken":
            machine.trouble("broken")
            machine.agent = machine.shown = State(alive="critical")
        elif first == "operator":
            machine.agent = machine.shown = State(maintenance=REASON)
        elif first == "unreachable":
            machine.is_reachable = False
        if not machine.shown.in_rotation:
            machine.out_since, machine.in_since = self.began, math.inf
        keys = Keys(SERVICE)
        self.consul.set_key(keys.version(machine.name), machine.version)

    def _happens(self, trouble: Trouble) -> None:
        machine = list(self.machines.values())[trouble.host]
        self.log(f"{trouble.kind} on {machine.name} for {trouble.seconds:.2f} s")
        undo: Callable[[], None] = getattr(self, f"_{trouble.kind}")(machine)
        if trouble.seconds:
            self.scheduler.after(trouble.seconds, undo)

    def _operator(self, machine: Machine) -> Callable[[], None]:
        """Somebody puts a host into maintenance."""
        machine.set_maintenance(REASON)

        def undo() -> None:
            if machine.agent.maintenance == REASON:
                machine.set_maintenance(None)

        return undo

    def _operator_ends_ours(self, machine: Machine) -> Callable[[], None]:
        """Somebody ends a maintenance of ours, as an application that registers itself does."""
        if (machine.agent.maintenance or "").startswith("deploy:"):
            machine.dropped_at = self.scheduler.now
            machine.set_maintenance(None)
        return lambda: None

    def _lost(self, machine: Machine) -> Callable[[], None]:
        """The machine is gone; Consul finds that out a moment later."""
        machine.is_reachable = machine.has_agent = False
        machine.trouble("lost")
        self.scheduler.after(
            self.rng.uniform(1, 5), lambda: None if machine.has_agent else machine.set_serf("critical")
        )

        def undo() -> None:
            machine.is_reachable = True
            machine.cure("lost")
            machine.is_back()
            if machine.shown.serf == "critical":
                machine.set_serf("passing")

        return undo

    def _blinks(self, machine: Machine) -> Callable[[], None]:
        """Consul holds a node for lost that is not."""
        machine.set_serf("critical")
        return lambda: machine.set_serf("passing") if machine.has_agent else None

    def _unreachable(self, machine: Machine) -> Callable[[], None]:
        """Nobody can log in."""
        machine.is_reachable = False

        def undo() -> None:
            machine.is_reachable = True

        return undo

    def _agent_down(self, machine: Machine) -> Callable[[], None]:
        machine.has_agent = False
        return machine.is_back

    def _process_dies(self, machine: Machine) -> Callable[[], None]:
        machine.trouble("died")
        return lambda: machine.cure("died")

    def _dependency(self, _machine: Machine) -> Callable[[], None]:
        """All instances fail."""
        for machine in self.machines.values():
            machine.trouble("dependency")

        def undo() -> None:
            for machine in self.machines.values():
                machine.cure("dependency")

        return undo

    def repair(self) -> None:
        """Somebody looks after all of it, but for what our own deployments have left."""
        self.log("all is repaired")
        for machine in self.machines.values():
            machine.cure(*(name for name in machine.troubles if name != "stopped"))
            machine.is_reachable = True
            machine.is_back()
            if machine.shown.serf == "critical":
                machine.set_serf("passing")
            if machine.agent.maintenance == REASON:
                machine.set_maintenance(None)
