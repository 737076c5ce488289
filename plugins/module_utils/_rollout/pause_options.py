# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What options about pauses cannot mean together (a private helper of this collection). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import EACH


def refuse_contradictions(options: Mapping[str, Any], *, in_window: bool) -> None:
    """:param in_window: whether hosts take their turns in a window, in stages, instead of in batches.

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
    bake = options.get("bake_time") or 0
    if seconds and seconds < bake:
        raise HitlessError(
            f"rollout_auto_promote ({seconds:g} s) is shorter than rollout_bake_time ({bake:g} s), within which no "
            "stage is over."
        )
    sizes = options["batch_size"]
    stages = len(sizes) if isinstance(sizes, list) else 1
    if in_window and wanted and (stages == 1 or (wanted != EACH and max(wanted) >= stages)):
        told = "each" if wanted == EACH else f"[{', '.join(map(str, wanted))}]"
        count = "one stage" if stages == 1 else f"{stages} stages"
        raise HitlessError(
            f"rollout_pause_after ({told}) names a stage that nothing comes after: rollout_batch_size makes {count}.",
            hint='A canary first is rollout_batch_size: [1, "100%"] with rollout_pause_after: [1].',
        )


def longest_pause(options: Mapping[str, Any]) -> list[str]:
    """The options by which a run may wait in place, for each of them that is set."""
    return [name for name in ("pause_wait", "auto_promote") if options[name]]
