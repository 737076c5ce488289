# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host is in which wave, by a variable of the hosts, and in which order (a private helper of this collection)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import named
from ansible_collections.hitless.consul.plugins.module_utils._views.text import plain

_PATH = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*", re.ASCII)
_SHOWN = 10
"""Waves that a sentence names at most."""

Resolve = Callable[[str, Any], Any]
"""Host and value of a variable -> the value with its templates resolved."""


def parse_waves_by(value: object, name: str) -> str:
    """The name of a variable, with dots for what is in it; raises :class:`HitlessError` for anything else."""
    if not isinstance(value, str) or not _PATH.fullmatch(value.strip()):
        raise HitlessError(
            f"{name} must be the name of a variable of the hosts, as consul_node_meta.zone or group_names is, and is "
            f"{value!r}."
        )
    return value.strip()


def parse_waves(value: object, name: str) -> list[str]:
    """Names in their order, or text with commas between them; raises :class:`HitlessError` for anything else."""
    parts = value.split(",") if isinstance(value, str) else value
    names = [_wave_name(part) for part in parts] if isinstance(parts, list | tuple) else [""]
    if not names or not all(names):
        raise HitlessError(f"{name} must be a list of names of waves, and is {value!r}.")
    twice = next((one for one in names if names.count(one) > 1), "")
    if twice:
        raise HitlessError(f"{name} names {twice} twice.")
    return names


def refuse_contradictions(options: Mapping[str, Any]) -> None:
    """What options about waves cannot mean together; raises :class:`HitlessError`, one sentence."""
    if options["direction"] == "rollback":  # which takes no notice of their order, and does not bake
        return
    bake, of_wave = options["bake_time"], options["wave_bake_time"]
    if not options["waves_by"]:
        given = [name for name in ("waves", "wave_bake_time") if options[name] not in (None, [])]
        if given:
            raise HitlessError(
                f"rollout_{given[0]} is set, and rollout_waves_by is not, so that there are no waves.",
                hint="Set rollout_waves_by to the variable of the hosts that tells their wave: consul_node_meta.zone.",
            )
    elif of_wave is not None and of_wave < bake:
        raise HitlessError(
            f"rollout_wave_bake_time ({of_wave:g} s) is shorter than rollout_bake_time ({bake:g} s), for which each "
            "stage is watched.",
            hint="Lower rollout_bake_time too.",
        )


def read_waves(
    options: Mapping[str, Any], by_host: Mapping[str, Mapping[str, Any]], resolve: Resolve
) -> dict[str, list[str]]:
    """Wave -> its hosts, in the order of the waves; empty where there are none.

    A rollback refuses nothing: a host of which nobody knows the wave is in none.

    :param by_host: host -> its variables, templates unresolved.
    :raises HitlessError: a host is in no wave or in several, or a wave has no host; one sentence.
    """
    path, order = options["waves_by"], options["waves"]
    if not path:
        return {}
    strict = options["direction"] != "rollback"
    found = {host: _values(path, host, variables, resolve) for host, variables in by_host.items()}
    wave_of = {host: _wave_of(values, order) for host, values in found.items()}
    if strict:
        _refuse_hosts(path, order, found, wave_of)
    there = [one for one in dict.fromkeys(wave_of.values()) if one]
    empty = [one for one in order if one not in there]
    if strict and empty:
        raise HitlessError(
            f"rollout_waves names {_listed(empty)}, which {path} is on none of the hosts (it is {_listed(there)}).",
            hint="Leave it out of rollout_waves.",
        )
    names = [*(one for one in order if one in there), *sorted((one for one in there if one not in order), key=_natural)]
    return {name: [host for host, wave in wave_of.items() if wave == name] for name in names}


def _refuse_hosts(path: str, order: Sequence[str], found: Mapping[str, list[str]], wave_of: Mapping[str, str]) -> None:
    """Hosts that are in no wave, or in several."""
    without = [host for host, values in found.items() if not values]
    if without:
        have = "has" if len(without) == 1 else "have"
        raise HitlessError(
            f"rollout_waves_by is {path}, and {named(without)} {have} no name of a wave there.",
            hint="Set it for each host, or leave these out (rollout_hosts).",
        )
    several = {host: values for host, values in found.items() if len(values) > 1}
    if several and not order:
        host, values = next(iter(several.items()))
        raise HitlessError(
            f"rollout_waves_by is {path}, which is a list on {host} ({_listed(values)}), and rollout_waves is not set.",
            hint="Let rollout_waves say which of these are waves, in their order.",
        )
    for host, values in found.items():
        mine = [one for one in values if one in order]
        if len(mine) > 1:
            raise HitlessError(f"{host} is in several of rollout_waves, by {path}: {_listed(mine)}.")
    outside = [f"{host} ({_listed(found[host])})" for host, wave in wave_of.items() if not wave]
    if outside:
        raise HitlessError(
            f"By {path} {'is' if len(outside) == 1 else 'are'} in no wave that rollout_waves names ({_listed(order)}): "
            f"{named(outside)}.",
            hint="Add theirs to rollout_waves, in their order.",
        )


def _values(path: str, host: str, variables: Mapping[str, Any], resolve: Resolve) -> list[str]:
    """What a host has there: one name, or those of a list; none for nothing."""
    first, *rest = path.split(".")
    value = resolve(host, variables.get(first))
    for name in rest:
        value = value.get(name) if isinstance(value, Mapping) else None
    parts = value if isinstance(value, list | tuple) else [value]
    return [name for part in parts if (name := _wave_name(part))]


def _wave_of(values: Sequence[str], order: Sequence[str]) -> str:
    """The one wave of a host; empty where it is in none, or in several."""
    mine = [one for one in values if not order or one in order]
    return mine[0] if len(mine) == 1 else ""


def _wave_name(value: object) -> str:
    """A name as it is shown and compared; empty for what is none. YAML makes numbers of some, and flags of others."""
    if isinstance(value, bool):
        return str(value).lower()
    return plain(value) if isinstance(value, str | int | float) else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "") or "nothing"


def _natural(name: str) -> list[tuple[int, str]]:
    """rack10 comes after rack2."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]
