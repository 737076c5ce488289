# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's checks of rollout_analysis, asked while a rollout bakes (a private helper of this collection).

As the web and job metrics of Argo Rollouts: a measurement passes, fails, or is inconclusive where it could not be made.
More failures than failure_limit fail the check; more inconclusive ones than inconclusive_limit leave it open, which
pauses the rollout. Each check has a thread, so that a slow one delays no other, nor the watch over the hosts.
"""

from __future__ import annotations

import http.client
import json
import operator
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.analysis_options import (
    CONDITION,
    PATH,
    number_of,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import FAILURE, PAUSE, Halt

PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"
_LARGEST = 1_000_000
"""Bytes read of an answer."""
_SHOWN = 120
"""Characters shown of a value, or of the last line that a command prints."""
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
_NOT_FOUND = (126, 127)
"""Exit codes of a shell that found no such command, or could not run it."""


@dataclass(frozen=True)
class Measured:
    """One measurement: how it went, and what was seen, for a person."""

    how: str
    told: str


def measure(check: Mapping[str, Any], about: Mapping[str, str]) -> Measured:
    """One measurement; it takes no longer than its timeout, and never fails.

    :param check: see analysis_options.py.
    :param about: variables of a command's environment.
    """
    return _run(check, about) if "command" in check else _ask(check)


def _ask(check: Mapping[str, Any]) -> Measured:
    body = check["body"].encode() or None
    try:
        request = urllib.request.Request(check["url"], body, check["headers"], method=check["method"])
        with urllib.request.build_opener().open(request, timeout=check["timeout"]) as answer:
            status, text = answer.status, answer.read(_LARGEST)
    except urllib.error.HTTPError as error:
        with suppress(OSError, http.client.HTTPException):
            error.read(_LARGEST)
        status, text = error.code, b""
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        return Measured(INCONCLUSIVE, f"no answer ({getattr(why, 'strerror', None) or why})")
    if status != check["status"]:
        return Measured(FAILED, f"status {status}, and not {check['status']}")
    return _compare(check, text) if check["json"] else Measured(PASSED, f"status {status}")


def _compare(check: Mapping[str, Any], text: bytes) -> Measured:
    try:
        value = json.loads(text)
    except ValueError:
        return Measured(INCONCLUSIVE, "its answer is no JSON")
    for part in PATH.findall(check["json"]):
        try:
            value = value[int(part[1:-1])] if part.startswith("[") else value[part]
        except (KeyError, IndexError, TypeError):
            return Measured(INCONCLUSIVE, f"its answer has no {check['json']}")
    found = CONDITION.fullmatch(check["condition"])
    if found is None:  # refused before
        return Measured(INCONCLUSIVE, "its condition cannot be read")
    name, wanted = found[1], found[2].strip()
    is_number = number_of(wanted) is not None
    left: object = number_of(value) if is_number else _text(value)
    if left is None:
        return Measured(INCONCLUSIVE, f"{_text(value)[:_SHOWN]!r} is no number")
    passed = _OPERATORS[name](left, number_of(wanted) if is_number else wanted)
    shown = _text(value)[:_SHOWN]
    return Measured(PASSED, f"{shown} {name} {wanted}") if passed else Measured(FAILED, f"{shown}, not {name} {wanted}")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _run(check: Mapping[str, Any], about: Mapping[str, str]) -> Measured:
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            ["/bin/sh", "-c", check["command"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **about},
            start_new_session=True,
        )
    except OSError as error:
        return Measured(INCONCLUSIVE, f"it could not be run ({error})")
    try:
        output = process.communicate(timeout=check["timeout"])[0]
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Measured(INCONCLUSIVE, f"it did not end within {check['timeout']:g} s")
    lines = output.decode(errors="replace").strip().splitlines()
    said = f": {lines[-1][:_SHOWN]}" if lines else ""
    code = process.returncode
    if code in _NOT_FOUND or code < 0:
        return Measured(INCONCLUSIVE, f"it could not be run (exit code {code}{said})")
    return Measured(PASSED if code == 0 else FAILED, f"exit code {code}{said}")


# -- while a rollout bakes ----------------------------------------------------------------------------------------


class Checks:
    """All checks of one bake.

    :param seconds: of the bake, which say how often a check is asked that does not say so itself.
    :param tell: says a line for a person.
    """

    def __init__(
        self, checks: Sequence[Mapping[str, Any]], about: Mapping[str, str], seconds: float, tell: Callable[[str], None]
    ) -> None:
        self._about, self._seconds, self._tell = about, seconds, tell
        self._over, self._lock = threading.Event(), threading.Lock()
        self._open = {one["name"] for one in checks}
        self._halts: list[Halt] = []
        self._checks = checks

    def __enter__(self) -> Checks:
        for one in self._checks:
            threading.Thread(target=self._work, args=(one,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()

    @property
    def are_open(self) -> bool:
        """Whether one of them has still something to find out."""
        return bool(self._open)

    @property
    def halt(self) -> Halt | None:
        """Why the deployment stops, or pauses; None where nothing says so."""
        with self._lock:
            return next(iter(sorted(self._halts, key=lambda one: one.kind != FAILURE)), None)

    def _work(self, check: Mapping[str, Any]) -> None:
        name = check["name"]
        count = check["count"] or max(1, int(self._seconds / check["interval"] + 1e-6))
        counts = {PASSED: 0, FAILED: 0, INCONCLUSIVE: 0}
        for number in range(1, count + 1):
            if self._over.wait(check["interval"]):
                return
            one = measure(check, self._about)
            if self._over.is_set():
                return
            counts[one.how] += 1
            dry = " (dry run)" if check["dry_run"] else ""
            self._tell(f"analysis: {name}: {one.how}, {one.told} [{number}/{count}]{dry}")
            halt = _halt(check, counts, one)
            if halt:
                if not check["dry_run"]:
                    with self._lock:
                        self._halts.append(halt)
                break
        with self._lock:
            self._open.discard(name)


def _halt(check: Mapping[str, Any], counts: Mapping[str, int], last: Measured) -> Halt | None:
    """What the measurements so far come to."""
    name = check["name"]
    for how, limit, kind in ((FAILED, "failure_limit", FAILURE), (INCONCLUSIVE, "inconclusive_limit", PAUSE)):
        if counts[how] > check[limit]:
            times = f"{counts[how]} times" if counts[how] > 1 else "once"
            return Halt(kind, f"analysis: the check {name} {_VERBS[how]} {times} ({last.told})")
    return None


_VERBS = {FAILED: "has failed", INCONCLUSIVE: "was inconclusive"}
