# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a rollout, as the role hitless.consul.rollout takes them.

Each is a few lines over the run and the host: what it does stands in module_utils/_rollout. A task names the variables
in which the steps before it have left something (``run: hitless_run``): the values are read here as they are, since
Ansible would resolve all of a large run anew for each task of each host.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from ansible import constants, context
from ansible.errors import AnsibleError

from ansible_collections.hitless.consul.plugins.module_utils._consul.address import of_inventory, origin
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_guard import MaintenanceGuard
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    AGENT_SPEC,
    CLUSTER_SPEC,
    KEYS_SPEC,
    VARIABLE_PREFIX,
    Task,
    connection_options,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import (
    agent_turn,
    fleet,
    gate,
    reach,
    recovery,
    run,
    trigger,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.operator import operator_of, origin_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import UNSET
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn, read_turn
from ansible_collections.hitless.consul.plugins.module_utils._rollout.whole_turn import Way, WholeTurn
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction
from ansible_collections.hitless.consul.plugins.plugin_utils._controller import controller, guarded_run
from ansible_collections.hitless.consul.plugins.plugin_utils._option_sources import option_sources

Result = dict[str, Any]


class Edge:
    """What a step finds on Ansible's side of it.

    :param task: with the options of the task in ``params``.
    """

    def __init__(self, action: Any, task: Task) -> None:
        self.action = action
        self.task = task
        self.params = task.params
        self.name = str(task.variables["inventory_hostname"])

    def left(self, option: str, host: str = "") -> Mapping[str, Any]:
        """What a step before has left in the variable that an option of the task names; empty where it left nothing.

        :param host: whose variable; that of the task's host where not given.
        """
        name = self.params[option]
        variables = self.task.variables["hostvars"].raw_get(host) if host else self.task.variables
        found = variables.get(name) if name else None
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def run(self) -> Run:
        found = self.left("run", "localhost")
        if "options" not in found:
            raise HitlessError("This task is a step of the playbooks of hitless.consul, and works in these only.")
        return Run.of(found)

    @cached_property
    def host(self) -> HostDeployment:
        left, planned = self.left("turn"), self.run.host(self.name)
        if left and "deployment" not in left:
            # A task that Ansible itself ended (its timeout, an error in this collection) leaves no turn.
            found = read_turn(self.task, self.run, planned)
        else:
            found = Turn.of(left, self.run.id)
        # A whole turn has one watch over all of its steps.
        guarded = (
            None
            if self.run.by_agents or self.run.is_window
            else MaintenanceGuard(guarded_run(), self.run.session, planned.node)
        )
        return HostDeployment(self.task, self.run, planned, found, guard=guarded)

    @cached_property
    def left_behind(self) -> recovery.Left:
        return recovery.left_of(self.run, self.name)

    @cached_property
    def recovered(self) -> HostDeployment:
        return recovery.host_of(self.task, self.run, self.left_behind, self.left("turn"))

    def connect(self, prepared: Run) -> tuple[Task, Run, str]:
        """The task as the run's next ones ask Consul, the run, and where the address comes from."""
        variables, address = self.task.variables, prepared.address
        names = [VARIABLE_PREFIX + name for name in (*CLUSTER_SPEC, *KEYS_SPEC)]
        own = {name: self.action._templar.template(variables[name]) for name in names if name in variables}
        of_hosts = self.action.variables_of(variables["hostvars"], address["host"], address["variables"])
        options = connection_options({}, {**of_hosts, **own}, os.environ, of_inventory())
        return replace(self.task, options=options), prepared, origin(own, of_hosts, os.environ, address["differ"])

    def way_of(self, host: HostDeployment) -> Way:
        """How a host's version is deployed and verified.

        :raises HitlessError: a template cannot be resolved.
        """
        about = (host.version, host.replaced_version, host.why)
        try:
            command, url, match = (
                self._for_version(name, self.run.id, *about)
                for name in ("rollout_deploy_command", "rollout_health_url", "rollout_health_match")
            )
        except AnsibleError as error:
            raise HitlessError(str(error)) from None
        return Way(command, url, match)

    def for_version(self, variable: str, version: str, previous: str, reason: str) -> str:
        """A variable of a host that is recovered, as it is for a version; empty where it is not set."""
        return self._for_version(variable, self.left_behind.deployment, version, previous, reason)

    def _for_version(self, variable: str, deployment: str, version: str, previous: str, reason: str) -> str:
        variables = self.task.variables
        about = {
            "deploy_version": version,
            "deploy_previous_version": previous,
            "deploy_id": deployment,
            "deploy_reason": reason,
        }
        templar = self.action._templar.copy_with_new_env(available_variables={**variables, **about})
        return str(templar.template(variables.get(variable) or ""))


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
        prepared = run.prepare(edge.task, edge.action.sources(edge), str(requested.get("claim") or ""))
        run.require_consul(*edge.connect(prepared))
    except Exception as error:
        if requested.get("claim"):
            keys = edge.task.keys(requested["service"])
            trigger.tell(edge.task, keys, requested["claim"], trigger.REFUSED, reason=str(error))
        raise
    return prepared.as_dict()


def plan(edge: Edge) -> Result:
    """Take the lock, plan, and record the deployment."""
    forks = context.CLIARGS.get("forks") or constants.DEFAULT_FORKS
    task, prepared = edge.task, edge.run
    try:
        reached = {host: edge.left("reach", host) for host in prepared.hosts}
        hosts = fleet.wanted_hosts(
            reached,
            prepared.options["version"],
            prepared.health_urls,
            smoke_test=bool(prepared.options["smoke_tasks"]),
        )
        return run.begin(task, prepared, hosts, controller(), forks).as_dict()
    except Exception as error:
        run.answer_request(task, prepared, trigger.REFUSED, reason=str(error))
        raise


def finish(edge: Edge) -> Result:
    """Find and record how the deployment ended."""
    return run.finish(edge.task, edge.run)


def release(edge: Edge) -> Result:
    """Release the lock, and say why the run fails, if it does."""
    hosts = [*edge.run.coordinators, "localhost"]
    return run.release(edge.task, edge.run, edge.left("result"), list(_errors(edge, hosts).values()))


def _errors(edge: Edge, hosts: Iterable[str]) -> dict[str, str]:
    """Host -> what went wrong there, as tasks have noted it of this run; an earlier one may be in the same playbook."""
    found = {host: edge.left("error", host) for host in hosts}
    return {host: str(one["why"]) for host, one in found.items() if one.get("deployment") == edge.run.id}


# -- at the head of a batch ---------------------------------------------------------------------------------------


def open_gate(edge: Edge) -> Result:
    """Decide whether the batch may begin."""
    return gate.open_gate(edge.task, edge.run, edge.name)


def begin_batch(edge: Edge) -> Result:
    """Say that the batch is begun, whose hook has run."""
    return gate.begin_batch(edge.task, edge.run, edge.name)


def stop(edge: Edge) -> Result:
    """Stop the rollout, since a hook failed."""
    stopped = gate.stop_before(edge.task, edge.run, edge.name, edge.params["why"])
    return stopped if edge.name in edge.run.coordinators else {**edge.run.as_dict(), "order": []}


# -- in a window --------------------------------------------------------------------------------------------------


def open_stage(edge: Edge) -> Result:
    """What the tasks of a stage take from their run: small, since Ansible resolves it for each host."""
    return gate.stage_of(edge.run, edge.name)


def turn(edge: Edge) -> Result:
    """The host's whole turn; it never fails."""
    return WholeTurn(edge.host, edge.way_of).take()


# -- on a host ----------------------------------------------------------------------------------------------------


def reach_host(edge: Edge) -> Result:
    """See whether the host and its agent can be reached."""
    return {**reach.reach(edge.task, by_agents=edge.run.by_agents)}


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
    return run.prepare(edge.task, edge.action.sources(edge), "", deploys=False).as_dict()


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
    "reach": Step(reach_host, on_host=True),
    "plan": Step(plan),
    "gate": Step(open_gate),
    "begin_batch": Step(begin_batch),
    "stop": Step(stop),
    "stage": Step(open_stage),
    "turn": Step(turn, on_host=True),
    "leave": Step(lambda edge: edge.host.leave(), on_host=True),
    "drain": Step(lambda edge: edge.host.drain(), on_host=True),
    "wait_until_drained": Step(lambda edge: edge.host.wait_until_drained(), on_host=True),
    "deploy": Step(lambda edge: edge.host.deploy(edge.params["command"]), on_host=True),
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
    **{name: {"type": "str"} for name in ("run", "turn", "request", "reach", "result", "error")},
    **{name: {"type": "str", "default": ""} for name in ("service", "why", "command", "health_url", "health_match")},
    **{name: {"type": "str", "default": ""} for name in ("task", "action")},
    "failed": {"type": "dict", "default": {}},
    "allow": {"type": "list", "elements": "str"},
}


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC
    _edge: Edge | None = None

    def perform(self, task: Task) -> Result:
        self._edge = Edge(self, task)
        return {"changed": False, **STEPS[task.params["step"]].take(self._edge)}

    def of_any_result(self) -> Result:
        """A host's turn goes on from where it failed."""
        made = self._edge.__dict__ if self._edge else {}
        host = made.get("host") or made.get("recovered")
        return {"step": self._task.args.get("step"), **(asdict(host.turn) if host else {})}

    def address(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        found = variables["hostvars"].raw_get("localhost").get(str(self._task.args.get("run"))) or {}
        return found.get("address") or {}

    def settings(self, params: Mapping[str, Any]) -> Iterable[str]:
        return [*CLUSTER_SPEC, *KEYS_SPEC, *(AGENT_SPEC if STEPS[params["step"]].on_host else ())]

    def sources(self, edge: Edge) -> Any:
        """What the options are read from."""
        requested = edge.left("request").get("options") or {}
        return option_sources(edge.task.variables, self._templar, self._loader, self._task, requested)
