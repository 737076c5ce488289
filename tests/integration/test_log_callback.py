"""The callback deployment_log as Ansible calls it, on a real Consul: what it tells of which deployment, and never."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader

from ansible_collections.hitless.consul.plugins.callback import deployment_log
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._views.log import read_logs
from tests.integration.consul_agent import Server
from tests.integration.services import started

ROLE = Path(__file__).resolve().parents[2] / "roles" / "rollout" / "tasks"
SECRETS = {"localhost": "cluster-token", "web1": "token-of-web1", "web2": "token-of-web2"}


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    yield from started(None)


class Run:
    """One run of a playbook."""

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self.callback = deployment_log.CallbackModule()
        options = {"path": str(path), "consul": True, "close_within": 10.0}
        self.callback.get_option = options.get  # type: ignore[method-assign]
        inventory = SimpleNamespace(get_host=self.host)
        manager = SimpleNamespace(get_vars=self._variables, _inventory=inventory)
        self.callback.v2_playbook_on_play_start(
            SimpleNamespace(get_variable_manager=lambda: manager, _loader=DataLoader())
        )

    def _variables(self, host: Any, **_more: Any) -> dict[str, Any]:
        name = host.get_name()
        own = "token" if name == "localhost" else "agent_token"
        return {"hitless_consul_url": self.url, f"hitless_consul_{own}": SECRETS[name]}

    @staticmethod
    def host(name: str) -> Any:
        return SimpleNamespace(get_name=lambda: name)

    def task(
        self,
        host: str,
        action: str,
        name: str,
        data: dict[str, Any],
        *,
        place: str = "/home/me/deploy.yml:3",
        args: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        task = SimpleNamespace(
            action=action, _uuid=name, no_log=False, args=args, get_name=lambda: name, get_path=lambda: place
        )
        self.callback.v2_runner_on_start(self.host(host), task)
        told = self.callback.v2_runner_on_failed if data.get("failed") else self.callback.v2_runner_on_ok
        told(SimpleNamespace(result=data, task=task, host=self.host(host)))

    def step(self, host: str, step: str, data: dict[str, Any]) -> None:
        """A step of the role, as its one action takes it."""
        place, args = f"{ROLE}/steps/{step}.yml:4", {"step": step}
        self.task(host, deployment_log.STEP, step.capitalize(), {"step": step, **data}, place=place, args=args)

    def begin(self, deployment: str, service: str) -> None:
        self.step("localhost", "prepare", {"id": deployment, "options": {"service": service}})
        self.step("localhost", "plan", {"id": deployment, "recorded": True})

    def end(self) -> None:
        self.callback.v2_playbook_on_stats(None)


def logs(consul: Server, deployment: str, service: str) -> dict[str, str]:
    hosts = dict.fromkeys(("localhost", "web1", "web2"))
    return read_logs(Client(Connection(consul.url)), Keys(service), deployment, hosts)


def test_each_deployment_of_a_run_has_its_own_log(consul: Server, tmp_path: Path) -> None:
    run = Run(consul.url, tmp_path / "log.jsonl")
    for deployment, service in (("d1", "web"), ("d2", "web"), ("d3", "api")):
        run.begin(deployment, service)
        run.task("web1", "ansible.builtin.command", f"Tell of {deployment}", {"changed": True})
    run.end()
    for deployment, service in (("d1", "web"), ("d2", "web"), ("d3", "api")):
        found = logs(consul, deployment, service)["web1"]
        assert [line for line in found.splitlines() if "Tell of" in line] == [found.strip()]
        assert f"Tell of {deployment}" in found
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["deployment"] for one in entries if one["host"] == "web1"] == ["d1", "d2", "d3"]


def test_a_deployment_without_hooks_is_recorded_by_its_first_task(consul: Server, tmp_path: Path) -> None:
    run = Run(consul.url, tmp_path / "log.jsonl")
    run.step("localhost", "prepare", {"id": "p1", "options": {"service": "web"}, "recorded": True})
    run.task("web1", "ansible.builtin.command", "Tell", {"changed": True})
    run.end()
    assert "changed: Tell" in logs(consul, "p1", "web")["web1"]


def test_no_token_is_told_whoever_has_it(consul: Server, tmp_path: Path) -> None:
    run = Run(consul.url, tmp_path / "log.jsonl")
    everything = " ".join(SECRETS.values())
    for deployment in ("s1", "s2"):
        run.begin(deployment, "secret")
        for host in ("web1", "web2"):
            run.step(host, "deploy", {"stdout": f"with {SECRETS[host]}", "changed": True})
            run.task(host, "ansible.builtin.command", "Fail", {"failed": True, "msg": f"no {SECRETS[host]}"})
    run.task("web1", "ansible.builtin.command", "Last", {"failed": True, "msg": f"{everything} end"})
    run.end()
    text = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    text += json.dumps([logs(consul, one, "secret") for one in ("s1", "s2")])
    assert "with ***" in text
    assert "*** *** *** end" in text
    assert not [one for one in SECRETS.values() if one in text]
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o600


def test_housekeeping_is_left_out_where_it_goes_well(consul: Server, tmp_path: Path) -> None:
    run = Run(consul.url, tmp_path / "log.jsonl")
    run.begin("h1", "house")
    own = f"{ROLE}/batch.yml:7"
    run.task("web1", "ansible.builtin.set_fact", "Judge", {}, place=own)
    run.step("web1", "gate", {})
    run.task("web1", "ansible.builtin.set_fact", "Of a hook", {})
    run.step("web1", "drain", {"changed": True})
    run.task("web1", "ansible.builtin.assert", "Require", {"failed": True, "msg": "it is not"}, place=own)
    run.end()
    told = [line.partition(": ")[2].partition(" (")[0] for line in logs(consul, "h1", "house")["web1"].splitlines()]
    assert [one for one in told if one] == ["Of a hook", "Drain", "Require"]
