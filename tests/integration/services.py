"""Services on one real Consul agent, changed by hand, and the tasks of the collection asked of it."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlencode

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_protocol import Assignment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn
from lab import wait_until
from tests.integration.consul_agent import Server
from tests.shell import in_a_shell

ENDS = ("1.8.7", None)
"""The oldest Consul, and the newest that is there."""
ID = "20261123T142233Z-1.4.2-7f3a"
"""Of a deployment."""
_numbers = itertools.count(1)
_addresses = itertools.count(135)


def this_host() -> Host:
    """This machine; commands run apart from this process, as they do wherever Ansible runs."""
    return Host(None, sys.executable, as_user=in_a_shell)


def started(consul: str | None) -> Iterator[Server]:
    """One server for a fixture."""
    server = Server(consul, next(_addresses))
    try:
        server.start()
        yield server
    finally:
        server.close()


class Servers:
    """One server of each version for a worker, for the tests that have a service of their own there."""

    def __init__(self) -> None:
        self._servers: dict[str | None, Server] = {}

    def get(self, consul: str | None) -> Server:
        """Started when it is first asked for, and again where a test has left none that answers."""
        server = self._servers.get(consul)
        if server is not None and not server.answers():
            server.close()
            server = None
        if server is None:
            server = self._servers[consul] = Server(consul, next(_addresses))
            server.start()
        return server

    def close(self) -> None:
        """End all of them."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()


def assignment(version: str | None = "2.0.0", **changes: Any) -> Assignment:
    """What a rollout with the defaults of its options asks of a machine."""
    of_options = {one.name: DEFAULTS[one.name] for one in fields(Assignment) if one.name in DEFAULTS}
    fixed = {"reason": "deploy", "previous": "", "remember": None, "scope": ("service",), "tags": ()}
    asked = {"deployment": ID, "version": version, "health_url": "", "health_match": ""}
    return Assignment(**{**of_options, **fixed, **asked, **changes})


class Services:
    """A service of one test alone, on the one node there is."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = f"web-{next(_numbers)}"
        self.node = server.node
        self.warned: list[str] = []
        self.shown_text: list[str] = []

    def register(self, service_id: str = "", status: str = "passing", **more: Any) -> str:
        """An instance with a check that a test sets; its ID."""
        service_id = service_id or self.name
        check = {"CheckID": f"check-{service_id}", "Name": "answers", "TTL": "1h", "Status": status}
        self.server.put("agent/service/register", {"Name": self.name, "ID": service_id, "Check": check, **more})
        self.shown(service_id)
        return service_id

    def beside(self, status: str) -> None:
        """An instance on another node, and its check."""
        name = f"{self.name}-2"
        check = {"CheckID": "alive", "Status": status, "ServiceID": name}
        about = {"Node": name, "Address": "127.0.0.9", "Service": {"Service": self.name, "ID": name}, "Check": check}
        self.server.put("catalog/register", about)

    def shown(self, service_id: str) -> None:
        """Return when the catalog shows the instance."""
        wait_until("the catalog shows it", lambda: service_id in self.statuses())

    def set(self, status: str, output: str = "", service_id: str = "") -> None:
        body = {"Status": status, "Output": output}
        self.server.put(f"agent/check/update/check-{service_id or self.name}", body)

    def deregister(self, service_id: str = "") -> None:
        self.server.put(f"agent/service/deregister/{service_id or self.name}")

    def operator(self, reason: str, *, enable: bool = True, service_id: str = "") -> None:
        """`consul maint` by hand, and seen in the catalog."""
        service_id = service_id or self.name
        self._maintain(reason, enable, service_id)
        wait_until("the catalog shows it", lambda: (self.reasons()[service_id] is not None) == enable)

    def drop(self) -> None:
        """`consul maint -disable` where somebody may put it back before it is seen."""
        self._maintain("", False, self.name)

    def _maintain(self, reason: str, enable: bool, service_id: str) -> None:
        query = urlencode({"enable": str(enable).lower(), "reason": reason})
        self.server.put(f"agent/service/maintenance/{quote(service_id)}?{query}")

    def entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.server.get(f"health/service/{self.name}?consistent")
        return entries

    def statuses(self) -> dict[str, dict[str, str]]:
        """Service ID -> check ID -> status."""
        return {
            one["Service"]["ID"]: {check["CheckID"]: check["Status"] for check in one["Checks"]}
            for one in self.entries()
        }

    def reasons(self) -> dict[str, str | None]:
        """Service ID -> reason of its maintenance as the catalog shows it."""
        found: dict[str, str | None] = {}
        for one in self.entries():
            wanted = f"_service_maintenance:{one['Service']['ID']}"
            notes = [check["Notes"] for check in one["Checks"] if check["CheckID"] == wanted]
            found[one["Service"]["ID"]] = notes[0] if notes else None
        return found

    def node_reason(self) -> str | None:
        checks = self.server.get(f"health/node/{self.node}?consistent")
        return next((check["Notes"] for check in checks if check["CheckID"] == "_node_maintenance"), None)

    def client(self) -> Client:
        return Client(Connection(self.server.url))

    def session(self, key: str) -> str:
        """A session that holds the lock."""
        client = self.client()
        session: str = client.put("/v1/session/create", body=json.dumps({"LockDelay": "0s"})).data["ID"]
        assert client.set_key(key, "{}", acquire=session)
        return session

    def host(
        self, run: Run, left: Mapping[str, Any] | None = None, *, on: Host | None = None, **planned: Any
    ) -> HostDeployment:
        """The node's part in a run, as a step of it finds it: what the step before has left is ``left``."""
        options = {"url": self.server.url, "agent_url": self.server.url}
        task = Task({}, options, on or this_host(), warn=self.warned.append, show=self.shown_text.append)
        about = {"batch": 1, "from_version": "1", "to_version": "2", "rollback_to": "1", **planned}
        return HostDeployment(task, run, PlannedHost("web1", self.node, **about), Turn.of(left, run.id))

    def rollout(self, deployment: str = ID, *, session: str = "", **options: Any) -> Run:
        """A run that holds the lock, with the defaults of a rollout's options and a quick verification."""
        quick = {"drain_time": 0, "min_healthy_time": 0, "check_interval": 0, "healthy_deadline": 20}
        values = {**DEFAULTS, **quick, "service": self.name, "version": "2", **options}
        return Run(deployment, values, session=session or self.session(Keys(self.name).lock), operator="anna@ci")

    def task(self, module: ModuleType, *, check_mode: bool = False, on: Host | None = None, **params: Any) -> Task:
        """The task as an action makes it: options checked and completed by the module's own specification."""
        checked = ArgumentSpecValidator(module.ARGUMENT_SPEC, **getattr(module, "CONSTRAINTS", {})).validate(params)
        assert not checked.error_messages
        options = {"url": self.server.url, "agent_url": self.server.url, "node": params.get("node", self.node)}
        return Task(dict(checked.validated_parameters), options, on or this_host(), check_mode)

    def run(self, module: ModuleType, **params: Any) -> dict[str, Any]:
        result: dict[str, Any] = module.perform(self.task(module, **params))
        return result


class Swallowing(Client):
    """An agent whose changes get lost: it answers, and does nothing, for the first ``number`` PUTs."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(Connection(url))
        self.left = number
        self.swallowed = 0

    def put(self, path: str, *args: Any, **kwargs: Any) -> Any:
        if self.left > 0:
            self.left -= 1
            self.swallowed += 1
            return self.get("/v1/status/leader")
        return super().put(path, *args, **kwargs)
