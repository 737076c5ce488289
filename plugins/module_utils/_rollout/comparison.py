# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New instances against old ones, by what load balancers count of each (a private helper of this collection). Pure.

Whether new ones make more errors is tested, see evidence.py. What is counted between two looks is evidence only where
that is sure to be of one version: the same server, at the same address, on the same side at both; and only while
instances of both sides get requests, since what goes wrong at some time must not be held against what did at another. A
counter that has gone back (HAProxy was reloaded) begins anew, and an instance without requests adds nothing.

How long answers take is compared, and not tested: HAProxy tells an average, in whole milliseconds, of which each
further request replaces a 1024th (swrate_add in HAProxy's freq_ctr.h). So a new instance counts once it has had 1,024
requests, and what is left of the average before is taken out of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._rollout.evidence import Count, Evidence
from ansible_collections.hitless.consul.plugins.module_utils._rollout.haproxy import Name, Server, Statistics, normal

NEW, OLD = "new", "old"
SAMPLES = 1024
"""Requests after which a share 1/e of HAProxy's average is older (TIME_STATS_SAMPLES)."""
SURE_AFTER = 3
"""Looks in a row that show the new instances too slow."""
ROUNDED = 1.0
"""Milliseconds that an average may be off."""


@dataclass(frozen=True)
class Seen:
    """A server at the last look.

    :param first: as it was when it was first seen on this side.
    """

    side: str
    now: Server
    first: Server

    def follows(self, before: Seen | None) -> bool:
        """Whether what was counted since is of one version."""
        return (
            before is not None
            and (before.side, before.now.address) == (self.side, self.now.address)
            and before.now.requests <= self.now.requests
            and before.now.errors <= self.now.errors
        )


class Comparison:
    """Of one deployment.

    :param settings: alpha, tolerated_ratio, slower_than, as analysis_options.py has them.
    :param left: what an earlier run of the deployment has left, see :meth:`as_dict`.
    """

    def __init__(self, settings: Mapping[str, Any], left: Mapping[str, Any] | None = None) -> None:
        known = left or {}
        self.settings = settings
        self.counts = {side: Count(*known.get(side, (0, 0))) for side in (NEW, OLD)}
        self.evidence = Evidence(settings["tolerated_ratio"], known.get("log_bets", ()))
        self._seen: dict[tuple[str, Name], Seen] = {}
        self._slow = 0

    def look(self, answers: Mapping[str, Statistics], sides: Mapping[str, str]) -> None:
        """Take in what was counted since the last look.

        :param answers: of the load balancers that answer, by URL.
        :param sides: address of an instance -> new or old; one whose version is not known now is not among them.
        """
        counted: dict[str, Count] = {}
        seen: dict[tuple[str, Name], Seen] = {}
        for url, shown in answers.items():
            for name, server in shown.servers.items():
                side = sides.get(normal(server.address)) if server.address else None
                if side is None:
                    continue
                key = (url, name)
                before, now = self._seen.get(key), Seen(side, server, server)
                if before is not None and now.follows(before):
                    now = Seen(side, server, before.first)
                    more = Count(server.requests - before.now.requests, server.errors - before.now.errors)
                    if server.takes_requests and before.now.takes_requests:
                        counted[side] = counted.get(side, Count()) + more
                seen[key] = now
        # One that does not answer now goes on where it was.
        kept = {key: one for key, one in self._seen.items() if key[0] not in answers}
        self._seen = {**kept, **seen}
        if len(counted) == 2:
            self.counts = {side: self.counts[side] + counted[side] for side in counted}
            self.evidence.add(counted[NEW], counted[OLD])
        else:
            self.evidence.interrupt()
        self._slow = self._slow + 1 if self._is_slow() else 0

    @property
    def worse(self) -> str:
        """Why the new version is worse; empty where that is not sure."""
        enough = 1 / self.settings["alpha"]
        if self.evidence.e >= enough:
            return f"{self.told}: worse ({_told(self.evidence.e)}; {enough:g} is enough)"
        if self._slow >= SURE_AFTER:
            return f"{self.times_told}: slower than {self.settings['slower_than']:g} times"
        return ""

    @property
    def told(self) -> str:
        """``12 of 61 requests failed on new instances, 0 of 244 on old ones``."""
        new, old = self.counts[NEW], self.counts[OLD]
        on_new = f"{new.errors} of {new.requests} requests failed on new instances"
        return f"{on_new}, {old.errors} of {old.requests} on old ones"

    @property
    def times_told(self) -> str:
        """``new instances answer in 12 ms, old ones in 9 ms``; empty where that cannot be told."""
        times = self._times()
        return f"new instances answer in {times[NEW]:.0f} ms, old ones in {times[OLD]:.0f} ms" if times else ""

    @property
    def summary(self) -> str:
        """All of it, for a person."""
        worse = self.worse
        if worse:
            return worse
        if not self.counts[NEW].requests or not self.counts[OLD].requests:
            return f"{self.told}: nothing to compare"
        return "; ".join(filter(None, (f"{self.told}: no worse ({_told(self.evidence.e)})", self.times_told)))

    def as_dict(self) -> dict[str, Any]:
        """As a key of the deployment holds it."""
        counts = {side: [one.requests, one.errors] for side, one in self.counts.items()}
        return {**counts, "log_bets": [round(one, 6) for one in self.evidence.log_bets], "told": self.summary}

    def _is_slow(self) -> bool:
        factor, times = self.settings["slower_than"], self._times()
        return bool(factor and times and times[NEW] > factor * (times[OLD] + ROUNDED))

    def _times(self) -> dict[str, float] | None:
        """Milliseconds that either side takes to answer; None where one of them has not had enough requests."""
        found = {}
        for side in (NEW, OLD):
            pairs = list(self._of_side(side))
            weight = sum(requests for requests, _took in pairs)
            if not weight:
                return None
            found[side] = sum(requests * took for requests, took in pairs) / weight
        return found

    def _of_side(self, side: str) -> Iterator[tuple[int, float]]:
        """Requests of each server of a side, and how long it took to answer them."""
        for one in self._seen.values():
            if one.side != side:
                continue
            if side == OLD:
                yield one.now.requests, one.now.answer_ms
                continue
            requests = one.now.requests - one.first.requests
            if requests >= SAMPLES:
                faded = math.exp(-requests / SAMPLES)
                yield requests, max(0.0, (one.now.answer_ms - one.first.answer_ms * faded) / (1 - faded))


def _told(e: float) -> str:
    return "e > 1,000,000" if e > 1e6 else f"e = {e:.0f}" if e >= 10 else f"e = {e:.2g}" if e >= 0.01 else "e < 0.01"
