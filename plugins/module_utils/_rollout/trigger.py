# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that is asked for by writing a key, and what became of it in the same key (a private helper).

Whoever writes ``deploy/<service>/request`` may know no more than a version. They are trusted less than who runs the
rollout: nothing but a version and a few harmless options is taken from there. Each change of ours is a compare-and-set,
so that a request is claimed once, and that the answer to an old one never overwrites a new one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import KVPair, json_object
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, ConsulUnavailable, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store as deployments
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import PAUSE, Order
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys, checked_version
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import BY_NAME, PREFIX, UNSET
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    CANCELLED,
    FAILED,
    INTERRUPTED,
    PAUSED,
    RUNNING,
    SUCCESSFUL,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp

REQUESTED, CLAIMED, REFUSED = "requested", "claimed", "refused"
ENDS = (SUCCESSFUL, PAUSED, FAILED, CANCELLED, INTERRUPTED)
STATES = (REQUESTED, CLAIMED, RUNNING, REFUSED, *ENDS)
"""A request without a state is requested; all other states are ours."""

ALLOWED = ("batch_size", "message")
"""Options that a request may set unless it is said otherwise."""
ALLOWABLE = (
    "batch_size",
    "drain_time",
    "failure_budget",
    "healthy_deadline",
    "message",
    "min_healthy",
    "min_healthy_time",
    "skip_current",
    "strict",
    "tags",
    "unreachable",
)
"""Options that may be allowed at all: none that names a command, a file, a URL, a host, or who becomes what."""
LIMIT = 4096
"""Bytes of a request."""
QUOTED = 200
"""Characters of a refused request that stay in its answer."""
REASON_LIMIT = 1000
"""Characters of a reason."""


@dataclass(frozen=True)
class RolloutRequest:
    """A request that can be followed.

    :param options: by name without the prefix, as they were written.
    """

    version: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """The request of a service as it stands; ``state`` is empty where there is none."""

    pair: KVPair | None
    state: str
    data: Mapping[str, Any]


def parse_request(text: str, allowed: Sequence[str] = ALLOWED) -> RolloutRequest:
    """The text of a request: a version, or a JSON object with one and perhaps options.

    :raises HitlessError: one sentence, for whoever wrote it.
    """
    if len(text.encode()) > LIMIT:
        raise HitlessError(f"The request is longer than {LIMIT} bytes.")
    plain = text.strip()
    if not plain.startswith("{"):
        return RolloutRequest(checked_version(plain, "The version"))
    try:
        data = json.loads(plain)
    except (ValueError, RecursionError) as error:
        raise HitlessError(f"The request begins like JSON and is none: {error}.") from None
    data.pop("state", None)
    if "version" not in data:
        raise HitlessError('The request names no version: {"version": "1.4.2"}.')
    version = checked_version(data.pop("version"), "version")
    for name, value in data.items():
        if name not in allowed:
            may = ", ".join(sorted(allowed)) or "none"
            raise HitlessError(f"A request may not set {name[:60]!r}; beside the version it may set: {may}.")
        if value not in UNSET:
            BY_NAME[name].kind.read(value, name)
    return RolloutRequest(version, {name: value for name, value in data.items() if value not in UNSET})


def check_allowed(names: Sequence[str]) -> None:
    """Whether these options may be allowed to a request; raises :class:`HitlessError`."""
    for name in names:
        if name not in ALLOWABLE:
            raise HitlessError(
                f"{name} cannot be allowed to a request, whose writer is trusted less than who runs it.",
                hint=f"Allow some of {', '.join(ALLOWABLE)}.",
            )


def find(client: Client, keys: Keys) -> Found:
    """The request of a service, by a consistent read."""
    pair = client.key(keys.request, consistent=True)
    if pair is None or not pair.value.strip():
        return Found(pair, "", {})
    data = json_object(pair.value) or {}
    state = data.get("state", REQUESTED)
    return Found(pair, state if state in STATES else REQUESTED, data)


