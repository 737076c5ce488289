"""A controller: the plays of playbooks/rollout.yml, with the collection's own steps, in a process of its own.

Left out are Ansible itself, the options' sources and the way to a host: a step finds what it needs in an :class:`Edge`
that stands in for that of the action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

from ansible_collections.hitless.consul.plugins.action import rollout_step
from ansible_collections.hitless.consul.plugins.module_utils._consul import keeper, lock, transport
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import TTL
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller as RunOfAnsible
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import (
    analyst,
    beside,
    drain,
    fleet,
    fleet_rollback,
    haproxy,
    looking,
    reach,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.bake import bake
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import new_deployment_id
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PAUSED, PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn
from ansible_collections.hitless.consul.plugins.module_utils._rollout.whole_turn import Way

from .clock import Event, Process, installed
from .consul import SERVICE
from .scenario import Death
from .world import AGENT, CLUSTER, World

COMMAND = "deploy"
URL = "http://app/health"


class Edge:
    """What a step finds on Ansible's side of it, for one host or localhost."""

    params: Mapping[str, Any] = {}

    def __init__(self, controller: Controller, run: Run, name: str = "localhost") -> None:
        self.controller = controller
        self.run = run
        self.name = name
        self.task = controller.task(name)

    def go_on(self, task: Task, run: Run) -> None:
        self.task, self.run = task, run

    @property
    def host(self) -> HostDeployment:
        return HostDeployment(self.task, self.run, self.run.host(self.name), Turn(self.run.id))

    def left(self, *_what: str) -> Mapping[str, Any]:
        """What tasks of the user's would have left."""
        return {}

    def ask(self, planned: PlannedHost) -> str | None:
        world = self.controller.world
        return world.machines[planned.node].ask() if world.scenario.has_url else None

    def way_of(self, _host: HostDeployment) -> Way:
        return Way(COMMAND, URL if self.controller.world.scenario.has_url else "", "")

    def again(self) -> tuple[Run, list[fleet.WantedHost]]:
        prepared = self.controller.prepare()
        return prepared, self.wanted_hosts(prepared, self.run.plan.get("hosts"))

    def wanted_hosts(self, prepared: Run, planned: Mapping[str, Any] | None = None) -> list[fleet.WantedHost]:
        new = [name for name in prepared.hosts if name not in (planned or {})]
        found = {name: self.controller.reach(name) for name in new}
        reached = {name: found.get(name) or reach.known(name, name) for name in prepared.hosts}
        return fleet.wanted_hosts(reached, prepared.options["version"], prepared.health_urls)


