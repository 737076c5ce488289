# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of this collection's actions (a private helper).

Every task runs in the controller process: an action takes 0.01 to 0.03 s where a module takes 0.3 to 0.5 s.
An action is thin: it validates the options as its module would, makes the clients, and calls the module's ``perform``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.hitless.consul.plugins.module_utils._address import of_inventory
from ansible_collections.hitless.consul.plugins.module_utils._client import MISSING_LIBRARY, library_missing
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError, HostLost, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._host import Host
from ansible_collections.hitless.consul.plugins.module_utils._step import step_options
from ansible_collections.hitless.consul.plugins.module_utils._task import (
    OPTIONS,
    VARIABLE_PREFIX,
    Task,
    connection_options,
)

display = Display()


class HitlessAction(ActionBase):
    """Subclasses name their module; everything else is the same for all."""

    module: ModuleType
    _supports_check_mode = True
    _supports_async = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        if self._task.async_val:
            result.update(self._hand_over(variables))
            return result
        try:
            if MISSING_LIBRARY:
                raise HitlessError(library_missing())
            result.update(self.module.perform(self._make_task(variables)))
        except LockLost as error:
            result.update(failed=True, lock_lost=True, msg=str(error), **error.details)
        except HostLost as error:
            # A failure, not "unreachable": rescue runs for the one and never for the other.
            result.update(failed=True, lost=True, msg=str(error), **error.details)
        except HitlessError as error:
            result.update(failed=True, msg=str(error), **error.details)
        # Ansible takes an exit code but 0 for a failure, unless it is told otherwise; puppet's 2 is none.
        result.setdefault("failed", False)
        if not self._task.diff:
            result.pop("diff", None)
        return result

    def _make_task(self, variables: Mapping[str, Any]) -> Task:
        if self._task.args.get("in_rollout") is True:
            self._task.args = {**self._of_rollout(variables), **self._task.args}
        settings = self._settings(variables)
        params = self._validated()
        options = connection_options(params, settings, os.environ, of_inventory())
        return Task(
            params=params,
            options=options,
            host=self._host(variables, options),
            check_mode=bool(self._task.check_mode),
            node_hint=self._node_hint(variables),
            variables=variables,
            warn=display.warning,
            show=display.display,
        )

    def _validated(self) -> dict[str, Any]:
        constraints = getattr(self.module, "CONSTRAINTS", {})
        checked = ArgumentSpecValidator(self.module.ARGUMENT_SPEC, **constraints).validate(self._task.args)
        if checked.error_messages:
            raise HitlessError("; ".join(checked.error_messages))
        return dict(checked.validated_parameters)

    def _of_rollout(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The options that the run gives to its steps, as far as this one has them. What is there is no template."""
        found = step_options(variables["hostvars"].raw_get, str(variables["inventory_hostname"]), variables)
        return {name: value for name, value in found.items() if name in self.module.ARGUMENT_SPEC}

    def _settings(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The variables ``hitless_consul_<option>`` of this host that the task can use, templated.

        Those of a host's agent may name variables that only hosts have, and localhost asks no agent.
        """
        names = [VARIABLE_PREFIX + option for option in OPTIONS if option in self.module.ARGUMENT_SPEC]
        own = {name: self._templar.template(variables[name]) for name in names if name in variables}
        return {**self._of_hosts(variables, [name for name in names if name not in own]), **own}

    def _of_hosts(self, variables: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Those that localhost (or a coordinator) lacks, and takes from a host of its rollout."""
        hostvars = variables.get("hostvars")
        if not names or hostvars is None:
            return {}
        run = variables if variables.get("inventory_hostname") == "localhost" else hostvars.raw_get("localhost")
        address = (run.get("_rollout_options") or {}).get("address") or {}
        return self._variables_of(hostvars, address.get("host", ""), set(names) & set(address.get("variables", ())))

    def _variables_of(self, hostvars: Any, host: str, names: Iterable[str]) -> dict[str, Any]:
        if not names:
            return {}
        known = hostvars.raw_get(host)
        templar = self._templar.copy_with_new_env(available_variables={**known, "hostvars": hostvars})
        return {name: templar.template(known[name]) for name in names if name in known}

    def _node_hint(self, variables: Mapping[str, Any]) -> str | None:
        hint = variables.get("consul_node")
        return str(self._templar.template(hint)) if hint else None

    def _host(self, variables: Mapping[str, Any], options: Mapping[str, Any]) -> Host:
        name = str(variables.get("inventory_hostname", "the host"))
        interpreter = self._interpreter(variables)
        if not self._is_local():
            return Host(self.execute_on_host, interpreter, name, self.execute_as_user)
        execute = self.execute_on_host if options.get("via") == "host" else None
        return Host(execute, interpreter or sys.executable, name, self.execute_as_user)

    def _is_local(self) -> bool:
        return getattr(self._connection, "transport", "") in ("local", "ansible.builtin.local")

    def _interpreter(self, variables: Mapping[str, Any]) -> str | None:
        """The configured interpreter; the values that ask for discovery leave it to the usual places."""
        configured = variables.get("ansible_python_interpreter")
        value = str(self._templar.template(configured)) if configured else ""
        return None if not value or value.startswith("auto") else value

    def execute_on_host(self, command: str, data: bytes) -> tuple[int, bytes, bytes]:
        """Through the connection itself: no temporary folder, no become, no module transfer."""
        if not getattr(self._connection, "has_pipelining", False):
            raise HitlessError(
                f"The connection plugin {getattr(self._connection, 'transport', '?')} cannot pass standard input to a "
                "command, which asking the host's own Consul agent needs.",
                hint="Set hitless_consul_via: controller, and hitless_consul_agent_url to an address the controller "
                "reaches.",
            )
        try:
            code, out, err = self._connection.exec_command(command, in_data=data, sudoable=False)
        except AnsibleConnectionFailure as error:
            raise HostLost(f"The host cannot be reached: {error}") from None
        return code, _bytes(out), _bytes(err)

    def execute_as_user(self, command: str, data: bytes) -> tuple[int, bytes, bytes]:
        """With become where the task asks for it; Ansible pipes the data either way."""
        if getattr(self._connection, "become", None):
            try:
                done = self._low_level_execute_command(command, in_data=data, sudoable=True)
            except AnsibleConnectionFailure as error:
                raise HostLost(f"The host cannot be reached: {error}") from None
            except AnsibleError as error:
                raise HitlessError(str(error)) from None
            return done["rc"], done["stdout"].encode(), done["stderr"].encode()
        return self.execute_on_host(command, data)

    def _hand_over(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """An ``async`` task runs the module on the host, with the settings of our variables as its options."""
        settings = self._settings(variables)
        params = self.module.ARGUMENT_SPEC
        known = {name: settings[VARIABLE_PREFIX + name] for name in params if VARIABLE_PREFIX + name in settings}
        return dict(
            self._execute_module(
                module_args={**known, **self._task.args}, task_vars=variables, wrap_async=self._task.async_val
            )
        )


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data
