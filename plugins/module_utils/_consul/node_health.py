# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gets no traffic, and what a node has, by reads that do not grow with a service (a private helper).

For ``/v1/health/service/<service>`` a server loads all instances, and looks at each for a filter, however short the
answer is; a blocking one returns at each change of any. ``/v1/health/state/critical`` and ``/v1/health/node/<node>``
load what they answer with, and return when that changes, or when some check had changed before they began to wait. They
tell of checks alone: which instances there are has to be known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import AskAgain, Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    SERVED,
    Instance,
    parse_check,
    service_query,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_name

T = TypeVar("T")

LOOK_EVERY = 1.0
"""Seconds between two looks at what no check tells."""
Query = tuple[str, list[tuple[str, object]]]
"""Path and parameters of a read."""
Entry = Mapping[str, Any]
"""An instance with its checks, as ``/v1/health/service`` shows it."""


def critical_query(service: str) -> Query:
    """The read of all critical checks of a service, and of those that nodes have themselves, of whatever nodes."""
    of_service = f'ServiceName == "{checked_name(service, "service")}"'
    return "/v1/health/state/critical", [("filter", f'{of_service} or ServiceName == ""')]


def node_query(node: str) -> Query:
    """The read of all checks on a node."""
    return f"/v1/health/node/{checked_name(node, 'node')}", []


def failing_nodes(critical: Iterable[Mapping[str, Any]]) -> set[str]:
    """The nodes with a critical check of their own, which takes all their instances out of rotation."""
    return {check["Node"] for check in critical if not check.get("ServiceID")}


def out_of_rotation(
    critical: Iterable[Mapping[str, Any]], tags: Collection[str], there: Mapping[str, int]
) -> list[Instance]:
    """The instances that get no traffic, each with the checks that say so.

    :param critical: what :func:`critical_query` has read.
    :param tags: that an instance must have; Consul keeps those of its service with each check.
    :param there: instances on each node of :func:`failing_nodes`. None of them has an ID here, but where a check of its
        own is critical.
    """
    of_node: dict[str, list[Mapping[str, Any]]] = {}
    of_service: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for check in critical:
        if not check.get("ServiceID"):
            of_node.setdefault(check["Node"], []).append(check)
        elif set(tags) <= set(check.get("ServiceTags") or ()):
            of_service.setdefault((check["Node"], check["ServiceID"]), []).append(check)
    found = [
        _instance(node, service_id, [*of_node.get(node, ()), *own]) for (node, service_id), own in of_service.items()
    ]
    seen = [node for node, _service_id in of_service]
    for node, checks in of_node.items():
        found += [_instance(node, "", checks)] * (there.get(node, 0) - seen.count(node))
    return found


def _instance(node: str, service_id: str, checks: Sequence[Mapping[str, Any]]) -> Instance:
    service = next((str(check["ServiceName"]) for check in checks if check.get("ServiceName")), "")
    tags = next((tuple(check.get("ServiceTags") or ()) for check in checks if check.get("ServiceID")), ())
    return Instance(node, "", "", service_id, service, 0, tags, {}, tuple(parse_check(dict(check)) for check in checks))


def tell_whose_they_are(entries: Iterable[Entry], tags: Collection[str]) -> bool:
    """Whether the checks of all instances tell of which service these are, and whether they have the tags.

    A check keeps what its instance had when it was written last: a tag that was changed from outside
    (enable_tag_override) is not with it before its status changes.

    :param entries: all instances of a service.
    """
    wanted = set(tags)
    return all(
        check.get("ServiceName") == entry["Service"]["Service"]
        and (wanted <= set(check.get("ServiceTags") or ())) == (wanted <= set(entry["Service"].get("Tags") or ()))
        for entry in entries
        for check in entry["Checks"] or ()
        if check.get("ServiceID")
    )


def is_out(entry: Entry) -> bool:
    """Whether an instance gets no traffic."""
    return any(check["Status"] not in SERVED for check in entry["Checks"] or ())


def read_node(client: Client, service: str, node: str) -> Answer:
    """The instances of a service on a node, in two requests: the answer is as that of ``service_query(service, node)``.

    Its index is for a blocking read by :func:`node_query`.
    """
    path, params = node_query(node)
    listed = read_list(client, service, node)
    answer = client.get(path, params)
    return Answer(with_checks(listed, answer.data or ()), answer.index, answer.status, answer.filtered)


def read_list(client: Client, service: str, node: str) -> list[Entry]:
    """The same without their checks."""
    where = [("filter", f'Service == "{checked_name(service, "service")}"')]
    data = client.get(f"/v1/catalog/node/{checked_name(node, 'node')}", where).data or {}
    return [{"Node": data["Node"], "Service": one, "Checks": []} for one in (data.get("Services") or {}).values()]


def with_checks(entries: Iterable[Entry], checks: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """The instances with these checks of their node: of a service those by its ID, and the node's."""
    found = list(checks)
    return [
        {**entry, "Checks": [one for one in found if one.get("ServiceID", "") in ("", entry["Service"]["ID"])]}
        for entry in entries
    ]


class OnNode:
    """The instances of a service on one node, followed by the checks of the node.

    These tell all as long as each instance has a check of its own: one that has none is not in them, and one that has
    lost its last looks like one that is gone. So where one has none at the beginning, the service is followed instead,
    and where one has none any more, the service is read as well.

    :param known: what was read of them just now, as ``service_query`` of the node reads it.
    """

    def __init__(self, client: Client, service: str, node: str, known: Sequence[Entry]) -> None:
        self._client = client
        self._service = service
        self._of_service = service_query(service, node)
        self._known = known
        self._by_node = _tell_all(known)
        self._query = node_query(node) if self._by_node else self._of_service

    def read(self) -> Answer:
        """What there is now."""
        answer = self._client.get(*self._query)
        return replace(answer, data=self._entries(answer.data))

    def watch_with_answer(
        self,
        _path: str,
        _params: Sequence[tuple[str, object]],
        decide: Callable[[Any], T | None],
        deadline: float,
        *,
        first: Answer | None = None,
    ) -> tuple[T, Answer]:
        """As that of the client, by this query: ``decide`` gets what ``service_query`` would have read."""
        is_first = first is not None

        def decided(data: Any) -> T | None:
            nonlocal is_first
            entries, is_first = data if is_first else self._entries(data), False
            try:
                return decide(entries)
            except AskAgain as soon:
                # What no check tells, no blocking read returns for.
                blind = self._by_node and not _tell_all(self._known)
                raise AskAgain(min(soon.within, LOOK_EVERY) if blind else soon.within) from None

        path, params = self._query
        found, answer = self._client.watch_with_answer(path, params, decided, deadline, first=first)
        return found, answer if answer is first else replace(answer, data=list(self._known))

    def _entries(self, data: Any) -> Sequence[Entry]:
        """What an answer tells of them."""
        if not self._by_node:
            self._known = data or ()
            return self._known
        shown = with_checks(self._known, data or ())
        ids = {one["Service"]["ID"] for one in shown}
        others = {one["ServiceID"] for one in data or () if one.get("ServiceName") == self._service} - ids
        if others or not _tell_all(shown):
            shown = self._client.get(*self._of_service).data or []
        self._known = shown
        return shown


def _tell_all(entries: Sequence[Entry]) -> bool:
    """Whether there are instances, each with a check of its own."""
    return bool(entries) and all(
        any(check.get("ServiceID") == entry["Service"]["ID"] for check in entry["Checks"] or ()) for entry in entries
    )
