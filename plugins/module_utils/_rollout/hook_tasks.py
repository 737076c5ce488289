# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user's tasks files and roles hold, read before anything runs (a private helper of this collection). Pure.

Ansible finds a handler that is missing, or a variable, when the task runs: its host is out of rotation by then. What
can be told from the files alone is found here. Where something cannot be told (a role that is included, a file named by
a template, a module that may set variables), no fault is found: better a late one than to refuse what would have run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Load = Callable[[str], Any]
"""The YAML document in a file; None where there is none, or it is not to be read: Ansible itself says why, later."""

_KEYWORDS = {
    *("any_errors_fatal", "args", "async", "become", "become_exe", "become_flags", "become_method"),
    *("become_user", "changed_when", "check_mode", "collections", "connection", "debugger", "delay"),
    *("delegate_facts", "delegate_to", "diff", "environment", "failed_when", "ignore_errors"),
    *("ignore_unreachable", "listen", "local_action", "loop", "loop_control", "module_defaults", "name"),
    *("no_log", "notify", "poll", "port", "register", "remote_user", "retries", "run_once", "tags", "throttle"),
    *("timeout", "until", "vars", "when"),
}
"""What may stand in a task beside its module (ansible-core 2.16 to 2.21)."""
_INCLUDES_TASKS = {"include_tasks", "import_tasks"}
STAYS_HERE = {"assert", "debug", "fail", "set_fact"}
"""Modules that touch no host."""
_SETS_NOTHING = STAYS_HERE | {
    *("apt", "apt_key", "apt_repository", "async_status", "blockinfile", "command", "copy", "cron"),
    *("deb822_repository", "dnf", "dnf5", "fetch", "file", "find", "get_url", "git", "group", "hostname"),
    *("known_hosts", "lineinfile", "meta", "package", "pause", "pip", "raw", "reboot", "replace", "rpm_key"),
    *("script", "service", "shell", "slurp", "stat", "systemd", "systemd_service", "tempfile", "template"),
    *("unarchive", "uri", "user", "wait_for", "wait_for_connection", "yum", "yum_repository"),
}
"""Modules that set no variable but what their task registers; others may return facts."""
_MAIN = ("main.yml", "main.yaml", "main")


@dataclass(frozen=True)
class HookTask:
    """One task of the user's.

    :param action: its module, as it is written there.
    :param texts: what is resolved for certain before it runs: its arguments, unless it has a condition or a loop.
    """

    name: str
    action: str
    notifies: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass
class HookTasks:
    """The tasks of one hook, those of the files that it includes too.

    :param handlers: names and topics that its tasks can notify; None where they cannot be told.
    :param sets: variables that its tasks may set; None where they cannot be told.
    :param first: how many of the tasks come for certain before all others that cannot be told.
    """

    option: str
    path: str
    tasks: list[HookTask] = field(default_factory=list)
    handlers: set[str] | None = field(default_factory=set)
    sets: set[str] | None = field(default_factory=set)
    first: int | None = None

    def before_anything(self) -> list[dict[str, str]]:
        """Tasks of which a failure means that none has touched the host: the first that does, and those before it.

        One of these that fails before it was sent has touched nothing. A name that comes again is not among them.
        """
        heads: list[tuple[str, str]] = []
        for task in self.tasks[: self.first]:
            heads.append((task.name, task.action))
            if _short(task.action) not in STAYS_HERE:
                break
        later = {(task.name, task.action) for task in self.tasks[len(heads) :]}
        return [{"name": name, "action": action} for name, action in heads if (name, action) not in later]


def read_tasks(option: str, path: str, load: Load) -> HookTasks:
    """The tasks of a tasks file."""
    found = HookTasks(option, path)
    _File(found, load, path).read(load(path))
    return found


def read_role(option: str, path: str, load: Load) -> HookTasks:
    """The tasks of a role in a folder, with its handlers, variables and defaults."""
    main = _main(path, "tasks", load)
    found = HookTasks(option, main[0])
    needs = _main(path, "meta", load)[1]
    if needs and not (isinstance(needs, Mapping) and not needs.get("dependencies")):
        found.handlers = found.sets = None
        found.first = 0
    for folder in ("defaults", "vars"):
        _add(found, _main(path, folder, load)[1])
        if os.path.isdir(os.path.join(path, folder, "main")):
            found.sets = None
    _File(found, load, main[0]).read(main[1])
    _add_handlers(found, os.path.basename(path.rstrip(os.sep)), _main(path, "handlers", load)[1])
    return found


def opaque(option: str, name: str) -> HookTasks:
    """A hook that cannot be read: a role of a collection."""
    return HookTasks(option, name, handlers=None, sets=None, first=0)


def missing_handler(hooks: Sequence[HookTasks]) -> tuple[HookTasks, HookTask, str] | None:
    """The first task that notifies a handler which no hook brings; None where there is none, or it is not sure."""
    known: set[str] = set()
    for hook in hooks:
        if hook.handlers is None:
            return None
        known |= hook.handlers
    return next(
        (
            (hook, task, name)
            for hook in hooks
            for task in hook.tasks
            for name in task.notifies
            if not _is_template(name) and name not in known
        ),
        None,
    )


def variables_set(hooks: Iterable[HookTasks]) -> set[str] | None:
    """All variables that the hooks may set; None where that cannot be told."""
    names: set[str] = set()
    for hook in hooks:
        if hook.sets is None:
            return None
        names |= hook.sets
    return names


