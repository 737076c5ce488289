"""What a simulation is about: sizes, options, versions and trouble, all of it from one number."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import parse_analysis

from .clock import EPOCH

OLD, NEW = "1.4.2", "1.5.0"
BALANCER = "http://balancer/"


@dataclass(frozen=True)
class Temper:
    """How a version takes its deployment on one host, and what it does afterwards; all times in seconds.

    :param takes: the command, until it ends.
    :param fails: ``before`` or ``after`` it has changed the host; ``hangs``; empty where it succeeds.
    :param starts: until the new process answers well; None for never.
    :param turns_bad: after it has started, for good; None for never.
    :param flaps: after it has started, and for how long; None for never.
    """

    takes: float = 1.0
    fails: str = ""
    starts: float | None = 0.5
    turns_bad: float | None = None
    flaps: tuple[float, float] | None = None


@dataclass(frozen=True)
class Trouble:
    """Something that happens to a host, or to all, beside the rollout.

    :param kind: a method of ``world.World``.
    :param seconds: how long it lasts; 0 for good.
    """

    at: float
    kind: str
    host: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Said:
    """A word of an operator.

    :param by_hand: written into the key as it is, and not by the playbook.
    """

    at: float
    word: str
    by_hand: bool = False


@dataclass(frozen=True)
class Death:
    """The end of a controller that nobody has planned.

    :param at_switch: the number of its switch.
    :param kind: ``killed`` (its keeper tidies up), ``machine`` (its session ends by its TTL), ``stalled`` (the lock is
        lost, and it goes on).
    """

    at_switch: int
    kind: str


@dataclass(frozen=True)
class Scenario:
    """One simulated deployment, with all that happens to it.

    :param first: version and state of each host as it begins.
    :param share_of: of the hosts on which the new version is bad in each way.
    :param check: interval and timeout of the health check; ``told``: whether Consul tells them.
    :param errors: the share of the new version's answers that are errors, which an analysis sees; None without one.
    :param silent: when, and for how long, the load balancer does not answer; None for never.
    :param loses: the share of the answers to writes that are lost.
    :param outages: when, and for how long, Consul has no leader.
    :param closed: from when to when no host may begin (rollout_windows); None for always.
    :param zones: of each host, by turns; 1 where there are no waves.
    :param joins: when a further machine registers itself, each with the old version.
    :param few: instances up to which one read of a gate looks at all of them, see ``looking.py``.
    """

    seed: int
    hosts: int
    options: Mapping[str, Any]
    has_url: bool
    check: tuple[float, float]
    told: bool
    first: Sequence[str] = ()
    share_of: Mapping[str, float] = field(default_factory=dict)
    bad_after: float | None = None
    troubles: Sequence[Trouble] = ()
    deaths: Sequence[Death] = ()
    said: Sequence[Said] = ()
    errors: float | None = None
    silent: tuple[float, float] | None = None
    loses: float = 0.0
    outages: Sequence[tuple[float, float]] = ()
    closed: tuple[int, int] | None = None
    zones: int = 1
    joins: Sequence[float] = ()
    few: int = 0

    @property
    def waves(self) -> dict[str, list[str]]:
        """Wave -> its hosts, in the order of the waves; none where there is one zone."""
        names = [f"web{number + 1}" for number in range(self.hosts)]
        zones = {f"zone{zone + 1}": names[zone :: self.zones] for zone in range(self.zones)}
        return zones if self.zones > 1 else {}

    def temper(self, rng: random.Random, version: str) -> Temper:
        """How a version takes this deployment."""
        takes = rng.uniform(0.3, 4.0)
        starts = rng.uniform(0.1, 2.0)
        if version == OLD:
            fails = "after" if rng.random() < self.share_of["old"] else ""
            return Temper(takes, fails, starts)
        chance = rng.random()
        for kind in ("before", "after", "hangs", "broken", "turns_bad", "flaps"):
            chance -= self.share_of[kind]
            if chance < 0:
                return self._bad(rng, kind, takes, starts)
        return Temper(takes, starts=starts, turns_bad=self.bad_after)

    @staticmethod
    def _bad(rng: random.Random, kind: str, takes: float, starts: float) -> Temper:
        if kind in ("before", "after", "hangs"):
            return Temper(takes, kind, starts)
        if kind == "broken":
            return Temper(takes, starts=None)
        if kind == "turns_bad":
            return Temper(takes, starts=starts, turns_bad=rng.uniform(0.5, 60))
        return Temper(takes, starts=starts, flaps=(rng.uniform(0.5, 40), rng.uniform(0.2, 6)))


def minimum_of(wanted: int | str, hosts: int) -> int:
    """Instances that have to stay in rotation; a percentage is rounded up."""
    return -(-hosts * int(wanted[:-1]) // 100) if isinstance(wanted, str) else wanted


KINDS = ("operator", "operator_ends_ours", "lost", "unreachable", "agent_down", "process_dies", "dependency", "blinks")


def scenario_of(seed: int) -> Scenario:
    """The scenario of a number, always the same."""
    scarce, few = random.Random(f"scarce in {seed}"), random.Random(f"few in {seed}").choice([0, 0, 500])
    found = replace(_any(seed), few=few)
    return _scarce(found, scarce) if scarce.random() < 0.1 else found


def _scarce(scenario: Scenario, rng: random.Random) -> Scenario:
    """Old instances fail while three hosts are in flight, so that of the workers at the gate after that one may begin.

    What they do at once shows nowhere else; so nothing else happens.
    """
    options = {
        name: value for name, value in scenario.options.items() if name not in ("windows", "waves_by", "wave_bake_time")
    }
    options |= {"batch_size": 3, "min_healthy": 5, "pause_after": [], "failure_budget": 2}
    fail = [Trouble(rng.uniform(0.2, 2), "process_dies", number) for number in (6, 7)]
    quiet: dict[str, Any] = {
        "deaths": [],
        "said": [],
        "outages": [],
        "joins": [],
        "closed": None,
        "zones": 1,
        "bad_after": None,
    }
    first = ["well"] * 8
    return replace(
        scenario,
        hosts=8,
        options=options,
        first=first,
        share_of=dict.fromkeys(scenario.share_of, 0.0),
        troubles=fail,
        **quiet,
    )


def _any(seed: int) -> Scenario:
    rng = random.Random(seed)
    hosts = rng.choice([1, 2, 3, 3, 4, 4, 5, 6, 8])
    check = (rng.choice([1.0, 2.0, 3.0]), rng.choice([0.5, 1.0]))
    options = _options(rng, check)
    if minimum_of(options["min_healthy"], hosts) >= hosts:
        options["min_healthy"] = 0  # else it is refused, which is another test's
    closed = _closed(random.Random(seed * 7 + 3))
    if closed:
        until, again = (f"{EPOCH + timedelta(seconds=seconds):%H:%M}" for seconds in closed)
        options["windows"] = [f"Mon 14:00-{until} UTC", f"Mon {again}-18:00 UTC"]
    analysed = random.Random(seed * 11 + 5)  # of its own, so that all else is as it was
    errors = analysed.choice([0.0, 0.1, 0.5]) if options["bake_time"] and analysed.random() < 0.3 else None
    if errors is not None:
        options |= {"load_balancers": [BALANCER], "analysis": parse_analysis("load_balancers", "analysis")}
        options["analysis"][0]["load_balancers"]["inconclusive_limit"] = 5
    silent = (analysed.uniform(0, 60), analysed.uniform(2, 30)) if analysed.random() < 0.3 else None
    beside = random.Random(f"waves and joiners of {seed}")
    options |= {"joiners": beside.choice(["name", "roll"])}
    zones = beside.choice([1, 1, 2, 3])
    if zones > 1:
        options |= {"waves_by": "zone", "wave_bake_time": options["bake_time"] + beside.choice([0.0, 5.0])}
    joins = [beside.uniform(0, 60) for _one in range(beside.choice([0, 0, 0, 1, 2]))]
    if zones > 1 and joins and options["min_healthy"] == "75%":
        # Of 7 with one that waits in maintenance for a later wave none may be taken out, which is refused.
        options |= {"min_healthy": "50%"}
    return Scenario(
        seed=seed,
        errors=errors,
        silent=silent,
        hosts=hosts,
        options=options,
        has_url=rng.random() < 0.6,
        check=check,
        told=rng.random() < 0.7,
        first=[_first(rng) for _host in range(hosts)],
        share_of=_shares(rng),
        bad_after=rng.uniform(2, 60) if rng.random() < 0.2 else None,
        troubles=_troubles(rng, hosts),
        deaths=_deaths(rng),
        said=_said(rng),
        loses=rng.choice([0.0, 0.0, 0.0, 0.02]),
        closed=closed,
        zones=min(zones, hosts),
        joins=joins,
        outages=[(rng.uniform(0, 120), rng.uniform(0.5, 17))] if rng.random() < 0.15 else [],
    )


def _options(rng: random.Random, check: tuple[float, float]) -> dict[str, Any]:
    sizes: list[Any] = [1, 1, 2, 3, "50%", "100%", [1, "100%"], [1, "50%"], [1, 1, "100%"]]
    size, bake_time = rng.choice(sizes), rng.choice([0.0, 5.0, 15.0])
    pauses: dict[str, Any] = {}
    if isinstance(size, list) and rng.random() < 0.4:
        pauses["pause_after"] = rng.choice([[1], "each"])
        pauses["auto_promote"] = rng.choice([0.0, 0.0, bake_time + 2])
    if rng.random() < 0.3:
        pauses["pause_wait"] = 30.0
    return {
        **pauses,
        "batch_size": size,
        "min_healthy": rng.choice(["50%", "50%", "50%", 0, 1, "75%"]),
        "failure_budget": rng.choice([0, 0, 0, 1, 2]),
        "drain_time": rng.choice([0.0, 1.0, 3.0]),
        "min_healthy_time": rng.choice([0.0, 1.0, 4.0]),
        "healthy_deadline": rng.choice([8.0, 20.0]),
        "deploy_timeout": 15,
        "bake_time": bake_time,
        "watch_grace": rng.choice([1.0, 3.0]),
        "check_interval": sum(check) + rng.uniform(0, 2),
        "rollback": rng.choice(["fleet", "fleet", "fleet", "host", "none"]),
        "unreachable": rng.choice(["fail", "skip", "skip"]),
        "lock_wait": rng.choice([0.0, 0.0, 40.0]),
        "keep_deployments": rng.choice([1, 20]),
    }


def _closed(rng: random.Random) -> tuple[int, int] | None:
    """Most may begin at any time; for some the window ends in the middle, with a minute."""
    begins = rng.choice([20, 20, 80])
    return (begins, begins + rng.choice([60, 120])) if rng.random() < 0.15 else None


def _said(rng: random.Random) -> list[Said]:
    number = rng.choice([0, 0, 0, 0, 1, 2, 3])
    words = ("pause", "resume", "promote", "stop", "abort", "freeze", "unfreeze", "pause", "promote")
    return [Said(rng.uniform(0, 90), rng.choice(words), rng.random() < 0.2) for _number in range(number)]


def _first(rng: random.Random) -> str:
    """How a host is as it begins."""
    chance = rng.random()
    for state, share in (("current", 0.06), ("broken", 0.05), ("operator", 0.04), ("unreachable", 0.02)):
        chance -= share
        if chance < 0:
            return state
    return "well"


def _shares(rng: random.Random) -> dict[str, float]:
    """Most versions are good, some fail now and then, and some are bad everywhere."""
    kinds = ("before", "after", "hangs", "broken", "turns_bad", "flaps")
    shares = dict.fromkeys(kinds, 0.0)
    how = rng.random()
    if how < 0.35:
        shares.update({kind: rng.choice([0.0, 0.05, 0.15]) for kind in kinds})
    elif how < 0.55:
        shares[rng.choice(kinds)] = rng.choice([0.5, 1.0])
    return {**shares, "old": rng.choice([0.0, 0.0, 0.1])}


def _troubles(rng: random.Random, hosts: int) -> list[Trouble]:
    number = rng.choice([0, 0, 1, 1, 2, 3])
    return [
        Trouble(
            rng.uniform(0, 90),
            rng.choice(KINDS),
            rng.randrange(hosts),
            rng.choice([0.0, rng.uniform(0.3, 4), rng.uniform(2, 60)]),
        )
        for _number in range(number)
    ]


def _deaths(rng: random.Random) -> list[Death]:
    number = rng.choice([0, 0, 0, 1, 1, 2])
    kinds = ("killed", "killed", "machine", "stalled")
    return [Death(int(10 ** rng.uniform(0.7, 3.3)), rng.choice(kinds)) for _number in range(number)]
