"""A Consul in memory, as far as the collection asks it: what answers below its client, at the seam of the transport.

As in Consul's own source: a value that is the same is no change and keeps its index; a plain set keeps a lock's
session; a transaction is all or nothing; a blocking read returns when the index of what it asks passes the one that it
names, which is no proof of a change; a session that ends frees its lock, and the value stays. Checks have one index: a
read of some of them returns at once where any other has changed since, and is woken by its own alone.
"""

from __future__ import annotations

import json
import random
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from .clock import Process, Scheduler, Waiter

SERVICE = "web"
_NODE = re.compile(r'and Node\.Node == "(?P<node>[^"]+)"')
_UNHEALTHY = 'and (Checks.Status == "critical" or Checks.Status == "warning")'
_CRITICAL = f'ServiceName == "{SERVICE}" or ServiceName == ""'
_SHOWN = re.compile(r'and \(Checks\.Status == "critical" or Node\.Node == "(?P<node>[^"]+)"\)')


class Machine(Protocol):
    """What the catalog needs of a machine."""

    name: str

    def entry(self) -> dict[str, Any]:
        """As ``/v1/health/service`` shows it."""

    def checks(self) -> list[dict[str, Any]]:
        """As ``/v1/health/node`` shows it."""


@dataclass(frozen=True)
class Item:
    """A key."""

    value: str
    index: int
    session: str = ""


@dataclass
class Response:
    """What the client's callback gets."""

    code: int
    body: str
    headers: Mapping[str, str]


class Observer(Protocol):
    """Is told of what is asked."""

    def writes(self, process: Process, operations: Sequence[Mapping[str, Any]]) -> None:
        """A transaction is about to take place."""

    def set_by_hand(self, key: str, text: str) -> None:
        """A key is about to be set outside of transactions."""


