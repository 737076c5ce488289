# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user's tasks files and roles hold, and what follows from it (a private helper of this collection). Pure.

Ansible finds a handler that is missing, or a variable, when the task runs: its host is out of rotation by then. What
can be told from the files, and from the hosts' variables, is found here. Where something cannot be told (a role that is
not found, a module that may set variables), no fault is found: better a late one than to refuse what would have run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ansible_collections.hitless.consul.plugins.module_utils._rollout.template_words import has_template

STAYS_HERE = {"assert", "debug", "fail", "set_fact"}
"""Modules that touch no host."""
SETS_NOTHING = STAYS_HERE | {
    *("community.general.haproxy", "community.general.mail", "community.general.slack"),
    *("apt", "apt_key", "apt_repository", "async_status", "blockinfile", "command", "copy", "cron"),
    *("deb822_repository", "dnf", "dnf5", "fetch", "file", "find", "get_url", "git", "group", "hostname"),
    *("known_hosts", "lineinfile", "meta", "package", "pause", "pip", "raw", "reboot", "replace", "rpm_key"),
    *("script", "service", "shell", "slurp", "stat", "systemd", "systemd_service", "tempfile", "template"),
    *("unarchive", "uri", "user", "wait_for", "wait_for_connection", "yum", "yum_repository"),
}
"""Modules that set no variable but what their task registers; others may return facts."""
ON_HOST = ("prepare_tasks", "deploy_tasks", "deploy_role", "smoke_tasks", "drain_tasks", "restore_tasks")
"""Hooks that run for each host, with its variables."""


@dataclass(frozen=True)
class Notified:
    """A handler that a task notifies.

    :param rests_on: words of the template that came to this name; None where a condition stands above.
    """

    name: str
    rests_on: frozenset[str] | None = frozenset()


@dataclass(frozen=True)
class HookTask:
    """One task of the user's.

    :param action: its module, as it is written there.
    :param texts: what is resolved for certain before it runs: its arguments, unless it has a condition or a loop.
    :param handled: the same of a task whose failure the user handles; ``uncertain``: of one that may not run.
    :param path: its file.
    :param template: the template by which its file was named, where it was.
    :param rests_on: the words of such templates; None where the file is only a candidate.
    """

    name: str
    action: str
    notifies: tuple[Notified, ...] = ()
    texts: tuple[str, ...] = ()
    handled: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    path: str = ""
    template: str = ""
    rests_on: frozenset[str] | None = frozenset()


@dataclass
class HookTasks:
    """The tasks of one hook, those of the files that it includes too.

    :param handlers: names and topics that its tasks can notify; None where they cannot be told.
    :param sets: variables that its tasks may set; None where they cannot be told.
    :param facts: variables that its tasks set on a host, which beat the inventory's; None where they cannot be told.
    :param complete: whether there is no other file that it may include.
    :param first: how many of the tasks come for certain before all others that cannot be told.
    """

    option: str
    path: str
    tasks: list[HookTask] = field(default_factory=list)
    handlers: set[str] | None = field(default_factory=set)
    sets: set[str] | None = field(default_factory=set)
    facts: set[str] | None = field(default_factory=set)
    complete: bool = True
    first: int | None = None

    def before_anything(self) -> list[dict[str, str]]:
        """Tasks of which a failure means that none has touched the host: the first that does, and those before it.

        One of these that fails before it was sent has touched nothing. A name that comes again is not among them.
        """
        heads: list[tuple[str, str]] = []
        for task in self.tasks[: self.first]:
            heads.append((task.name, task.action))
            if short(task.action) not in STAYS_HERE:
                break
        later = {(task.name, task.action) for task in self.tasks[len(heads) :]}
        return [{"name": name, "action": action} for name, action in heads if (name, action) not in later]


@dataclass(frozen=True)
class MissingHandler:
    """A task that notifies a handler which nothing defines.

    :param sure: whether the task is in the hook for certain, and the handler certainly is not there.
    """

    hook: HookTasks
    task: HookTask
    name: str
    sure: bool


def missing_handlers(hooks: Sequence[HookTasks]) -> list[MissingHandler]:
    """The tasks that notify a handler which no hook brings; none where it cannot be told what they bring."""
    known: set[str] = set()
    facts: set[str] = set()
    for hook in hooks:
        if hook.handlers is None:
            return []
        known |= hook.handlers
        facts |= hook.facts or set()
    complete, all_facts = all(hook.complete for hook in hooks), all(hook.facts is not None for hook in hooks)

    def is_sure(task: HookTask, notified: Notified) -> bool:
        if task.rests_on is None or notified.rests_on is None or not complete:
            return False
        words = task.rests_on | notified.rests_on
        return not words or (all_facts and not words & facts)

    return [
        MissingHandler(hook, task, notified.name, is_sure(task, notified))
        for hook in hooks
        for task in hook.tasks
        for notified in task.notifies
        if not has_template(notified.name) and notified.name not in known
    ]


def variables_set(hooks: Iterable[HookTasks]) -> set[str] | None:
    """All variables that the hooks may set; None where that cannot be told."""
    names: set[str] = set()
    for hook in hooks:
        if hook.sets is None:
            return None
        names |= hook.sets
    return names


def short(action: str) -> str:
    """A module's name without the collection that is Ansible's own."""
    return action.removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")
