"""A whole simulation: a scenario from its first controller to a verdict, and what was promised and not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import UNFREEZE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PAUSED

from .plays import Controller, connected
from .scenario import Scenario, scenario_of
from .world import World

ATTEMPTS = 12
"""Runs of the same command after which one has to have told a verdict."""


@dataclass(frozen=True)
class Simulated:
    """What came of it.

    :param broken: promise -> what was seen.
    :param story: what happened, where that was asked for.
    """

    scenario: Scenario
    broken: Mapping[str, Sequence[str]]
    story: Sequence[str]


def simulate(seed: int, *, tells: bool = False) -> Simulated:
    """The deployment of a seed."""
    world = World(scenario_of(seed), tells=tells)
    with connected(world):
        try:
            _run_until_verdict(world)
        finally:
            world.scheduler.close()
    return Simulated(world.scenario, world.promises.broken, world.story)


def _run_until_verdict(world: World) -> None:
    """Somebody starts the same command until it has told a verdict."""
    scheduler, deaths = world.scheduler, list(world.scenario.deaths)
    for number in range(1, ATTEMPTS + 1):
        controller = Controller(world, number, deaths.pop(0) if deaths else None)
        world.controllers[controller.process.name] = controller
        controller.start()
        controller.ended.wait()
        if controller.result.get("result") == PAUSED:
            world.promises.paused()
            if number > 2:
                world.repair()
            scheduler.sleep(world.rng.uniform(0, 10))
            world.say(UNFREEZE)
            world.say(world.rng.choice(["promote", "resume", "abort", "stop"]))
        elif controller.result:
            break
        if controller.refused and "is held by" not in controller.refused:
            world.repair()
        if "outside of rollout_windows" in controller.refused:
            scheduler.sleep(world.rng.uniform(20, 60))
        scheduler.sleep(world.rng.uniform(1, 30))
    else:
        world.promises.breaks("clean", f"no verdict after {ATTEMPTS} runs: {controller.refused}")
        return
    for one in world.controllers.values():
        if not one.process.is_dead:
            one.ended.wait()
    world.promises.ended(controller.result)
