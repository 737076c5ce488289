# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a deployment is, in small keys (a private helper of this collection).

In a window any number of workers read them at once. Where it matters which of them is first, ``progress`` itself is
written by compare-and-set in the transaction that begins a host's turn. A host in flight has a key of its own, so that
the end of a turn, which frees a place, is in nobody's way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    json_object,
    kv_delete,
    kv_read,
    kv_set,
    kv_set_if,
    kv_text,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout import control
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
    """What the keys hold.

    :param batch: the last batch that was begun, 0 for none; its hosts are let go right after. In a window it stays 0.
    :param stop: why no further host begins; empty where nothing has stopped the deployment.
    :param at: when that was written.
    :param registered: instances of the service when all were counted last; ``counted``: when that was, seconds since
        1970; ``in_waves``: those of each wave then.
    :param failing: nodes with a critical check of their own then -> instances there; None where that was not read.
    :param checks_tell: whether what is critical tells what gets no traffic until the next count.
    :param counting: when a worker has begun the next count, seconds since 1970; 0 where none has.
    :param turns: begun by compare-and-set: Consul takes a value that is the same for no change.
    :param index: of the key as it was read, 0 where there is none.
    :param in_flight: node -> instances that its turn takes out of rotation, for each host whose turn has begun and not
        ended.
    :param spent: the hosts that spent the failure budget, each with its outcome.
    :param ended_at: when a host has ended last; empty before.
    :param control: what operators want, as of the same moment.
    """

    batch: int = 0
    stop: str = ""
    at: str = ""
    registered: int = 0
    counted: float = 0.0
    in_waves: Mapping[str, int] = field(default_factory=dict)
    failing: Mapping[str, int] | None = None
    checks_tell: bool = False
    counting: float = 0.0
    turns: int = 0
    index: int = 0
    in_flight: Mapping[str, int] = field(default_factory=dict)
    spent: Sequence[str] = ()
    ended_at: str = ""
    control: control.Control = field(default_factory=control.Control)

    @classmethod
    def of(cls, keys: Keys, deployment: str, values: Mapping[str, Mapping[str, Any]]) -> Progress:
        """As keys that were read together say it; as at the beginning where they cannot be read.

        :param values: key -> item of the answer.
        """
        item = values.get(keys.progress(deployment))
        data = (json_object(kv_text(item)) if item else None) or {}
        batch, registered = data.get("batch"), data.get("registered")
        counted, counting = data.get("counted"), data.get("counting")
        flying, spent = keys.in_flight(deployment), keys.spent(deployment)
        return cls(
            batch=batch if isinstance(batch, int) else 0,
            stop=str(data.get("stop") or ""),
            at=str(data.get("at") or ""),
            registered=registered if isinstance(registered, int) else 0,
            counted=float(counted) if isinstance(counted, int | float) else 0.0,
            in_waves=waves if isinstance(waves := data.get("waves"), dict) else {},
            failing=failing if isinstance(failing := data.get("failing"), dict) else None,
            checks_tell=data.get("checks_tell") is True,
            counting=float(counting) if isinstance(counting, int | float) else 0.0,
            turns=turns if isinstance(turns := data.get("turns"), int) else 0,
            index=item["ModifyIndex"] if item else 0,
            in_flight={
                key.removeprefix(flying): int(text) if (text := kv_text(one)).isdecimal() else 1
                for key, one in values.items()
                if key.startswith(flying)
            },
            spent=[kv_text(values[key]) for key in sorted(values) if key.startswith(spent)],
            ended_at=kv_text(values[ended]) if (ended := keys.ended(deployment)) in values else "",
            control=control.Control.of(keys, deployment, values),
        )

    @property
    def latest(self) -> str:
        """When it was last seen to go on, as keys hold it: a host has ended, or a run has begun or gone on."""
        return max(self.ended_at, self.at)

    def op(self, keys: Keys, deployment: str) -> dict[str, Any]:
        """The transaction operation that writes it, whatever is there: in batches, which begin one after the other.

        It tells a host that was lost in its turn from one that never got it, where the host left no trace of its own.
        """
        return kv_set(keys.progress(deployment), self._as_json())

    def op_if_unchanged(self, keys: Keys, deployment: str) -> dict[str, Any]:
        """The transaction operation that writes it while the key is as it was read."""
        return kv_set_if(keys.progress(deployment), self._as_json(), self.index)

    def one_more(self) -> Progress:
        """A further turn has begun."""
        return replace(self, turns=self.turns + 1)

    def counted_now(
        self,
        registered: int,
        in_waves: Mapping[str, int] | None = None,
        failing: Mapping[str, int] | None = None,
        *,
        checks_tell: bool = False,
    ) -> Progress:
        return replace(
            self,
            registered=registered,
            counted=time.time(),
            in_waves=dict(in_waves or {}),
            failing=failing,
            checks_tell=checks_tell,
            counting=0.0,
        )

    def _as_json(self) -> str:
        data: dict[str, Any] = {"batch": self.batch, "at": self.at or timestamp(), "stop": self.stop[:STOP_LIMIT]}
        if self.registered:
            data |= {"registered": self.registered, "counted": round(self.counted, 1), "turns": self.turns}
        if self.in_waves:
            data["waves"] = dict(self.in_waves)
        if self.failing is not None:
            data |= {"failing": dict(self.failing), "checks_tell": self.checks_tell}
        if self.counting:
            data["counting"] = round(self.counting, 1)
        return json.dumps(data, separators=(",", ":"))


