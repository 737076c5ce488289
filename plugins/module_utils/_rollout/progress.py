# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a deployment is: one small key (a private helper of this collection).

Where hosts take their turns in a window, it is written by compare-and-set in the transaction of what it counts, so that
any number of workers agree on which hosts are out of rotation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import KVPair, json_object, kv_set, kv_set_if
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import STATES
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp

STOP_LIMIT = 2000
"""Characters kept of why a deployment stops: it may name each host of a large batch, and stands in the record too."""
CONFLICT = 409
"""Status of a transaction that Consul refused: another worker has written the key meanwhile."""


@dataclass(frozen=True)
class Progress:
    """What the key holds.

    :param batch: the last batch that was begun, 0 for none; its hosts are let go right after. In a window it stays 0.
    :param stop: why no further host begins; empty where nothing has stopped the deployment.
    :param at: when it was written; in a window, when the last host ended.
    :param in_flight: node -> instances that its turn takes out of rotation, for each host whose turn has begun and not
        ended.
    :param ended: hosts whose turn has ended; ``spent``: those that spent the failure budget, with their outcome.
    :param registered: instances of the service when all were counted last; ``counted``: when that was, seconds since
        1970.
    :param index: of the key as it was read, 0 where there is none.
    """

    batch: int = 0
    stop: str = ""
    at: str = ""
    in_flight: Mapping[str, int] = field(default_factory=dict)
    ended: int = 0
    spent: Sequence[str] = ()
    registered: int = 0
    counted: float = 0.0
    index: int = 0

    @classmethod
    def of(cls, pair: KVPair | None) -> Progress:
        """What the key says; as at the beginning where it cannot be read."""
        data = json_object(pair.value) if pair else None
        if pair is None or data is None:
            return cls(index=pair.index if pair else 0)
        return cls(
            batch=int(data.get("batch") or 0),
            stop=str(data.get("stop") or ""),
            at=str(data.get("at") or ""),
            in_flight={str(node): int(count) for node, count in (data.get("in_flight") or {}).items()},
            ended=int(data.get("ended") or 0),
            spent=tuple(str(one) for one in data.get("spent") or ()),
            registered=int(data.get("registered") or 0),
            counted=float(data.get("counted") or 0),
            index=pair.index,
        )

    def as_json(self) -> str:
        data: dict[str, Any] = {"batch": self.batch, "stop": self.stop[:STOP_LIMIT], "at": self.at or timestamp()}
        if self.ended or self.in_flight:
            more = {"in_flight": dict(self.in_flight), "ended": self.ended, "spent": list(self.spent)}
            data |= {**more, "registered": self.registered, "counted": round(self.counted, 1)}
        return json.dumps(data, separators=(",", ":"))

    def op(self, keys: Keys, deployment: str) -> dict[str, Any]:
        """The transaction operation that writes it, whatever is there: in batches, which begin one after the other.

        It tells a host that was lost in its turn from one that never got it, where the host left no trace of its own.
        """
        return kv_set(keys.progress(deployment), self.as_json())

    def op_if_unchanged(self, keys: Keys, deployment: str) -> dict[str, Any]:
        """The transaction operation that writes it while the key is as it was read."""
        return kv_set_if(keys.progress(deployment), self.as_json(), self.index)

    # -- in a window ----------------------------------------------------------------------------------------------

    def begun(self, node: str, takes: int) -> Progress:
        """A host's turn has begun.

        :param takes: instances that it takes out of rotation.
        """
        return replace(self, in_flight={**self.in_flight, node: takes})

    def has_ended(self, node: str, outcome: Outcome, *, begun: bool) -> Progress:
        """A host's turn has ended; unchanged where that is counted already.

        :param begun: whether the turn had begun.
        """
        if begun and node not in self.in_flight:
            return self
        spent = [*self.spent, told(outcome)] if STATES[outcome.outcome].spends_budget else self.spent
        left = {one: takes for one, takes in self.in_flight.items() if one != node}
        return replace(self, in_flight=left, ended=self.ended + 1, spent=spent, at=timestamp())

    def counted_now(self, registered: int) -> Progress:
        return replace(self, registered=registered, counted=time.time())


def told(outcome: Outcome) -> str:
    """A host that spent the failure budget, for a sentence."""
    return f"{outcome.host} {outcome.outcome.replace('_', ' ')}"


def read_progress(client: Client, keys: Keys, deployment: str) -> Progress:
    return Progress.of(client.key(keys.progress(deployment), consistent=True))


def change_progress(
    client: Client,
    keys: Keys,
    deployment: str,
    change: Callable[[Progress], Progress],
    fence: dict[str, Any],
    operations: Sequence[dict[str, Any]],
    known: Progress | None = None,
) -> None:
    """Change it in one transaction with ``operations``, whoever else changes it meanwhile.

    :param known: as it was read last, to spare a read where nobody has changed it since.
    :raises LockLost: the lock is no longer ours.
    """
    found = known or read_progress(client, keys, deployment)
    while True:
        try:
            client.txn([fence, change(found).op_if_unchanged(keys, deployment), *operations])
        except LockLost:
            raise
        except ConsulError as error:
            if error.status != CONFLICT:
                raise
            before, found = found, read_progress(client, keys, deployment)
            if found.index == before.index:
                raise
        else:
            return
