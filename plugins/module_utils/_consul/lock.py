# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a service's deployments (a private helper of this collection).

A Consul session with a TTL holds the key ``deploy/<service>/lock``, whose value says who that is. A small program of
its own, ``keeper.py``, renews the session. Facts about Consul that this rests on, each measured:

* A session follows its node's serfHealth unless it is created with an empty list of node checks.
* A lock that is lost, also by destroying its session, cannot be acquired for the session's LockDelay (15 s unless set).
* ``acquire`` answers false when held, and "invalid session" with 500 when the session is gone: final for that session.
* A session expires between one and two TTLs after its last renewal; its lock is free then, and the value stays.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Held, Holder, refusal
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import TTL, Controller, start_keeper
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    KVPair,
    kv_check_session,
    kv_delete,
    kv_set,
    kv_text,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    ConsulUnavailable,
    DeadlineExceeded,
    HitlessError,
    LockLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys

_JUST_RELEASED = 1.0
"""Seconds in which a lock that was released between two requests is tried again without a wait."""
_ATTEMPTS = 5
"""Sessions tried where one after the other is gone before it could take the lock."""


def take(
    client: Client,
    keys: Keys,
    holder: Holder,
    controller: Controller,
    *,
    wait: float,
    progress_deadline: float,
    ttl: int = TTL,
    keep: bool = True,
    show: Callable[[str], None] = lambda text: None,
) -> str:
    """:func:`acquire` for a run, and keep it for as long as that lives -> the session.

    :param progress_deadline: see ``start_keeper``.
    :param keep: false where something else renews the session.
    :param show: told whom it waits for.
    """

    def tell(held: Held) -> None:
        show(f"Waiting up to {wait:g} s for the deployment lock of {keys.service}, held by {held.holder}")

    session = acquire(client, keys, holder, wait=wait, ttl=ttl, run=controller.name, on_wait=tell)
    if not keep:
        return session
    try:
        start_keeper(
            client.connection,
            keys,
            holder,
            session,
            pipe=controller.pipe,
            results=controller.results,
            controller=controller.process,
            ttl=ttl,
            progress_deadline=progress_deadline,
        )
    except BaseException:
        release(client, keys, session)
        raise
    return session


def acquire(
    client: Client,
    keys: Keys,
    holder: Holder,
    *,
    wait: float,
    ttl: int = TTL,
    run: str = "",
    on_wait: Callable[[Held], None] = lambda held: None,
) -> str:
    """Take the lock and return the session that holds it; from then on somebody has to renew that session.

    :param wait: seconds to wait while somebody else has it; 0 refuses at once.
    :param ttl: seconds, 10 to 86400 unless Consul's configuration allows less.
    :param run: a word in the session's name, by which :func:`session_of` finds it again.
    :param on_wait: told who has it, each time the waiting begins.
    :raises HitlessError: somebody else has it; ``details["holder"]`` says who.
    """
    deadline = time.monotonic() + wait
    gone = 0
    while True:
        pair = client.key(keys.lock, consistent=True)
        if pair is not None and pair.session:
            _wait_until_free(client, keys, pair, deadline, wait, on_wait)
        # Made when the lock looks free: while waiting nobody would renew it.
        session = _create_session(client, keys, holder, ttl, run)
        taken = False
        try:
            taken = _try(client, keys, holder, session, deadline)
        except ConsulError as error:
            gone += 1
            if "invalid session" not in str(error) or gone >= _ATTEMPTS:
                raise
        finally:
            if not taken:
                _destroy_session(client, session)
        if taken:
            return session


def release(client: Client, keys: Keys, session: str) -> bool:
    """Give the lock back and end the session; true where it was ours. Never touches another's.

    The key goes with it, so that a run that was refused leaves nothing. Before its session, since destroying a session
    that holds a lock starts its lock delay.
    """
    pair = client.key(keys.lock, consistent=True)
    ours = pair is not None and pair.session == session
    if ours:
        try:
            client.txn([kv_check_session(keys.lock, session), kv_delete(keys.lock)])
        except LockLost:
            pass  # the answer to a first request was lost, or the lock was, just now: either way it is not ours
    _destroy_session(client, session)
    return ours


def hand_on(client: Client, keys: Keys, session: str, holder: Holder) -> None:
    """The same session has the lock for another deployment from now on.

    :raises LockLost: it does not have it any more.
    """
    client.txn([kv_check_session(keys.lock, session), kv_set(keys.lock, json.dumps(asdict(holder)))])


def read_lock(client: Client, keys: Keys) -> Held | None:
    """Who has the lock, or had it when they were interrupted; None where it is free and was released."""
    pair = client.key(keys.lock, consistent=True)
    if pair is None or not (pair.session or pair.value):
        return None
    return Held(Holder.parse(pair.value), pair.session or "", bool(pair.session))


