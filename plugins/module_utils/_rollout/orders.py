# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An operator gives an order: what means nothing now is refused (a private helper of this collection).

Each key is written by compare-and-set: of two operators at once one wins, and the other is told by what.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.durations import is_duration, seconds_of
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import (
    ABORT,
    FREEZE,
    GOES_ON,
    PAUSE,
    STOP,
    UNFREEZE,
    WORDS,
    Order,
    parse_moment,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PAUSED
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp

ACTIONS = (*WORDS, FREEZE, UNFREEZE)
_STRENGTH = {word: strength for strength, words in enumerate((GOES_ON, (PAUSE,), (STOP,), (ABORT,))) for word in words}
"""A word that a run has not heard yet gives way to a stronger one, never to a weaker."""


@dataclass(frozen=True)
class Given:
    """What became of an order.

    :param changed: whether a key was written, or would be in check mode.
    :param text: for the operator, what follows.
    :param deployment: that the order is for; empty for a freeze.
    """

    changed: bool
    text: str
    deployment: str = ""


def until_of(text: str, now: datetime | None = None) -> str:
    """The end of a freeze as keys hold it: a moment in ISO 8601, or from now on ``90m``, ``72h``.

    :raises HitlessError: it is neither, or over.
    """
    at = now or datetime.now(timezone.utc)
    until = at + timedelta(seconds=seconds_of(text)) if is_duration(text) else parse_moment(text)
    if until is None:
        raise HitlessError(f"until {text!r} is no moment.", hint="Write 2026-12-27T06:00:00Z, or 90m or 72h from now.")
    if until <= at:
        raise HitlessError(f"until {text} is over already: it is {timestamp(at)}.")
    return timestamp(until)


def refusal(word: str, found: store.Deployment | None) -> str:
    """Why a word means nothing to the newest deployment of a service, as a sentence; empty where it means something."""
    paused = found is not None and found.record.state == PAUSED
    if found is None or not (found.is_alive or paused):
        last = f" (the last one, {found.record.id}, is {found.state})" if found else ""
        return f"No rollout is running or paused{last}, so that there is nothing to {word}."
    name, noted = found.record.id, found.control.noted
    if found.stop and not paused:
        return f"{name} is ending already, since {found.stop.rstrip('.')}: there is nothing left to {word}."
    if word == PAUSE and noted.is_waiting:
        return f"{name} is paused already, since {noted.why}."
    pending = found.control.pending
    is_paused = noted.is_waiting or (pending is not None and pending.word == PAUSE)
    if word in GOES_ON and not is_paused:
        return f"{name} is running and not paused, so that there is nothing to {word}."
    if pending and _STRENGTH[pending.word] > _STRENGTH[word] and not (pending.word == PAUSE and is_paused):
        return f"{pending.word} by {pending.told} stands, and is stronger than {word}."
    return ""


def give(client: Client, keys: Keys, order: Order, *, check_mode: bool = False) -> Given:
    """Say a word to the deployment of a service that is running or paused.

    :raises HitlessError: it means nothing there now, or somebody else has said another in the same moment.
    """
    newest = next(iter(store.list_recent(client, keys, 1)), None)
    found = store.read(client, keys, newest.record.id) if newest else None
    why = refusal(order.word, found)
    if why or found is None:
        raise HitlessError(f"{keys.service}: {why}")
    control, name = found.control, found.record.id
    if control.pending and control.pending.word == order.word:
        return Given(False, f"{keys.service}: {order.word} stands already, by {control.pending.told}.", name)
    if not check_mode:
        _write(client, keys.control, order, control.index)
    return Given(
        True, f"{keys.service}: {order.word} is said to {name}. {_follows(order.word, keys.service, found)}", name
    )


def _follows(word: str, service: str, found: store.Deployment) -> str:
    """What an order leads to, for the operator."""
    if found.record.state == PAUSED:
        record = found.record
        again = f"ansible-playbook hitless.consul.{record.kind.playbook} -e rollout_service={service}"
        again += f" -e rollout_version={record.version}" if record.version else ""
        goes = "goes on with it" if word in GOES_ON else "carries that out"
        return f"Its run has ended: the same start as before {goes} ({again})."
    return {
        PAUSE: "No further host begins; those in flight end their turn.",
        STOP: "No further host begins, and nothing is put back; those in flight end their turn.",
        ABORT: "No further host begins, and what it changed is rolled back as rollout_rollback says.",
    }.get(word, "It goes on.")


def freeze(client: Client, key: str, what: str, order: Order, *, check_mode: bool = False) -> Given:
    """Keep rollouts from beginning; a freeze that is there is replaced.

    :param what: is frozen, for a person.
    """
    there = _read(client, key)
    if there and (there.until, there.why) == (order.until, order.why):
        return Given(False, f"{what} is frozen already, by {there.told}.")
    if not check_mode:
        _write(client, key, order, there.index if there else 0)
    until = f" until {order.until}" if order.until else ", until somebody lifts that (unfreeze)"
    return Given(True, f"{what} is frozen{until}: no rollout begins, a running one pauses, a rollback may go on.")


def unfreeze(client: Client, key: str, what: str, *, check_mode: bool = False) -> Given:
    """Delete a freeze; that of all services is another key than that of one."""
    there = _read(client, key)
    if there is None:
        return Given(False, f"{what} is not frozen.")
    if not check_mode and not client.delete(f"/v1/kv/{key}", [("cas", there.index)]).data:
        raise HitlessError(
            f"{key} has changed in the same moment; nothing was deleted.", hint="Look, and say it again."
        )
    return Given(True, f"{what} is no longer frozen (it was, by {there.told}).")


def _read(client: Client, key: str) -> Order | None:
    pair = client.key(key, consistent=True)
    return Order.of_freeze(pair.value, pair.index) if pair else None


def _write(client: Client, key: str, order: Order, index: int) -> None:
    """:param index: of the key as it was read."""
    text = order.to_json()
    if client.set_key(key, text, cas=index):
        return
    pair = client.key(key, consistent=True)
    if pair is not None and pair.value == text:  # the answer to a first request was lost
        return
    other = (Order.of_freeze if order.word == FREEZE else Order.of_control)(pair.value, pair.index) if pair else None
    said = f"{other.word} by {other.told}" if other else "it is empty"
    raise HitlessError(
        f"{key} has changed in the same moment: {said}. Your {order.word} was not written.",
        hint="Say it again if you still mean it.",
    )
