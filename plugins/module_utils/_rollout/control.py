# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator wants of a rollout, and what a deployment makes of it (a private helper of this collection). Pure.

An operator says one word in ``deploy/<service>/control``, or freezes one service or all; each gate reads these keys
with the progress. orders.py writes them, and so may anybody: a plain word is as good as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    json_object,
    kv_read,
    kv_set,
    kv_set_if,
    kv_text,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.findings import Finding, findings_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp

PAUSE, RESUME, PROMOTE, STOP, ABORT = "pause", "resume", "promote", "stop", "abort"
WORDS = (PAUSE, RESUME, PROMOTE, STOP, ABORT)
GOES_ON = (RESUME, PROMOTE)
"""Words that end a pause, whatever it is for."""
FREEZE, UNFREEZE = "freeze", "unfreeze"

STAGE, CLOSED, ALIKE = "stage", "closed", "alike"
"""Why a deployment halts, beside the words: a stage has ended and is to be promoted (rollout_pause_after); outside of
rollout_windows; old and new instances fail alike."""
PAUSING = (PAUSE, STAGE, FREEZE, CLOSED, ALIKE)
"""Kinds of a halt that leave the deployment paused; it goes on later."""
FAILURE = "failure"
"""Another kind: a watcher has found that the new version is bad, see findings.py."""
UNDONE = (ABORT, FAILURE)
"""Kinds of a halt after which what was changed goes back, as rollout_rollback says."""

USES = 50
"""Uses of control that a deployment keeps, the last ones."""
_QUOTED = 60
"""Characters shown of what is no word."""


@dataclass(frozen=True)
class Order:
    """One use of control.

    :param word: one of :data:`WORDS`, or freeze.
    :param by: who; ``origin``: from where. Empty where it was written by hand.
    :param at: when, as keys hold it.
    :param until: the end of a freeze, as keys hold it; empty for none.
    :param index: of its key (ModifyIndex), which tells it from the same word at another time.
    """

    word: str
    by: str = ""
    why: str = ""
    at: str = ""
    origin: str = ""
    until: str = ""
    index: int = 0

    @classmethod
    def of_control(cls, text: str, index: int = 0) -> Order | None:
        """What the key ``control`` holds; None for nothing. What is no word pauses: somebody means to intervene."""
        if not text.strip():
            return None
        data = json_object(text)
        word = str(data.get("word") if data else text).strip().lower()
        if word in WORDS:
            return cls(word, index=index, **_texts(data or {}))
        return cls(
            PAUSE, why=f"the key holds {text.strip()[:_QUOTED]!r}, which is none of {', '.join(WORDS)}", index=index
        )

    @classmethod
    def of_freeze(cls, text: str, index: int = 0) -> Order:
        """What a key ``freeze`` holds: that there is one is enough, and text that is no JSON is the reason."""
        data = json_object(text)
        return cls(FREEZE, index=index, **_texts({"why": text.strip()} if data is None else data))

    @property
    def who(self) -> str:
        return self.by or "somebody (by hand)"

    @property
    def told(self) -> str:
        """``anna@ci at 2026-11-23T14:22:33Z: ticket 17``."""
        return self.who + (f" at {self.at}" if self.at else "") + (f": {self.why}" if self.why else "")

    def is_over(self, now: datetime) -> bool:
        """Whether a freeze has reached its end; one whose end cannot be read has none."""
        until = parse_moment(self.until)
        return until is not None and now >= until

    def to_json(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value and name != "index"})


def _texts(data: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(data.get(name) or "") for name in ("by", "why", "at", "origin", "until")}


def parse_moment(text: str) -> datetime | None:
    """A moment in ISO 8601, in UTC where it names no zone; None for anything else."""
    try:
        # Python 3.10 does not know the Z.
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Controlled:
    """What a deployment has made of control, in a key of its own below it.

    :param kind: why no further host begins: one of :data:`PAUSING`, stop, abort or failure; empty where none
        of them does.
    :param why: the same in words.
    :param used: index of the last order that was carried out and holds no longer; those up to it mean nothing here.
    :param promoted: the last stage after which it may go on.
    :param uses: each order that it has heard, as :meth:`Order` holds it, the oldest first.
    :param index: of the key as it was read, 0 where there is none.
    """

    kind: str = ""
    why: str = ""
    used: int = 0
    promoted: int = 0
    uses: tuple[Mapping[str, Any], ...] = ()
    index: int = 0

    @classmethod
    def parse(cls, text: str, index: int) -> Controlled:
        data = json_object(text) or {}
        uses = data.get("uses")
        numbers = {name: data[name] if isinstance(data.get(name), int) else 0 for name in ("used", "promoted")}
        return cls(
            kind=str(data.get("kind") or ""),
            why=str(data.get("why") or ""),
            uses=tuple(one for one in uses if isinstance(one, Mapping)) if isinstance(uses, list) else (),
            index=index,
            **numbers,
        )

    @property
    def is_waiting(self) -> bool:
        """Whether it is paused, be it that its run waits or that it has ended."""
        return self.kind in PAUSING

    def heard(self, order: Order | None) -> Controlled:
        """With a further use, unless it is noted already."""
        if order is None or (order.word in WORDS and 0 < order.index <= self.used):
            return self
        if order.index and any((one.get("word"), one.get("index")) == (order.word, order.index) for one in self.uses):
            return self
        noted = {**asdict(order), "at": order.at or timestamp()}
        return replace(self, uses=(*self.uses, {name: value for name, value in noted.items() if value})[-USES:])

    def halted(self, kind: str, why: str) -> Controlled:
        return replace(self, kind=kind, why=why)

    def going_on(self, order: Order | None = None, *, promoted: int = 0) -> Controlled:
        """Nothing holds it any more.

        :param order: by which it goes on, which is carried out with that.
        :param promoted: the stage that is promoted.
        """
        noted = self.heard(order)
        used = max(self.used, order.index if order else 0)
        return replace(noted, kind="", why="", used=used, promoted=max(self.promoted, promoted))

    def op(self, keys: Keys, deployment: str) -> dict[str, Any]:
        """The transaction operation that writes it, whatever is there."""
        return kv_set(keys.controlled(deployment), self._as_json())

    def op_if_unchanged(self, keys: Keys, deployment: str) -> dict[str, Any]:
        """The transaction operation that writes it while the key is as it was read."""
        return kv_set_if(keys.controlled(deployment), self._as_json(), self.index)

    def _as_json(self) -> str:
        data = {name: value for name, value in asdict(self).items() if value and name != "index"}
        return json.dumps(data, separators=(",", ":"))


