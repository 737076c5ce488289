# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What options about pauses cannot mean together (a private helper of this collection). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import EACH, EACH_WAVE


def refuse_contradictions(options: Mapping[str, Any], *, in_window: bool, waves: int = 0) -> None:
    """:param in_window: whether hosts take their turns in a window, in stages, instead of in batches.

    :param waves: how many there are, 0 for none.
    :raises HitlessError: one sentence.
    """
    if options["direction"] == "rollback":  # which pauses nowhere
        return
    wanted, seconds = options["pause_after"], options["auto_promote"]
    if seconds and not wanted:
        raise HitlessError(
            "rollout_auto_promote is set, and rollout_pause_after is not, so that there is nothing to promote.",
            hint="Set rollout_pause_after: [1], or each.",
        )
    bake = longest_bake(options)
    if seconds and seconds < options[bake]:
        raise HitlessError(
            f"rollout_auto_promote ({seconds:g} s) is shorter than rollout_{bake} ({options[bake]:g} s), within which "
            f"no {bake.removesuffix('_bake_time').replace('bake_time', 'stage')} is over."
        )
    if wanted == EACH_WAVE:
        if waves < 2:
            count = "there is one wave" if waves else "rollout_waves_by is not set"
            raise HitlessError(f"rollout_pause_after is each_wave, and {count}, so that it would pause nowhere.")
        return
    sizes = options["batch_size"]
    # A wave that is smaller than the stages before the last one has fewer of them.
    stages = (len(sizes) if isinstance(sizes, list) else 1) + max(0, waves - 1)
    if in_window and wanted and (stages == 1 or (wanted != EACH and max(wanted) >= stages)):
        told = "each" if wanted == EACH else f"[{', '.join(map(str, wanted))}]"
        count = "one stage" if stages == 1 else f"{stages} stages"
        makes = "rollout_batch_size and the waves make" if waves else "rollout_batch_size makes"
        raise HitlessError(
            f"rollout_pause_after ({told}) names a stage that nothing comes after: {makes} {count}.",
            hint='A canary first is rollout_batch_size: [1, "100%"] with rollout_pause_after: [1].',
        )


def refuse_beyond(options: Mapping[str, Any], batches: int) -> None:
    """Where hosts go in batches, only the plan knows how many there are.

    :param batches: of a plan that leaves no host out: one for what is left of a rollout may well have fewer.
    :raises HitlessError: one sentence.
    """
    wanted = options["pause_after"]
    if options["direction"] != "rollback" and isinstance(wanted, list) and wanted and max(wanted) >= batches:
        count = "one batch" if batches == 1 else f"{batches} batches"
        raise HitlessError(
            f"rollout_pause_after ([{', '.join(map(str, wanted))}]) names a batch that nothing comes after: the plan "
            f"has {count}; nothing was changed."
        )


def longest_bake(options: Mapping[str, Any]) -> str:
    """The option that says how long the longest bake is."""
    return "bake_time" if options["wave_bake_time"] is None else "wave_bake_time"


def longest_pause(options: Mapping[str, Any]) -> list[str]:
    """The options by which a run may wait in place, for each of them that is set."""
    return [name for name in ("pause_wait", "auto_promote") if options[name]]
