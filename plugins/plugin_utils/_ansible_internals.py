# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that this collection takes from inside ansible-core, each with its reason (a private helper).

None of it is promised to stay. A new version of ansible-core that changes it fails tests/unit/plugins/plugin_utils/
test_ansible_internals.py, which uses each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import ansible.template
from ansible.template import Templar
from ansible.utils.collection_loader._collection_finder import _get_collection_role_path
from ansible.utils.display import Display

TRUST_IS_EXPLICIT = hasattr(ansible.template, "trust_as_template")
"""From core 2.19 on a string is a template only where it is marked as one; before, unless it is marked unsafe."""

if not TRUST_IS_EXPLICIT:
    from ansible.utils.unsafe_proxy import wrap_var


def untemplated(text: str) -> str:
    """A string that came from elsewhere, such that no version of Ansible takes it for a template."""
    return text if TRUST_IS_EXPLICIT else wrap_var(text)


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