class Consul:
    """Keys, sessions and catalog of one cluster.

    :param is_away: whether it has no leader at this moment.
    """

    def __init__(self, scheduler: Scheduler, is_away: Callable[[], bool]) -> None:
        self.scheduler = scheduler
        self.is_away = is_away
        self.keys: dict[str, Item] = {}
        self.sessions: dict[str, str] = {}
        """Session -> the process that has made it."""
        self.machines: dict[str, Machine] = {}
        self.observer: Observer | None = None
        self.index = 10
        self._changed: dict[str, int] = {}
        """Topic -> index of its last change."""
        self._waiting: dict[str, list[Waiter]] = {}
        self._bodies: dict[tuple[str, str], tuple[int, str]] = {}
        self._critical: dict[str, list[dict[str, Any]]] = {}
        """Node -> its critical checks."""

    # -- changes ----------------------------------------------------------------------------------------------

    def changed(self, *topics: str) -> None:
        """Something of each of the topics is not as it was."""
        self.index += 1
        for topic in topics:
            self._changed[topic] = self.index
            for one in self._waiting.pop(topic, ()):
                self.scheduler.wake(one, self.scheduler.rng.uniform(0.0005, 0.004))

    def machine_changed(self, node: str) -> None:
        critical = [one for one in self.machines[node].checks() if one["Status"] == "critical"]
        is_seen = critical != self._critical.get(node, [])
        self._critical[node] = critical
        self.changed("catalog", f"node/{node}", *(["critical"] if is_seen else []))

    def end_session(self, session: str) -> None:
        """Its lock is free; the value stays."""
        if self.sessions.pop(session, None) is None:
            return
        for key, item in self.keys.items():
            if item.session == session:
                self.changed(f"kv/{key}")
                self.keys[key] = replace(item, session="", index=self.index)

    def set_key(self, key: str, value: str) -> None:
        """As somebody by hand."""
        if self.observer:
            self.observer.set_by_hand(key, value)
        self._set(key, b64encode(value.encode()).decode())

    def text(self, key: str) -> str:
        """The value of a key; empty where there is none."""
        item = self.keys.get(key)
        return b64decode(item.value).decode() if item else ""

    # -- requests ---------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, params: Mapping[str, Any], body: str) -> Response:
        """What Consul answers to a request that has reached it."""
        if self.is_away():
            return Response(500, "No cluster leader", {})
        area, _slash, name = path.removeprefix("/v1/").partition("/")
        if area == "txn":
            return self._txn(json.loads(body))
        if area == "kv":
            return self._key(method, name, params, body)
        if area == "session":
            return self._session(name)
        if area == "health":
            return self._health(name, params)
        if area == "catalog":
            return self._catalog(name, params)
        raise NotImplementedError(f"{method} {path} {params}")

    def _block(self, topic: str, params: Mapping[str, Any], woken_by: str = "") -> int:
        """Return the index of a topic, once it has passed the one that is named or the time is over.

        :param woken_by: the part of the topic that ends the wait; all of it where not given.
        """
        index = int(params.get("index") or 0)
        until = self.scheduler.now + int(str(params.get("wait", "0ms")).removesuffix("ms")) / 1000
        while index and self._changed.get(topic, 1) <= index and self.scheduler.now < until:
            self._waiting.setdefault(woken_by or topic, []).append(self.scheduler.current.waiter)
            self.scheduler.wait(until - self.scheduler.now)
        return self._changed.get(topic, 1)

    def _answered(self, topic: str, data: Callable[[], object], index: int, of: str = "") -> Response:
        """An answer, made once for each state of its topic."""
        made, body = self._bodies.get((topic, of), (-1, ""))
        if made != index:
            body = json.dumps(data())
            self._bodies[topic, of] = index, body
        return Response(200, body, {"X-Consul-Index": str(index)})

    # -- the catalog ------------------------------------------------------------------------------------------

    def _health(self, name: str, params: Mapping[str, Any]) -> Response:
        kind, _slash, name = name.partition("/")
        if kind == "connect":
            return Response(200, "[]", {})
        if kind == "node":
            index = self._block("catalog", params, f"node/{name}")
            return self._answered("catalog", self.machines[name].checks, index, name)
        wanted = str(params.get("filter", ""))
        if kind == "state":
            if (name, wanted) != ("critical", _CRITICAL):
                raise NotImplementedError(f"{name} {wanted}")
            # Where nothing is critical, Consul waits at a place in its index that all checks share.
            index = self._block("catalog", params, "critical" if self._all_critical() else "")
            return self._answered("catalog", self._all_critical, index, "critical")
        if kind != "service":
            raise NotImplementedError(kind)
        index = self._block("catalog", params)
        return self._answered("catalog", lambda: self._entries(wanted), index, wanted)

    def _all_critical(self) -> list[dict[str, Any]]:
        return [check for one in self.machines.values() for check in one.checks() if check["Status"] == "critical"]

    def _catalog(self, name: str, params: Mapping[str, Any]) -> Response:
        """A node with its instances of the service."""
        kind, _slash, node = name.partition("/")
        if kind != "node" or params.get("filter") != f'Service == "{SERVICE}"':
            raise NotImplementedError(f"{name} {params}")
        if node not in self.machines:
            return Response(200, "null", {})
        entry = self.machines[node].entry()
        found = {"Node": entry["Node"], "Services": {entry["Service"]["ID"]: entry["Service"]}}
        return Response(200, json.dumps(found), {"X-Consul-Index": str(self._changed.get("catalog", 1))})

    def _entries(self, wanted: str) -> list[dict[str, Any]]:
        rest = wanted.removeprefix(f'Service.Service == "{SERVICE}"').strip()
        entries = [machine.entry() for machine in self.machines.values()]
        if not rest:
            return entries
        one, several = _NODE.fullmatch(rest), _SHOWN.fullmatch(rest)
        if one:
            return [entry for entry in entries if entry["Node"]["Node"] == one["node"]]
        if several is None and rest != _UNHEALTHY:
            raise NotImplementedError(wanted)
        return [
            entry
            for entry in entries
            if (several and entry["Node"]["Node"] == several["node"])
            or any(check["Status"] == "critical" for check in entry["Checks"])
        ]

    # -- sessions ---------------------------------------------------------------------------------------------

    def _session(self, name: str) -> Response:
        what, _slash, session = name.partition("/")
        if what == "create":
            made = f"session-{self.index}-{len(self.sessions)}"
            self.sessions[made] = self.scheduler.current.process.name
            self.index += 1
            return Response(200, json.dumps({"ID": made}), {})
        if what == "destroy":
            self.end_session(session)
            return Response(200, "true", {})
        raise NotImplementedError(name)

    # -- keys -------------------------------------------------------------------------------------------------

    def _key(self, method: str, key: str, params: Mapping[str, Any], body: str) -> Response:
        if method == "PUT":
            if params.get("acquire", "") not in ("", *self.sessions):
                return Response(500, f"invalid session {params['acquire']!r}", {})
            return Response(200, json.dumps(self._put(key, params, body)), {})
        if method == "DELETE":
            item = self.keys.get(key)
            if "cas" in params and (item is None or item.index != int(params["cas"])):
                return Response(200, "false", {})
            self._delete(key, tree="recurse" in params)
            return Response(200, "true", {})
        if "keys" in params:
            separator = str(params.get("separator", ""))
            names = [one for one in sorted(self.keys) if one.startswith(key)]
            if separator:
                names = list(dict.fromkeys(self._up_to(one, key, separator) for one in names))
            return Response(200 if names else 404, json.dumps(names), {"X-Consul-Index": str(self.index)})
        if "recurse" in params:
            items = self._tree(key)
            return Response(200 if items else 404, json.dumps(items), {"X-Consul-Index": str(self.index)})
        index = max(1, self._block(f"kv/{key}", params))
        found = [self._shown(key, self.keys[key])] if key in self.keys else []
        return Response(200 if found else 404, json.dumps(found), {"X-Consul-Index": str(index)})

    @staticmethod
    def _up_to(name: str, prefix: str, separator: str) -> str:
        first, found, _rest = name[len(prefix) :].partition(separator)
        return prefix + first + found

    def _put(self, key: str, params: Mapping[str, Any], body: str) -> bool:
        value, item = b64encode(body.encode()).decode(), self.keys.get(key)
        if "acquire" in params:
            session = str(params["acquire"])
            if item and item.session not in ("", session):
                return False
            self._set(key, value, session)
            return True
        if "cas" in params and (item.index if item else 0) != int(params["cas"]):
            return False
        self.set_key(key, body)
        return True

    def _set(self, key: str, value: str, session: str | None = None) -> None:
        item = self.keys.get(key)
        holder = (item.session if item else "") if session is None else session
        if item and (item.value, item.session) == (value, holder):
            return
        self.changed(f"kv/{key}")
        self.keys[key] = Item(value, self.index, holder)

    def _delete(self, key: str, *, tree: bool = False) -> None:
        for name in [one for one in self.keys if (one.startswith(key) if tree else one == key)]:
            self.changed(f"kv/{name}")
            del self.keys[name]

    def _tree(self, prefix: str) -> list[dict[str, Any]]:
        return [self._shown(key, self.keys[key]) for key in sorted(self.keys) if key.startswith(prefix)]

    @staticmethod
    def _shown(key: str, item: Item) -> dict[str, Any]:
        shown = {"Key": key, "Value": item.value, "ModifyIndex": item.index, "Flags": 0}
        return {**shown, "Session": item.session} if item.session else shown

    # -- transactions -----------------------------------------------------------------------------------------

    def _txn(self, operations: Sequence[Mapping[str, Any]]) -> Response:
        wanted = [one["KV"] for one in operations]
        results: list[dict[str, Any]] = []
        refused = [(number, why) for number, one in enumerate(wanted) if (why := self._refuses(one))]
        if refused:
            errors = [{"OpIndex": number, "What": why} for number, why in refused]
            return Response(409, json.dumps({"Results": None, "Errors": errors}), {})
        if self.observer and any(one["Verb"] not in ("get-tree", "check-session") for one in wanted):
            self.observer.writes(self.scheduler.current.process, wanted)
        for one in wanted:
            results += self._apply(one)
        return Response(200, json.dumps({"Results": results, "Errors": None}), {})

    def _refuses(self, operation: Mapping[str, Any]) -> str:
        """Why it cannot take place; the conditions of a transaction are of keys that it does not write before."""
        verb, key = operation["Verb"], operation["Key"]
        item = self.keys.get(key)
        if verb == "check-session" and (item is None or item.session != operation["Session"]):
            return f"failed session check for key {key!r}"
        if verb == "cas" and (item.index if item else 0) != operation["Index"]:
            return f"failed to set key {key!r}, index is stale"
        if verb == "check-index" and (item is None or item.index != operation["Index"]):
            return f"failed index check for key {key!r}"
        if verb == "check-not-exists" and item is not None:
            return f"key {key!r} exists"
        return ""

    def _apply(self, operation: Mapping[str, Any]) -> list[dict[str, Any]]:
        verb, key = operation["Verb"], operation["Key"]
        if verb == "get-tree":
            return [{"KV": one} for one in self._tree(key)]
        if verb in ("set", "cas"):
            self._set(key, operation["Value"])
            return [{"KV": {"Key": key, "ModifyIndex": self.keys[key].index}}]
        if verb in ("delete", "delete-tree"):
            self._delete(key, tree=verb == "delete-tree")
            return []
        if verb in ("check-session", "check-index", "check-not-exists"):
            return []
        raise NotImplementedError(verb)


