# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Expressions of an inventory that are evaluated once for each value (a private helper of this collection).

Ansible's Constructable compiles every expression for every host, 0.5 to 0.8 ms each. Here an expression is evaluated
once for each distinct value of what it refers to, by Ansible's own code, and what that did is repeated for the other
hosts. Where it cannot be told what an expression refers to (a lookup, now(), the random filter, a variable of another
source), Ansible's code runs for every host. What of that code is private stands in _ansible_internals.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.errors import AnsibleParserError
from jinja2 import Environment, TemplateError, nodes
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.tests import TESTS as DEFAULT_TESTS

from ansible_collections.hitless.consul.plugins.plugin_utils._ansible_internals import (
    TRUST_IS_EXPLICIT,
    add_to_conditional,
    add_to_keyed,
    extra_vars_of,
    recorded,
    set_composed,
    untemplated,
)

_FILTERS = (set(DEFAULT_FILTERS) - {"random"}) | {
    *("bool", "combine", "dict2items", "difference", "extract", "flatten", "from_json", "intersect", "items2dict"),
    *("regex_escape", "regex_findall", "regex_replace", "regex_search", "split", "symmetric_difference", "ternary"),
    *("to_json", "union", "zip"),
}
"""Filters whose result depends on nothing but their arguments."""
_TESTS = set(DEFAULT_TESTS) | {"all", "any", "contains", "match", "regex", "search", "subset", "superset", "version"}
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_MISSING = "\0missing"

Path = tuple[Any, ...]


def without_templates(value: Any) -> Any:
    """What came from Consul, such that no version of Ansible takes it for a template."""
    return value if TRUST_IS_EXPLICIT else _without_templates(value)


