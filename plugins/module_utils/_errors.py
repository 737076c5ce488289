# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the domain (a private helper of this collection).

Each says what was asked, what came back, and what to do next; only the edges (actions, modules, the inventory)
turn them into Ansible failures.
"""

from __future__ import annotations

import traceback


class HitlessError(Exception):
    """Anything this collection refuses or cannot do, as one sentence a person can act on.

    :param message: what is wrong and where.
    :param hint: what to do about it; appended to the sentence.
    :param details: plain data for the task's result (failing checks, holder of a lock, ...).
    """

    def __init__(self, message: str, *, hint: str = "", details: dict[str, object] | None = None) -> None:
        super().__init__(f"{message} {hint}".rstrip() if hint else message)
        self.details = details or {}


class ConsulError(HitlessError):
    """Consul answered, and said no.

    :param asked: the request, as ``PUT /v1/kv/...`` (never a token).
    :param status: the HTTP status, 0 where there was no answer.
    """

    def __init__(self, message: str, *, asked: str = "", status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.asked = asked
        self.status = status


class ConsulUnavailable(ConsulError):
    """No usable answer came, within the time for retries: nobody listens, no leader, a timeout."""


class LockLost(ConsulError):
    """The lock of this deployment is no longer ours: nothing further may be changed."""


class HostLost(HitlessError):
    """The managed host cannot be reached over its Ansible connection."""


class DeadlineExceeded(HitlessError):
    """What was waited for did not happen in time; ``details`` holds what was seen last."""


def failed_result(error: Exception, what: str = "The task") -> dict[str, object]:
    """A failed task's result: ``msg``, and what else is known.

    :param what: where a fault of this collection stopped it.
    """
    if isinstance(error, LockLost):
        return {"failed": True, "lock_lost": True, "msg": str(error), **error.details}
    if isinstance(error, HostLost):
        # A failure, not "unreachable": rescue runs for the one and never for the other.
        return {"failed": True, "lost": True, "msg": str(error), **error.details}
    if isinstance(error, HitlessError):
        return {"failed": True, "msg": str(error), **error.details}
    # Its text alone ("0") would tell a person nothing.
    fault = f"{type(error).__name__}: {error}"
    msg = f"A fault of {what} itself stopped it ({fault}). Please report it, with what -vvv shows."
    return {"failed": True, "msg": msg, "exception": "".join(traceback.format_exception(error))}
