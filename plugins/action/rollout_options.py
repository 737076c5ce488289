# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs hitless.consul.rollout_options in the controller process: hands it Ansible's own variables and inventory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.utils.collection_loader import AnsibleCollectionRef
from ansible.utils.collection_loader._collection_finder import _get_collection_role_path

from ansible_collections.hitless.consul.plugins.module_utils._address import of_inventory, origin, sources_unread
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout_files import Places
from ansible_collections.hitless.consul.plugins.module_utils._rollout_options import Address, Settings, Sources
from ansible_collections.hitless.consul.plugins.module_utils._task import (
    CLUSTER_SPEC,
    KEYS_SPEC,
    VARIABLE_PREFIX,
    Task,
    connection_options,
)
from ansible_collections.hitless.consul.plugins.modules import rollout_options as module
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction
from ansible_collections.hitless.consul.plugins.plugin_utils._inventory import TRUST_IS_EXPLICIT
from ansible_collections.hitless.consul.plugins.plugin_utils._templates import needed_names

# From core 2.19 on a file's texts are templates only where the reader says so.
_TRUSTED = {"trusted_as_template": True} if TRUST_IS_EXPLICIT else {}
_AN_OPTION = re.compile(r"^\s*[\"']?rollout_\w+[\"']?\s*:", re.MULTILINE)


class ActionModule(HitlessAction):
    module = module
    _supports_async = False

    def _make_task(self, variables: Mapping[str, Any]) -> Task:
        task = super()._make_task(variables)
        task.variables = {
            "sources": self._sources(variables),
            "connect": lambda address: self._connect(task, variables, address),
        }
        return task

    def _connect(self, task: Task, variables: Mapping[str, Any], address: Address) -> tuple[Task, str]:
        """The task as the run's own tasks on localhost ask Consul, and where the address comes from."""
        names = [VARIABLE_PREFIX + name for name in (*CLUSTER_SPEC, *KEYS_SPEC)]
        own = {name: self._templar.template(variables[name]) for name in names if name in variables}
        of_hosts = self._variables_of(variables["hostvars"], address.host, address.variables)
        options = connection_options({}, {**of_hosts, **own}, os.environ, of_inventory())
        return replace(task, options=options), origin(own, of_hosts, os.environ, address.differ)

    def _sources(self, variables: Mapping[str, Any]) -> Sources:
        inventory = AnsibleInventory(variables["hostvars"], self._templar, self._play_variables())
        beside = list(_folders_of_playbooks())
        return Sources(
            inventory,
            extra=inventory.extra,
            # What the playbook request has claimed was checked there, and beats what stands beside import_playbook.
            play={**inventory.play, **variables.get("_rollout_request", {}).get("options", {})},
            localhost=inventory.variables(str(variables["inventory_hostname"])),
            settings=Settings(str(constants.DEFAULT_STRATEGY), not _keeps_text(self._templar)),
            places=Places(
                folders=list(dict.fromkeys([*beside, os.getcwd()])),
                role_paths=[os.path.abspath(path) for path in constants.DEFAULT_ROLES_PATH],
                collection_role=_is_role_of_collection,
                ignored=list(_ignored(beside, self._loader.get_basedir(), inventory.sources)),
            ),
            unread=sources_unread(),
            load=self._load,
            needed=needed_names,
        )

    def _load(self, path: str) -> Any:
        try:
            return self._loader.load_from_file(path, **_TRUSTED)
        except AnsibleError:
            # It is parsed right after, where Ansible says what is wrong with it in its own words.
            return None

    def _play_variables(self) -> Mapping[str, Any]:
        """The play's own ``vars``; those of import_playbook are among them."""
        block = self._task._parent
        while not hasattr(block, "_play"):
            block = block._parent
        return dict(block._play.vars or {})


class AnsibleInventory:
    """Ansible's inventory and variables as the options are read from them."""

    def __init__(self, hostvars: Any, templar: Any, play: Mapping[str, Any]) -> None:
        self._hostvars = hostvars
        self._inventory = hostvars._inventory
        self._templar = templar
        self.play = play
        self.extra: Mapping[str, Any] = dict(hostvars._variable_manager.extra_vars)

    @property
    def groups(self) -> Iterable[str]:
        return list(self._inventory.groups)

    @property
    def sources(self) -> Iterable[str]:
        return [str(source) for source in self._inventory._sources or ()]

    def select(self, pattern: str) -> list[str]:
        # This play's hosts and --limit restrict the inventory otherwise.
        try:
            found = self._inventory.get_hosts(pattern, ignore_limits=True, ignore_restrictions=True)
        except AnsibleError as error:
            raise HitlessError(f"The hosts of rollout_hosts ({pattern}) cannot be selected: {error}") from None
        return [host.name for host in found]

    def variables(self, host: str) -> Mapping[str, Any]:
        return self._hostvars.raw_get(host)  # type: ignore[no-any-return]

    def resolve(self, value: Any, host: str | None, given: Mapping[str, Any] | None = None) -> Any:
        templar = self._templar
        if host is not None:
            known = {**self.variables(host), **self.play, **self.extra, **(given or {}), "hostvars": self._hostvars}
            templar = templar.copy_with_new_env(available_variables=known)
        try:
            return templar.template(value)
        except AnsibleError as error:
            raise HitlessError(str(error)) from None


def _keeps_text(templar: Any) -> bool:
    """Tried, since the setting jinja2_native is still there where it means nothing: from ansible-core 2.19 on."""
    return isinstance(templar.template("{{ '1.10' }}"), str)


def _folders_of_playbooks() -> Iterator[str]:
    """The folders of the playbook files on the command line; one named by its collection has none."""
    for argument in context.CLIARGS.get("args") or ():
        if os.path.isfile(argument):
            yield os.path.dirname(os.path.abspath(argument))


def _is_role_of_collection(name: str) -> bool:
    return bool(AnsibleCollectionRef.is_valid_fqcr(name) and _get_collection_role_path(name))


def _ignored(beside: Iterable[str], base: str, inventories: Iterable[str]) -> Iterator[str]:
    """Files of variables with options that lie beside the user's playbook where Ansible reads none.

    While an imported playbook runs, Ansible's base folder is that playbook's; those beside an inventory are read.
    """
    read = {os.path.realpath(base)}
    for source in inventories:
        read.add(os.path.realpath(source if os.path.isdir(source) else os.path.dirname(source) or "."))
    for folder in beside:
        if os.path.realpath(folder) in read:
            continue
        for kind in ("group_vars", "host_vars"):
            for path, _folders, names in os.walk(os.path.join(folder, kind)):
                yield from (file for file in (os.path.join(path, name) for name in sorted(names)) if _has_option(file))


def _has_option(file: str) -> bool:
    if os.path.splitext(file)[1] not in ("", ".yml", ".yaml", ".json"):
        return False
    try:
        with open(file, encoding="utf-8") as opened:
            return bool(_AN_OPTION.search(opened.read()))
    except (OSError, UnicodeDecodeError):
        return False