def _without_templates(value: Any) -> Any:
    if isinstance(value, str):
        return untemplated(value) if "{" in value else value
    if isinstance(value, Mapping):
        return {_without_templates(key): _without_templates(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_templates(item) for item in value]
    return value


def dependencies(expression: object, known: Iterable[str]) -> list[Path] | None:
    """The paths (``consul_node_meta.rack`` is ("consul_node_meta", "rack")) below the known variables that decide what
    the expression gives; None where other things may decide too."""
    try:
        tree = Environment(autoescape=False).parse(f"{{{{ {expression} }}}}")
    except TemplateError:
        return None
    roots = set(known)
    if any(name.name not in roots for name in tree.find_all(nodes.Name)):
        return None
    if not all(_is_pure(node) for node in tree.find_all((nodes.Filter, nodes.Test))):
        return None
    paths: dict[Path, None] = {}
    _collect(tree, paths)
    return list(paths)


def _is_pure(node: Any) -> bool:
    """A filter or test of the lists, and so is one that it is given by name (``map('random')``)."""
    if _short(node.name) not in (_FILTERS if isinstance(node, nodes.Filter) else _TESTS):
        return False
    position, names = {"map": (0, _FILTERS), "select": (0, _TESTS), "reject": (0, _TESTS)}.get(node.name, (1, _TESTS))
    if node.name not in ("map", "select", "reject", "selectattr", "rejectattr") or len(node.args) <= position:
        return True
    given = node.args[position]
    return isinstance(given, nodes.Const) and _short(given.value) in names


def _short(name: object) -> str:
    return str(name).removeprefix("ansible.builtin.")


def _collect(node: Any, paths: dict[Path, None]) -> None:
    path = _path(node)
    if path is not None:
        paths[path] = None
        return
    for child in node.iter_child_nodes():
        _collect(child, paths)


def _path(node: Any) -> Path | None:
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        part: Any = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        part = node.arg.value
    else:
        return None
    above = _path(node.node)
    return None if above is None else (*above, part)


def reach(variables: Mapping[str, Any], path: Path) -> tuple[int, Any]:
    """How many parts of the path could be followed, and the value there.

    A part that is an attribute of the value (``consul_node_meta.items``) ends the way: all of the value counts then.
    """
    value: Any = variables
    for depth, part in enumerate(path):
        if isinstance(value, Mapping):
            if depth and isinstance(part, str) and hasattr(type(value), part):
                return depth, value
            if part not in value:
                return depth, _MISSING
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and -len(value) <= part < len(value):
            value = value[part]
        else:
            return depth, value
    return len(path), value


@dataclass
class _Entry:
    """One entry of compose, groups or keyed_groups.

    :param run: Ansible's code for it: (variables, host).
    :param paths: what its result depends on; None where that cannot be told.
    :param sets: the variable and the plain path of a compose entry such as ``rack: consul_node_meta.rack``.
    """

    run: Callable[[dict[str, Any], str], None]
    paths: list[Path] | None
    sets: tuple[str, Path] | None = None
    done: dict[str, tuple[list[str], dict[str, Any]]] = field(default_factory=dict)


class Constructed:
    """The options compose, groups and keyed_groups of a Constructable plugin, host by host.

    :param plugin: after its options were read.
    :param names: the variables that the plugin itself gives to hosts.
    """

    def __init__(self, plugin: Any, names: Iterable[str]) -> None:
        self._plugin = plugin
        compose, groups, keyed = (plugin.get_option(name) or {} for name in ("compose", "groups", "keyed_groups"))
        invalid = [name for name in compose if not str(name).isidentifier()]
        if invalid:
            raise AnsibleParserError(f"compose holds {invalid[0]!r}, which is no valid name of a variable.")
        known = {*names, *map(str, compose)}
        if plugin.get_option("use_extra_vars"):
            known -= set(extra_vars_of(plugin))
        self._entries = [
            *(self._composed(name, expression, known) for name, expression in compose.items()),
            *self._conditional(groups, known),
            *(self._keyed(entry, known) for entry in keyed),
        ]

    def apply(self, host: str) -> None:
        """Set the variables of one host and put it into groups; it is in the inventory with its variables already."""
        inventory = self._plugin.inventory
        if not self._entries:
            return
        target = inventory.hosts[host]
        for entry in self._entries:
            if entry.paths is None:
                groups, variables = self._record(entry, target.get_vars(), host)
            else:
                found = [reach(target.vars, path) for path in entry.paths]
                if entry.sets and _plain(found[0], entry.sets[1]):
                    target.vars[entry.sets[0]] = found[0][1]
                    continue
                key = repr(found)
                if key not in entry.done:
                    entry.done[key] = self._record(entry, target.vars, host)
                groups, variables = entry.done[key]
            for group in groups:
                inventory.add_host(host, group)
            target.vars.update(variables)

    def _record(self, entry: _Entry, variables: dict[str, Any], host: str) -> tuple[list[str], dict[str, Any]]:
        groups, made = recorded(self._plugin, host, lambda: entry.run(variables, host))
        return groups, without_templates(made)

    def _composed(self, name: str, expression: Any, known: set[str]) -> _Entry:
        paths = dependencies(expression, known)
        plain = paths is not None and len(paths) == 1 and _DOTTED.fullmatch(str(expression).strip())
        return _Entry(
            run=lambda variables, host: set_composed(self._plugin, name, expression, variables, host),
            paths=paths,
            sets=(str(name), paths[0]) if plain and paths else None,
        )

    def _conditional(self, groups: Mapping[str, Any], known: set[str]) -> list[_Entry]:
        """Those that cannot be remembered come first, and together: to Ansible's code a host is in no group of this
        option until all of them are decided."""
        paths = {name: dependencies(expression, known) for name, expression in groups.items()}
        untold = {name: expression for name, expression in groups.items() if paths[name] is None}

        def entry(chosen: Mapping[str, Any], found: list[Path] | None) -> _Entry:
            return _Entry(
                run=lambda variables, host: add_to_conditional(self._plugin, chosen, variables, host),
                paths=found,
            )

        told = [entry({name: groups[name]}, found) for name, found in paths.items() if found is not None]
        return [entry(untold, None), *told] if untold else told

    def _keyed(self, entry: Any, known: set[str]) -> _Entry:
        mapping = entry if isinstance(entry, Mapping) else {}
        # The parent's name is a template of its own.
        paths = None if "{" in str(mapping.get("parent_group") or "") else dependencies(mapping.get("key"), known)
        return _Entry(
            run=lambda variables, host: add_to_keyed(self._plugin, entry, variables, host),
            paths=paths,
        )


def _plain(found: tuple[int, Any], path: Path) -> bool:
    """Whether the value is the result as it stands. Before core 2.19 text that looks like a list becomes one."""
    depth, value = found
    if depth < len(path):
        return False
    if TRUST_IS_EXPLICIT or not isinstance(value, str):
        return True
    return not value.startswith(("{", "[")) and value not in ("True", "False")
