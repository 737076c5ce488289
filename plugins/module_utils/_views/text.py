# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text for a terminal: tables, times, and what is safe to show there (a private helper of this collection).

Plain ASCII (a log's lines: plain text) without any control character: what comes from Consul is not trusted to be fit
for a terminal.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime

from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import parse_timestamp

WIDTH = 110
"""Columns of a table; a longer last column is cut, or goes on in the next line."""


def plain(text: object) -> str:
    """One line of printable ASCII."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    return re.sub(r"[^ -~]", "?", line)


def printable(line: str) -> str:
    """A line of a log as it may be shown: its spaces as they are, and nothing that a terminal takes for a command."""
    return "".join(one if one.isprintable() else "?" for one in line.expandtabs())


def of_host(host: str, lines: Iterable[str]) -> list[str]:
    """Lines that something printed on a host, each with its name: ``web1 | ...``."""
    return [f"{host} | {printable(line)}" for line in lines]


def cut(text: object, width: int) -> str:
    """The text in at most ``width`` columns."""
    line = plain(text)
    return line if len(line) <= width else line[: max(0, width - 3)] + "..."


def duration(seconds: float | None) -> str:
    """``0.4 s``, ``12 s``, ``1 m 12 s``, ``2 h 3 m``, ``3 d 4 h``; a dash where it is unknown."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def ago(text: str | None, now: datetime) -> str:
    """``3 m 2 s ago`` for a time as keys hold it."""
    at = parse_timestamp(text)
    return f"{duration(round((now - at).total_seconds()))} ago" if at else "-"


def moment(text: str | None) -> str:
    """A time as keys hold it, for a person: ``2026-11-23 14:22:33``, in UTC."""
    at = parse_timestamp(text)
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "-"


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, width: int = WIDTH, indent: int = 0, wrap: bool = False
) -> str:
    """Aligned columns, two spaces between them.

    :param wrap: whether what is longer than the last column goes on in the next line; it is cut otherwise.
    """
    lines = [tuple(plain(cell) or "-" for cell in row) for row in rows]
    lines = [tuple(head), *lines]
    sizes = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    left = max(30 if wrap else 20, width - indent - sum(sizes) - 2 * len(sizes))
    out = []
    for line in lines:
        parts = textwrap.wrap(line[-1], left, break_on_hyphens=False) if wrap else [cut(line[-1], left)]
        cells = [cell.ljust(size) for cell, size in zip(line, sizes, strict=False)]
        for part in parts or [""]:
            out.append((" " * indent + "  ".join([*cells, part])).rstrip())
            cells = [" " * size for size in sizes]
    return "\n".join(out)
