# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drain as the load balancers themselves show it (a private helper of this collection).

Asked are HAProxy's statistics, see haproxy.py. An instance is drained when each load balancer shows that it
is out (which proves that it has heard of the maintenance) and has no session and no request queued.

A server's row is found by its address *before* the maintenance, and by its name afterwards: a slot of a server-template
has no address any more once DNS has taken its instance away, and keeps its sessions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    Instance,
    parse_instances,
    read_instances,
    with_tags,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.haproxy import (
    Name,
    NoAnswer,
    Statistics,
    ask,
    at_once,
    normal,
)

EVERY = 0.2
"""Seconds between two looks."""

# --- watching a drain --------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """One load balancer during one drain.

    :param servers: the instance's, by name.
    :param blind: why the drain cannot be observed there, so that the fixed time holds; empty where it can.
    :param final: that will not change in this drain.
    :param busy: what its servers have still to do, in words.
    :param taking: whether one of them still gets new requests.
    """

    url: str
    servers: Sequence[Name] = ()
    blind: str = ""
    final: bool = False
    busy: str = ""
    taking: bool = False
    sessions_ever: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Watched:
        """From ``dataclasses.asdict``, which may have been through JSON."""
        return cls(**{**data, "servers": [tuple(server) for server in data["servers"]]})

    def look(self, asked: Callable[[str], Statistics]) -> None:
        """See how far it is."""
        if self.final:
            return
        try:
            shown = asked(self.url)
        except HitlessError as error:
            self.blind = str(error)
            return
        if shown.sessions_ever < self.sessions_ever or any(name not in shown.servers for name in self.servers):
            self.blind = f"{self.url} was reloaded meanwhile, and no longer shows the sessions of its old process."
            self.final = True
            return
        self.sessions_ever = shown.sessions_ever
        mine = [shown.servers[name] for name in self.servers]
        self.blind = ""
        self.taking = any(server.takes_requests for server in mine)
        self.busy = " and ".join(server.busy for server in mine if server.busy)


def find(urls: Sequence[str], addresses: Sequence[str], asked: Callable[[str], Statistics] = ask) -> list[Watched]:
    """The instance's servers on each load balancer, to be looked for before its maintenance.

    :param addresses: ``host:port`` of the instances that are going to be drained.
    :raises HitlessError: one of them answers, and not with statistics that could be used.
    """
    wanted = {normal(address) for address in addresses}

    def found(url: str) -> Watched:
        try:
            shown = asked(url)
        except NoAnswer as error:
            return Watched(url, blind=str(error), final=True)
        servers = shown.at(wanted)
        if not servers:
            return Watched(url, blind=f"{url} shows no server at {', '.join(sorted(wanted))}.", final=True)
        return Watched(url, servers, sessions_ever=shown.sessions_ever)

    return at_once(found, urls)


def find_on_node(
    client: Client, urls: Sequence[str], node: str, services: Mapping[str, Sequence[str]], known: Mapping[str, Any]
) -> list[Watched]:
    """The same for a node's instances; nothing is read where no load balancer is asked.

    :param services: by name, each with the tags that its instances have.
    :param known: service -> what the catalog says of it on the node, where that was read just now.
    """
    found: list[Instance] = []
    for name, tags in services.items() if urls else ():
        if name in known:
            found += with_tags(parse_instances(known[name]), tags)
        else:
            found += read_instances(client, name, node, tags)[0]
    return find(urls, [f"{one.address}:{one.port}" for one in found])


@dataclass(frozen=True)
class Drained:
    """How a drain ended.

    :param seconds: since it began.
    :param notes: what a person should know of it, one sentence each.
    """

    seconds: float
    notes: list[str]


def wait(
    watched: Sequence[Watched],
    since: float,
    min_time: float,
    deadline: float,
    fixed: float,
    *,
    asked: Callable[[str], Statistics] = ask,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Drained:
    """Return when all load balancers show the instance drained.

    :param since: when the drain began, on ``clock``.
    :param min_time: seconds it lasts in any case; after ``deadline`` seconds sessions that are left are given up.
    :param fixed: seconds for a load balancer that cannot be observed.
    :raises HitlessError: one still sends new requests there after ``deadline`` seconds.
    """
    named: dict[str, str] = {}
    while True:
        at_once(lambda one: one.look(asked), watched)
        passed = clock() - since
        blind = [one for one in watched if one.blind]
        named |= {one.url: one.blind for one in blind}
        busy = [one for one in watched if one.busy and not one.blind]
        if passed >= deadline:
            _refuse_followers_of_nobody(busy, deadline)
        if passed >= (max(fixed, min_time) if blind else min_time) and (not busy or passed >= deadline):
            notes = [f"{why} It was waited for by the fixed time ({fixed:g} s)." for why in named.values()]
            notes += [f"{one.url} still shows {one.busy} after {deadline:g} s; they are given up." for one in busy]
            return Drained(passed, notes)
        sleep(EVERY)


def wait_as_set(
    watched: Sequence[Mapping[str, Any]],
    since: float,
    options: Mapping[str, Any],
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Return when the drain is over -> what a person should know of it.

    :param watched: what :func:`find` gave, as dictionaries; where it is empty the drain lasts rollout_drain_time.
    """
    fixed = options["drain_time"]
    if watched:
        balancers = [Watched.of(one) for one in watched]
        return wait(balancers, since, options["drain_min_time"], options["drain_deadline"], fixed, sleep=sleep).notes
    sleep(max(0.0, since + fixed - time.monotonic()))
    return []


def _refuse_followers_of_nobody(busy: Sequence[Watched], deadline: float) -> None:
    taking = [one for one in busy if one.taking]
    if taking:
        raise HitlessError(
            f"{taking[0].url} still sends requests to this instance {deadline:g} s after its maintenance began "
            f"({taking[0].busy}).",
            hint="Does that load balancer follow Consul? If not, rollout_drain_tasks can take an instance out there.",
        )
