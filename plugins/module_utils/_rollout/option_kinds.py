# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of values that options of a rollout have (a private helper of this collection).

Each reads what variables hold (numbers and booleans may come as text: ``-e x=false``) and refuses the rest by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import boolean
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_name, checked_version


class Kind(Protocol):
    """A kind of value: ``rule`` says in the documentation what is allowed."""

    @property
    def rule(self) -> str:
        """What is allowed, as the documentation says it."""

    def read(self, value: Any, name: str) -> Any:
        """The value as the rollout works with it; raises :class:`HitlessError` for one that is not allowed."""


def _string(value: Any, name: str, what: str) -> str:
    """A value that nothing else can stand for."""
    if not isinstance(value, str):
        raise HitlessError(f"{name} must be {what}, and is {value!r}.")
    return str(value)


@dataclass(frozen=True)
class Number:
    """A number, which may come as text."""

    least: float = 0
    whole: bool = True
    unit: str = ""
    above: bool = False

    @property
    def rule(self) -> str:
        kind = "whole number" if self.whole else "number"
        bound = f"more than {self.least:g}" if self.above else f"{self.least:g} or more"
        return f"{kind}{f' of {self.unit}' if self.unit else ''}, {bound}"

    def read(self, value: Any, name: str) -> int | float:
        try:
            number = float("nan") if isinstance(value, bool) else float(str(value))
        except ValueError:
            number = float("nan")
        fits = number > self.least if self.above else number >= self.least
        if not fits or number == float("inf") or (self.whole and number != int(number)):
            raise HitlessError(f"{name} must be a {self.rule}, and is {value!r}.")
        return int(number) if number == int(number) else number


@dataclass(frozen=True)
class Flag:
    rule: str = "true or false"

    def read(self, value: Any, name: str) -> bool:
        return boolean(value, name)


@dataclass(frozen=True)
class Text:
    rule: str = "text"

    def read(self, value: Any, name: str) -> str:
        if isinstance(value, Mapping | list | tuple):
            raise HitlessError(f"{name} must be text, and is {value!r}.")
        return str(value)


@dataclass(frozen=True)
class Choice:
    choices: tuple[str, ...]
    later: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        return " or ".join(f"`{choice}`" for choice in self.choices)

    def read(self, value: Any, name: str) -> str:
        if value in self.later:
            raise HitlessError(
                f"{name}: {value} is not known in this version of hitless.consul.",
                hint=f"Use one of {', '.join(self.choices)}.",
            )
        if value not in self.choices:
            raise HitlessError(f"{name} must be one of {', '.join(self.choices)}, and is {value!r}.")
        return str(value)


@dataclass(frozen=True)
class Version:
    rule: str = "a *string* of 1 to 128 letters, digits and `. _ + ~ : @ -`"

    def read(self, value: Any, name: str) -> str:
        return str(checked_version(value, name))


@dataclass(frozen=True)
class ServiceName:
    rule: str = "letters, digits and `_ . -`"

    def read(self, value: Any, name: str) -> str:
        return str(checked_name(_string(value, name, "the name of a service"), "service"))


@dataclass(frozen=True)
class Names:
    """A list of names, or text with commas between them."""

    rule: str = "list of names"

    def read(self, value: Any, name: str) -> list[str]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            raise HitlessError(f"{name} must be a {self.rule}, and is {value!r}.")
        return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


@dataclass(frozen=True)
class Urls:
    """A list of addresses of web pages, or text with commas between them; without passwords, since they are shown."""

    rule: str = "list of URLs"

    def read(self, value: Any, name: str) -> list[str]:
        urls = Names(self.rule).read(value, name)
        for url in urls:
            _check_url(url, name, self.rule)
        return [url.removesuffix(";csv") for url in urls]


@dataclass(frozen=True)
class Url:
    """One address of a web page, likewise."""

    rule: str = "URL"

    def read(self, value: Any, name: str) -> str:
        url = Text(self.rule).read(value, name)
        _check_url(url, name, self.rule)
        return url


def _check_url(url: str, name: str, rule: str) -> None:
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise HitlessError(f"{name} must be a {rule} (http://...), and holds {url!r}.")
    if parts.username is not None:
        raise HitlessError(
            f"{name} holds a user or a password for {parts.hostname}, which would show in warnings and logs.",
            hint="Let the page answer the controller's address without one.",
        )


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


@dataclass(frozen=True)
class ExitCodes:
    rule: str = "list of numbers from 0 to 255"

    def read(self, value: Any, name: str) -> list[int]:
        parts = value.strip(" []").split(",") if isinstance(value, str) else value
        parts = parts if isinstance(parts, list | tuple) else [parts]
        try:
            codes = [int(str(part)) for part in parts if not isinstance(part, bool)]
        except ValueError:
            codes = []
        if not codes or len(codes) != len(parts) or not all(0 <= code <= 255 for code in codes):
            raise HitlessError(f"{name} must be a {self.rule}, and is {value!r}.")
        return codes


@dataclass(frozen=True)
class MaintenanceScope:
    rule: str = "`service`, `node`, or a list of services"

    def read(self, value: Any, name: str) -> str | list[str]:
        if value in ("service", "node"):
            return str(value)
        if isinstance(value, str) and "," not in value:
            raise HitlessError(f"{name} must be service, node or a list of services, and is {value!r}.")
        services = Names().read(value, name)
        if not services:
            raise HitlessError(f"{name} must be service, node or a list of services, and is {value!r}.")
        return [checked_name(service, "service") for service in services]


@dataclass(frozen=True)
class Parsed:
    """A kind whose rule is another file's."""

    rule: str
    parse: Callable[[object, str], Any]

    def read(self, value: Any, name: str) -> Any:
        return self.parse(value, name)


@dataclass(frozen=True)
class HostsPattern:
    rule: str = "group, pattern or list of hosts"

    def read(self, value: Any, name: str) -> str:
        if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            return ",".join(value)
        return _string(value, name, f"a {self.rule}")


@dataclass(frozen=True)
class TasksFile:
    rule: str = "tasks file"

    def read(self, value: Any, name: str) -> str:
        return _string(value, name, "the path of a tasks file")


@dataclass(frozen=True)
class RoleName:
    rule: str = "role"

    def read(self, value: Any, name: str) -> str:
        return _string(value, name, "the name or path of a role")