class Network:
    """How long requests take, and what becomes of their answers.

    :param loses: the share of the answers to writes that are lost, though the write took place.
    """

    def __init__(self, scheduler: Scheduler, rng: random.Random, loses: float) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._loses = loses

    def carry(self, method: str, ask: Callable[[], Response]) -> Response:
        """Ask, with the time that it takes before or after."""
        rng, seconds = self._rng, self._rng.expovariate(250) + 0.0005
        comes_late = rng.random() < 0.3
        self._scheduler.sleep(0.0003 if comes_late else seconds)
        answer = ask()
        if comes_late:
            self._scheduler.sleep(seconds)
        if method == "PUT" and self._loses and rng.random() < self._loses:
            return Response(500, "rpc error: the connection was closed", {})
        return answer


class Transport:
    """The seam under the collection's client.

    :param ask: (method, path, params, body) -> the answer of whoever is asked.
    """

    def __init__(self, network: Network, ask: Callable[[str, str, Mapping[str, Any], str], Response]) -> None:
        self._network = network
        self._ask = ask

    def get(self, callback: Callable[[Any], Any], path: str, params: Any = None, headers: Any = None) -> Any:
        return self._send("GET", callback, path, params, b"")

    def put(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = b"", headers: Any = None
    ) -> Any:
        return self._send("PUT", callback, path, params, data)

    def post(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = b"", headers: Any = None
    ) -> Any:
        return self._send("POST", callback, path, params, data)

    def delete(
        self, callback: Callable[[Any], Any], path: str, params: Any = None, data: Any = b"", headers: Any = None
    ) -> Any:
        return self._send("DELETE", callback, path, params, b"")

    def _send(self, method: str, callback: Callable[[Any], Any], path: str, params: Any, data: bytes) -> Any:
        given = dict(params or ())
        return callback(self._network.carry(method, lambda: self._ask(method, path, given, data.decode())))
