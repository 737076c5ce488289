# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a rollout, as the role hitless.consul.rollout takes them.

Each is a few lines over the run and the host: what it does stands in module_utils/_rollout. A task names the variables
in which the steps before it have left something (``run: hitless_run``): the values are read here as they are, since
Ansible would resolve all of a large run anew for each task of each host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    AGENT_SPEC,
    CLUSTER_SPEC,
    KEYS_SPEC,
    VARIABLE_PREFIX,
    Task,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import (
    agent_turn,
    analyst,
    beginning,
    beside,
    finishing,
    fleet_rollback,
    gate,
    joiners,
    recovery,
    trigger,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.bake import bake
from ansible_collections.hitless.consul.plugins.module_utils._rollout.operator import operator_of, origin_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import UNSET
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run, answer_request
from ansible_collections.hitless.consul.plugins.module_utils._rollout.whole_turn import WholeTurn
from ansible_collections.hitless.consul.plugins.plugin_utils import _interruption
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction
from ansible_collections.hitless.consul.plugins.plugin_utils._controller import controller, guarded_run
from ansible_collections.hitless.consul.plugins.plugin_utils._edge import Edge, forks
from ansible_collections.hitless.consul.plugins.plugin_utils._option_sources import option_sources

Result = dict[str, Any]
_NODE = f"{VARIABLE_PREFIX}node"


# -- on localhost -------------------------------------------------------------------------------------------------


def request(edge: Edge) -> Result:
    """Claim the rollout that is asked for in Consul."""
    if edge.task.variables.get("rollout_version") not in UNSET:
        raise HitlessError("rollout_version is set, and would win over the version that is asked for. Leave it out.")
    task, variables, service = edge.task, edge.task.variables, edge.params["service"]
    allowed = list(trigger.ALLOWED) if edge.params["allow"] is None else edge.params["allow"]
    by, origin = operator_of(variables), origin_of(variables)
    found = trigger.take(task, task.keys(service), allowed, by, origin)
    task.show(found["text"])
    return {**found, "service": service}


def prepare(edge: Edge) -> Result:
    """Read and check the options of a rollout."""
    requested = edge.left("request")
    try:
        prepared = beginning.prepare(edge.task, edge.action.sources(edge), str(requested.get("claim") or ""))
        # What comes next asks Consul as the task of the plan would.
        task, _prepared, origin = edge.connect(prepared)
        beginning.require_consul(task, prepared, origin)
    except Exception as error:
        if requested.get("claim"):
            keys = edge.task.keys(requested["service"])
            trigger.tell(edge.task, keys, requested["claim"], trigger.REFUSED, reason=str(error))
        raise
    if "plan" in prepared.parts:
        return prepared.as_dict()
    return _plan(edge, task, prepared)


def plan(edge: Edge) -> Result:
    """Take the lock, plan, and record the deployment."""
    return _plan(edge, edge.task, edge.run)


def _plan(edge: Edge, task: Task, prepared: Run) -> Result:
    try:
        hosts = edge.wanted_hosts(prepared)
        begun = beginning.begin(task, prepared, hosts, controller(), forks())
        analyst.begin(task, begun, lambda work: beside.start(guarded_run(), work))
    except Exception as error:
        answer_request(task, prepared, trigger.REFUSED, reason=str(error))
        raise
    # Where hooks are told of the end it is watched once, in the play before theirs.
    if not begun.recorded or not begun.plan["nothing_to_do"] or "release" in begun.parts:
        return begun.as_dict()
    edge.go_on(task, begun)
    return settle(edge)


def settle(edge: Edge) -> Result:
    """Watch what was changed, and begin to roll it back where the deployment has failed; else find how it has ended."""
    run = edge.run
    settled = fleet_rollback.settle(
        edge.task, run, edge.ask, lambda: edge.wanted_hosts(run, run.plan["hosts"]), forks()
    )
    # Where a hook has failed the rollout has, too.
    if not _errors(edge, [*run.coordinators, "localhost"]):
        settled = joiners.follow(edge.task, settled, edge.again, forks())
    if settled.is_second or "release" in settled.parts:
        return settled.as_dict()
    edge.go_on(edge.task, settled)
    return finish(edge)


def finish(edge: Edge) -> Result:
    """Find and record how the deployment ended; without hooks that are told of it, this is all."""
    if edge.run.follows:  # the one before was watched at its end
        _watch(edge)
    result = finishing.finish(edge.task, edge.run)
    if "release" in edge.run.parts:
        return replace(edge.run, ended=result).as_dict()
    return _release(edge, result)


def _watch(edge: Edge) -> None:
    try:
        bake(edge.task, edge.run, edge.ask)
    except HitlessError as error:
        edge.task.warn(f"What was changed could not be watched: {error}")


def release(edge: Edge) -> Result:
    """Release the lock, and say why the run fails, if it does."""
    return _release(edge, edge.run.ended)


def _release(edge: Edge, result: Mapping[str, Any]) -> Result:
    hosts = [*edge.run.coordinators, "localhost"]
    released = finishing.release(edge.task, edge.run, result, list(_errors(edge, hosts).values()))
    # As ansible.builtin.set_stats hands it on. It is not called rollout_*, since those are options.
    told = {name: released[name] for name in ("id", "service", "version", "result", "verdict", "why", "table", "hosts")}
    stats = {"data": {"hitless_deployment": told}, "per_host": False, "aggregate": False}
    return {**replace(edge.run, ended=released).as_dict(), "ansible_stats": stats}


def _errors(edge: Edge, hosts: Iterable[str]) -> dict[str, str]:
    """Host -> what went wrong there, as tasks have noted it of this run; an earlier one may be in the same playbook."""
    found = {host: edge.left("error", host) for host in hosts}
    return {host: str(one["why"]) for host, one in found.items() if one.get("deployment") == edge.run.id}


# -- at the head of a batch ---------------------------------------------------------------------------------------


def open_gate(edge: Edge) -> Result:
    """Decide whether the batch may begin; what was changed so far is looked at first."""
    _look_back(edge, edge.run.coordinators.index(edge.name) + 1)
    return gate.open_gate(edge.task, edge.run, edge.name)


def _look_back(edge: Edge, batch: int) -> None:
    """It never fails, since a batch whose tasks fail would end the playbook: the gate comes to the same trouble."""
    try:
        if batch > 1:
            bake(edge.task, edge.run, edge.ask, ended=batch - 1)
    except HitlessError as error:
        edge.task.warn(f"What was changed could not be watched: {error}")


def read_batch(edge: Edge) -> Result:
    """Read how the hosts of the batch ended."""
    return gate.read_batch(edge.task, edge.run, edge.name)


def begin_batch(edge: Edge) -> Result:
    """Say that the batch is begun, whose hook has run."""
    return gate.begin_batch(edge.task, edge.run, edge.name)


def stop(edge: Edge) -> Result:
    """Stop the rollout, since a hook failed."""
    stopped = gate.stop_before(edge.task, edge.run, edge.name, edge.params["why"])
    return stopped if edge.name in edge.run.coordinators else replace(edge.run, order=()).as_dict()


# -- in a window --------------------------------------------------------------------------------------------------


def open_stage(edge: Edge) -> Result:
    """Whether the stage may begin, and what its tasks take from their run: Ansible resolves that for each host.

    What the stage before has changed is watched first.
    """
    _look_back(edge, edge.run.host(edge.name).batch or 1)
    return gate.open_stage(edge.task, edge.run, edge.name)


def turn(edge: Edge) -> Result:
    """The host's whole turn; it never fails."""
    return WholeTurn(edge.host, edge.way_of, edge.ask).take()


# -- on a host ----------------------------------------------------------------------------------------------------


def restart_host(edge: Edge) -> Result:
    """Restart the service on the host."""
    return edge.host.deploy(edge.params["command"] or edge.default_of("restart_command"))


def reboot_host(edge: Edge) -> Result:
    """Reboot the host."""
    command, boot_id_command = (edge.params[name] for name in ("command", "boot_id_command"))
    default = edge.default_of
    return edge.host.reboot(command or default("reboot_command"), boot_id_command or default("boot_id_command"))


def verify_and_return(edge: Edge) -> Result:
    """Both, with nothing in between."""
    verified, seen = edge.host.verify(edge.params["health_url"], edge.params["health_match"])
    return {**verified, **edge.host.return_to_rotation(seen)}


def recover_host(edge: Edge) -> Result:
    """Both steps of a host's recovery, with nothing in between."""
    version = recover_verify(edge)["version"]
    return {"changed": recovery.return_to_rotation(edge.recovered, version)}


def recover_verify(edge: Edge) -> Result:
    """Verify a host that an interrupted run left in maintenance."""
    left = edge.left_behind
    about = {"to_version": left.to_version or "", "from_version": left.from_version or ""}
    return {**about, "version": recovery.verify(edge.recovered, left, edge.for_version)}


def recover_return(edge: Edge) -> Result:
    """End its maintenance."""
    return {"changed": recovery.return_to_rotation(edge.recovered, edge.left("turn").get("version"))}


# -- recovery, on localhost ---------------------------------------------------------------------------------------


def prepare_recovery(edge: Edge) -> Result:
    """Read and check the options of a recovery."""
    return beginning.prepare(edge.task, edge.action.sources(edge), "", deploys=False).as_dict()


def recover(edge: Edge) -> Result:
    """Take the lock, and find what interrupted runs left behind."""
    return recovery.begin(edge.task, edge.run, controller(), edge.task.variables["groups"]["all"]).as_dict()


def recovered(edge: Edge) -> Result:
    """Release the lock, and name what is left to do by hand."""
    recovery.finish(edge.task, edge.run, _errors(edge, edge.run.order))
    return {}


@dataclass(frozen=True)
class Step:
    """A step of the role.

    :param take: does it -> the task's result.
    :param on_host: whether it asks the host's own agent.
    """

    take: Callable[[Edge], Result]
    on_host: bool = False


STEPS: Mapping[str, Step] = {
    "request": Step(request),
    "prepare": Step(prepare),
    "plan": Step(plan),
    "gate": Step(open_gate),
    "begin_batch": Step(begin_batch),
    "read_batch": Step(read_batch),
    "stop": Step(stop),
    "stage": Step(open_stage),
    "turn": Step(turn, on_host=True),
    "leave": Step(lambda edge: edge.host.leave(), on_host=True),
    "drain": Step(lambda edge: edge.host.drain(), on_host=True),
    "wait_until_drained": Step(lambda edge: edge.host.wait_until_drained(), on_host=True),
    "deploy": Step(lambda edge: edge.host.deploy(edge.params["command"]), on_host=True),
    "restart": Step(restart_host, on_host=True),
    "reboot": Step(reboot_host, on_host=True),
    "verify": Step(
        lambda edge: edge.host.verify(edge.params["health_url"], edge.params["health_match"])[0], on_host=True
    ),
    "begin_restore": Step(lambda edge: edge.host.begin_restore(), on_host=True),
    "return": Step(lambda edge: edge.host.return_to_rotation(), on_host=True),
    "verify_and_return": Step(verify_and_return, on_host=True),
    "deploy_by_agent": Step(
        lambda edge: agent_turn.deploy_by_agent(edge.host, edge.params["health_url"], edge.params["health_match"])
    ),
    "on_failure": Step(
        lambda edge: edge.host.on_failure(*(edge.params[name] for name in ("failed", "task", "action"))),
        on_host=True,
    ),
    "after_undrain": Step(
        lambda edge: edge.host.after_undrain(edge.params["failed"], edge.params["task"]), on_host=True
    ),
    "settle": Step(settle),
    "finish": Step(finish),
    "release": Step(release),
    "prepare_recovery": Step(prepare_recovery),
    "recover": Step(recover),
    "recover_host": Step(recover_host, on_host=True),
    "recover_verify": Step(recover_verify, on_host=True),
    "recover_return": Step(recover_return, on_host=True),
    "recovered": Step(recovered),
}

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "step": {"type": "str", "choices": list(STEPS), "required": True},
    **{name: {"type": "str"} for name in ("run", "turn", "request", "error")},
    **{name: {"type": "str", "default": ""} for name in ("service", "why", "command", "health_url", "health_match")},
    **{name: {"type": "str", "default": ""} for name in ("task", "action", "boot_id_command")},
    "failed": {"type": "dict", "default": {}},
    "allow": {"type": "list", "elements": "str"},
}


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC
    _edge: Edge | None = None

    def perform(self, task: Task) -> Result:
        self._edge = Edge(self, task)
        result = {"changed": False, **STEPS[task.params["step"]].take(self._edge)}
        self._note(result)
        return result

    def _note(self, result: Result) -> None:
        """For what is said where the run is interrupted."""
        host = self._edge.__dict__.get("host") if self._edge else None
        if host and (host.has_ended or not result.get("begun", True)):
            _interruption.landed(host.planned.host)
        if result.get("recorded") and self._task.args.get("step") in ("prepare", "plan"):
            _interruption.begun(str(result["options"]["service"]))
        if "failed_hosts" in result.get("ended", {}):
            _interruption.ended()

    def of_any_result(self) -> Result:
        """A host's turn goes on from where it failed."""
        made = self._edge.__dict__ if self._edge else {}
        host = made.get("host") or made.get("recovered")
        return {"step": self._task.args.get("step"), **(asdict(host.turn) if host else {})}

    def address(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        found = self.variables_as_they_are(variables, "localhost").get(str(self._task.args.get("run"))) or {}
        return found.get("address") or {}

    def settings(self, params: Mapping[str, Any]) -> Iterable[str]:
        return [*CLUSTER_SPEC, *KEYS_SPEC, *(AGENT_SPEC if STEPS[params["step"]].on_host else ())]

    def sources(self, edge: Edge) -> Any:
        """What the options are read from."""
        requested = edge.left("request").get("options") or {}
        return option_sources(edge.task.variables, self._templar, self._loader, self._task, requested)