@dataclass(frozen=True)
class Control:
    """The keys of control as they stand at one moment.

    :param order: in the key of the service; None where there is none.
    :param freezes: of the service and of all, those that are over too.
    :param findings: of the deployment's watchers.
    :param noted: what a deployment has made of it.
    :param index: of the key of the service, for compare-and-set; 0 where there is none.
    """

    order: Order | None = None
    freezes: tuple[Order, ...] = ()
    noted: Controlled = Controlled()
    index: int = 0
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, keys: Keys, deployment: str, values: Mapping[str, Mapping[str, Any]]) -> Control:
        """As keys that were read together say it.

        :param deployment: empty where none is asked for.
        :param values: key -> item of the answer.
        """
        told, noted = values.get(keys.control), values.get(keys.controlled(deployment)) if deployment else None
        frozen = [values[key] for key in (keys.freeze_all, keys.freeze) if key in values]
        return cls(
            Order.of_control(kv_text(told), told["ModifyIndex"]) if told else None,
            tuple(Order.of_freeze(kv_text(one), one["ModifyIndex"]) for one in frozen),
            Controlled.parse(kv_text(noted), noted["ModifyIndex"]) if noted else Controlled(),
            told["ModifyIndex"] if told else 0,
            findings_of(keys, deployment, values) if deployment else (),
        )

    @property
    def pending(self) -> Order | None:
        """The order that still means something to the deployment."""
        return self.order if self.order and self.order.index > self.noted.used else None

    def freeze(self, now: datetime) -> Order | None:
        """The freeze that holds, of several the one that holds longest."""
        holds = [one for one in self.freezes if not one.is_over(now)]
        return max(
            holds, key=lambda one: (parse_moment(one.until) is None, parse_moment(one.until) or now), default=None
        )

    def halt(self, direction: str, closed: str, now: datetime | None = None) -> Halt | None:
        """Why no further host begins now; None where one may.

        :param direction: of the deployment; a rollback may begin and go on whatever is frozen or closed.
        :param closed: why, outside of rollout_windows.
        """
        order = self.pending
        found = next(iter(self.findings), None) if direction != "rollback" else None
        if found and found.is_failure and not (order and order.word in (STOP, ABORT)):
            return Halt(FAILURE, found.why)
        if order and order.word not in GOES_ON:
            return Halt(order.word, f"{order.who} {_DID[order.word]} it{f': {order.why}' if order.why else ''}", order)
        if direction == "rollback":
            return None
        if found:
            return Halt(PAUSE, found.why)
        frozen = self.freeze(now or datetime.now(timezone.utc))
        if frozen:
            return Halt(FREEZE, frozen_told(frozen), frozen)
        return Halt(CLOSED, closed) if closed else None


_DID = {PAUSE: "paused", STOP: "stopped", ABORT: "aborted"}


@dataclass(frozen=True)
class Halt:
    """Why no further host begins.

    :param kind: pause, stop, abort, failure, stage, freeze, closed or alike.
    :param order: who said so; None where nobody did.
    """

    kind: str
    why: str
    order: Order | None = None

    @property
    def pauses(self) -> bool:
        return self.kind in PAUSING

    @property
    def is_found(self) -> bool:
        """Whether a watcher says so, and no person: a failure, or a doubt."""
        return self.order is None and self.kind in (FAILURE, PAUSE)


def frozen_told(freeze: Order) -> str:
    """``rollouts are frozen until 2026-12-27T06:00:00Z by anna@ci: holidays``."""
    until = f" until {freeze.until}" if freeze.until else ""
    return f"rollouts are frozen{until} by {freeze.who}" + (f": {freeze.why}" if freeze.why else "")


def reads(keys: Keys, deployment: str = "") -> list[dict[str, Any]]:
    """The transaction operations that read it.

    :param deployment: whose notes of it are read too; empty for none.
    """
    wanted = [keys.control, keys.freeze, keys.freeze_all]
    own = [keys.controlled(deployment), keys.findings(deployment)] if deployment else []
    return [kv_read(key) for key in [*wanted, *own]]
