"""One simulated machine: what the catalog says of it, its Consul agent's answers, its application."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .link import Link

DATACENTER = "dc1"
PORT = 8500
"""Of the agent and, to save a listener for each machine, of the application, which answers /health."""
SERVICE_MAINTENANCE, NODE_MAINTENANCE = "_service_maintenance:", "_node_maintenance"


@dataclass(frozen=True)
class Behaviour:
    """How a machine takes a deployment.

    :param command_time: seconds that its deployment command takes.
    :param fails: what goes wrong with a version that is in `bad`: `command` (it exits with 1), `health` (the new
        process answers 500, and its check is critical), `later` (the same, after `good_for` seconds), or `absent` (its
        deploy agent accepts nothing, whatever the version).
    """

    command_time: float = 0.0
    fails: str = ""
    bad: frozenset[str] = frozenset()
    good_for: float = 12.0


class Reply(NamedTuple):
    """Of the machine's own HTTP API: status and JSON data, or text."""

    status: int
    data: Any


class Machine:
    """Thread-safe as the agent of one machine has to be: one change at a time."""

    def __init__(self, name: str, address: str, service: str, version: str, behaviour: Behaviour, link: Link) -> None:
        self.name = name
        self.address = address
        self.service = service
        self.version = version
        self.behaviour = behaviour
        self.ran: list[tuple[str, str]] = []
        """(reason, version) of each run of the deployment command by the deploy agent."""
        self._link = link
        self._changing = threading.Lock()
        self._health = "passing"
        self._maintenance: dict[str, str] = {}

    def key(self, name: str) -> str:
        """A key of the machine, as docs/keys.md has them."""
        return f"nodes/{self.name}/deployment/{self.service}/{name}"

    # -- the catalog -------------------------------------------------------------------------------------------------

    def operations(self) -> list[dict[str, Any]]:
        """Of the transaction that registers it, with the version that runs there.

        It has no serfHealth: Consul's leader deregisters nodes that have one and are no members of its gossip. So the
        controller gives a request up that goes on for longer than `rollout_accept_deadline` and 15 s.
        """
        service = {"ID": self.service, "Service": self.service, "Port": PORT, "Address": self.address}
        # The key of requests is there already, as after the first start of a deploy agent.
        keys = {"version": self.version, "new": "{}"}
        return [
            {"Node": {"Verb": "set", "Node": {"Node": self.name, "Address": self.address}}},
            {"Service": {"Verb": "set", "Node": self.name, "Service": service}},
            {"Check": {"Verb": "set", "Check": self._health_check()}},
            *(
                {"KV": {"Verb": "set", "Key": self.key(name), "Value": b64encode(value.encode()).decode()}}
                for name, value in keys.items()
            ),
        ]

    def _health_check(self) -> dict[str, Any]:
        name = f"service:{self.service}"
        return {"CheckID": name, "Name": "answers", "Status": self._health, **self._of_service(self.service)}

    def _of_service(self, service_id: str) -> dict[str, Any]:
        found = {"Node": self.name}
        return {**found, "ServiceID": service_id, "ServiceName": self.service} if service_id else found

    def _maintenance_check(self, check_id: str, reason: str) -> dict[str, Any]:
        of_node = check_id == NODE_MAINTENANCE
        about = self._of_service("" if of_node else check_id.removeprefix(SERVICE_MAINTENANCE))
        name = "Node Maintenance Mode" if of_node else "Service Maintenance Mode"
        return {"CheckID": check_id, "Name": name, "Status": "critical", "Notes": reason, **about}

    def _register(self, check: Mapping[str, Any]) -> None:
        entry = {"Node": self.name, "Address": self.address, "SkipNodeUpdate": True, "Check": check}
        self._change("register", entry)

    def _change(self, verb: str, entry: Mapping[str, Any]) -> None:
        answer = self._link.ask("PUT", f"/v1/catalog/{verb}", json.dumps(entry).encode())
        if answer.status != 200:
            raise OSError(f"{verb} of {self.name}: {answer.status} {answer.content[:300]!r}")

    # -- its Consul agent --------------------------------------------------------------------------------------------

    def agent(self, method: str, path: str, params: Mapping[str, str]) -> Reply:
        """The answer of its Consul agent, of what Hitless asks there; changes are in the catalog when it answers."""
        maintenance_of = "/v1/agent/service/maintenance/"
        if method == "PUT" and path.startswith(maintenance_of):
            service_id = urllib.parse.unquote(path.removeprefix(maintenance_of))
            if service_id != self.service:
                return Reply(404, f'Unknown service "{service_id}"')
            return self._set_maintenance(SERVICE_MAINTENANCE + service_id, params)
        if method == "PUT" and path == "/v1/agent/maintenance":
            return self._set_maintenance(NODE_MAINTENANCE, params)
        answers = {
            "/v1/agent/self": {"Config": {"NodeName": self.name, "Datacenter": DATACENTER}},
            "/v1/agent/services": {self.service: {"ID": self.service, "Service": self.service, "Tags": []}},
            "/v1/agent/checks": self._checks(),
        }
        if method == "GET" and path in answers:
            return Reply(200, answers[path])
        return Reply(404, f"a simulated agent does not know {method} {path}")

    def _checks(self) -> dict[str, Any]:
        kept = [self._maintenance_check(*one) for one in self._maintenance.items()]
        return {check["CheckID"]: check for check in [self._health_check(), *kept]}

    def _set_maintenance(self, check_id: str, params: Mapping[str, str]) -> Reply:
        with self._changing:
            if params.get("enable") == "true":
                # Consul keeps the first reason.
                reason = self._maintenance.setdefault(check_id, params.get("reason", ""))
                self._register(self._maintenance_check(check_id, reason))
            elif self._maintenance.pop(check_id, None) is not None:
                self._change("deregister", {"Node": self.name, "CheckID": check_id})
        return Reply(200, "")

    # -- its application ---------------------------------------------------------------------------------------------

    def health(self) -> Reply:
        """The answer of its application to /health."""
        return Reply(200 if self._health == "passing" else 500, {"version": self.version})

    def deploy(self, reason: str, version: str, timeout: float) -> int | None:
        """The deployment command -> its exit code, None where it was ended after `timeout` seconds."""
        self.ran.append((reason, version))
        time.sleep(min(self.behaviour.command_time, timeout))
        if self.behaviour.command_time > timeout:
            return None
        fails = self.behaviour.fails if version in self.behaviour.bad else ""
        if fails == "command":
            return 1
        self.version = version
        self._set_health("critical" if fails == "health" else "passing", version)
        if fails == "later":
            timer = threading.Timer(self.behaviour.good_for, self._set_health, ("critical", version))
            timer.daemon = True
            timer.start()
        return 0

    def _set_health(self, health: str, version: str) -> None:
        """Of a process of that version, if it still runs."""
        with self._changing:
            if version == self.version and health != self._health:
                self._health = health
                self._register(self._health_check())
