# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a template needs, without resolving it (a private helper of this collection)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import ansible.template
from jinja2 import Environment, TemplateError, nodes
from jinja2.defaults import DEFAULT_NAMESPACE

_GIVEN = frozenset(DEFAULT_NAMESPACE) | {"lookup", "query", "q", "now", "undef", "omit"}
"""What Ansible's templates have of themselves."""
_DEFAULTS = {"default", "d", "ansible.builtin.default", "ansible.builtin.d"}


def needed_names(text: str) -> frozenset[str]:
    """Variables without which the template cannot be resolved, whatever the others are: none that has a default, that
    stands in a branch, or that is only tested. Empty for what is no template."""
    return _needed(str(text)) if "{" in text and _is_template(text) else frozenset()


def _is_template(text: str) -> bool:
    """From core 2.19 on a text is a template where it is marked as one; before, unless it is marked as unsafe."""
    if hasattr(ansible.template, "is_trusted_as_template"):
        return bool(ansible.template.is_trusted_as_template(text))
    return not getattr(text, "__UNSAFE__", False)


@lru_cache(maxsize=4096)
def _needed(text: str) -> frozenset[str]:
    try:
        tree = Environment(autoescape=False, extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"]).parse(text)
    except (TemplateError, RecursionError):
        return frozenset()
    if any(tree.find(kind) for kind in (nodes.Import, nodes.FromImport, nodes.Include)):
        return frozenset()
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    own |= {macro.name for macro in tree.find_all(nodes.Macro)}
    return frozenset(_sure(tree)) - own - _GIVEN


def _sure(node: Any) -> Iterator[str]:
    """Names that are resolved whatever the values are."""
    if isinstance(node, nodes.Name):
        yield node.name
        return
    children: Any
    if isinstance(node, nodes.Template | nodes.Output):
        children = node.iter_child_nodes()
    elif isinstance(node, nodes.Stmt):
        children = [node.test] if isinstance(node, nodes.If) else []
    elif isinstance(node, nodes.CondExpr):
        children = [node.test]
    elif isinstance(node, nodes.And | nodes.Or):
        children = [node.left]
    elif isinstance(node, nodes.Test) or (isinstance(node, nodes.Filter) and node.name in _DEFAULTS):
        children = []
    else:
        children = node.iter_child_nodes()
    for child in children:
        yield from _sure(child)