def begun_op(keys: Keys, deployment: str, node: str, takes: int) -> dict[str, Any]:
    """The transaction operation that says that a host is in flight.

    :param takes: instances that it takes out of rotation.
    """
    return kv_set(keys.in_flight(deployment, node), str(takes))


def ended_ops(keys: Keys, deployment: str, outcome: Outcome) -> list[dict[str, Any]]:
    """The transaction operations that say that its turn has ended."""
    operations = [
        kv_delete(keys.in_flight(deployment, outcome.node)),
        kv_set(keys.ended(deployment), outcome.finished or timestamp()),
    ]
    if STATES[outcome.outcome].spends_budget:
        operations.append(kv_set(keys.spent(deployment, outcome.node), outcome.told))
    return operations


def reads(keys: Keys, deployment: str) -> list[dict[str, Any]]:
    """The transaction operations that read it."""
    wanted = (keys.progress, keys.in_flight, keys.spent, keys.ended)
    return [*(kv_read(key(deployment)) for key in wanted), *control.reads(keys, deployment)]


def read_progress(client: Client, keys: Keys, deployment: str) -> Progress:
    """In one request, which does not grow with the fleet."""
    values = {item["Key"]: item for item in client.txn(reads(keys, deployment))}
    return Progress.of(keys, deployment, values)


def change_progress(
    client: Client, keys: Keys, deployment: str, change: Callable[[Progress], Progress], fence: dict[str, Any]
) -> Progress:
    """Change ``progress``, and what is noted of control, whoever else writes them meanwhile -> as they are then.

    :raises LockLost: the lock is no longer ours.
    """
    found = read_progress(client, keys, deployment)
    while True:
        wanted = change(found)
        operations = _changes(keys, deployment, found, wanted)
        try:
            if operations:
                client.txn([fence, *operations])
        except LockLost:
            raise
        except ConsulError as error:
            if error.status != CONFLICT:
                raise
            before, found = found, read_progress(client, keys, deployment)
            if (found.index, found.control) == (before.index, before.control):
                raise
        else:
            return wanted


def _changes(keys: Keys, deployment: str, found: Progress, wanted: Progress) -> list[dict[str, Any]]:
    operations = []
    if replace(wanted, control=found.control) != found:
        operations.append(wanted.op_if_unchanged(keys, deployment))
    if wanted.control.noted != found.control.noted:
        operations.append(wanted.control.noted.op_if_unchanged(keys, deployment))
    return operations


def note_control(
    progress: Progress, change: Callable[[control.Controlled], control.Controlled], **more: Any
) -> Progress:
    """The progress with what is noted of control changed, for :func:`change_progress`.

    :param more: fields of the progress that change with it.
    """
    noted = replace(progress.control, noted=change(progress.control.noted))
    return replace(progress, control=noted, **more)