class Controller:
    """One run of the playbook.

    :param death: how it ends before its time; None for not at all.
    :param result: the verdict, once it has told one; ``refused``: why it has not begun.
    """

    def __init__(self, world: World, number: int, death: Death | None) -> None:
        self.world = world
        self.death = death
        self.process = Process(f"run{number}")
        self.ended = Event(world.scheduler)
        self.result: Mapping[str, Any] = {}
        self.refused = ""
        self.kept = ""
        """The session that its keeper renews."""
        if death:
            self.process.dies_at = death.at_switch
            self.process.at_switch = self._dies

    def start(self) -> None:
        self.world.scheduler.spawn(self._live, self.process)

    def task(self, name: str = "localhost") -> Task:
        """A task of the playbook, for a host."""

        def tell(text: str) -> None:
            self.world.log(f"{self.process.name} {name}: {text}")

        options = {"url": CLUSTER, "agent_url": AGENT.format(name)}
        host: Any = self.world.machines.get(name)
        return Task({}, options, host, warn=tell, show=tell)

    # -- its end ----------------------------------------------------------------------------------------------

    def _dies(self) -> None:
        world, kind = self.world, self.death.kind if self.death else ""
        world.log(f"{self.process.name}: {kind}")
        if kind != "stalled":
            world.scheduler.kill(self.process)
        if self.kept and kind == "killed":
            keeper_of = Process(f"keeper of {self.process.name}")
            world.scheduler.after(0.3, lambda: world.scheduler.spawn(lambda: world.tidy_up(self.kept), keeper_of))
        for session, owner in world.consul.sessions.items():
            if owner == self.process.name and not (session == self.kept and kind == "killed"):
                later = world.rng.uniform(TTL, 2 * TTL)
                world.scheduler.after(later, partial(world.loses_lock, session))
        self.ended.set()

    # -- the plays --------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self.refused = self._roll_out()
        finally:
            self.ended.set()

    def _roll_out(self) -> str:
        prepared = self.prepare()
        try:
            run = self._take("plan", prepared)
        except HitlessError as error:
            self.world.log(f"{self.process.name} is refused: {error}")
            return str(error)
        if not run.recorded:  # what is paused has still to wait
            self.result = {"result": PAUSED}
            return ""
        if run.order and not run.is_second:
            self._stages(run)
        if "watch" in run.parts:
            run = self._take("settle", run)
        if run.order and run.is_second:
            self._stages(run)
        if "watch" in run.parts:
            run = self._take("finish", run)
        self.result = run.ended
        return ""

    def prepare(self) -> Run:
        """The run as its options are, with the machines that there are."""
        options = {
            **DEFAULTS,
            "service": SERVICE,
            "version": self.world.version,
            "deploy_command": COMMAND,
            **self.world.scenario.options,
        }
        names = list(self.world.machines)
        waves = self.world.scenario.waves
        if waves:  # see World.wave_of
            waves = {**waves, "zone1": [*waves["zone1"], *names[self.world.scenario.hosts :]]}
        return Run(
            id=new_deployment_id(self.world.version),
            options=options,
            hosts=names,
            steps=["turn"],
            waves=waves,
            health_urls=names if self.world.scenario.has_url else [],
            operator="anna@ci",
            origin=self.process.name,
        )

    def reach(self, name: str) -> dict[str, str]:
        machine = self.world.machines[name]
        why = "" if machine.is_reachable else "no route to host"
        return {**reach.known(name, name), "why": why}

    def _edge(self, run: Run, name: str = "localhost") -> Any:
        return Edge(self, run, name)

    def _take(self, step: str, run: Run, name: str = "localhost") -> Run:
        """A step that gives the run as it goes on."""
        return Run.of(rollout_step.STEPS[step].take(self._edge(run, name)))

    def _stages(self, run: Run) -> None:
        """Ansible's part: a play's batches one after the other, and its throttle."""
        order = list(run.order)
        for size in run.serial:
            stage, order = order[:size], order[size:]
            if stage and not {"out_stages", "again_stages"} & {*run.parts}:
                self._throttled(run, stage, run.window)
            elif stage:
                opened = rollout_step.STEPS["stage"].take(self._edge(run, stage[0]))
                if opened["proceed"] or "pauses" not in run.parts:
                    self._throttled(run, stage, int(opened["window"]))

    def _throttled(self, run: Run, names: Sequence[str], window: int) -> None:
        """Each host's task; where one ends the next begins."""
        waiting, ended = list(names), [Event(self.world.scheduler) for _worker in range(min(window, len(names)))]

        def work(is_over: Event) -> None:
            while waiting:
                name = waiting.pop(0)
                result = rollout_step.STEPS["turn"].take(self._edge(run, name))
                self.world.log(f"{self.process.name} {name}: {result}")
            is_over.set()

        for one in ended:
            self.world.scheduler.spawn(partial(work, one))
        for one in ended:
            one.wait()


@contextmanager
def connected(world: World) -> Iterator[None]:
    """The collection meets this world, and no other: its clock, its Consul, its machines."""

    def start_keeper(_connection: object, _keys: object, _holder: object, session: str, **_more: object) -> None:
        world.controllers[world.scheduler.current.process.name].kept = session

    def start_beside(_run: object, work: Callable[[Callable[[float], bool]], None]) -> None:
        process = world.scheduler.current.process
        controller = world.controllers[process.name]

        def ended(seconds: float) -> bool:
            world.scheduler.sleep(seconds)
            return controller.ended.is_set()

        world.scheduler.spawn(partial(work, ended), process)

    def baked(task: Task, run: Run, *more: Any, **named: Any) -> None:
        bake(task, run, *more, **named)
        world.promises.baked(run.id)

    def run_of_ansible() -> RunOfAnsible:
        return RunOfAnsible(world.scheduler.current.process.name, pipe=-1, process=0)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(transport, "connect", world.transport))
        stack.enter_context(mock.patch.object(lock, "start_keeper", start_keeper))
        stack.enter_context(mock.patch.object(keeper, "_program", return_value=world))
        stack.enter_context(mock.patch.object(rollout_step, "controller", run_of_ansible))
        stack.enter_context(mock.patch.object(rollout_step, "guarded_run"))
        stack.enter_context(mock.patch.object(fleet_rollback, "bake", baked))
        stack.enter_context(mock.patch.object(beside, "start", start_beside))
        stack.enter_context(mock.patch.object(analyst.Analyst, "_statistics", side_effect=world.statistics))
        stack.enter_context(mock.patch.object(haproxy, "unanswered", return_value=[]))
        stack.enter_context(mock.patch.object(drain, "find_on_node", return_value=[]))
        stack.enter_context(mock.patch.object(looking, "FEW", world.scenario.few))
        stack.enter_context(installed(world.scheduler))
        yield
