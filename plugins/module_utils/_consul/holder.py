# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has the lock of a service's deployments (a private helper of this collection)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import json_object
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp


@dataclass(frozen=True)
class Holder:
    """Who has the lock, as its value says.

    :param deployment: id of the deployment, empty where it is none.
    :param holder: who, ``user@host`` or as AWX knows them.
    :param since: UTC, ``2026-11-23T14:22:33Z``.
    :param message: what for, in a few words.
    :param origin: from where, ``host:folder`` or the address of AWX's job.
    """

    deployment: str
    holder: str
    since: str
    message: str = ""
    origin: str = ""

    @classmethod
    def now(cls, deployment: str, holder: str, message: str = "", origin: str = "") -> Holder:
        """A holder since this moment."""
        return cls(deployment, holder, timestamp(), message, origin)

    @classmethod
    def parse(cls, text: str) -> Holder:
        """The value of a lock; of one that is not ours (``consul lock`` writes none) what can be told."""
        data = json_object(text)
        if data is None:
            data = {"message": text[:200]}
        return cls(*(str(data.get(name) or "") for name in ("deployment", "holder", "since", "message", "origin")))

    def __str__(self) -> str:
        parts = [self.holder or "somebody unnamed"]
        if self.since:
            parts.append(f"since {self.since}")
        deployment = self.deployment and f"deployment {self.deployment}"
        about = [part for part in (self.message, deployment, self.origin) if part]
        return " ".join(parts) + (f" ({', '.join(about)})" if about else "")


@dataclass(frozen=True)
class Held:
    """A lock that somebody has, or had when they were interrupted.

    :param session: of the one who has it; empty where that session is gone.
    :param alive: whether the session is there. Not so where the holder was interrupted: the lock is free, and
        the value still names them.
    """

    holder: Holder
    session: str
    alive: bool


def refusal(keys: Keys, holder: Holder, wait: float = 0) -> HitlessError:
    """The error for a lock that somebody else has."""
    waited = f", also after {wait:g} s of waiting" if wait else ""
    return HitlessError(
        f"The deployment lock of {keys.service} ({keys.lock}) is held by {holder}{waited}.",
        hint="Wait for that deployment, or set rollout_lock_wait (the lock's option wait) to a number of seconds; the "
        "lock of an interrupted run is free within 30 s.",
        details={"holder": asdict(holder)},
    )


def under_way(keys: Keys, held: Held) -> str:
    """What to know of a plan that is made while somebody has the lock."""
    return (
        f"A rollout of {keys.service} is under way: its lock is held by {held.holder}. This plan is made from the "
        "middle of it, and a rollout would be refused until it has ended."
    )
