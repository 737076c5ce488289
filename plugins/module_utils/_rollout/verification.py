# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a new process works, while its host gets no traffic (a private helper of this collection)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    Wanted,
    freshness,
    parse_instances,
    wait_for_health,
    with_tags,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance import Target
from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_watch import MaintenanceWatch
from ansible_collections.hitless.consul.plugins.module_utils._consul.node_health import OnNode
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.telling import EVERY, Telling
from ansible_collections.hitless.consul.plugins.module_utils._views.text import plain

SHOWN_WHILE = 80
"""Characters of it that are shown while it is still asked."""
SHOWN = 1000
"""Characters of a health URL's answer that are shown."""


def verify_node(
    task: Task,
    run: Run,
    targets: Sequence[Target],
    watched: Callable[[int], AbstractContextManager[MaintenanceWatch]],
    health_url: str,
    health_match: str,
    telling: Telling,
    known: Answer | None = None,
) -> tuple[dict[str, Any], Answer | None]:
    """The health URL answers and matches; the node's own checks pass, and stay so.

    Without a health URL a passing check verifies the new process only once it must have run anew.

    :param targets: what is in maintenance on the node.
    :param watched: a watch that keeps them there, from the answer with this index on, or from an earlier one for 0.
    :param telling: says how far it is.
    :param known: an earlier answer about the service on the node: a blocking read from there on tells what is new. Its
        own checks' intervals have to be read anew, so that it serves where a health URL verifies the new process.
    :returns: the result, and the catalog's last answer.
    :raises HitlessError: names the failing checks, or the URL's last answer.
    """
    started, options, node = time.monotonic(), run.options, targets[0].node
    on_node = OnNode(task.consul, run.service, node, known.data if known else ())
    seen = known if health_url and known and known.index else on_node.read()
    found = with_tags(parse_instances(seen.data), options["tags"])
    answer: Answer | None = seen
    stable_for, shown = options["min_healthy_time"], ""
    # What it does not tell of, further services for instance, has been looked after since an earlier answer.
    shows_all = len(targets) == 1 and found and all(one.maintenance for one in found)
    with watched(seen.index if shows_all else 0) as watch:
        if health_url:
            shown = ask_application(task, health_url, health_match, options["healthy_deadline"], telling)
            # What was read before that answer counts only if it stays so from now on.
            back = watch.back_since()
            if (back is not None and back > started) or not stable_for:
                answer = None
        else:
            stable_for = max(stable_for, freshness(found, options["check_interval"]))
        wanted = Wanted(
            service=run.service,
            state="checks_passing",
            node=node,
            tags=tuple(options["tags"]),
            stable_for=stable_for,
            accept_warning=options["accept_warning"],
            in_maintenance=True,
        )
        deadline = options["healthy_deadline"]
        spent = min(deadline, time.monotonic() - started)
        newest: deque[Any] = deque([None], maxlen=1)

        def text(passed: float) -> str:
            waited, whole = spent + passed, deadline + stable_for
            return f"verifying, {waited:.0f} of {whole:.0f} s: {_still_failing(wanted, newest[0])}"

        with telling.waiting(text):
            reached = wait_for_health(on_node, wanted, deadline, spent=spent, first=answer, also=newest.append)
    for note in watch.note(node, "had ended before it was verified"):
        task.warn(note)
    result = {"changed": False, "health_answer": shown, "verified_after": round(time.monotonic() - started, 3)}
    return result, reached.answer


def _still_failing(wanted: Wanted, data: Any) -> str:
    """What a verification waits for, by what the catalog says of the node."""
    failing = [
        check.told()
        for one in wanted.select(data)
        for check in one.failing(accept_warning=wanted.accept_warning, but_maintenance=True)
    ]
    return "; ".join(failing[:3]) or "its checks have to stay well"


def ask_application(task: Task, url: str, match: str, deadline: float, telling: Telling) -> str:
    """The start of what the health URL answered, asked from the host until it answers well.

    :param match: a regular expression that the answer has to match; empty for any.
    :param deadline: seconds.
    :raises HitlessError: with its last answer.
    """
    request = {"url": url, "match": match or None, "interval": 0.25, "timeout": 5.0, "stable_for": 0.0}
    started = time.monotonic()
    while True:
        # In parts, since what it answers is known only when a part ends.
        left = max(0.0, started + deadline - time.monotonic())
        answer = task.host.call("probe", {**request, "deadline": min(left, EVERY)})
        if answer["ok"] or left <= EVERY:
            break
        said = f": {plain(answer['body'][:SHOWN_WHILE])}" if answer["body"] else ""
        telling.tell(f"verifying, {time.monotonic() - started:.0f} of {deadline:g} s, {answer['error']}{said}")
    if not answer["ok"]:
        raise HitlessError(
            f"The new process did not answer at {url} within {deadline:g} s: {answer['error']}.",
            details={"health_url": url, "last_answer": answer["body"][:SHOWN]},
        )
    return str(answer["body"][:SHOWN])


def wait_until_passing(task: Task, run: Run, node: str, shown: Any) -> None:
    """Return when the service is passing on the node, in rotation (rollout_healthy_deadline).

    :param shown: what the catalog said of it when it showed the end of its maintenance; None where it said nothing.
    :raises HitlessError: names the failing checks.
    """
    options = run.options
    wanted = Wanted(run.service, node=node, tags=tuple(options["tags"]), accept_warning=options["accept_warning"])
    # What showed the end of the maintenance usually shows the health as well.
    if shown is None or not wanted.holds(wanted.select(shown)):
        on_node = OnNode(task.consul, run.service, node, shown or ())
        wait_for_health(on_node, wanted, options["healthy_deadline"])
