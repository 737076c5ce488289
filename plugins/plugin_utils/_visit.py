# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Visits hosts from within one task of localhost (a private helper of this collection).

Before anything is changed each host is asked which Consul node it is. A task of its own would print a line for each
host, and cost a process each; here they are asked through connections of their own, at most as many at once as Ansible
has forks. What OpenSSH's ControlPersist keeps open is there for the host's turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar

from ansible.errors import AnsibleError

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import AGENT_SPEC, CLUSTER_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

Visit = Callable[["Visitor", Task], "dict[str, Any]"]
"""What to find on a host; it runs in a thread, and resolves no templates."""


class Visitor(HitlessAction):
    """An action as it would be on a host."""

    argument_spec: ClassVar[dict[str, dict[str, Any]]] = {}
    of_address: Mapping[str, Any] = {}

    def settings(self, params: Mapping[str, Any]) -> Iterable[str]:  # noqa: ARG002 - as everywhere
        return [*CLUSTER_SPEC, *AGENT_SPEC]

    def address(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 - as everywhere
        return self.of_address

    def end(self) -> None:
        """Give up the connection."""
        with suppress(Exception):  # as Ansible does at a task's end
            self._connection.close()


def visit(
    action: HitlessAction, hostvars: Any, hosts: Iterable[str], address: Mapping[str, Any], forks: int, what: Visit
) -> dict[str, dict[str, Any]]:
    """Host -> what its visit found; ``{"msg": why}`` where none was possible.

    :param action: that of localhost.
    :param address: as ``Run.address``.
    """
    found: dict[str, dict[str, Any]] = {}
    under_way: dict[str, Future[dict[str, Any]]] = {}
    with ThreadPoolExecutor(max_workers=max(1, forks), thread_name_prefix="visit") as pool:
        for host in hosts:
            found[host] = {}  # in the order in which they were asked for
            try:
                visitor, variables = action.for_host(Visitor, hostvars, host)
                visitor.of_address = address
                task = visitor.task_of(variables)
                _resolved = task.host.interpreter  # a template, and threads resolve none
                under_way[host] = pool.submit(_visit, visitor, task, what)
            except (AnsibleError, HitlessError) as error:
                found[host] = {"msg": str(error).rstrip(".")}
    return {**found, **{host: one.result() for host, one in under_way.items()}}


def _visit(visitor: Visitor, task: Task, what: Visit) -> dict[str, Any]:
    try:
        return what(visitor, task)
    except (AnsibleError, HitlessError) as error:
        return {"msg": str(error).rstrip(".")}
    finally:
        visitor.end()
