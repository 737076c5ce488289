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
from collections.abc import Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import AskAgain, Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import SHOWN_WITHIN, Target, send
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError, LockLost

LOOK_EVERY = 10.0
"""Seconds of one blocking read: an instance without any check shows no change of its node's checks."""
RESEND_AFTER = 0.5
"""Seconds after which it is sent again, while the catalog does not show it."""
_FOR_EVER = float("inf")


class MaintenanceWatch:
    """A thread beside the steps of one host; ``with`` bounds it.

    It follows the checks of the node, so that nothing which happens elsewhere wakes it. At the end of ``with`` nothing
    is sent any more, though a read may still be under way.

    :param cluster: asks the cluster, from the thread that holds the ``with``.
    :param agent: asks the host's own agent, which nobody else does meanwhile.
    :param targets: all that is in maintenance; ``reason`` is that of the deployment.
    :param fence: the operations that hold while the lock of the deployment is ours: after that, another run may have
        returned the host to rotation. Empty without a lock.
    :raises LockLost: from the beginning of ``with``, where something is to be put back and the lock is lost.
    """

    def __init__(
        self,
        cluster: Client,
        agent: Client,
        targets: Sequence[Target],
        reason: str,
        fence: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._cluster = cluster
        self._agent = agent
        self._targets = targets
        self._reason = reason
        self._fence = fence
        # Made here: the library takes Consul's variables out of the environment meanwhile, which the thread must not.
        self._own = Client(cluster.connection, retry_for=0)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._dropped_at: float | None = None
        self._back_at: float | None = None

    def __enter__(self) -> MaintenanceWatch:
        try:
            self._look(self._own)
        except LockLost:
            raise
        except HitlessError:
            pass  # no answer now: the thread goes on trying
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._ended.set()

    def back_since(self) -> float | None:
        """Looks anew, and returns once the host is out of rotation: since when, on the monotonic clock.

        None where it has been out all the time.

        :raises HitlessError: the catalog does not show it in time.
        """
        until = time.monotonic() + SHOWN_WITHIN
        while not self._look(self._cluster):
            if time.monotonic() >= until:
                names = " and ".join(target.name for target in self._targets)
                raise HitlessError(
                    f"Something ends the maintenance of {names} again and again: it was not in maintenance for "
                    f"{SHOWN_WITHIN:g} s, although it was put back each time.",
                    hint="Find out who sends the request to its Consul agent; its log has it.",
                )
            time.sleep(0.1)
        return self._back_at

    def _run(self) -> None:
        node = Target(self._targets[0].node)
        path, params = node.query()
        while not self._ended.is_set():
            try:
                self._own.watch(path, params, self._decide, _FOR_EVER, every=LOOK_EVERY)
            except LockLost:
                return  # the next step finds that out itself
            except HitlessError:
                # No answer, or the host is away: a maintenance that nobody can end either.
                self._ended.wait(RESEND_AFTER)

    def _decide(self, _checks: Any) -> bool | None:
        if self._ended.is_set():
            return True
        raise AskAgain(LOOK_EVERY if self._look(self._own) else RESEND_AFTER)

    def _look(self, client: Client) -> bool:
        """Put back what was dropped -> whether all is in maintenance."""
        began = time.monotonic()
        dropped = [
            (target, name)
            for target in self._targets
            for name, reason in target.reasons(target.read(client).data).items()
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
