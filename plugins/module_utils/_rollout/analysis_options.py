# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rollout_analysis may hold (a private helper of this collection). Pure.

A list of checks: ``load_balancers``, which compares new instances with old ones by the load balancers' own counters; or
an HTTP request or a command of the user's, asked while the rollout bakes. What the user writes becomes dictionaries
with all of their keys.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_kinds import Flag, Kind, Number, Text

BUILT_IN = "load_balancers"
RULE = "`load_balancers`, or a list of checks, see policy.md"

PATH = re.compile(r"[^.\[\]]+|\[\d+\]")
"""A part of the path of a value in JSON: ``data.result[0].value[1]``."""
_WHOLE_PATH = re.compile(r"([^.\[\]]+|\[\d+\])(\.[^.\[\]]+|\[\d+\])*")
CONDITION = re.compile(r"(<=|>=|==|!=|<|>)\s*(\S.*)")

_COMPARED: Mapping[str, tuple[Kind, Any]] = {
    "alpha": (Number(0, whole=False, above=True), 0.01),
    "tolerated_ratio": (Number(1, whole=False), 1),
    "slower_than": (Number(0, whole=False), 0),
    "inconclusive_limit": (Number(0), 30),
    "dry_run": (Flag(), False),
}
_EITHER: Mapping[str, tuple[Kind, Any]] = {
    "name": (Text(), ""),
    "interval": (Number(0, whole=False, unit="seconds", above=True), 10),
    "count": (Number(0), 0),
    "failure_limit": (Number(0), 0),
    "inconclusive_limit": (Number(0), 0),
    "timeout": (Number(0, whole=False, unit="seconds", above=True), 5),
    "dry_run": (Flag(), False),
}
_ASKED: Mapping[str, tuple[Kind, Any]] = {
    **_EITHER,
    "url": (Text(), ""),
    "method": (Text(), "GET"),
    "headers": (Text(), {}),
    "body": (Text(), ""),
    "status": (Number(100), 200),
    "json": (Text(), ""),
    "condition": (Text(), ""),
}
_RUN: Mapping[str, tuple[Kind, Any]] = {**_EITHER, "command": (Text(), "")}


def parse_analysis(value: object, name: str) -> list[dict[str, Any]]:
    """The checks, each with all of its keys; the built-in one is that with the key ``load_balancers``.

    :raises HitlessError: one sentence.
    """
    parts = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(parts, list | tuple):
        raise HitlessError(f"{name} must be {RULE.replace('`', '')}, and is {value!r}.")
    checks = [_check(one, f"{name}[{number}]") for number, one in enumerate(parts)]
    if sum(BUILT_IN in one for one in checks) > 1:
        raise HitlessError(f"{name} has {BUILT_IN} twice.")
    names = [one["name"] for one in checks if "name" in one]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice:
        raise HitlessError(f"{name}: two checks are called {twice}.", hint="Give each a name of its own.")
    return checks


