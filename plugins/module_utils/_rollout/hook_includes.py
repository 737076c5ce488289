# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files and roles the user's tasks include where a template names them (a private helper of this collection).

What the hosts' variables tell is resolved. Where only a host's turn can tell it (a fact, a registered variable) there
are candidates: the files whose names fit what stands around the template.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.template_words import (
    expressions_of,
    has_template,
    inputs_of,
    pieces_of,
    words_of,
)

_LATER = {
    *("environment", "hostvars", "item", "now", "omit", "play_hosts", "random", "role_name", "role_path"),
    *("shuffle", "vars"),
}
"""What is another thing in the host's turn than it is now, besides facts."""
_MOST = 50
"""Candidates of one template; more of them say nothing."""
_MOST_RESOLVED = 200
"""How often one template is resolved, since it takes 4 ms: where each of many hosts has its own file, not for all."""
_ABSENT = object()


@dataclass(frozen=True)
class Scope:
    """Variables that tasks have by where they stand.

    :param variables: of their blocks, includes and role, which beat a host's.
    :param defaults: of their role, which a host's beat.
    """

    variables: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def inside(self, variables: Any, defaults: Any = None) -> Scope:
        """The scope of what stands inside, with variables of its own."""
        return Scope(
            {**self.variables, **(variables if isinstance(variables, Mapping) else {})},
            {**self.defaults, **(defaults if isinstance(defaults, Mapping) else {})},
        )


@dataclass(frozen=True)
class Choice:
    """One value of a template.

    :param scope: the variables with which it came to this.
    :param hosts: where it did; empty for all hosts.
    """

    value: Any
    scope: Scope
    hosts: Sequence[str] = ()


@dataclass(frozen=True)
class Chosen:
    """What a template comes to on the hosts.

    :param choices: each distinct value.
    :param rests_on: the words in it that may be variables: where a task sets one, it may come to something else.
    :param complete: whether there is no other value.
    """

    choices: Sequence[Choice] = ()
    rests_on: frozenset[str] = frozenset()
    complete: bool = False


class HookVariables:
    """Resolves what the user's tasks name, with the variables of the hosts.

    :param hosts: the hosts with their variables, templates unresolved.
    :param play: variables of the play, which beat a host's.
    :param extra: extra vars, which beat all others.
    :param resolve: a value with a host's variables, and with variables that beat those.
    :param given: what the deployment is given.
    :param stand_ins: which of these are not known yet.
    """

    def __init__(
        self,
        hosts: Mapping[str, Mapping[str, Any]],
        play: Mapping[str, Any],
        extra: Mapping[str, Any],
        resolve: Callable[[Any, str, Mapping[str, Any]], Any],
        given: Mapping[str, str],
        stand_ins: Iterable[str],
    ) -> None:
        self._hosts = hosts
        self._play = play
        self._extra = extra
        self._resolve = resolve
        self._given = given
        self._unknown = {*stand_ins, *_LATER}
        self._known: dict[tuple[str, str, str], Any] = {}

    def choose(self, value: Any, scope: Scope, hosts: Sequence[str] = (), *, on_host: bool) -> Chosen:
        """What a value comes to on the hosts; resolved once for hosts that agree in all it names.

        :param hosts: those that come to it; empty for all.
        :param on_host: whether it runs for each host. What runs on the controller has the play's variables for
            certain, and no host's.
        """
        found: dict[tuple[str, str], tuple[Any, list[str]]] = {}
        scopes: dict[str, Scope] = {}
        tried: set[tuple[str, str, str]] = set()
        words: set[str] = set()
        complete = True
        own = {name: one for name, one in scope.variables.items() if name not in self._extra}
        expressions = expressions_of(value)
        for host in (hosts or self._hosts) if on_host else list(self._hosts)[:1]:
            below = {**(self._hosts[host] if on_host else {}), **self._play, **self._extra}
            more = {**{name: one for name, one in scope.defaults.items() if name not in below}, **self._given, **own}
            variables = {**below, **more}
            inputs = inputs_of(expressions, variables)
            if inputs is None:
                return Chosen()
            words |= words_of(expressions, *map(expressions_of, inputs.values()))
            if any(name.startswith(("ansible_", "_")) or name in self._unknown - own.keys() for name in words):
                return Chosen()
            if not on_host and words & self._hosts[host].keys() - variables.keys():
                return Chosen()
            reasons: Sequence[str] = [""]
            if "deploy_reason" in words - own.keys():
                reasons = list(dict.fromkeys([self._given["deploy_reason"], "rollback"]))
            for reason in reasons:
                of_reason = {"deploy_reason": reason} if reason else {}
                known = (str(value), repr(inputs), reason)
                if known not in tried and len(tried) >= _MOST_RESOLVED:
                    complete = False
                    continue
                tried.add(known)
                if known not in self._known:
                    self._known[known] = self._resolved(value, host, {**more, **of_reason, **own})
                result = self._known[known]
                if result is _ABSENT:
                    complete = False
                else:
                    scopes[reason] = Scope({**of_reason, **scope.variables}, scope.defaults)
                    found.setdefault((repr(result), reason), (result, []))[1].append(host)
        choices = [Choice(result, scopes[reason], on) for (_text, reason), (result, on) in found.items()]
        return Chosen(choices, frozenset(words), complete)

    def _resolved(self, value: Any, host: str, more: Mapping[str, Any]) -> Any:
        try:
            return self._resolve(value, host, more)
        except HitlessError:
            return _ABSENT


