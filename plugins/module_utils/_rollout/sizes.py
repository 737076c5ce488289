# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of hosts and of instances, which may be percentages (a private helper of this collection)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError

Size: TypeAlias = "int | str"
"""A number of hosts, or a percentage such as ``25%``."""

_PERCENT = re.compile(r"(\d{1,3})\s*%")


def parse_size(value: object, name: str, *, least: int) -> Size:
    """``3``, ``"3"`` or ``"25%"``; raises :class:`HitlessError` for anything else."""
    text = str(value).strip()
    if not isinstance(value, bool):
        percent = _PERCENT.fullmatch(text)
        if percent and least <= int(percent[1]) <= 100:
            return f"{int(percent[1])}%"
        if text.isascii() and text.isdigit() and int(text) >= least:
            return int(text)
    raise HitlessError(
        f"{name} must be a whole number, {least} or more, or a percentage such as 25%, and is {value!r}."
    )


def parse_batch_size(value: object, name: str) -> Size | list[Size]:
    """A size, or a list of sizes, which may also come as text: ``1, 10%, 50%``."""
    if isinstance(value, str) and ("," in value or value.strip().startswith("[")):
        value = [part.strip(" '\"") for part in value.strip(" []").split(",")]
    if not isinstance(value, list | tuple):
        return parse_size(value, name, least=1)
    if not value:
        raise HitlessError(f"{name} is an empty list.", hint="Give at least one size.")
    return [parse_size(item, name, least=1) for item in value]


def parse_min_healthy(value: object, name: str) -> Size:
    """A number of instances or a percentage, from 0 on."""
    return parse_size(value, name, least=0)


EACH, EACH_WAVE = "each", "each_wave"
"""As rollout_pause_after: all stages but the last; the last stage of each wave but the last."""


def parse_pause_after(value: object, name: str) -> list[int] | str:
    """``each``, ``each_wave``, or numbers of stages, which may also come as text: ``1, 2``.

    :raises HitlessError: for anything else.
    """
    if value in (EACH, EACH_WAVE):
        return str(value)
    parts = value.strip(" []").split(",") if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    texts = [str(part).strip() for part in parts if not isinstance(part, bool)]
    if len(texts) != len(parts) or not all(text.isascii() and text.isdigit() and int(text) for text in texts):
        raise HitlessError(
            f"{name} must be a list of numbers of stages, 1 for the first, or each, or each_wave, and is {value!r}."
        )
    return sorted({int(text) for text in texts})


def minimum_of(min_healthy: Size, registered: int) -> int:
    """The number of instances that must stay in rotation; a percentage is rounded up."""
    if isinstance(min_healthy, str):
        return -(-registered * int(min_healthy.rstrip("%")) // 100)
    return min_healthy


def minimum_in_wave(min_healthy: Size, registered: int, total: int, largest: int) -> int:
    """The number of a wave's instances that must stay in rotation: the same share, rounded down.

    One of its hosts may always be out, so that no wave is too small to be changed.

    :param registered: instances in the wave; ``total``: in all; ``largest``: those of the largest host in it.
    """
    if isinstance(min_healthy, str):
        share = registered * int(min_healthy.rstrip("%")) // 100
    else:
        share = registered * min_healthy // total if total else 0
    return max(0, min(share, registered - largest))


def sizes_of(batch_size: Size | Sequence[Size], hosts: int) -> list[int]:
    """Each element as a number of hosts; a percentage is of the hosts to change, rounded down, at least 1."""
    sizes = [batch_size] if isinstance(batch_size, int | str) else list(batch_size)
    return [max(1, hosts * int(size.rstrip("%")) // 100) if isinstance(size, str) else size for size in sizes]
