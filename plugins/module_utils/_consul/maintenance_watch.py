# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a host in maintenance while it drains, is deployed and verified (a private helper of this collection).

An application that registers itself drops its maintenance, and a person may end it. It is put back within milliseconds,
and whoever waits for the end of the drain learns that the host got traffic meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import AskAgain, Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import NODE_MAINTENANCE, SERVICE_MAINTENANCE
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import SHOWN_WITHIN, Target, send
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError, LockLost

LOOK_EVERY = 10.0
"""Seconds of one blocking read: an instance without any check shows no change of its node's checks."""
RESEND_AFTER = 0.5
"""Seconds after which it is sent again, while the catalog does not show it."""
_FOR_EVER = float("inf")


def put_back(name: str, ended: str) -> str:
    """A maintenance that ended too early, as a sentence, see :meth:`MaintenanceWatch.note`."""
    return (
        f"{name}: its maintenance {ended}, and was put back: it may have got requests meanwhile. The log of its "
        "Consul agent says who ended it."
    )


class MaintenanceWatch:
    """A thread beside the steps of one host; ``with`` bounds it.

    It costs one blocking read for as long as nothing happens on the node. It follows the checks of the node, so that
    nothing which happens elsewhere wakes it. At the end of ``with`` nothing is sent any more, though a read may still
    be under way.

    :param cluster: asks the cluster, from the thread that holds the ``with``.
    :param agent: asks the host's own agent, which nobody else does meanwhile.
    :param targets: all that is in maintenance; ``reason`` is that of the deployment.
    :param fence: the operations that hold while the lock of the deployment is ours: after that, another run may have
        returned the host to rotation. Empty without a lock.
    :param since: index of an answer that showed all of it in maintenance; 0 where none is known.
    """

    def __init__(
        self,
        cluster: Client,
        agent: Client,
        targets: Sequence[Target],
        reason: str,
        fence: Sequence[dict[str, Any]] = (),
        *,
        since: int = 0,
    ) -> None:
        self._cluster = cluster
        self._agent = agent
        self._targets = targets
        self._reason = reason
        self._fence = fence
        self._first = Answer(None, since, 200) if since else None
        self._own = cluster.retrying(0.0)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._looked_at = time.monotonic()
        self._dropped_at: float | None = None
        self._back_at: float | None = None
        self._told_at = 0.0
        self._lost: LockLost | None = None

    def __enter__(self) -> MaintenanceWatch:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._ended.set()

    @property
    def dropped(self) -> bool:
        """Whether the maintenance has ended meanwhile, as far as Consul has told by now."""
        return self._dropped_at is not None

    def note(self, name: str, ended: str) -> list[str]:
        """What a person should know where it has: a sentence; nothing where it was out ever since the last note.

        :param name: of the host; ``ended``: how it ended, ``ended while ... ran`` for instance.
        """
        told, self._told_at = self._told_at, time.monotonic()
        return [put_back(name, ended)] if self._dropped_at is not None and self._dropped_at > told else []

    def back_since(self) -> float | None:
        """Returns once the host is out of rotation: since when, on the monotonic clock.

        None where it has been out all the time, as far as Consul has told by now.

        :raises HitlessError: the catalog does not show it in time.
        :raises LockLost: it was to be put back, and the lock is no longer ours.
        """
        until = time.monotonic() + SHOWN_WITHIN
        while True:
            if self._lost:
                raise self._lost
            if self._dropped_at is None or self._back_at is not None:
                return self._back_at
            if time.monotonic() >= until:
                names = " and ".join(target.name for target in self._targets)
                raise HitlessError(
                    f"Something ends the maintenance of {names} again and again: it was not in maintenance for "
                    f"{SHOWN_WITHIN:g} s, although it was put back each time.",
                    hint="Find out who sends the request to its Consul agent; its log has it.",
                )
            time.sleep(0.1)
            self._look(self._cluster)

    def _run(self) -> None:
        path, params = Target(self._targets[0].node).query()
        while not self._ended.is_set():
            first, self._first = self._first, None
            try:
                self._own.watch(path, params, self._decide, _FOR_EVER, every=LOOK_EVERY, first=first)
            except LockLost as error:
                self._lost = error
                return
            except HitlessError:
                # No answer, or the host is away: a maintenance that nobody can end either.
                self._ended.wait(RESEND_AFTER)

    def _decide(self, checks: Any) -> bool | None:
        """What follows from the checks of the node; None for the answer that the watch begins with."""
        if self._ended.is_set():
            return True
        is_time = time.monotonic() - self._looked_at >= LOOK_EVERY
        if checks is None or (not is_time and self._dropped_at is None and self._is_out(checks)):
            raise AskAgain(LOOK_EVERY)
        raise AskAgain(LOOK_EVERY if self._look(self._own) else RESEND_AFTER)

    def _is_out(self, checks: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the checks of the node alone show all of it in maintenance.

        What they cannot tell, an instance without a check of its own for example, takes a look.
        """
        there = {check["CheckID"] for check in checks}
        for target in self._targets:
            if target.node_wide:
                wanted = {NODE_MAINTENANCE}
            else:
                ids = {check.get("ServiceID") for check in checks if check.get("ServiceName") == target.service}
                wanted = {f"{SERVICE_MAINTENANCE}{one}" for one in ids} or {""}
            if not wanted <= there:
                return False
        return True

    def _look(self, client: Client) -> bool:
        """Put back what was dropped -> whether all is in maintenance."""
        began = self._looked_at = time.monotonic()
        dropped = [
            (target, name)
            for target in self._targets
            for name, reason in target.reasons(target.look(client)).items()
            if reason is None
        ]
        with self._lock:
            if not dropped:
                if self._dropped_at is None or began < self._dropped_at:
                    return self._dropped_at is None  # what was read is older than what the other thread saw
                self._back_at = self._back_at or time.monotonic()
                return True
            self._dropped_at, self._back_at = time.monotonic(), None
            if self._ended.is_set():
                return False
            if self._fence:
                client.txn(self._fence)
            for target, name in dropped:
                send(self._agent, target, name, self._reason)
        return False
