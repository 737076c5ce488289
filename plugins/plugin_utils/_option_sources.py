# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options of a rollout are read from: Ansible's own variables and inventory (a private helper)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.utils.collection_loader import AnsibleCollectionRef

from ansible_collections.hitless.consul.plugins.module_utils._consul.address import sources_unread
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import decrypted
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_files import SearchPaths
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_sources import OptionSources, Settings
from ansible_collections.hitless.consul.plugins.plugin_utils._ansible_internals import (
    TRUST_IS_EXPLICIT,
    collection_has_role,
    extra_vars,
    inventory_of,
    inventory_sources,
    play_variables,
)
from ansible_collections.hitless.consul.plugins.plugin_utils._templates import needed_names

# From core 2.19 on a file's texts are templates only where the reader says so.
_TRUSTED = {"trusted_as_template": True} if TRUST_IS_EXPLICIT else {}
_AN_OPTION = re.compile(r"^\s*[\"']?rollout_\w+[\"']?\s*:", re.MULTILINE)


def option_sources(
    variables: Mapping[str, Any], templar: Any, loader: Any, task: Any, requested: Mapping[str, Any]
) -> OptionSources:
    """All that options can be set in.

    :param variables: those of the task.
    :param requested: options that a request has set, which was checked when it was claimed: they beat what stands
        beside import_playbook.
    """
    hostvars = variables["hostvars"]
    inventory = AnsibleInventory(hostvars, templar, play_variables(task))
    playbook_dirs = list(_folders_of_playbooks())
    role_paths = [os.path.abspath(path) for path in constants.DEFAULT_ROLES_PATH]
    base = os.path.abspath(loader.get_basedir())
    return OptionSources(
        inventory,
        extra=inventory.extra,
        play={**inventory.play, **requested},
        localhost=inventory.variables(str(variables["inventory_hostname"])),
        settings=Settings(str(constants.DEFAULT_STRATEGY), not _keeps_text(templar)),
        search_paths=SearchPaths(
            folders=list(dict.fromkeys([*playbook_dirs, os.getcwd()])),
            role_paths=role_paths,
            included_roles=[os.path.join(base, "roles"), *role_paths, base],
            collection_role=_is_role_of_collection,
            ignored=list(_ignored(playbook_dirs, loader.get_basedir(), inventory_sources(hostvars))),
        ),
        unread=sources_unread(),
        load=lambda path: _load(loader, path),
        needed=needed_names,
    )


def _load(loader: Any, path: str) -> Any:
    try:
        return loader.load_from_file(path, **_TRUSTED)
    except AnsibleError:
        # It is parsed right after, where Ansible says what is wrong with it in its own words.
        return None


class AnsibleInventory:
    """Ansible's inventory and variables as the options are read from them."""

    def __init__(self, hostvars: Any, templar: Any, play: Mapping[str, Any]) -> None:
        self._hostvars = hostvars
        self._inventory = inventory_of(hostvars)
        self._templar = templar
        self.play = play
        self.extra: Mapping[str, Any] = extra_vars(hostvars)

    @property
    def groups(self) -> Iterable[str]:
        return list(self._inventory.groups)

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
        elif given:
            templar = templar.copy_with_new_env(available_variables={**templar.available_variables, **given})
        try:
            return decrypted(templar.template(value))
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
    return bool(AnsibleCollectionRef.is_valid_fqcr(name)) and collection_has_role(name)


def _ignored(playbook_dirs: Iterable[str], base: str, inventories: Iterable[str]) -> Iterator[str]:
    """Files of variables with options that lie beside the user's playbook where Ansible reads none.

    While an imported playbook runs, Ansible's base folder is that playbook's; those beside an inventory are read.
    """
    read = {os.path.realpath(base)}
    for source in inventories:
        read.add(os.path.realpath(source if os.path.isdir(source) else os.path.dirname(source) or "."))
    for folder in playbook_dirs:
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