def claim(client: Client, keys: Keys, found: Found, wanted: RolloutRequest, by: str, origin: str) -> str | None:
    """Take a request, for one run alone; the id of its claim, None where somebody else was faster."""
    claim_id = secrets.token_hex(8)
    answer = {
        "state": CLAIMED,
        "version": wanted.version,
        **({"options": dict(wanted.options)} if wanted.options else {}),
        "claim": claim_id,
        "by": by,
        "origin": origin,
        "claimed": timestamp(),
    }
    return claim_id if _replace(client, keys, found, answer) else None


def refuse(client: Client, keys: Keys, found: Found, reason: str, by: str, origin: str) -> bool:
    """Answer a request that cannot be followed; false where it is another one by now."""
    text = found.pair.value.strip() if found.pair else ""
    answer = {
        "state": REFUSED,
        "request": text[:QUOTED],
        "reason": reason[:REASON_LIMIT],
        "by": by,
        "origin": origin,
        "finished": timestamp(),
    }
    return _replace(client, keys, found, answer)


def report(client: Client, keys: Keys, claim_id: str, **more: Any) -> bool:
    """Add to a request what has become of it, ``state`` above all; false where it is no longer the one claimed."""
    while True:
        found = find(client, keys)
        if found.data.get("claim") != claim_id:
            return False
        if "reason" in more:
            more["reason"] = str(more["reason"])[:REASON_LIMIT]
        if more.get("state") in (REFUSED, *ENDS):
            more["finished"] = timestamp()
        if _replace(client, keys, found, {**found.data, **more}):
            return True


def settle(client: Client, keys: Keys, found: Found) -> str | None:
    """Write what became of a request whose run was interrupted; its state then, None where it was not.

    A run writes its record before it answers, and releases its lock after that: what says "running" while no living run
    holds the lock has lost its run.
    """
    deployment = str(found.data.get("deployment", ""))
    if found.state != RUNNING or not deployment:
        return None
    there = next(iter(deployments.read_records(client, keys, [deployment])), None)
    if there is not None and there.is_alive:
        return None
    state = INTERRUPTED if there is None else there.state
    reason = "the run was interrupted" if there is None or state == INTERRUPTED else there.record.description
    written = report(client, keys, str(found.data.get("claim", "")), state=state, reason=reason)
    return state if written else None


def recovered(client: Client, keys: Keys, left: Sequence[str]) -> str | None:
    """Note that a recovery was tried after the request's deployment; the request's state, None where it needs none.

    :param left: hosts that are still in maintenance.
    """
    found = find(client, keys)
    state = settle(client, keys, found) or found.state
    if state not in (FAILED, CANCELLED, INTERRUPTED) or "recovered" in found.data:
        return None
    note = {"at": timestamp(), "left": list(left)}
    return state if report(client, keys, str(found.data.get("claim", "")), recovered=note) else None


# -- the steps of a run, and who asks for one ---------------------------------------------------------------------


def post(client: Client, keys: Keys, wanted: RolloutRequest, *, check_mode: bool = False) -> bool:
    """Ask for a rollout, as anybody who may write the key does; false where the same is asked for already.

    :raises HitlessError: a request is there that a run follows, or the key changed in the same moment.
    """
    found = find(client, keys)
    text = json.dumps({"version": wanted.version, **wanted.options})
    if found.state == REQUESTED and found.pair and parse_request(found.pair.value, ALLOWABLE) == wanted:
        return False
    if found.state in (CLAIMED, RUNNING):
        raise HitlessError(
            f"The request in {keys.request} is {found.state}: a run follows it.",
            hint="Ask again when it has ended.",
            details={"state": found.state},
        )
    if not check_mode and not client.set_key(keys.request, text, cas=found.pair.index if found.pair else 0):
        raise HitlessError(f"Somebody else has changed {keys.request} in the same moment.", hint="Ask again.")
    return True


