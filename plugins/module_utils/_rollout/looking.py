# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker at the gate of a window sees of the instances (a private helper of this collection).

Each host needs such a look, so that none of it may grow with the service: read is what gets no traffic, and what the
host's own node has. All instances are counted now and then, by one worker for all. What holds between two counts:

- An instance that fails, or is in maintenance, is seen at once: its critical check is read.
- A node whose own check fails takes all its instances out, and the check does not tell how many: that is known from the
  last count. Where a node fails that no count has seen failing, there is a new one before anybody begins.
- An instance that is deregistered leaves nothing that could be read. It is missed with the next count, within
  :data:`COUNT_EVERY` seconds; so is one whose tags were changed from outside, and one that joins is noticed then.

Of a small service one filtered read tells the same, for which Consul looks at each instance: one request instead of
three. So it is read where checks do not have the tags of their instances, and where a great many nodes fail.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    Instance,
    parse_instances,
    service_query,
    with_tags,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.node_health import (
    Query,
    critical_query,
    failing_nodes,
    is_out,
    out_of_rotation,
    read_node,
    tell_whose_they_are,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import (
    CONFLICT,
    Progress,
    change_progress,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.recorded_host import RecordedHost

COUNT_EVERY = 10.0
"""Seconds after which nobody begins by a count any more; :data:`EARLY` of it, and one of the workers counts anew."""
EARLY = 0.5
COUNTS_WITHIN = 15.0
"""Seconds that a worker has for its count, before another one may begin one: longer than one request may take."""
WAITS_FOR_A_COUNT = 0.1, 0.5
"""Seconds between two looks whether another worker has counted: all at the gate may wait for the same count."""
FEW = 500
"""Instances of a service that one read may look at for each host: about what two more requests cost a server."""

MANY = 1000
"""Nodes with a failing check of their own, of whatever services: more of them are not kept with the progress."""


@dataclass(frozen=True)
class Look:
    """What was seen.

    :param progress: with the count that it goes by.
    :param instances: those that get no traffic, and the node's own.
    :param own: what the catalog says of the node's own, as ``service_query`` of the node would read it.
    :param query: and its ``answer``: returns when what was seen may have changed.
    :param registered: the nodes with an instance, where all have just been counted.
    """

    progress: Progress
    instances: Sequence[Instance]
    own: Answer
    query: Query
    answer: Answer
    registered: Collection[str] | None = None


def look(host: RecordedHost, progress: Progress) -> Look | None:
    """What is there now; None where the progress has to be read again first.

    :raises LockLost: the lock is no longer ours.
    """
    client, service = host.task.consul, host.run.service
    age = time.time() - progress.counted
    is_old = not progress.registered or age >= COUNT_EVERY
    if is_old and _somebody_counts(progress):
        time.sleep(random.uniform(*WAITS_FOR_A_COUNT))
        return None
    by_checks = progress.registered > FEW and (progress.failing is None or progress.checks_tell)
    critical = client.get(*critical_query(service)) if by_checks else None
    has_to = is_old or _is_new(host, progress, critical)
    if has_to or age >= EARLY * COUNT_EVERY:
        if _may_count(host, progress):
            return _count(host, critical)
        if has_to:
            time.sleep(random.uniform(*WAITS_FOR_A_COUNT))
            return None
    if critical:
        return _look_at_critical(host, progress, critical)
    query = service_query(service, also=f'Checks.Status == "critical" or Node.Node == "{host.node}"')
    answer = client.get(*query)
    return Look(progress, _wanted(host, answer.data), _own(host, answer), query, answer)


def _is_new(host: RecordedHost, progress: Progress, critical: Answer | None) -> bool:
    """Whether a node fails of which the last count does not tell.

    One that is in flight counts by what its turn takes, and the node's own instances are read.
    """
    if critical is None:
        return False
    known = {*(progress.failing or ()), *progress.in_flight, host.node}
    return progress.failing is None or not failing_nodes(critical.data or ()) <= known


def _look_at_critical(host: RecordedHost, progress: Progress, critical: Answer) -> Look:
    own = read_node(host.task.consul, host.run.service, host.node)
    out = out_of_rotation(critical.data or (), host.run.options["tags"], progress.failing or {})
    others = [one for one in out if one.node != host.node]
    instances = [*others, *_wanted(host, own.data)]
    return Look(progress, instances, own, critical_query(host.run.service), critical)


def _somebody_counts(progress: Progress) -> bool:
    return abs(time.time() - progress.counting) < COUNTS_WITHIN


def _may_count(host: RecordedHost, progress: Progress) -> bool:
    """Whether this worker is the one that counts now: the others wait, or go by the last count."""
    if _somebody_counts(progress):
        return False
    claim = replace(progress, counting=time.time()).op_if_unchanged(host.keys, host.run.id)
    try:
        host.task.consul.txn([host.fence(), claim])
    except LockLost:
        raise
    except ConsulError as error:
        if error.status != CONFLICT:
            raise
        return False
    return True


def _count(host: RecordedHost, critical: Answer | None) -> Look:
    """Count all instances, and tell the others.

    :param critical: what was read just now; None where the service was small at the last count.
    """
    client, run = host.task.consul, host.run
    query = service_query(run.service)
    answer = client.get(*query)
    # Of a large service it would take long to make something of each instance and its checks.
    tags, wave_of = set(run.options["tags"]), run.plan.get("wave_of") or {}
    entries = [one for one in answer.data or () if tags <= set(one["Service"].get("Tags") or ())]
    nodes = [one["Node"]["Node"] for one in entries]
    in_waves = Counter(wave_of[node] for node in nodes if node in wave_of)
    failing, tell = None, tell_whose_they_are(answer.data or (), run.options["tags"])
    if critical is None and len(nodes) > FEW:
        critical = client.get(*critical_query(run.service))
    if critical:
        there = Counter(nodes)
        failing = {node: there[node] for node in sorted(failing_nodes(critical.data or ()))}
        if len(failing) > MANY:
            failing, tell = {}, False

    def counted(found: Progress) -> Progress:
        return found.counted_now(len(nodes), in_waves, failing, checks_tell=tell)

    progress = change_progress(client, host.keys, run.id, counted, host.fence())
    shown = [one for one in entries if one["Node"]["Node"] == host.node or is_out(one)]
    return Look(progress, parse_instances(shown), _own(host, answer), query, answer, set(nodes))


def _wanted(host: RecordedHost, entries: Any) -> list[Instance]:
    return with_tags(parse_instances(entries), host.run.options["tags"])


def _own(host: RecordedHost, answer: Answer) -> Answer:
    return replace(answer, data=[one for one in answer.data or () if one["Node"]["Node"] == host.node])
