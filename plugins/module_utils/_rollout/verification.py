# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a new process works, while its host gets no traffic (a private helper of this collection)."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    Wanted,
    freshness,
    parse_instances,
    wait_for_health,
    with_tags,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_watch import MaintenanceWatch
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run

SHOWN = 1000
"""Characters of a health URL's answer that are shown."""


def verify_node(
    task: Task, run: Run, node: str, health_url: str, health_match: str, seen: Answer, watch: MaintenanceWatch
) -> tuple[dict[str, Any], Answer | None]:
    """The health URL answers and matches; the node's own checks pass, and stay so.

    Without a health URL a passing check verifies the new process only once it must have run anew.

    :param seen: what the catalog said just now of the service on the node.
    :param watch: keeps the node in maintenance meanwhile.
    :returns: the result, and the catalog's last answer.
    :raises HitlessError: names the failing checks, or the URL's last answer.
    """
    started = time.monotonic()
    options, tags = run.options, tuple(run.options["tags"])
    answer: Answer | None = seen
    stable_for, shown = options["min_healthy_time"], ""
    if health_url:
        shown = ask_application(task, health_url, health_match, options["healthy_deadline"])
        # What was read before that answer counts only if it stays so from now on.
        if watch.back_since() or not stable_for:
            answer = None
    else:
        found = with_tags(parse_instances(answer.data if answer else None), tags)
        stable_for = max(stable_for, freshness(found, options["check_interval"]))
    wanted = Wanted(
        service=run.service,
        state="checks_passing",
        node=node,
        tags=tags,
        stable_for=stable_for,
        accept_warning=options["accept_warning"],
        in_maintenance=True,
    )
    left = max(0.0, options["healthy_deadline"] - (time.monotonic() - started))
    reached = wait_for_health(task.consul, wanted, left, first=answer)
    result = {"changed": False, "health_answer": shown, "verified_after": round(time.monotonic() - started, 3)}
    return result, reached.answer


def ask_application(task: Task, url: str, match: str, deadline: float) -> str:
    """The start of what the health URL answered, asked from the host until it answers well.

    :param match: a regular expression that the answer has to match; empty for any.
    :param deadline: seconds.
    :raises HitlessError: with its last answer.
    """
    request = {"url": url, "match": match or None, "interval": 0.25, "timeout": 5.0, "stable_for": 0.0}
    answer = task.host.call("probe", {**request, "deadline": deadline})
    if not answer["ok"]:
        raise HitlessError(
            f"The new process did not answer at {url} within {deadline:g} s: {answer['error']}.",
            details={"health_url": url, "last_answer": answer["body"][:SHOWN]},
        )
    return str(answer["body"][:SHOWN])