def take(task: Task, keys: Keys, allowed: Sequence[str], by: str, origin: str) -> dict[str, Any]:
    """Claim a request where there is a new one -> ``claimed``, the id of its ``claim``, its ``options``, a ``text``.

    Where a request says that it runs, and its run was interrupted, it is answered instead.

    :raises HitlessError: it cannot be followed, and is answered so.
    """
    check_allowed(allowed)
    client, service = task.consul, keys.service
    found = find(client, keys)
    if found.state == RUNNING and not task.check_mode:
        settled = settle(client, keys, found)
        if settled:
            text = f"{service}: the run that followed its request has ended as {settled}."
            return {"changed": True, "claimed": False, "state": settled, "text": text}
    goes_on = found.state == PAUSED and _is_told(client, keys)
    if found.state != REQUESTED and not goes_on:
        there = f"its request is {found.state} already" if found.state else f"nothing is asked for in {keys.request}"
        return {"changed": False, "claimed": False, "state": found.state, "text": f"{service}: {there}."}
    text = f"{service}: somebody else has claimed the request, or replaced it."
    faster = {"changed": False, "claimed": False, "state": CLAIMED, "text": text}
    try:
        wanted = parse_request(_asked_for(found, goes_on=goes_on), allowed)
    except HitlessError as error:
        if not task.check_mode and not refuse(client, keys, found, str(error), by, origin):
            return faster
        raise HitlessError(
            f"The request in {keys.request} is refused. {error}", details={"claimed": False, "state": REFUSED}
        ) from None
    claim_id: str | None = ""
    if not task.check_mode:
        claim_id = claim(client, keys, found, wanted, by, origin)
        if claim_id is None:
            return faster
    options = {"message": f"asked for in {keys.request}", **wanted.options, "version": wanted.version}
    return {
        "changed": True,
        "claimed": True,
        "claim": claim_id,
        "options": {f"{PREFIX}{name}": value for name, value in options.items()},
        "state": CLAIMED,
        "text": f"{service}: version {wanted.version} is asked for, and claimed.",
    }


def _is_told(client: Client, keys: Keys) -> bool:
    """Whether somebody has said to a paused deployment that it may go on, or ends; the run that follows does that."""
    pair = client.key(keys.control, consistent=True)
    order = Order.of_control(pair.value) if pair else None
    return order is not None and order.word != PAUSE


def _asked_for(found: Found, *, goes_on: bool) -> str:
    """The text of a request; of one whose rollout is paused what was asked for then."""
    if not goes_on:
        return found.pair.value if found.pair else ""
    options = found.data.get("options")
    return json.dumps({**(options if isinstance(options, dict) else {}), "version": found.data.get("version")})


def tell(task: Task, keys: Keys, claim_id: str, state: str, **more: Any) -> None:
    """Answer the request of a run; what cannot be written is told, and never a reason to stop the run."""
    try:
        written = report(task.consul, keys, claim_id, state=state, **more)
    except ConsulError as error:
        task.warn(f"The request in {keys.request} still says less than {state}: {error}")
        return
    replaced = "its request was replaced meanwhile, and stays as it is"
    task.show(f"{keys.service}: its request is {state}." if written else f"{keys.service}: {replaced}.")


def _replace(client: Client, keys: Keys, found: Found, answer: Mapping[str, Any]) -> bool:
    text = json.dumps(answer)
    try:
        return client.set_key(keys.request, text, cas=found.pair.index if found.pair else 0)
    except ConsulUnavailable:
        # It may have been written. What stands there tells, and the words in it are of this call alone.
        pair = client.key(keys.request, consistent=True)
        if pair is not None and pair.value == text:
            return True
        if pair is not None and found.pair is not None and pair.index == found.pair.index:
            return client.set_key(keys.request, text, cas=pair.index)
        return False
