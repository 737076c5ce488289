"""A rollout in a window over ten nodes of a real catalog, as far as its gate goes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_check_session
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store, window
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import record_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress, read_progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.recorded_host import RecordedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.turn import Turn
from tests.integration.consul_agent import Server
from tests.integration.services import Services, this_host

HOSTS = [f"web{number}" for number in range(1, 11)]


class Window:
    """A rollout over ten nodes of the catalog, as far as its gate goes."""

    def __init__(
        self,
        server: Server,
        *,
        minimum: int,
        waves: Mapping[str, tuple[int, Sequence[str]]] | None = None,
        **options: Any,
    ) -> None:
        """:param waves: wave -> its minimum and its hosts."""
        self.web, self.server = Services(server), server
        self.keys = Keys(self.web.name)
        self.nodes = {host: f"{self.web.name}-{host}" for host in HOSTS}
        for host in HOSTS:
            self.set(host, "passing")
        hosts = {host: {"node": self.nodes[host], "batch": 1, "from": "1", "to": "2"} for host in HOSTS}
        hosts = {host: {**about, "healthy": True} for host, about in hosts.items()}
        found = [
            {"name": name, "registered": len(mine), "minimum": least} for name, (least, mine) in (waves or {}).items()
        ]
        wave_of = {self.nodes[host]: name for name, (_least, mine) in (waves or {}).items() for host in mine}
        plan = {"batches": [HOSTS], "windows": [10], "hosts": hosts, "health": {"minimum": minimum}}
        plan |= {"waves": found, "wave_of": wave_of}
        made = self.web.rollout(**{"healthy_deadline": 2, **options})
        self.run = Run.of({**made.as_dict(), "plan": plan, "steps": ["turn"]})
        store.create(self.web.client(), self.keys, record_of(self.run), self.run.session)

    def set(self, host: str, status: str, tags: Sequence[str] = ()) -> None:
        self._register(host, tags, CheckID="alive", Name="alive", Status=status, ServiceID=self.web.name)

    def second(self, host: str, status: str = "passing", tags: Sequence[str] = ()) -> None:
        """A further instance on its node."""
        node, service = self.nodes[host], {"Service": self.web.name, "ID": "second", "Tags": list(tags)}
        check = {"Node": node, "CheckID": "second", "Name": "alive", "Status": status, "ServiceID": "second"}
        self.server.put("catalog/register", {"Node": node, "Address": "127.0.0.9", "Service": service, "Check": check})

    def retag(self, host: str, tags: Sequence[str]) -> None:
        """From outside: its check keeps those that it had."""
        service = {"Service": self.web.name, "ID": self.web.name, "Tags": list(tags)}
        self.server.put("catalog/register", {"Node": self.nodes[host], "Address": "127.0.0.9", "Service": service})

    def count(self) -> None:
        """The next worker counts all instances anew."""
        self.web.client().txn([replace(self.progress, counted=0.0).op(self.keys, self.run.id)])

    def maintain(self, host: str) -> None:
        """As an operator does."""
        name = f"_service_maintenance:{self.web.name}"
        self._register(host, CheckID=name, Status="critical", Notes="disk", ServiceID=self.web.name)

    def fail_node(self, host: str) -> None:
        """By a check of its own: what serfHealth is on is removed each minute where no agent gossips for it."""
        self._register(host, CheckID="disk", Name="disk", Status="critical")

    def lose(self, host: str) -> None:
        """Its Consul agent is gone."""
        self._register(host, CheckID="serfHealth", Name="Serf Health Status", Status="critical")

    def deregister(self, host: str) -> None:
        self.server.put("catalog/deregister", {"Node": self.nodes[host], "ServiceID": self.web.name})

    def _register(self, host: str, tags: Sequence[str] = (), **check: str) -> None:
        node, service = self.nodes[host], {"Service": self.web.name, "ID": self.web.name, "Tags": list(tags)}
        about = {"Node": node, "Address": "127.0.0.9", "Service": service, "Check": {"Node": node, **check}}
        self.server.put("catalog/register", about)

    def host(self, name: str) -> RecordedHost:
        task = Task({}, {"url": self.server.url}, this_host(), warn=self.web.warned.append)
        return RecordedHost(task, self.run, self.run.host(name), Turn(self.run.id))

    def admit(self, name: str) -> str:
        host = self.host(name)
        fence = kv_check_session(self.keys.lock, self.run.session)
        return window.admit(host, lambda operations, _seen: host.task.consul.txn([fence, *operations]))

    def end(self, name: str, outcome: str) -> None:
        host = self.host(name)
        host.turn = Turn(self.run.id, "returning" if outcome == "ok" else "rolling_back", outcome != "ok")
        assert host.end(outcome) == ""

    @property
    def progress(self) -> Progress:
        return read_progress(self.web.client(), self.keys, self.run.id)

    def all_at_once(self, then: Any = None) -> dict[str, str]:
        """Ten workers at the gate -> host -> why it may not begin."""
        barrier, answers = threading.Barrier(len(HOSTS)), {}

        def work(name: str) -> None:
            barrier.wait()
            answers[name] = self.admit(name)
            if then and not answers[name]:
                then(name)

        workers = [threading.Thread(target=work, args=(name,)) for name in HOSTS]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return answers