def comparison_of(options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of the built-in comparison; None where it is not asked for."""
    found: Mapping[str, Any] | None = next((one[BUILT_IN] for one in options["analysis"] if BUILT_IN in one), None)
    return found


def checks_of(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The checks of the user's."""
    return [one for one in options["analysis"] if BUILT_IN not in one]


def refuse_contradictions(options: Mapping[str, Any]) -> None:
    """What no rollout could follow; raises :class:`HitlessError`, one sentence."""
    if options["direction"] == "rollback" or not options["analysis"]:
        return
    bake = options["bake_time"]
    if not bake:
        raise HitlessError(
            "rollout_analysis is set, and rollout_bake_time is 0, so that there is no time in which it could look.",
            hint="Set rollout_bake_time to the seconds that it needs.",
        )
    if comparison_of(options) and not options["load_balancers"]:
        raise HitlessError(
            "rollout_analysis compares by the load balancers' counters, and rollout_load_balancers is not set.",
            hint="Set it to the addresses of HAProxy's statistics.",
        )
    for check in checks_of(options):
        needs = check["interval"] * max(1, check["count"])
        if needs > bake:
            raise HitlessError(
                f"rollout_analysis: the check {check['name']} needs {needs:g} s (interval {check['interval']:g} s, "
                f"count {max(1, check['count'])}), and rollout_bake_time is {bake:g} s.",
                hint=f"Set rollout_bake_time: {needs:g} or more, or lower those.",
            )


# -- one check ----------------------------------------------------------------------------------------------------


def _check(one: object, where: str) -> dict[str, Any]:
    if one == BUILT_IN:
        one = {BUILT_IN: {}}
    if not isinstance(one, Mapping):
        raise HitlessError(f"{where} must be {BUILT_IN} or a dictionary, and is {one!r}.")
    kinds = [kind for kind in (BUILT_IN, "url", "command") if kind in one]
    if len(kinds) != 1:
        told = " and ".join(kinds) or "none of them"
        raise HitlessError(f"{where} must have one of {BUILT_IN}, url and command, and has {told}.")
    if kinds == [BUILT_IN]:
        return {BUILT_IN: _compared(one, where)}
    found = _read(one, _ASKED if kinds == ["url"] else _RUN, where)
    found["name"] = found["name"] or f"{kinds[0]} {where.rpartition('[')[2].rstrip(']')}"
    return _asked(found, where) if kinds == ["url"] else found


def _compared(one: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = one[BUILT_IN] or {}
    if len(one) > 1 or not isinstance(given, Mapping):
        raise HitlessError(
            f"{where}: {BUILT_IN} takes its settings below it, as in {BUILT_IN}: {{alpha: 0.001}}.",
        )
    found = _read(given, _COMPARED, f"{where}.{BUILT_IN}")
    if found["alpha"] >= 1:
        raise HitlessError(f"{where}.{BUILT_IN}.alpha must be less than 1, and is {found['alpha']:g}.")
    return found


def _read(given: Mapping[str, Any], known: Mapping[str, tuple[Kind, Any]], where: str) -> dict[str, Any]:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            raise HitlessError(
                f"{where} has no key {key}.", hint=f"Is it {near[0]}?" if near else f"It takes {', '.join(known)}."
            )

    def value(key: str) -> Any:
        kind, default = known[key]
        return kind.read(given[key], f"{where}.{key}") if key in given and key != "headers" else given.get(key, default)

    return {key: value(key) for key in known}


def _asked(found: dict[str, Any], where: str) -> dict[str, Any]:
    _refuse_url(found["url"], where)
    headers = found["headers"]
    if not isinstance(headers, Mapping):
        raise HitlessError(f"{where}.headers must be a dictionary, and is {headers!r}.")
    found["headers"] = {str(name): str(value) for name, value in headers.items()}
    found["method"] = found["method"].upper()
    if bool(found["json"]) != bool(found["condition"]):
        there, missing = ("json", "condition") if found["json"] else ("condition", "json")
        raise HitlessError(
            f"{where} has {there}, and no {missing}.",
            hint="json names the value, as data.result[0].value[1], and condition what it has to be, as '< 0.01'.",
        )
    if found["json"] and not _WHOLE_PATH.fullmatch(found["json"]):
        raise HitlessError(f"{where}.json must be a path as data.result[0].value[1], and is {found['json']!r}.")
    if found["condition"]:
        _refuse_condition(found["condition"], where)
    return found


def _refuse_url(url: str, where: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fits = False
    if not fits or re.search(r"\s", url):
        raise HitlessError(
            f"{where}.url must be a URL (http://...), and is {url!r}.",
            hint="In a query what is special there has to be quoted: {{ query | urlencode }}.",
        )


def _refuse_condition(condition: str, where: str) -> None:
    found = CONDITION.fullmatch(condition)
    if found is None:
        raise HitlessError(
            f"{where}.condition must be an operator and a value, as '< 0.01' or '== ok', and is {condition!r}.",
            hint="The operators are <, <=, ==, !=, >=, >.",
        )
    if found[1] not in ("==", "!=") and number_of(found[2]) is None:
        raise HitlessError(f"{where}.condition compares with {found[2]!r} by {found[1]}, which takes numbers only.")


def number_of(value: object) -> float | None:
    """A number, also as text; None for anything else, and for what is not a number by its name (NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else number
