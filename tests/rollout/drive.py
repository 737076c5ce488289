"""Rollouts of the lab's service, and what Consul, the VMs and the load say about them afterwards."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lab import ConsulError, Lab, Report, wait_until
from lab.load import LoadGenerator
from lab.testkit.ansible_run import Ansible, Result, Run

DRAIN = 1.0
# The checks of the lab run each second, and HAProxy follows Consul within 0.2 s.
VARIABLES = {
    "rollout_health_url": "http://{{ consul_address }}:8080/health",
    "rollout_health_match": '"version": "{{ deploy_version }}"',
    "rollout_drain_time": DRAIN,
    "rollout_min_healthy_time": 1,
    "rollout_healthy_deadline": 8,
    "rollout_bake_time": 0.5,
    "rollout_watch_grace": 1,
}


@contextmanager
def once(what: str, when: Callable[[], bool], do: Callable[[], object]) -> Iterator[None]:
    """Beside a run: as soon as ``when`` holds."""
    failed: list[Exception] = []

    def wait() -> None:
        try:
            wait_until(what, when, 120)
            do()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()
    assert not failed, failed


@dataclass(frozen=True)
class Drive:
    """Runs the collection's playbooks against a lab. Options come without their prefix: ``batch_size=2``.

    :param more: beats the lab's own environment variables.
    """

    ansible: Ansible
    lab: Lab
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """By which Ansible finds the lab."""
        return {**self.lab.environment, **self.more}

    def arguments(self, version: str | None, *more: str, name: str, kind: str, **options: Any) -> list[str]:
        values = {"rollout_service": "web", **{f"rollout_{key}": value for key, value in options.items()}}
        if version is not None:
            values["rollout_version"] = version
        inventory = str(self.lab.directory / "inventory" / kind / "web.consul.yml")
        return ["-i", inventory, f"hitless.consul.{name}", "-e", json.dumps(values), *more]

    def run(
        self, version: str | None, *more: str, name: str = "rollout", kind: str = "local", **options: Any
    ) -> Result:
        """One playbook to its end; ``more`` are further arguments of ansible-playbook."""
        arguments = self.arguments(version, *more, name=name, kind=kind, **options)
        return self.ansible.playbook(*arguments, env=self.environment)

    def start(self, version: str | None, *more: str, name: str = "rollout", kind: str = "local", **options: Any) -> Run:
        """One playbook, under way."""
        arguments = self.arguments(version, *more, name=name, kind=kind, **options)
        return self.ansible.start(*arguments, env=self.environment)

    # -- what became of it ---------------------------------------------------------------------------------------

    def ask(self, text: str) -> None:
        """Write the request of the service, as ``consul kv put`` does."""
        self.lab.consul.call("PUT", "kv/deploy/web/request", text.encode())

    def answer(self) -> dict[str, Any]:
        """What became of the request."""
        data: dict[str, Any] = json.loads(self.lab.kv("deploy/web/request") or "{}")
        return data

    def running(self) -> list[str | None]:
        """The version of the process on each VM."""
        return [vm.running_version() for vm in self.lab.vms]

    def recorded(self, key: str = "version") -> list[str | None]:
        """The key ``version`` or ``previous`` of each node."""
        return [self.lab.kv(f"nodes/{vm.name}/deployment/web/{key}") for vm in self.lab.vms]

    def maintenance(self) -> dict[str, str]:
        """The nodes in maintenance, and why."""
        reasons = {vm.name: vm.maintenance_reason() for vm in self.lab.vms}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def all_keys(self) -> list[str]:
        """All keys there are."""
        try:
            return list(self.lab.consul_get("kv/?keys&consistent"))
        except ConsulError as error:
            if error.status != 404:
                raise
            return []

    def status(self, node: str) -> str:
        """The step that a node is at, as its key says; empty where it says nothing."""
        return str(json.loads(self.lab.kv(f"nodes/{node}/deployment/web/status") or "{}").get("state", ""))

    def holds_lock(self) -> bool:
        """Whether a session holds the lock of the service."""
        try:
            return bool(self.lab.consul_get("kv/deploy/web/lock?consistent")[0].get("Session"))
        except ConsulError as error:
            if error.status != 404:
                raise
            return False

    def record(self, direction: str = "") -> dict[str, Any]:
        """The record of the last deployment with the hosts of its plan, empty where there is none.

        :param direction: of the last one that way, ``deploy`` or ``rollback``: a rollout that fails is rolled back by
            a deployment of its own.
        """
        keys = [key for key in self.all_keys() if key.startswith("deploy/web/deployments/") and key.endswith("/record")]
        records = ((key, json.loads(self.lab.kv(key) or "{}")) for key in sorted(keys, reverse=True))
        last, found = next((one for one in records if direction in ("", one[1].get("direction"))), ("", {}))
        if not last:
            return {}
        plan = last.removesuffix("record") + "plan/"
        parts = [json.loads(self.lab.kv(key) or "{}") for key in self.all_keys() if key.startswith(plan)]
        hosts = {name: host for part in parts for name, host in part["hosts"].items()}
        batches: dict[int, list[str]] = {}
        for name, host in hosts.items():
            if "batch" in host:
                batches.setdefault(host["batch"], []).append(name)
        return {
            **found,
            "plan": {**found.get("plan", {}), "hosts": hosts, "batches": [batches[one] for one in sorted(batches)]},
        }

    def results(self, direction: str = "") -> dict[str, dict[str, Any]]:
        """Node -> what is recorded of it (outcome, batch, error, output), in the last deployment."""
        prefix = f"deploy/web/deployments/{self.record(direction).get('id')}/nodes/"
        keys = [key for key in self.all_keys() if key.startswith(prefix)]
        return {key.removeprefix(prefix): json.loads(self.lab.kv(key) or "{}") for key in keys}

    def outcomes(self, direction: str = "") -> dict[str, str]:
        """Node -> outcome, in the last deployment: once that has ended, a host that wrote none is pending."""
        record = self.record(direction)
        planned = record.get("plan", {"hosts": {}})["hosts"]
        ended = {host for host, plan in planned.items() if plan["state"] == "to_change" and record.get("summary")}
        return {
            **dict.fromkeys(ended, "pending"),
            **{node: result["outcome"] for node, result in self.results(direction).items()},
        }

    def deployed(self) -> list[str]:
        """The VMs whose deployment command has run."""
        return [vm.name for vm in self.lab.vms if vm.deploys()]

    def is_settled(self) -> bool:
        """Nobody is in maintenance and nothing is locked."""
        return not self.maintenance() and not self.holds_lock()


class Load:
    """Load on the lab, with a steady second before and after; ``report`` is complete after the block."""

    def __init__(self, lab: Lab, url: str = "") -> None:
        self._generator: LoadGenerator = lab.load(rate=100, url=url)

    def __enter__(self) -> Load:
        self._generator.start()
        time.sleep(1)
        return self

    def __exit__(self, *_error: object) -> None:
        time.sleep(1)
        self._generator.stop()

    @property
    def report(self) -> Report:
        return self._generator.report()

    def check_nothing_lost(self) -> None:
        """Fail with the account where a request was lost, or hardly any was sent."""
        assert self.report.total > 100, str(self.report)
        assert not self.report.lost, str(self.report)


class RotationWatch:
    """From when to when the catalog surely showed each node in maintenance (epoch seconds): node -> [first, last].

    Only the last of several maintenances of one node is kept.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.seen: dict[str, list[float]] = {}
        self.most = 0
        """Nodes in maintenance at once."""
        self.fewest = len(lab.vms)
        """Instances that got traffic."""
        self.out: set[str] = set()
        """Nodes that got none at any time."""
        self.failing: dict[str, float] = {}
        """Node -> when the catalog surely showed first that it fails, and is in no maintenance (epoch seconds)."""
        self.instances: set[tuple[str, str]] = set()
        """Node and service ID of each instance that was in maintenance."""

    def _watch(self) -> None:
        out: set[str] = set()
        while not self._end.wait(0.05):
            asked = time.time()
            try:
                entries = self._lab.services()
            except ConsulError:  # no leader for a moment
                continue
            answered = time.time()
            instances = {_instance(one) for one in entries if _in_maintenance(one)}
            self.instances |= instances
            out_of_rotation = [one for one in entries if not _in_rotation(one)]
            self.fewest = min(self.fewest, len(entries) - len(out_of_rotation))
            for entry in out_of_rotation:
                self.out.add(entry["Node"]["Node"])
                if not _in_maintenance(entry):
                    self.failing.setdefault(entry["Node"]["Node"], answered)
            found = {node for node, _ in instances}
            self.most = max(self.most, len(found))
            for node in found:
                if node not in out:
                    self.seen[node] = [answered, answered]
                # It was still in maintenance when it was asked for.
                self.seen[node][1] = max(asked, self.seen[node][0])
            out = found

    def __enter__(self) -> RotationWatch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._thread.join()


def _instance(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["Node"]["Node"], entry["Service"]["ID"]


def _in_maintenance(entry: dict[str, Any]) -> bool:
    return any(check["CheckID"].startswith("_service_maintenance:") for check in entry["Checks"])


def _in_rotation(entry: dict[str, Any]) -> bool:
    return all(check["Status"] in ("passing", "warning") for check in entry["Checks"])
