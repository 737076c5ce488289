# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step of the playbooks finds on Ansible's side of it (a private helper of this collection)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from ansible import constants, context
from ansible.errors import AnsibleError

from ansible_collections.hitless.consul.plugins.module_utils._consul.address import of_inventory, origin
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_guard import MaintenanceGuard
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    CLUSTER_SPEC,
    KEYS_SPEC,
    VARIABLE_PREFIX,
    Task,
    connection_options,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.programs.probe import ask
from ansible_collections.hitless.consul.plugins.module_utils._rollout import beginning, fleet, reach, recovery
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import REBOOT, restart_command
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS, PREFIX
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn, read_turn
from ansible_collections.hitless.consul.plugins.module_utils._rollout.whole_turn import Way
from ansible_collections.hitless.consul.plugins.plugin_utils import _interruption
from ansible_collections.hitless.consul.plugins.plugin_utils._controller import guarded_run
from ansible_collections.hitless.consul.plugins.plugin_utils._visit import Visitor, visit

_NODE = f"{VARIABLE_PREFIX}node"
ASK_FOR = 3.0
"""Seconds that a health URL may take to answer."""
_OWN = ("localhost", "127.0.0.1", "::1")
"""Names of a machine for itself."""


def forks() -> int:
    """Hosts that Ansible works on at once."""
    return int(context.CLIARGS.get("forks") or constants.DEFAULT_FORKS)


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
        if not name:
            return {}
        variables = self.action.variables_as_they_are(self.task.variables, host) if host else self.task.variables
        found = variables.get(name)
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def run(self) -> Run:
        found = self.left("run", "localhost")
        if "options" not in found:
            raise HitlessError("This task is a step of the playbooks of hitless.consul, and works in these only.")
        return Run.of(found)

    def go_on(self, task: Task, run: Run) -> None:
        """Go on with the run as a step has left it, within the same task."""
        self.task, self.run = task, run

    @cached_property
    def host(self) -> HostDeployment:
        left, planned = self.left("turn"), self.run.host(self.name)
        if left and "deployment" not in left:
            # A task that Ansible itself ended (its timeout, an error in this collection) leaves no turn.
            found = read_turn(self.task, self.run, planned)
        else:
            found = Turn.of(left, self.run.id)
        _interruption.in_flight(self.name)
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

    def known(self, host: str) -> Mapping[str, Any]:
        """What :func:`reach.reach` finds of a host that is not asked."""
        variables = self.action.variables_of(self.task.variables["hostvars"], host, ("consul_node", _NODE))
        return reach.known(host, str(variables.get(_NODE) or variables.get("consul_node") or ""))

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
        kind = self.run.kind
        command = f"{kind.direction}_command" if kind.keeps_version else "deploy_command"
        names = [command, "health_url", "health_match", *(["boot_id_command"] if kind.direction == REBOOT else [])]
        try:
            found = self._resolved(self.task.variables, [PREFIX + name for name in names], self.run.id, *about)
        except AnsibleError as error:
            raise HitlessError(str(error)) from None
        return Way(*(one or self.default_of(name) for name, one in zip(names, found, strict=True)))

    def default_of(self, name: str) -> str:
        """What holds for an option that is read on its host, where it is not set there; empty for none."""
        return restart_command(self.run.service) if name == "restart_command" else str(DEFAULTS[name] or "")

    def wanted_hosts(self, prepared: Run, planned: Mapping[str, Any] | None = None) -> list[fleet.WantedHost]:
        """The hosts of the rollout: each is asked for its node; in agent mode its variables tell that.

        :param planned: host -> its plan, of those that were asked before.
        """
        before = planned or {}
        new = [host for host in prepared.hosts if host not in before]
        found = {host: self.known(host) for host in new} if prepared.by_agents else self._visited(prepared, new)
        reached = {
            host: reach.known(host, before[host]["node"]) if host in before else found[host] for host in prepared.hosts
        }
        smoke_test = bool(prepared.options["smoke_tasks"])
        return fleet.wanted_hosts(reached, prepared.options["version"], prepared.health_urls, smoke_test=smoke_test)

    def _visited(self, prepared: Run, hosts: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        def what(visitor: Visitor, task: Task) -> dict[str, Any]:
            if prepared.kind.direction == REBOOT and visitor.is_local():
                return {**reach.known(task.host.name, ""), "problem": reach.reboots_controller(task.host.name)}
            return {**reach.reach(task)}

        return visit(self.action, self.task.variables["hostvars"], hosts, prepared.address, forks(), what)

    def again(self) -> tuple[Run, list[fleet.WantedHost]]:
        """The run as its options are now, and its hosts, those too that were not there when the others were asked."""
        prepared = beginning.prepare(self.task, self.action.sources(self), self.run.claim)
        return prepared, self.wanted_hosts(prepared, self.run.plan.get("hosts"))

    def ask(self, planned: PlannedHost) -> str | None:
        """Ask a host's health URL from here -> what is wrong, empty where nothing is; None where that cannot be told.

        One that only the host itself reaches tells nothing here.
        """
        known = self.task.variables["hostvars"].raw_get(planned.host)
        try:
            names = "rollout_health_url", "rollout_health_match"
            url, match = self._resolved(known, names, self.run.id, str(planned.to_version or ""), "", "deploy")
        except AnsibleError:
            return None
        if not url or (urlsplit(url).hostname or "") in _OWN:
            return None
        answer = ask(url, match, ASK_FOR)  # type: ignore[no-untyped-call]
        if answer["ok"]:
            return ""
        return str(answer["error"]) if answer["status"] else None

    def for_version(self, variable: str, version: str, previous: str, reason: str) -> str:
        """A variable of a host that is recovered, as it is for a version; empty where it is not set."""
        deployment = self.left_behind.deployment
        return self._resolved(self.task.variables, [variable], deployment, version, previous, reason)[0]

    def _resolved(
        self,
        variables: Mapping[str, Any],
        names: Iterable[str],
        deployment: str,
        version: str,
        previous: str,
        reason: str,
    ) -> list[str]:
        about = {
            "deploy_service": self.run.service,
            "deploy_version": version,
            "deploy_previous_version": previous,
            "deploy_id": deployment,
            "deploy_reason": reason,
        }
        templar = self.action._templar.copy_with_new_env(
            available_variables={**variables, **about, "hostvars": self.task.variables["hostvars"]}
        )
        return [str(templar.template(variables.get(name) or "")) for name in names]