@dataclass(frozen=True)
class Surroundings:
    """What the user's files are read with.

    :param variables: resolves templates; None where nothing can be resolved.
    :param role_folders: where Ansible looks for a role that tasks include, in this order.
    """

    variables: HookVariables | None = None
    role_folders: Sequence[str] = ()

    def choose(self, value: Any, scope: Scope, hosts: Sequence[str], *, on_host: bool) -> Chosen:
        """As :meth:`HookVariables.choose`, and what is no template is what it is."""
        if not has_template(value):
            return Chosen([Choice(value, scope, hosts)], complete=True)
        return self.variables.choose(value, scope, hosts, on_host=on_host) if self.variables else Chosen()

    def turns(self, task: Mapping[str, Any], scope: Scope, hosts: Sequence[str], *, on_host: bool) -> Chosen | None:
        """Each item of a task's loop, in whose scope it is; None where the loop cannot be told."""
        loops = [key for key in task if key == "loop" or str(key).startswith("with_")]
        if not loops:
            return Chosen([Choice(None, scope, hosts)], complete=True)
        chosen = self.choose(task[loops[0]], scope, hosts, on_host=on_host)
        plain = all(isinstance(choice.value, list | tuple) for choice in chosen.choices)
        if loops[0] not in ("loop", "with_items", "with_list") or not plain or not chosen.complete:
            return None
        name = loop_variable(task)
        items = [
            Choice(part, choice.scope.inside({name: part}), choice.hosts)
            for choice in chosen.choices
            for item in choice.value
            for part in (item if isinstance(item, list | tuple) and loops[0] == "with_items" else [item])
        ]
        return Chosen(items, chosen.rests_on, complete=True)

    def find_role(self, name: str) -> list[str]:
        """The folder of a role, or those that fit where a template is in its name; none for a role of a collection."""
        if name.count(".") >= 2 and os.sep not in name:
            return []
        folders = [found for folder in self.role_folders for found in fitting(name, [folder]) if os.path.isdir(found)]
        return folders if has_template(name) else folders[:1]


NOTHING_KNOWN = Surroundings()


def loop_variable(task: Mapping[str, Any]) -> str:
    """The name that a task's loop gives to its item."""
    control = task.get("loop_control")
    return str((control.get("loop_var") if isinstance(control, Mapping) else None) or "item")


def fitting(text: str, folders: Iterable[str], scope: Scope | None = None) -> list[str]:
    """The files whose names fit a text with templates; none where there is nothing but a template.

    :param folders: where a relative name is looked for.
    """
    known = scope.variables if scope else {}
    pattern = ""
    for literal, expression in pieces_of(text):
        value = known.get(expression[2:-2].strip())
        of_it = glob.escape(value) if isinstance(value, str) and not has_template(value) else "*"
        pattern += glob.escape(literal) + (of_it if expression else "")
    if "{%" in text or not re.search(r"\w", pattern):
        return []
    found = (path for folder in folders for path in sorted(glob.glob(os.path.join(glob.escape(folder), pattern))))
    return [os.path.normpath(path) for path in dict.fromkeys(found)][:_MOST]
