# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator says to the rollout that a machine is part of (docs/operating.md)."""

import time

from hitless_deploy.consul import kv_text, parsed
from hitless_deploy.errors import Again, Problem, Unavailable


def is_aborted(text):
    """Whether the key of control holds the word, as text or as JSON. A run empties the key as it begins."""
    word = parsed((text, 0))[0].get("word") or text
    return str(word).strip().lower() == "abort"


def rest(consul, key, seconds):
    """Sleep; raises Problem where an operator aborts the rollout. Without the right to read the key it only sleeps."""
    until = time.monotonic() + seconds
    try:
        if consul.watch("/v1/kv/" + key, lambda data: _aborted(data) or Again(60.0), until):
            raise Aborted("An operator has aborted the rollout.")
    except (Problem, Unavailable) as problem:
        if isinstance(problem, Aborted):
            raise
    time.sleep(max(0.0, until - time.monotonic()))


class Aborted(Problem):
    """Nothing is wrong with the machine."""


def _aborted(data):
    return bool(data) and is_aborted(kv_text(data[0]))
