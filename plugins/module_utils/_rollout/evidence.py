# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether new instances make more errors than old ones: a test that may be looked at at any time (a private helper).

Pure; ``math`` only. The test is that of Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data" (NeurIPS
2022, arXiv:2011.03567), made for errors of software versions in canary tests: what counts is on which side an error
falls, against the share of the requests that this side has got at the same time. So it does not matter how many errors
there are, nor how that changes in time, as long as it changes for both sides alike.

In a block of time the new side gets n requests and x errors, the old one m and y. Each error is a bet. If an error of
the new side is at most t times as likely as one of the old side, it falls on the new side with a chance of at most
p = t*n / (t*n + m); with r times that, of q = r*t*n / (r*t*n + m). The bet multiplies the evidence by q/p for an error
of the new side, and by (1-q)/(1-p) for one of the old side. What it comes to in a block, with chances a and b of an
error, is on average

    (1 + a*(q/p - 1))^n * (1 + b*((1-q)/(1-p) - 1))^m  <=  exp((q-p) * (a*n/p - b*m/(1-p)))  <=  1,

the first by 1+z <= exp(z), the second where a <= t*b. So the product over all blocks is a non-negative supermartingale
while the new version is no worse, and so is the mean over several r. By Ville's inequality it *ever* reaches 1/alpha
with a chance of at most alpha, however often somebody looks. Errors that were no single events (one client that makes
a hundred of them, and sticks to one instance) are more than this chance allows for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""How many times as likely errors are in the bets: a version that is a little worse, and one that does nothing else."""


@dataclass(frozen=True)
class Count:
    """What instances of one side were asked, and the errors among that."""

    requests: int = 0
    errors: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.requests + other.requests, self.errors + other.errors)


class Evidence:
    """That the new version is worse, as it grows.

    :param tolerated: how many times as many errors as the old version the new one may make.
    :param log_bets: of an earlier run of the same deployment, which it goes on from.
    """

    def __init__(self, tolerated: float = 1.0, log_bets: Sequence[float] = ()) -> None:
        self._tolerated = tolerated
        self.log_bets = list(log_bets) if len(log_bets) == len(RATIOS) else [0.0] * len(RATIOS)
        self._block = [0, 0, 0, 0]
        """Requests and errors, new and old, until there are requests of both: its end must not depend on errors."""

    def add(self, new: Count, old: Count) -> None:
        """What both sides were asked in the same time."""
        block = self._block
        for place, count in enumerate((new.requests, new.errors, old.requests, old.errors)):
            block[place] += count
        if not (block[0] and block[2]):
            return
        requests, errors, old_requests, old_errors = block
        if errors or old_errors:
            weight = self._tolerated * requests
            for number, ratio in enumerate(RATIOS):
                # (1-q)/(1-p); q/p is ratio times that.
                less = math.log((weight + old_requests) / (ratio * weight + old_requests))
                self.log_bets[number] += errors * (math.log(ratio) + less) + old_errors * less
        self._block = [0, 0, 0, 0]

    def interrupt(self) -> None:
        """One side gets no requests for now: what it is asked later is of another time."""
        self._block = [0, 0, 0, 0]

    @property
    def e(self) -> float:
        """The evidence, an e-value: 1 for none; it reaches 1/alpha by chance in at most a share alpha of runs."""
        largest = max(self.log_bets)
        mean = sum(math.exp(one - largest) for one in self.log_bets) / len(RATIOS)
        return math.exp(min(700.0, largest + math.log(mean)))