class _File:
    """Reads one file of tasks into what was found so far."""

    def __init__(self, found: HookTasks, load: Load, path: str, above: tuple[str, ...] = ()) -> None:
        self._found = found
        self._load = load
        self._path = path
        self._above = (*above, path)

    def read(self, entries: Any, *, sure: bool = True) -> None:
        """The tasks of a list; ``sure`` where all of them run."""
        if not isinstance(entries, list | tuple):
            self._cannot_tell()
            return
        for entry in entries:
            if not isinstance(entry, Mapping):
                self._cannot_tell()
            elif "block" in entry:
                _add(self._found, entry.get("vars"))
                # What fails in a block with a rescue is the user's own to mend.
                inside = sure and not {"when", "rescue", "ignore_errors"} & entry.keys()
                self._add_notified(entry)
                self.read(entry["block"], sure=inside)
                for part in ("rescue", "always"):
                    self.read(entry.get(part) or [], sure=False)
            else:
                self._read_task(entry, sure=sure)

    def _read_task(self, entry: Mapping[str, Any], *, sure: bool) -> None:
        action, arguments = _action(entry)
        module = _short(action)
        _add(self._found, entry.get("vars"))
        self._note(entry.get("register"))
        control = entry.get("loop_control")
        for name in ("loop_var", "index_var"):
            self._note(control.get(name) if isinstance(control, Mapping) else None)
        loops = any(key == "loop" or str(key).startswith("with_") for key in entry)
        runs = sure and not loops and not {"when", "ignore_errors"} & entry.keys()
        if module in _INCLUDES_TASKS:
            self._include(arguments, sure=runs)
            return
        if module == "set_fact" and isinstance(arguments, Mapping) and not any(map(_is_template, arguments)):
            _add(self._found, arguments)
        elif module == "set_fact" or module not in _SETS_NOTHING:
            self._cannot_tell(handlers=module in ("include_role", "import_role", ""))
        texts = (*_texts(arguments), *_texts(entry.get("environment"))) if runs else ()
        self._found.tasks.append(HookTask(str(entry.get("name") or ""), action, _names(entry.get("notify")), texts))

    def _include(self, arguments: Any, *, sure: bool) -> None:
        file = arguments.get("file") if isinstance(arguments, Mapping) else arguments
        if not isinstance(file, str) or _is_template(file) or len(self._above) > 20:
            self._cannot_tell()
            return
        path = os.path.normpath(os.path.join(os.path.dirname(self._path), file))
        _File(self._found, self._load, path, self._above).read(self._load(path), sure=sure)

    def _add_notified(self, entry: Mapping[str, Any]) -> None:
        """A block's own ``notify`` holds for each of its tasks."""
        for name in _names(entry.get("notify")):
            self._found.tasks.append(HookTask(str(entry.get("name") or ""), "block", (name,)))

    def _note(self, name: Any) -> None:
        if name and self._found.sets is not None:
            self._found.sets.add(str(name))

    def _cannot_tell(self, *, handlers: bool = True) -> None:
        self._found.sets = None
        if handlers:
            self._found.handlers = None
        if self._found.first is None and handlers:
            self._found.first = len(self._found.tasks)


def _add_handlers(found: HookTasks, role: str, entries: Any) -> None:
    if entries is not None and not isinstance(entries, list | tuple):
        found.handlers = None
    for entry in entries or ():
        if found.handlers is None:
            return
        names = [*_names(entry.get("name")), *_names(entry.get("listen"))] if isinstance(entry, Mapping) else ["{{ }}"]
        includes = isinstance(entry, Mapping) and _short(_action(entry)[0]) in (*_INCLUDES_TASKS, "")
        if includes or any(map(_is_template, names)):
            found.handlers = None
        else:
            found.handlers |= {*names, *(f"{role} : {name}" for name in names)}
            _File(found, lambda path: None, found.path).read([entry], sure=False)


def _main(role: str, folder: str, load: Load) -> tuple[str, Any]:
    """The main file of a role's folder, and what it holds."""
    paths = [os.path.join(role, folder, name) for name in _MAIN]
    path = next((path for path in paths if os.path.isfile(path)), paths[0])
    return path, load(path) if os.path.isfile(path) else None


def _add(found: HookTasks, variables: Any) -> None:
    if isinstance(variables, Mapping) and found.sets is not None:
        found.sets |= {str(name) for name in variables}


def _action(entry: Mapping[str, Any]) -> tuple[str, Any]:
    """A task's module as it is written, and its arguments; empty where it cannot be told."""
    for key in ("action", "local_action"):
        given = entry.get(key)
        if isinstance(given, str):
            module, rest = given.partition(" ")[::2]
            return module, rest
        if isinstance(given, Mapping):
            return str(given.get("module", "")), {name: value for name, value in given.items() if name != "module"}
    modules = [key for key in entry if key not in _KEYWORDS and not str(key).startswith("with_")]
    return (str(modules[0]), entry[modules[0]]) if len(modules) == 1 else ("", None)


def _short(action: str) -> str:
    return action.removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")


def _names(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(str(one) for one in values if one)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        # As it is: a text of Ansible's own kind knows whether it is a template.
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _is_template(value: Any) -> bool:
    return bool(re.search(r"\{[{%]", str(value)))
