# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host ended, and what many of those come to (a private helper of this collection). Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import json_object
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import FAILED, OUTCOMES, SPENDING, TO_COME

OUTPUT_LIMIT, ERROR_LIMIT = 8000, 2000
"""Characters kept of a host's output (its end), and of its error."""


@dataclass(frozen=True)
class Outcome:
    """How a host ended.

    :param outcome: one of ``states.OUTCOMES``.
    :param from_version: what ran before; ``to_version``: what was to run.
    :param seconds: its turn took.
    :param output: the end of what the deployment printed.
    :param steps: {state, at} of each step of its turn, in their order.
    """

    host: str
    node: str
    outcome: str
    from_version: str | None = None
    to_version: str | None = None
    batch: int | None = None
    started: str | None = None
    finished: str | None = None
    seconds: float | None = None
    error: str = ""
    output: str = ""
    steps: tuple[Mapping[str, str], ...] = ()

    @property
    def told(self) -> str:
        """``web1 rolled back``, for a sentence."""
        return f"{self.host} {self.outcome.replace('_', ' ')}"

    def as_dict(self) -> dict[str, Any]:
        """As it stands in its key and in results; error and output are bounded."""
        if self.outcome not in OUTCOMES:
            raise HitlessError(f"{self.outcome!r} is no outcome of a host; one of {', '.join(OUTCOMES)} is.")
        return {
            "host": self.host,
            "node": self.node,
            "outcome": self.outcome,
            "from": self.from_version,
            "to": self.to_version,
            "batch": self.batch,
            "started": self.started,
            "finished": self.finished,
            "seconds": None if self.seconds is None else round(self.seconds, 2),
            "error": self.error[:ERROR_LIMIT],
            "output": self.output[-OUTPUT_LIMIT:],
            "steps": [{"state": str(step.get("state")), "at": str(step.get("at"))} for step in self.steps],
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, node: str) -> Outcome:
        """What a key holds; one that cannot be read counts as failed, since nothing is known to have gone well."""
        data = json_object(text)
        if data is None or data.get("outcome") not in OUTCOMES:
            return cls(node, node, FAILED, error="Its outcome in Consul cannot be read.")
        return cls(
            host=str(data.get("host") or node),
            node=node,
            outcome=data["outcome"],
            from_version=data.get("from"),
            to_version=data.get("to"),
            batch=data.get("batch"),
            started=data.get("started"),
            finished=data.get("finished"),
            seconds=data.get("seconds"),
            error=str(data.get("error") or ""),
            output=str(data.get("output") or ""),
            steps=_steps_of(data.get("steps")),
        )


def budget_spent(outcomes: Iterable[Outcome]) -> int:
    """Hosts that spend the failure budget; those skipped do not."""
    return sum(one.outcome in SPENDING for one in outcomes)


def summary_of(outcomes: Iterable[str]) -> dict[str, int]:
    """Outcome -> number of hosts, in the order of ``states.OUTCOMES``; none that no host has."""
    counted = Counter(outcomes)
    return {name: counted[name] for name in OUTCOMES if counted[name]}


def within_budget(outcomes: Sequence[str], failure_budget: int) -> bool:
    """Whether a failed deployment reached every host and spent no more than its failure budget."""
    spent = sum(outcome in SPENDING for outcome in outcomes)
    return not set(TO_COME) & set(outcomes) and 0 < spent <= failure_budget


def _steps_of(data: object) -> tuple[Mapping[str, str], ...]:
    return tuple(step for step in data if isinstance(step, dict)) if isinstance(data, list) else ()
