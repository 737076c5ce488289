# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that this collection takes from inside ansible-core, each with its reason (a private helper).

None of it is promised to stay. A new version of ansible-core that changes it fails tests/unit/plugins/plugin_utils/
test_ansible_internals.py, which uses each of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import ansible.template
from ansible import constants
from ansible.errors import AnsibleError
from ansible.template import Templar
from ansible.utils import unsafe_proxy
from ansible.utils.collection_loader._collection_finder import _get_collection_role_path
from ansible.utils.display import Display

TRUST_IS_EXPLICIT = hasattr(ansible.template, "trust_as_template")
"""From core 2.19 on a string is a template only where it is marked as one; before, unless it is marked unsafe."""


def untemplated(text: str) -> str:
    """A string that came from elsewhere, such that no version of Ansible takes it for a template."""
    return text if TRUST_IS_EXPLICIT else unsafe_proxy.wrap_var(text)


def results_pipe() -> int | None:
    """The read end of the pipe that workers write their results into; a worker's display uses the same.

    Nobody but its keeper can empty it once the main process has ended, and a worker with a large result never ends
    otherwise.
    """
    display = Display()
    reader = getattr(getattr(display, "_final_q", None), "_reader", None)
    if reader is None:
        display.warning(
            "This version of ansible-core does not tell where its workers write their results. If its main process is "
            "killed, a worker with a large result may never end, and keep the deployment lock with it."
        )
        return None
    return int(reader.fileno())


def play_variables(task: Any) -> Mapping[str, Any]:
    """The ``vars`` of the task's play, those of import_playbook among them: nothing else tells them from the rest."""
    block = task._parent
    while not hasattr(block, "_play"):
        block = block._parent
    return dict(block._play.vars or {})


def inventory_of(hostvars: Any) -> Any:
    """The inventory: which hosts a pattern selects outside of the play and of --limit is told nowhere else."""
    return hostvars._inventory


def inventory_sources(hostvars: Any) -> list[str]:
    """Files and folders that the inventory was read from, beside which Ansible reads group_vars."""
    return [str(source) for source in hostvars._inventory._sources or ()]


def extra_vars(hostvars: Any) -> Mapping[str, Any]:
    """The extra vars: among a host's variables they cannot be told from others."""
    return dict(hostvars._variable_manager.extra_vars)


def collection_has_role(name: str) -> bool:
    """Whether a role of a collection, by its full name, is installed."""
    return bool(_get_collection_role_path(name))


def play_variables_of(play: Any, host: str, names: Iterable[str]) -> dict[str, Any]:
    """These variables as a host has them in a play, resolved; for a callback, which is given none."""
    inventory = play.get_variable_manager()._inventory
    return _resolved(play, inventory.get_host(host) if inventory else None, names)


def host_variables(play: Any, host: Any, names: Iterable[str]) -> dict[str, Any]:
    """The same of a host, but for those that cannot be resolved: they are used nowhere."""
    found: dict[str, Any] = {}
    for name in names:
        with suppress(Exception):
            found.update(_resolved(play, host, [name]))
    return found


def _resolved(play: Any, host: Any, names: Iterable[str]) -> dict[str, Any]:
    variables = play.get_variable_manager().get_vars(play=play, host=host, include_hostvars=False)
    templar = Templar(loader=play._loader, variables=variables)
    return {name: templar.template(variables[name]) for name in names if name in variables}


def connection_to(action: Any, variables: Mapping[str, Any], templar: Any) -> tuple[Any, Any]:
    """A connection to another host than that of an action's task, without become, and its play context.

    :param variables: those of that host, and the ``templar`` that resolves them.
    :raises AnsibleError: there is no such connection plugin, or a variable cannot be resolved.
    """
    name = str(templar.template(variables.get("ansible_connection") or "") or action._task.connection or "")
    name = "ssh" if name in ("", "smart") else name
    context = action._play_context.copy()
    context.connection = name
    # For plugins that know no options; the others read the same from the variables.
    context.remote_addr = templar.template(variables.get("ansible_host") or variables["inventory_hostname"])
    for attribute, variable in (("remote_user", "ansible_user"), ("port", "ansible_port")):
        if variables.get(variable):
            setattr(context, attribute, templar.template(variables[variable]))
    about = {"new_stdin": None, "task_uuid": action._task._uuid, "ansible_playbook_pid": str(os.getppid())}
    connection = action._shared_loader_obj.connection_loader.get(name, context, **about)
    if connection is None:
        raise AnsibleError(f"the connection plugin '{name}' was not found")
    wanted = constants.config.get_plugin_vars("connection", connection._load_name)
    values = {one: templar.template(variables[one]) for one in wanted if one in variables}
    keys = {**action._task.dump_attrs(), "timeout": context.timeout}
    del keys["retries"]  # of the task, not of the connection
    if context.password:  # --ask-pass
        keys["password"] = context.password
    connection.set_options(task_keys=keys, var_options=values)
    return connection, context


