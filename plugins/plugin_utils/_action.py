# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of this collection's actions (a private helper).

Every task runs in the controller process: an action takes 0.01 to 0.03 s where a module takes 0.3 to 0.5 s, and nothing
of it, the token above all, reaches a managed host. The files in plugins/modules are documentation only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.hitless.consul.plugins.module_utils._consul.address import of_inventory
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    OPTIONS,
    VARIABLE_PREFIX,
    Task,
    connection_options,
    decrypted,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.transport import MISSING_LIBRARY, library_missing
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError, HostLost, failed_result
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.plugin_utils._ansible_internals import (
    connection_to,
    extra_vars,
    play_variables,
)

T = TypeVar("T", bound="HitlessAction")
display = Display()
_OF_LOCALHOST = {"ansible_connection", "ansible_host", "ansible_become"}
"""Variables of the plays of localhost, by which that is reached and no other host."""


class HitlessAction(ActionBase):  # type: ignore[misc]
    """Subclasses say which options there are, and what to do.

    :cvar argument_spec: of the options; ``constraints`` are further arguments of Ansible's ArgumentSpecValidator.
    """

    argument_spec: ClassVar[dict[str, dict[str, Any]]]
    constraints: ClassVar[dict[str, Any]] = {}
    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    @cached_property
    def _known(self) -> dict[str, Mapping[str, Any]]:
        return {}

    def perform(self, task: Task) -> dict[str, Any]:
        """The work -> the task's result.

        :raises HitlessError: the task fails with this sentence.
        """
        raise NotImplementedError

    def of_any_result(self) -> dict[str, Any]:
        """What the result holds whether the work succeeded or not."""
        return {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._task.async_val:
            sentence = (
                f"{self._task.action} takes no async: it would have to run on the host, with Consul's token there. "
                "Nothing was done; remove async and poll."
            )
            return {"failed": True, "changed": False, "msg": sentence}
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            if MISSING_LIBRARY:
                raise HitlessError(library_missing())
            result.update(self.perform(self.task_of(task_vars or {})))
        except AnsibleError:
            raise
        except Exception as error:
            result.update(failed_result(error, self._task.action))
        result.update(self.of_any_result())
        # Ansible takes an exit code but 0 for a failure, unless it is told otherwise; puppet's 2 is none.
        result.setdefault("failed", False)
        if not self._task.diff:
            result.pop("diff", None)
        return result

    def for_host(self, kind: type[T], hostvars: Any, host: str) -> tuple[T, Mapping[str, Any]]:
        """An action of a kind without options on another host, and the variables that it has there.

        :raises AnsibleError: there is no such connection, or a variable cannot be resolved.
        """
        of_play = {name: value for name, value in play_variables(self._task).items() if name not in _OF_LOCALHOST}
        variables = {**hostvars.raw_get(host), **of_play, **extra_vars(hostvars), "hostvars": hostvars}
        templar = self._templar.copy_with_new_env(available_variables=variables)
        connection, context = connection_to(self, variables, templar)
        return kind(self._bare_task, connection, context, self._loader, templar, self._shared_loader_obj), variables

    @cached_property
    def _bare_task(self) -> Any:
        task = self._task.copy()
        task.args = {}
        return task

    def task_of(self, variables: Mapping[str, Any]) -> Task:
        """The task as ``perform`` sees it.

        :param variables: of its host.
        """
        params = self._validated()
        variables_set = self._settings(variables, self.settings(params))
        options = connection_options(params, variables_set, os.environ, of_inventory())
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

    def settings(self, params: Mapping[str, Any]) -> Iterable[str]:  # noqa: ARG002 - for subclasses
        """The options that variables ``hitless_consul_<option>`` may set for this task."""
        return [option for option in OPTIONS if option in self.argument_spec]

    def _validated(self) -> dict[str, Any]:
        checked = ArgumentSpecValidator(self.argument_spec, **self.constraints).validate(decrypted(self._task.args))
        if checked.error_messages:
            raise HitlessError("; ".join(checked.error_messages))
        return dict(checked.validated_parameters)

    def _settings(self, variables: Mapping[str, Any], options: Iterable[str]) -> dict[str, Any]:
        """Those variables of this host, templated.

        Those of a host's agent may name variables that only hosts have, and localhost asks no agent.
        """
        names = [VARIABLE_PREFIX + option for option in options]
        own = {name: self._templar.template(variables[name]) for name in names if name in variables}
        return {**self._of_hosts(variables, [name for name in names if name not in own]), **own}

    def address(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 - for subclasses
        """What localhost takes from the hosts of its rollout, see ``options.Address``; empty outside of one."""
        return {}

    def _of_hosts(self, variables: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        address = self.address(variables) if names else {}
        taken = set(names) & set(address.get("variables", ()))
        return self.variables_of(variables["hostvars"], address["host"], taken) if taken else {}

    def variables_as_they_are(self, variables: Mapping[str, Any], host: str) -> Mapping[str, Any]:
        """All variables of a host, none resolved; Ansible puts them together anew each time that it is asked."""
        if host not in self._known:
            self._known[host] = variables["hostvars"].raw_get(host)
        return self._known[host]

    def variables_of(self, hostvars: Any, host: str, names: Iterable[str]) -> dict[str, Any]:
        """These variables of a host, templated."""
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

        def interpreter() -> str | None:
            # Resolved where it is needed: in agent mode it is not.
            return self._interpreter(variables) or (sys.executable if self.is_local() else None)

        if not self.is_local():
            return Host(self.execute_on_host, interpreter, name, self.execute_as_user, self._reset_connection)
        execute = self.execute_on_host if options.get("via") == "host" else None
        return Host(execute, interpreter, name, self.execute_as_user)

    def _reset_connection(self) -> None:
        """As ansible.builtin.reboot does: a connection that is kept open would go on to a machine that is gone."""
        with suppress(AnsibleError, OSError, AttributeError):
            self._connection.reset()

    def is_local(self) -> bool:
        """Whether the host is the machine that Ansible runs on."""
        return getattr(self._connection, "transport", "") in ("local", "ansible.builtin.local")

    def _interpreter(self, variables: Mapping[str, Any]) -> str | None:
        """The interpreter as Ansible has it for modules: the variable, else its configuration, else what it discovered.

        None leaves it to the usual places.
        """
        configured = constants.config.get_config_value("INTERPRETER_PYTHON", variables=variables)
        value = str(self._templar.template(configured) or "")
        if value and not value.startswith("auto"):
            return value
        facts = variables.get("ansible_facts") or {}
        return str(facts.get("discovered_interpreter_python") or "") or None

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


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data
