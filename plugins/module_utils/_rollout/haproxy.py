# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy's statistics, asked for as CSV from the controller (a private helper of this collection).

A drain looks at sessions (drain.py), an analysis at the counters of answers and errors (comparison.py).
"""

from __future__ import annotations

import csv
import http.client
import ipaddress
import socket
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError

ANSWER_WITHIN = 2.0
"""Seconds a load balancer has for one answer."""
_SERVER = "2"
_OUT = ("MAINT", "DRAIN", "DOWN", "NOLB")
"""How the status of a server begins that gets no new request. ("no check" and "UP 1/3" do get them.)"""
_NGINX = "Active connections:"

Item = TypeVar("Item")
Result = TypeVar("Result")
Name = tuple[str, str]
"""A server of HAProxy: its backend, and its name in there."""


class NoAnswer(HitlessError):
    """A load balancer's statistics did not answer."""


@dataclass(frozen=True)
class Server:
    """A server's row.

    :param address: ``10.0.0.5:8080``; empty where it has none, as a slot without an instance.
    :param sessions: current ones; ``queued`` are requests that wait for this very server.
    :param requests: that it was sent, as far as it is known what became of them; ``errors``: of these, see
        :func:`_counted`.
    :param answer_ms: how long it takes to answer, in milliseconds: HAProxy's average, in which each of the last 1,024
        requests weighs about the same, and what was before them fades.
    """

    address: str
    status: str
    sessions: int
    queued: int
    requests: int = 0
    errors: int = 0
    answer_ms: int = 0

    @property
    def takes_requests(self) -> bool:
        return not self.status.startswith(_OUT)

    @property
    def busy(self) -> str:
        """What it still has to do, in words; empty where it is drained."""
        if self.takes_requests:
            return f"it is {self.status}"
        counts = [(self.sessions, "session"), (self.queued, "queued request")]
        return " and ".join(f"{number} {what}{'s' if number > 1 else ''}" for number, what in counts if number)


@dataclass(frozen=True)
class Statistics:
    """One answer.

    :param sessions_ever: counted by the process that answers; a reload begins anew.
    """

    servers: Mapping[Name, Server]
    sessions_ever: int

    def at(self, addresses: Iterable[str]) -> list[Name]:
        wanted = set(addresses)
        return [name for name, server in self.servers.items() if server.address and normal(server.address) in wanted]


def normal(address: str) -> str:
    """``host:port`` with the host as an IP address written one way; a name is resolved here, on the controller."""
    host, port = address.rpartition(":")[::2]
    host = host.strip("[]")
    try:
        return f"{ipaddress.ip_address(host)}:{port}"
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return address
    return f"{ipaddress.ip_address(found[0][4][0])}:{port}"


def ask(url: str) -> Statistics:
    """The statistics of one load balancer.

    :raises NoAnswer: it did not answer.
    :raises HitlessError: what answered is no such statistics, or tells no addresses.
    """
    # Whatever http_proxy says: the load balancer is asked, and nobody between.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url};csv", timeout=ANSWER_WITHIN) as answer:
            text = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"{url} does not answer ({getattr(error, 'reason', None) or error}).") from None
    return parse(url, text)


def parse(url: str, text: str) -> Statistics:
    """HAProxy's CSV.

    :raises HitlessError: it is something else, or without the servers' addresses.
    """
    if text.startswith(_NGINX):
        raise HitlessError(
            f"{url} is the status of nginx, which counts no sessions of a single instance, so that its drain cannot be "
            "observed.",
            hint="Remove it from rollout_load_balancers, and let rollout_drain_time be long enough for it.",
        )
    if not text.startswith("# pxname,svname,"):
        raise HitlessError(
            f"{url} does not answer with HAProxy's statistics (asked for as CSV, {url};csv).",
            hint="rollout_load_balancers takes the address of HAProxy's `stats uri`.",
        )
    servers: dict[Name, Server] = {}
    ever = 0
    for row in csv.DictReader(text.removeprefix("# ").splitlines()):
        ever += _number(row["stot"])
        if row["type"] == _SERVER:
            name, sessions, queued = (row["pxname"], row["svname"]), _number(row["scur"]), _number(row["qcur"])
            counted, took = _counted(row), _number(row.get("rtime"))
            servers[name] = Server(row.get("addr") or "", row["status"] or "", sessions, queued, *counted, took)
    # A slot without an instance has none; a server that gets requests has one.
    if any(server.takes_requests and not server.address for server in servers.values()):
        raise HitlessError(
            f"{url} shows no addresses of its servers, so that an instance cannot be found there.",
            hint="Add `stats show-legends` to that section of HAProxy's configuration.",
        )
    return Statistics(servers, ever)


def _counted(row: Mapping[str, str]) -> tuple[int, int]:
    """Requests and errors of a server. No request is counted by two of these counters, as measured with HAProxy 2.6.

    An error is an answer with a status of 5xx; no answer, or half of one (``eresp``); no connection, after all retries
    (``econ``); a request that was taken to another server instead (``wredis``), of which no client need have seen
    anything. In TCP mode there are no answers: a session is a request there.
    """
    failed = sum(_number(row.get(name)) for name in ("econ", "eresp", "wredis"))
    if not row.get("hrsp_2xx"):
        return _number(row.get("lbtot")), failed
    kinds = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")
    answers = sum(_number(row.get(f"hrsp_{kind}")) for kind in kinds)
    return answers + failed, _number(row["hrsp_5xx"]) + failed


def _number(text: str | None) -> int:
    return int(text or 0)


def unanswered(urls: Sequence[str], asked: Callable[[str], Statistics] = ask) -> list[str]:
    """Load balancers that do not answer now, one sentence each.

    :raises HitlessError: one of them answers, and not with statistics that could be used.
    """

    def tried(url: str) -> str:
        try:
            asked(url)
        except NoAnswer as error:
            return str(error)
        return ""

    return [problem for problem in at_once(tried, urls) if problem]


def at_once(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Ask all load balancers together."""
    with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        return list(pool.map(work, items))