# -- an inventory's compose, groups and keyed_groups ----------------------------------------------------------------
#
# Constructable has no method for one entry and one host but these private ones, which every inventory plugin calls for
# each host. An inventory of thousands calls them once for each value instead (_inventory.py), and so has to see what
# they do. Their names and arguments are the same from core 2.16 to 2.21.


def set_composed(plugin: Any, name: str, expression: Any, variables: Mapping[str, Any], host: str) -> None:
    """One entry of ``compose``."""
    plugin._set_composite_vars({name: expression}, variables, host, _is_strict(plugin))


def add_to_conditional(plugin: Any, groups: Mapping[str, Any], variables: Mapping[str, Any], host: str) -> None:
    """Entries of ``groups``.

    The variables are given whole, so that Ansible need not read the host's from the inventory again.
    """
    plugin._add_host_to_composed_groups(groups, variables, host, _is_strict(plugin), fetch_hostvars=False)


def add_to_keyed(plugin: Any, entry: Any, variables: Mapping[str, Any], host: str) -> None:
    """One entry of ``keyed_groups``; the variables as for :func:`add_to_conditional`."""
    plugin._add_host_to_keyed_groups([entry], variables, host, _is_strict(plugin), fetch_hostvars=False)


def _is_strict(plugin: Any) -> bool:
    return bool(plugin.get_option("strict"))


def extra_vars_of(plugin: Any) -> Mapping[str, Any]:
    """Extra vars as an inventory plugin has them, which ``use_extra_vars`` lets beat its own; told nowhere else."""
    found: Mapping[str, Any] = plugin._vars
    return found


def recorded(plugin: Any, host: str, run: Callable[[], None]) -> tuple[list[str], dict[str, Any]]:
    """Run one of the above for a host -> the groups it would put the host into, the variables it would set there.

    The groups themselves, and a group in a group, are made in the inventory.
    """
    inventory, recorder = plugin.inventory, _Recorder(plugin.inventory, host)
    plugin.inventory = recorder
    try:
        run()
    finally:
        plugin.inventory = inventory
    return recorder.groups, recorder.variables


class _Recorder:
    """Stands in for the inventory while Ansible's code runs for one host: it has the four methods which that calls."""

    def __init__(self, inventory: Any, host: str) -> None:
        self._inventory = inventory
        self._host = host
        self.groups: list[str] = []
        self.variables: dict[str, Any] = {}

    def add_group(self, name: str) -> str:
        return str(self._inventory.add_group(name))

    def add_host(self, host: str, group: str | None = None, port: object = None) -> str:  # noqa: ARG002 - Ansible's signature
        if group is not None:
            self.groups.append(group)
        return host

    def add_child(self, group: str, child: str) -> None:
        if child == self._host:
            self.groups.append(group)
        else:
            self._inventory.add_child(group, child)

    def set_variable(self, host: str, name: str, value: Any) -> None:  # noqa: ARG002 - Ansible's signature
        self.variables[name] = value


# -- a task's result, in a callback ---------------------------------------------------------------------------------
#
# Its attributes have an underscore up to core 2.18, and lose it in 2.23.


def data_of(result: Any) -> Mapping[str, Any]:
    return result.result if hasattr(result, "result") else result._result  # type: ignore[no-any-return]


def task_of(result: Any) -> Any:
    return result.task if hasattr(result, "task") else result._task


def host_of(result: Any) -> Any:
    return result.host if hasattr(result, "host") else result._host


def uuid_of(task: Any) -> str:
    """What tells a task from another one of the same name; nothing public does."""
    return str(task._uuid)
