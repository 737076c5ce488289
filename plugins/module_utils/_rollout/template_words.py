# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a template names, without resolving it (a private helper of this collection). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

_WORD = re.compile(r"[A-Za-z_]\w*")
_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_INDIRECT = {"lookup", "query", "q", "vars"}
_PLAIN = (bool, int, float, date, type(None))
"""What YAML makes of a value that is neither a text nor made of others; a datetime is a date."""


def has_template(value: Any) -> bool:
    """Whether there is a template anywhere in it, or what Ansible has not decrypted: a vaulted text is no str."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(has_template(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(has_template(part) for part in value)
    return not isinstance(value, _PLAIN)


def inputs_of(value: Any, variables: Mapping[str, Any]) -> dict[str, Any] | None:
    """The variables that a template names, and those that these name; None where it may build a name itself."""
    found: dict[str, Any] = {}
    texts = [str(value)]
    while texts:
        names = set(_WORD.findall(texts.pop()))
        if names & _INDIRECT:
            return None
        for name in names & variables.keys() - found.keys():
            found[name] = variables[name]
            if has_template(variables[name]):
                texts.append(str(variables[name]))
    return found


def words_of(*values: Any) -> set[str]:
    """All words of these values, the names of variables among them."""
    return set(_WORD.findall(" ".join(map(str, values))))


def expressions_of(value: Any) -> str:
    """The templates in a value without the text around them."""
    return " ".join(_EXPRESSION.findall(str(value)))


def pieces_of(text: str) -> list[tuple[str, str]]:
    """A text in pieces: what stands there, and the template after it."""
    expressions = _EXPRESSION.findall(text)
    return list(zip(_EXPRESSION.split(text), [*expressions, ""], strict=True))