def still_ours(client: Client, keys: Keys, session: str) -> bool:
    """Whether this session has the lock at this moment, by a consistent read."""
    pair = client.key(keys.lock, consistent=True)
    return pair is not None and bool(session) and pair.session == session


def session_of(client: Client, keys: Keys, *, run: str = "", deployment: str = "") -> str | None:
    """The session that holds the lock, where it is of that deployment, or was made with that ``run``; else None."""
    pair = client.key(keys.lock, consistent=True)
    if pair is None or not pair.session:
        return None
    if deployment:
        return pair.session if Holder.parse(pair.value).deployment == deployment else None
    answer = client.get(f"/v1/session/info/{pair.session}")
    name = str(answer.data[0].get("Name") or "") if answer.data else ""
    return pair.session if run and run in name.split() else None


# -- inside ---------------------------------------------------------------------------------------------------


def _create_session(client: Client, keys: Keys, holder: Holder, ttl: int, run: str) -> str:
    """A session of no node's checks. Repeatable: one too many, after an ambiguous answer, ends by its TTL."""
    body = {
        "Name": " ".join(part for part in ("hitless", keys.service, holder.deployment, run) if part),
        "TTL": f"{ttl}s",
        "LockDelay": "0s",
        "Behavior": "release",
        # Without the empty list it would be the node's serfHealth.
        "NodeChecks": [],
    }
    try:
        answer = client.put("/v1/session/create", body=json.dumps(body))
    except ConsulError as error:
        if "Missing node registration" not in str(error):
            raise
        raise _elsewhere(client) from None
    return str(answer.data["ID"])


def _elsewhere(client: Client) -> HitlessError:
    """The error for an agent of another datacenter.

    A session belongs to the node of the agent that is asked for it, and is made in that node's datacenter alone;
    everything else Consul forwards.
    """
    wanted, asked = client.connection.datacenter, client.connection.base
    try:
        servers = client.get("/v1/catalog/service/consul").data or []
    except ConsulError:
        servers = []
    known = ", ".join(f"{one['Node']} ({one.get('Address')})" for one in servers[:3])
    return HitlessError(
        f"The lock cannot be taken in the datacenter {wanted or 'of the agent'}: its session needs a node of that "
        f"datacenter, and the agent at {asked} is none.",
        hint=f"Set hitless_consul_url (CONSUL_HTTP_ADDR) to an agent of {wanted}"
        + (f", one of its servers for instance: {known}." if known else ".")
        if wanted
        else "Its node is not registered in the catalog yet: look at the agent's log.",
    )


def _destroy_session(client: Client, session: str) -> None:
    """Asked once; where that fails, the TTL does it."""
    try:
        client.put(f"/v1/session/destroy/{session}", repeatable=False)
    except ConsulError:
        return


def _try(client: Client, keys: Keys, holder: Holder, session: str, deadline: float) -> bool:
    """One acquire by one session, to a clear answer: after an ambiguous one it is read back first.

    :raises ConsulError: the session is gone ("invalid session"), or Consul refuses otherwise.
    :raises HitlessError: nobody has the lock, and yet it cannot be had before the deadline.
    """
    answers_until = time.monotonic() + client.retry_for
    free_until = max(deadline, time.monotonic() + _JUST_RELEASED)
    while True:
        try:
            if client.set_key(keys.lock, json.dumps(asdict(holder)), acquire=session):
                return True
            ambiguous = False
        except ConsulUnavailable:
            if time.monotonic() >= answers_until:
                raise
            ambiguous = True
        pair = client.key(keys.lock, consistent=True)
        if pair is not None and pair.session:
            return pair.session == session
        # Free, and yet refused: just released, or within the lock delay of somebody else's session, which no blocking
        # read ends.
        if not ambiguous and time.monotonic() >= free_until:
            raise HitlessError(
                f"The deployment lock of {keys.service} ({keys.lock}) is free but still in Consul's lock delay "
                "(15 s by default, after a session has lost it).",
                hint="Try again in a moment, or set rollout_lock_wait (the lock's option wait) to a number of seconds.",
            )
        time.sleep(random.uniform(0.2, 0.4))


def _wait_until_free(
    client: Client, keys: Keys, pair: KVPair, deadline: float, wait: float, on_wait: Callable[[Held], None]
) -> None:
    last = Holder.parse(pair.value)
    if time.monotonic() >= deadline:
        raise refusal(keys, last, wait)
    on_wait(Held(last, pair.session or "", True))

    def decide(data: Any) -> bool | None:
        if not data or not data[0].get("Session"):
            return True
        nonlocal last
        last = Holder.parse(kv_text(data[0]))
        return None

    try:
        client.watch(f"/v1/kv/{keys.lock}", [], decide, deadline)
    except DeadlineExceeded:
        raise refusal(keys, last, wait) from None
