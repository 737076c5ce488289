# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the user's tasks files and roles, and what these include (a private helper of this collection)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_includes import (
    NOTHING_KNOWN,
    Choice,
    Scope,
    Surroundings,
    fitting,
    loop_variable,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_tasks import (
    ON_HOST,
    SETS_NOTHING,
    HookTask,
    HookTasks,
    Notified,
    short,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.template_words import (
    expressions_of,
    has_template,
    words_of,
)

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
_INCLUDES_ROLE = {"include_role", "import_role"}


def read_tasks(option: str, path: str, load: Load, around: Surroundings = NOTHING_KNOWN) -> HookTasks:
    """The tasks of a tasks file."""
    found = HookTasks(option, path)
    _Reader(found, load, around, path, (path,)).read(load(path))
    return found


def read_role(option: str, path: str, load: Load, around: Surroundings = NOTHING_KNOWN) -> HookTasks:
    """The tasks of a role in a folder, with its handlers, variables and defaults."""
    found = HookTasks(option, _main(path, "tasks", load)[0])
    _Reader(found, load, around, found.path).read_role(path)
    return found


def opaque(option: str, name: str) -> HookTasks:
    """A hook that cannot be read: a role of a collection."""
    return HookTasks(option, name, handlers=None, sets=None, facts=None, first=0)


@dataclass(frozen=True)
class _Reader:
    """Reads one file of tasks into what was found so far.

    :param above: the file, and those that led to it.
    :param scope: the variables that its tasks have by where they stand.
    :param hosts: the hosts that come to it; empty for all of them.
    :param conditional: whether a condition stands above, which may keep some of these from it.
    :param handled: whether a block above handles what fails here, which runs for certain.
    :param template: as in :class:`HookTask`; likewise ``rests_on``.
    """

    found: HookTasks
    load: Load
    around: Surroundings
    path: str
    above: tuple[str, ...] = ()
    scope: Scope = field(default_factory=Scope)
    hosts: Sequence[str] = ()
    conditional: bool = False
    handled: bool = False
    template: str = ""
    rests_on: frozenset[str] | None = frozenset()

    def read(self, entries: Any, *, sure: bool = True) -> None:
        """The tasks of a list; ``sure`` where all of them run."""
        if not isinstance(entries, list | tuple):
            self._cannot_tell()
            return
        for entry in entries:
            if not isinstance(entry, Mapping):
                self._cannot_tell()
            elif "block" in entry:
                _add(self.found, entry.get("vars"))
                # What fails in a block with a rescue is the user's own to mend.
                runs = sure and not {"when", "rescue", "ignore_errors"} & entry.keys()
                inside = self._inside(entry)
                inside.add_notified(entry)
                handled = inside.handled or (sure and "when" not in entry)
                replace(inside, handled=handled).read(entry["block"], sure=runs)
                for part in ("rescue", "always"):
                    replace(inside, handled=False).read(entry.get(part) or [], sure=False)
            else:
                self._read_task(entry, sure=sure)

    def read_role(
        self, path: str, name: str = "", tasks_from: str = "main", handlers_from: str = "main", *, shares: bool = False
    ) -> None:
        """The tasks and handlers of a role; its variables are in the scope of its tasks.

        :param name: as it is included.
        :param shares: whether what comes after it has its variables, too.
        """
        needs = _main(path, "meta", self.load)[1]
        if needs and not (isinstance(needs, Mapping) and not needs.get("dependencies")):
            self._cannot_tell()
        defaults, variables = (_main(path, folder, self.load)[1] for folder in ("defaults", "vars"))
        for one in (defaults, variables):
            _add(self.found, one)
            for variable in one if shares and isinstance(one, Mapping) else ():
                self._note(variable, fact=True)
        if any(os.path.isdir(os.path.join(path, folder, "main")) for folder in ("defaults", "vars")):
            self.found.sets = self.found.facts = None
        base = os.path.basename(path.rstrip(os.sep))
        role = {"role_path": path, "role_name": name or base}
        # Those of an include beat those of the role itself.
        scope = Scope().inside(variables, defaults).inside(self.scope.variables, self.scope.defaults).inside(role)
        file, tasks = _main(path, "tasks", self.load, tasks_from)
        if tasks is None and name and tasks_from == "main" and not os.path.isfile(file):
            tasks = []  # a role may have handlers only
        replace(self, path=file, above=(*self.above, file), scope=scope).read(tasks, sure=not name)
        file, handlers = _main(path, "handlers", self.load, handlers_from)
        replace(self, path=file, load=lambda path: None).add_handlers({base, name or base}, handlers)

    def _read_task(self, entry: Mapping[str, Any], *, sure: bool) -> None:
        action, arguments = _action(entry)
        module = short(action)
        _add(self.found, entry.get("vars"))
        self._note(entry.get("register"), fact=True)
        control = entry.get("loop_control")
        for name in ("loop_var", "index_var"):
            given = control.get(name) if isinstance(control, Mapping) else None
            self._note(given, fact=module in (*_INCLUDES_TASKS, *_INCLUDES_ROLE))
        loops = any(key == "loop" or str(key).startswith("with_") for key in entry)
        runs = sure and not loops and not {"when", "ignore_errors"} & entry.keys()
        if module in _INCLUDES_TASKS:
            self._include(entry, arguments, sure=runs)
            return
        if module == "set_fact" and isinstance(arguments, Mapping) and not any(map(has_template, arguments)):
            for name in arguments:
                self._note(name, fact=True)
        elif module in _INCLUDES_ROLE:
            self._tell_later()
        elif module == "set_fact" or module not in SETS_NOTHING:
            self._cannot_tell(handlers=module == "")
            if re.search("fact|setup|vars", module):
                self.found.facts = None
        texts = (*_texts(arguments), *_texts(entry.get("environment")))
        is_handled = (sure or self.handled) and not loops and "when" not in entry
        kind = "texts" if runs else "handled" if is_handled else "uncertain"
        self._add_task(entry, action, **{kind: texts})
        if module in _INCLUDES_ROLE:
            self._include_role(entry, arguments, shares=module == "import_role")

    def _add_task(self, entry: Mapping[str, Any], action: str, **texts: tuple[str, ...]) -> None:
        """A task; ``texts`` by how certain it is that they are resolved, see :class:`HookTask`."""
        name, notifies = str(entry.get("name") or ""), tuple(self._notified(entry))
        certain, handled, uncertain = (texts.get(kind, ()) for kind in ("texts", "handled", "uncertain"))
        where = (self.path, self.template, self.rests_on)
        self.found.tasks.append(HookTask(name, action, notifies, certain, handled, uncertain, *where))

    def _include(self, entry: Mapping[str, Any], arguments: Any, *, sure: bool) -> None:
        file = arguments.get("file") if isinstance(arguments, Mapping) else arguments
        if not isinstance(file, str) or len(self.above) > 20:
            self._cannot_tell()
            return
        inside = self._inside(entry)
        if not has_template(file):
            inside.into(os.path.normpath(os.path.join(os.path.dirname(self.path), file)), sure=sure)
            return
        folders = list(dict.fromkeys(os.path.dirname(path) for path in reversed(self.above)))
        self._tell_later()
        values, complete = self._values(file, entry)
        chosen: list[tuple[str, _Reader]] = []
        for value, reader in values:
            paths = dict.fromkeys(os.path.normpath(os.path.join(folder, str(value))) for folder in folders)
            there = [path for path in paths if os.path.isfile(path)]
            sure_one = reader if len(there) == 1 else replace(reader, rests_on=None)
            chosen += [(path, sure_one) for path in there]
        if self._is_open(file, entry, complete=complete):
            known = {*self.above, *(path for path, _reader in chosen)}
            guess = replace(inside, template=file, rests_on=None)
            fits = [path for path in fitting(file, folders, inside.scope) if path not in known and os.path.isfile(path)]
            chosen += [(path, guess) for path in fits if not _is_playbook(self.load(path))]
        for path, reader in chosen:
            if path not in self.above:
                reader.into(path, sure=False)
        if not chosen:
            self._cannot_tell()

    def into(self, path: str, *, sure: bool) -> None:
        """Read a file that is included."""
        replace(self, path=path, above=(*self.above, path)).read(self.load(path), sure=sure)

    def _include_role(self, entry: Mapping[str, Any], arguments: Any, *, shares: bool) -> None:
        given = arguments if isinstance(arguments, Mapping) else {}
        wanted = [
            given.get("name", given.get("role")),
            *(given.get(f"{one}_from", "main") for one in ("tasks", "handlers")),
        ]
        if not all(isinstance(one, str) for one in wanted) or len(self.above) > 20:
            self._cannot_tell()
            return
        if {"vars_from", "defaults_from"} & given.keys():
            self.found.facts = None
        values, complete = self._values(wanted, entry)
        chosen: list[tuple[tuple[str, str, str, str], _Reader]] = []
        for value, reader in values:
            name, tasks, handlers = map(str, value)
            chosen += [((path, name, tasks, handlers), reader) for path in self.around.find_role(name) or [""]]
        if self._is_open(wanted, entry, complete=complete) and not has_template(wanted[2]):
            known = {role for role, _reader in chosen}
            guess = replace(self._inside(entry), template=_shown(wanted), rests_on=None)
            fits = [(path, tasks) for path in self.around.find_role(wanted[0]) for tasks in _fitting(path, wanted[1])]
            roles = [(path, os.path.basename(path), tasks, wanted[2]) for path, tasks in fits]
            chosen += [(role, guess) for role in roles if role not in known]
        for (path, name, tasks, handlers), reader in chosen:
            if not path:
                self._cannot_tell()
            elif _main(path, "tasks", self.load, tasks)[0] not in self.above:
                reader.read_role(path, name, tasks, handlers, shares=shares or bool(given.get("public")))
        if not chosen:
            self._cannot_tell()

    def _values(self, value: Any, entry: Mapping[str, Any]) -> tuple[list[tuple[Any, _Reader]], bool]:
        """What a task's template comes to, each with what reads on from there; and whether there is no other."""
        inside = self._inside(entry)
        if not has_template(value):
            return [(value, inside)], True
        on_host = self.found.option in ON_HOST
        turns = self.around.turns(entry, inside.scope, self.hosts, on_host=on_host)
        own = {loop_variable(entry)} if turns else set()
        found, complete = [], True
        for turn in turns.choices if turns else [Choice(None, inside.scope, self.hosts)]:
            chosen = self.around.choose(value, turn.scope, turn.hosts, on_host=on_host)
            complete = complete and chosen.complete
            rests_on = None
            if inside.rests_on is not None and not inside.conditional:
                rests_on = inside.rests_on | (turns.rests_on if turns else set()) | (chosen.rests_on - own)
            for one in chosen.choices:
                reader = replace(inside, scope=one.scope, hosts=one.hosts, template=_shown(value), rests_on=rests_on)
                found.append((one.value, reader))
        return found, complete

    def _is_open(self, template: Any, entry: Mapping[str, Any], *, complete: bool) -> bool:
        """Whether it may come to more: a task before may set what it names, a rollback goes to any version."""
        words = words_of(expressions_of(template)) - {loop_variable(entry)}
        if not complete or (words and (self.found.facts is None or words & self.found.facts)):
            self.found.complete = False
            return True
        return "deploy_version" in words

    def _inside(self, entry: Mapping[str, Any]) -> _Reader:
        """What reads on inside a block or an include."""
        conditional = self.conditional or "when" in entry
        handled = self.handled and not {"when", "loop"} & entry.keys()
        return replace(self, scope=self.scope.inside(entry.get("vars")), conditional=conditional, handled=handled)

    def _notified(self, entry: Mapping[str, Any]) -> Iterator[Notified]:
        value = entry.get("notify")
        for one in value if isinstance(value, list | tuple) else [value]:
            if not has_template(one):
                yield from map(Notified, _names(one))
                continue
            for resolved, reader in self._values(one, entry)[0]:
                for name in _names(resolved):
                    yield Notified(name, reader.rests_on)

    def add_notified(self, entry: Mapping[str, Any]) -> None:
        """A block's own ``notify`` holds for each of its tasks."""
        if entry.get("notify"):
            self._add_task(entry, "block")

    def add_handlers(self, roles: Iterable[str], entries: Any) -> None:
        found = self.found
        if entries is not None and not isinstance(entries, list | tuple):
            found.handlers = None
        for entry in entries or ():
            if found.handlers is None:
                return
            names = (
                [*_names(entry.get("name")), *_names(entry.get("listen"))] if isinstance(entry, Mapping) else ["{{ }}"]
            )
            includes = isinstance(entry, Mapping) and short(_action(entry)[0]) in (*_INCLUDES_TASKS, "")
            if includes or any(map(has_template, names)):
                found.handlers = None
            else:
                found.handlers |= {*names, *(f"{role} : {name}" for role in roles for name in names)}
                self.read([entry], sure=False)

    def _note(self, name: Any, *, fact: bool = False) -> None:
        """A variable that a task may set; ``fact`` where it stays with the host."""
        if name and self.found.sets is not None:
            self.found.sets.add(str(name))
        if name and fact and self.found.facts is not None:
            self.found.facts.add(str(name))

    def _cannot_tell(self, *, handlers: bool = True) -> None:
        self.found.sets = None
        if handlers:
            self.found.handlers = self.found.facts = None
            self._tell_later()

    def _tell_later(self) -> None:
        """Which tasks come next, and what they set, is not counted on."""
        self.found.sets = None
        if self.found.first is None:
            self.found.first = len(self.found.tasks)


def _is_playbook(entries: Any) -> bool:
    """Whether it is no file of tasks: a candidate is any file whose name fits."""
    return not isinstance(entries, list | tuple) or any(
        not isinstance(entry, Mapping) or {"hosts", "import_playbook", "ansible.builtin.import_playbook"} & entry.keys()
        for entry in entries
    )


def _fitting(role: str, tasks: str) -> list[str]:
    """Names of the files of a role's tasks that fit a name with templates."""
    if not has_template(tasks):
        return [tasks]
    folder = os.path.join(role, "tasks")
    texts = [tasks] if tasks.endswith((".yml", ".yaml")) else [f"{tasks}.yml", f"{tasks}.yaml"]
    return [os.path.relpath(path, folder) for text in texts for path in fitting(text, [folder])]


def _shown(value: Any) -> str:
    """The template as it is told to a person."""
    return next(str(one) for one in (value if isinstance(value, list) else [value]) if has_template(one))


def _main(role: str, folder: str, load: Load, name: str = "main") -> tuple[str, Any]:
    """A file of a role's folder, the main one unless it is named otherwise, and what it holds."""
    paths = [os.path.join(role, folder, name + suffix) for suffix in (".yml", ".yaml", ".json", "")]
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
