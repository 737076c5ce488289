"""A machine with its process, its Consul agent and its health check, as a rollout meets it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulUnavailable, HostLost

from .clock import Event
from .consul import SERVICE, Response
from .scenario import Temper

if TYPE_CHECKING:
    from .world import World

MAINTENANCE = f"_service_maintenance:{SERVICE}"
NODE_MAINTENANCE = "_node_maintenance"


@dataclass(frozen=True)
class State:
    """What an agent knows, or the catalog shows.

    :param maintenance: its reason; None for none.
    :param alive: the status of the health check; ``serf`` that of the node.
    """

    maintenance: str | None = None
    alive: str = "passing"
    serf: str = "passing"

    @property
    def in_rotation(self) -> bool:
        return self.maintenance is None and (self.alive, self.serf) == ("passing", "passing")


class Machine:
    """One host; the names of what is wrong with its process are in ``troubles``."""

    is_local = True

    def __init__(self, world: World, name: str, version: str) -> None:
        self.world = world
        self.name = name
        self.version = self.first_version = version
        self.troubles: dict[str, None] = {}
        self.truth: list[tuple[float, bool]] = [(world.scheduler.now, True)]
        """When the process became healthy, or not."""
        self.agent = self.shown = State()
        self.is_reachable = self.has_agent = True
        self.running = ""
        """Whose deployment command runs there."""
        self.touched = False
        """Whether a command has begun there since it was last in rotation."""
        self.commands: list[tuple[str, str]] = []
        """Deployment and version of each command."""
        self.command_ended = -math.inf
        self.out_since = math.inf
        """When the catalog last began to show it out of rotation."""
        self.in_since = world.scheduler.now
        """Since when the catalog shows it in rotation."""
        self.fails_since = math.inf
        """Since when the catalog shows that it fails, and is in no maintenance."""
        self.left_at = self.critical_since = self.serf_since = self.dropped_at = -math.inf
        """When it last left the rotation by itself; when its check, or its node's, last failed; when somebody else
        ended our maintenance."""
        self.joined_at = -math.inf
        """When it has registered itself; before all else where it was there from the beginning."""
        self._starts = 0
        self._phase = world.rng.uniform(0, world.scenario.check[0])

    # -- the process ------------------------------------------------------------------------------------------

    @property
    def is_healthy(self) -> bool:
        return not self.troubles

    def bad_for(self, now: float, since: float = 0.0) -> float:
        """Seconds for which the process has been bad without a break; 0 where it is healthy.

        :param since: seconds for which it may have been healthy again.
        """
        at, is_healthy = self.truth[-1]
        if is_healthy and len(self.truth) > 1 and now - at < since:
            return at - self.truth[-2][0]
        return 0.0 if is_healthy else now - at

    def was_healthy_since(self, then: float) -> bool:
        """Whether the process was so at any moment from then on."""
        return self.is_healthy or any(until > then for until, healthy in self.truth if not healthy)

    def trouble(self, name: str) -> None:
        self.troubles[name] = None
        self._has_changed()

    def cure(self, *names: str) -> None:
        for name in names or list(self.troubles):
            self.troubles.pop(name, None)
        self._has_changed()

    def _has_changed(self) -> None:
        now = self.world.scheduler.now
        if self.truth[-1][1] != self.is_healthy:
            self.truth.append((now, self.is_healthy))
            interval, timeout = self.world.scenario.check
            ticks = math.ceil((now - self._phase) / interval)
            delay = self._phase + ticks * interval - now
            self.world.scheduler.after(delay + self.world.rng.uniform(0, timeout / 4), self._check)

    def _check(self) -> None:
        if not self.has_agent:
            return
        status = "passing" if self.is_healthy else "critical"
        if status != self.agent.alive:
            if status == "critical":
                self.critical_since = self.world.scheduler.now
            self._agent_has(replace(self.agent, alive=status))

    # -- the agent, and the catalog ---------------------------------------------------------------------------

    def _agent_has(self, state: State) -> None:
        """Usually the catalog shows it at once; a maintenance may take a moment, with all that is known by then."""
        rng, is_slow = self.world.rng, state.alive == self.agent.alive and self.world.rng.random() < 0.05
        self.agent = state
        self.world.scheduler.after(rng.uniform(0.1, 3) if is_slow else rng.uniform(0.002, 0.03), self._sync)

    def _sync(self) -> None:
        if self.has_agent and (self.agent.maintenance, self.agent.alive) != (self.shown.maintenance, self.shown.alive):
            self._show(replace(self.agent, serf=self.shown.serf))

    def _show(self, state: State) -> None:
        before, self.shown, now = self.shown, state, self.world.scheduler.now
        if state.in_rotation or state.maintenance is not None:
            self.fails_since = math.inf
        elif self.fails_since == math.inf:
            self.fails_since = now
        if state.in_rotation:
            self.in_since = self.in_since if before.in_rotation else now
            self.out_since = math.inf
        elif before.in_rotation:
            self.out_since, self.in_since = now, math.inf
        if before.in_rotation and (state.maintenance is None or not state.maintenance.startswith("deploy:")):
            self.left_at = now
        if state.in_rotation:
            self.touched = False
        self.world.consul.machine_changed(self.name)
        self.world.promises.shown(self, before)

    def set_serf(self, status: str) -> None:
        if status == "critical" and self.shown.serf != status:
            self.serf_since = self.world.scheduler.now
        self._show(replace(self.shown, serf=status))

    def set_maintenance(self, reason: str | None) -> None:
        """Consul keeps the first reason of one that is enabled twice."""
        if reason is None or self.agent.maintenance is None:
            self._agent_has(replace(self.agent, maintenance=reason))
        else:
            self._agent_has(self.agent)

    def is_back(self) -> None:
        """Its agent syncs again."""
        self.has_agent = True
        self._agent_has(self.agent)
        self._check()

    def ask_agent(self, method: str, path: str, params: Mapping[str, Any], _body: str) -> Response:
        """The HTTP API of its Consul agent, through the connection to the host."""
        self._reach()
        if not self.has_agent:
            raise ConsulUnavailable("No answer from the Consul agent.", status=-1)
        if path == "/v1/agent/checks":
            found = [check for check in self._checks(self.agent) if check["CheckID"] != "serfHealth"]
            return Response(200, json.dumps({check["CheckID"]: check for check in found}), {})
        if (method, path) != ("PUT", f"/v1/agent/service/maintenance/{SERVICE}"):
            raise NotImplementedError(f"{method} {path}")
        reason = str(params.get("reason", "")) if params["enable"] == "true" else None
        if reason is None:
            self.world.promises.ends_maintenance(self)
        self.set_maintenance(reason)
        return Response(200, "", {})

    def checks(self) -> list[dict[str, Any]]:
        return self._checks(self.shown)

    def _checks(self, state: State) -> list[dict[str, Any]]:
        interval, timeout = self.world.scenario.check
        told = {"Interval": f"{interval:g}s", "Timeout": f"{timeout:g}s"} if self.world.scenario.told else {}
        of_node = {"Node": self.name, "ServiceID": "", "ServiceName": "", "Notes": "", "Output": ""}
        of_service = {**of_node, "ServiceID": SERVICE, "ServiceName": SERVICE}
        checks: list[dict[str, Any]] = [
            {**of_node, "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": state.serf},
            {**of_service, "CheckID": "alive", "Name": "alive", "Status": state.alive, "Type": "http"},
        ]
        checks[1]["Definition"] = told
        if state.maintenance is not None:
            about = {"CheckID": MAINTENANCE, "Name": "Maintenance", "Status": "critical", "Notes": state.maintenance}
            checks.append({**of_service, **about})
        return checks

    def entry(self) -> dict[str, Any]:
        node = {"Node": self.name, "Address": f"10.0.0.{self.name.removeprefix('web')}", "Datacenter": "dc1"}
        service = {"ID": SERVICE, "Service": SERVICE, "Tags": [], "Meta": {}, "Port": 80, "Address": ""}
        return {"Node": node, "Service": service, "Checks": self.checks()}

    # -- what runs on the host: the seam of ``_remote.host.Host`` -----------------------------------------------

    def call(self, program: str, request: dict[str, Any], **_how: object) -> dict[str, Any]:
        """A program of the collection, on the host."""
        programs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "probe": self._probe,
            "command": self._command,
        }
        self.world.scheduler.sleep(self.world.rng.uniform(0.001, 0.02))
        self._reach()
        return programs[program](request)

    def _reach(self) -> None:
        if not self.is_reachable:
            raise HostLost(f"{self.name} cannot be reached: no route to host")

    def _probe(self, request: dict[str, Any]) -> dict[str, Any]:
        scheduler = self.world.scheduler
        until = scheduler.now + float(request["deadline"])
        while not self.is_healthy and scheduler.now < until:
            scheduler.sleep(min(0.25, until - scheduler.now))
            self._reach()
        error = "" if self.is_healthy else "it answered 500"
        return {"ok": not error, "status": 500 if error else 200, "body": self.version, "error": error}

    def ask(self) -> str | None:
        """Its health URL, asked from the controller; None where nothing answers."""
        self.world.scheduler.sleep(self.world.rng.uniform(0.001, 0.02))
        if self.is_healthy:
            return ""
        is_down = not self.is_reachable or {"stopped", "starts"} & self.troubles.keys()
        return None if is_down else "it answered 500"

    def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        """A deployment; once it runs, it ends by itself."""
        scheduler, began = self.world.scheduler, self.world.scheduler.now
        deployment, version = request["environment"]["DEPLOY_ID"], request["environment"]["DEPLOY_VERSION"]
        self.world.promises.deploys(self)
        answer = {
            "rc": 0,
            "output": "",
            "seconds": 0.0,
            "error": "",
            "timed_out": False,
            "waited_for": "",
            "waited": 0.0,
        }
        while self.running:
            answer["waited_for"] = self.running
            if scheduler.now - began > request["wait"]:
                return {**answer, "error": "another deployment runs there"}
            scheduler.sleep(0.2)
            self._reach()
        answer["waited"] = scheduler.now - began
        temper = self.world.scenario.temper(self.world.rng, version)
        self.running, self.touched = deployment, True
        self.commands.append((deployment, version))
        self.world.promises.command(self, deployment)
        ended = Event(scheduler)
        takes = request["timeout"] if temper.fails == "hangs" else temper.takes
        scheduler.after(takes * 0.4, lambda: self._swap(version, temper))
        scheduler.after(takes, lambda: self._command_ends(temper, ended))
        while not ended.wait(1.0):
            self._reach()
        self._reach()
        answer["seconds"] = scheduler.now - began
        answer["timed_out"] = temper.fails == "hangs"
        answer["rc"] = 3 if temper.fails else 0
        return answer

    def _swap(self, version: str, temper: Temper) -> None:
        """The old process is replaced."""
        if temper.fails != "before":
            self.version = version
            self._starts += 1
            for name in ("turned bad", "flaps", "broken", "died"):
                self.troubles.pop(name, None)
            self.trouble("stopped")

    def _command_ends(self, temper: Temper, ended: Event) -> None:
        self.running = ""
        self.command_ended = self.world.scheduler.now
        ended.set()
        if temper.fails == "before":
            return
        starts = self._starts
        if temper.starts is None or temper.fails:
            self.troubles.pop("stopped", None)
            self.trouble("broken")
            return
        self._later(starts, temper.starts, lambda: self.cure("stopped"))
        if temper.turns_bad is not None:
            self._later(starts, temper.starts + temper.turns_bad, lambda: self.trouble("turned bad"))
        if temper.flaps:
            after, seconds = temper.flaps
            self._later(starts, temper.starts + after, lambda: self.trouble("flaps"))
            self._later(starts, temper.starts + after + seconds, lambda: self.cure("flaps"))

    def _later(self, starts: int, seconds: float, call: Callable[[], None]) -> None:
        """Something that its process does, unless it is another one by then."""
        self.world.scheduler.after(seconds, lambda: call() if starts == self._starts else None)
