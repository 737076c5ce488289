"""Deployments as Consul keeps them: begun, ended, cut off, recovered, pruned, shown."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.action import deployment_info
from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller
from ansible_collections.hitless.consul.plugins.module_utils._consul.lock import read_lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError, LockLost
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import ending, recovery
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store as deployments
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import record_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.finishing import finish, release
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.progress import Progress
from ansible_collections.hitless.consul.plugins.module_utils._rollout.pruning import prune
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.recovery import find_remains
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_version, record_version
from ansible_collections.hitless.consul.plugins.module_utils._views import report
from lab import wait_until
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server

pytestmark = pytest.mark.oldest

numbers = itertools.count(1)
PLAN: dict[str, Any] = {
    "batches": [["web1"], ["web2"]],
    "hosts": {
        "web1": {"node": "n1", "state": "to_change", "from": "1", "to": "2", "rollback_to": "1"},
        "web2": {"node": "n2", "state": "to_change", "from": "1", "to": "2", "rollback_to": "1"},
        "web3": {"node": "n3", "state": "current", "from": "2", "to": "2"},
        "web4": {"node": "n4", "state": "other_owner", "from": "1", "to": "2", "why": "oncall: disk"},
    },
}

NO_CONTROLLER = Controller("test", -1, 0)
"""Nobody keeps the locks of these tests, see the fixture."""


@pytest.fixture(autouse=True)
def without_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "start_keeper", lambda *_args, **_options: None)


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    server = Server(CONSUL, 35)
    try:
        server.start()
        yield server
    finally:
        server.close()


@dataclass
class Service:
    """A service of one test alone, and its tasks."""

    consul: Server
    keys: Keys
    shown: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    @property
    def client(self) -> Client:
        return Client(Connection(self.consul.url))

    def lock(self, deployment_id: str, holder: str = "anna@ci") -> str:
        """Take the lock as hitless.consul.lock does, without a keeper; return the session."""
        session: str = self.client.put("/v1/session/create", body=json.dumps({"LockDelay": "0s"})).data["ID"]
        value = {"deployment": deployment_id, "holder": holder, "since": "2026-11-23T14:22:33Z", "message": "test"}
        assert self.client.set_key(self.keys.lock, json.dumps(value), acquire=session)
        return session

    def unlock(self, run: Run) -> None:
        self.client.put(f"/v1/session/destroy/{run.session}")

    def rollout(self, deployment_id: str, session: str = "", plan: Mapping[str, Any] = PLAN, **options: Any) -> Run:
        about = {**DEFAULTS, "service": self.keys.service, "version": "2", **options}
        return Run(deployment_id, about, session=session, plan=plan, operator="anna@ci", origin="here")

    def start(self, run: Run) -> list[str]:
        """Write the record of a run that begins; return the ids of those that were interrupted."""
        interrupted = ending.mark_interrupted(self.client, self.keys, run.session)
        deployments.create(self.client, self.keys, record_of(run), run.session)
        return [one.record.id for one in interrupted]

    def write(self, record: Record) -> None:
        """As a run that holds no lock any more has left it."""
        plan = record.plan_values()
        for number, value in enumerate(plan, 1):
            self.client.set_key(self.keys.plan_chunk(record.id, number), value)
        self.client.set_key(self.keys.record(record.id), replace(record, chunks=len(plan)).to_json())

    def finish(self, run: Run) -> dict[str, Any]:
        return finish(self._task({}), run)

    def remains(self) -> dict[str, Any]:
        return find_remains(self.client, self.keys).as_dict()

    def info(self, **params: Any) -> dict[str, Any]:
        defaults = {name: spec.get("default") for name, spec in deployment_info.ARGUMENT_SPEC.items()}
        return deployment_info.perform(self._task({**defaults, "service": self.keys.service, **params}))

    def begin(self, deployment_id: str, plan: Mapping[str, Any] = PLAN, **options: Any) -> Run:
        run = self.rollout(deployment_id, self.lock(deployment_id), plan, **options)
        self.start(run)
        return run

    def end_host(self, run: Run, host: str, outcome: str, **more: Any) -> None:
        node = PLAN["hosts"][host]["node"]
        told = Outcome(host, node, outcome, "1", "2", finished="2026-11-23T14:25:00Z", **more)
        operations = deployments.outcome_ops(self.keys, run.id, told)
        record_version(self.client, self.keys, node, "2", previous="1", session=run.session, extra_ops=operations)

    def state(self, deployment_id: str) -> str | None:
        """As the key says, whatever readers make of it."""
        pair = self.client.key(self.keys.record(deployment_id))
        return json.loads(pair.value)["state"] if pair else None

    def register(self) -> str:
        """An instance on the server's own node; return the node."""
        self.consul.put("agent/service/register", {"Name": self.keys.service})
        node: str = self.consul.get("agent/self")["Config"]["NodeName"]
        wait_until("registered", lambda: bool(self.consul.get(f"health/service/{self.keys.service}")))
        return node

    def maintain(self, deployment_id: str) -> None:
        reason = f"deploy:{deployment_id}%20{self.keys.service}"
        self.consul.put(f"agent/service/maintenance/{self.keys.service}?enable=true&reason={reason}")
        critical = f"health/service/{self.keys.service}?passing"
        wait_until("in maintenance", lambda: not self.consul.get(critical))

    def _task(self, params: dict[str, Any]) -> Task:
        options = {"url": self.consul.url}
        return Task(params, options, Host(None), warn=self.warned.append, show=self.shown.append)


@pytest.fixture
def web(consul: Server) -> Service:
    return Service(consul, Keys(f"web-{next(numbers)}"))


def test_a_deployment_that_goes_well(web: Service) -> None:
    run = web.begin("d1")
    assert web.state("d1") == "running"
    web.end_host(run, "web1", "ok", seconds=1.5)
    web.end_host(run, "web2", "ok", seconds=2.5)
    ended = web.finish(run)
    assert (ended["result"], ended["failed_hosts"], web.state("d1")) == ("successful", [], "successful")
    assert ended["hosts"] == {"web1": "ok", "web2": "ok", "web3": "current", "web4": "skipped"}
    assert ended["verdict"].endswith("2 changed, 1 already there, 1 skipped (web4).")
    assert f"\n\n{ended['verdict']} {web.keys.service}: " in web.shown[0], "one line"
    assert "web4" in web.shown[0]
    there = read_version(web.client, web.keys, "n1")
    assert there.status is not None
    assert (there.version, there.previous, there.status["state"]) == ("2", "1", "ok")


def test_ending_it_again_changes_nothing(web: Service) -> None:
    run = web.begin("d1")
    first = ending.conclude(web.client, web.keys, "d1", state="cancelled")
    ending.write_end(web.client, web.keys, first, run.session)
    again = web.finish(run)
    assert first.record.state == again["result"] == "cancelled"
    assert first.results == again["hosts"]


def test_a_deployment_that_stops(web: Service) -> None:
    run = web.begin("d1")
    web.end_host(run, "web1", "rolled_back", error="it was not healthy")
    web.client.txn([Progress(batch=1, stop="the failure budget of 0 is spent").op(web.keys, "d1")])
    ended = web.finish(run)
    assert (ended["result"], ended["failed_hosts"]) == ("failed", ["web1"])
    assert ended["hosts"]["web2"] == "pending"
    assert "It stopped because the failure budget of 0 is spent." in ended["verdict"]
    assert "it was not healthy" in ended["table"]
    assert ended["errors"] == {
        "web1": "it was not healthy",
        "web2": "not begun (still on 1)",
        "web4": "oncall: disk",
    }


def test_what_is_no_host_s_failure_is_shown_beside_those_of_hosts(web: Service) -> None:
    run = web.begin("d1", failure_budget=1)
    web.end_host(run, "web1", "rolled_back", error="it was not healthy")
    budget = web.finish(run)
    assert release(web._task({}), run, budget, [])["failed_hosts"] == ["web1"]
    assert release(web._task({}), run, budget, ["the finish hook failed"])["failed_hosts"] == ["web1", "localhost"]
    run = web.begin("d2", failure_budget=1)
    web.end_host(run, "web1", "rolled_back", error="it was not healthy")
    web.client.txn([Progress(batch=1, stop="the before_batch hook failed: no").op(web.keys, "d2")])
    told = release(web._task({}), run, web.finish(run), [])
    assert told["failed_hosts"] == ["web1", "localhost"]
    assert told["why"].count("the before_batch hook failed: no") == 1


def test_what_hooks_are_told_at_the_end(web: Service) -> None:
    run = web.begin("d1", message="CHG-1")
    web.end_host(run, "web1", "ok")
    web.end_host(run, "web2", "rolled_back", error="it was not healthy")
    assert "told" not in web.finish(run)
    told = web.finish(replace(run, options={**run.options, "finish_tasks": "finish.yml"}))["told"]
    result = told.pop("result")
    hosts = told.pop("hosts")
    assert told == {
        "id": "d1",
        "service": web.keys.service,
        "version": "2",
        "reason": "deploy",
        "operator": "anna@ci",
        "message": "CHG-1",
    }
    assert hosts == {
        "web1": {"from": "1", "to": "2", "outcome": "ok", "why": ""},
        "web2": {"from": "1", "to": "2", "outcome": "rolled_back", "why": "it was not healthy"},
        "web3": {"from": "2", "to": "2", "outcome": "current", "why": ""},
        "web4": {"from": "1", "to": "2", "outcome": "skipped", "why": "oncall: disk"},
    }
    assert (result["result"], result["failed_hosts"]) == ("failed", ["web2"])
    assert result["why"] == "web2: it was not healthy"
    assert result["verdict"] == deployments.require(web.client, web.keys, "d1").record.description
    assert web.shown[-1].endswith(f"\n{result['standing']}")
    assert (result["rollback"], result["undoes"]) == (None, "")
    assert result["seconds"] >= 0


def test_hooks_are_told_of_the_deployment_that_was_started_and_of_its_rollback(web: Service) -> None:
    run = web.begin("d1", finish_tasks="finish.yml")
    web.end_host(run, "web1", "ok")
    web.end_host(run, "web2", "regressed", error="it answers 500")
    hosts = {name: {"node": node, "from": "2", "to": "1"} for name, node in (("web1", "n1"), ("web2", "n2"))}
    back = replace(run.undoing("d1"), id="d2", plan={"batches": [["web1", "web2"]], "hosts": hosts})
    deployments.create(web.client, web.keys, record_of(back), run.session)
    for host in hosts:
        web.end_host(back, host, "ok")
    ended = web.finish(back)
    told = ended["told"]
    assert (told["id"], told["version"], told["reason"]) == ("d1", "2", "deploy")
    result = told["result"]
    assert (result["result"], result["failed_hosts"]) == ("failed", ["web2"])
    assert result["why"] == "web2: it answers 500"
    rollback = result["rollback"]
    assert (rollback["id"], rollback["result"], rollback["failed_hosts"]) == ("d2", "successful", [])
    assert result["verdict"].endswith(f" {rollback['verdict']}")
    assert {told["hosts"][name]["outcome"] for name in hosts} == {"rolled_back"}


@pytest.mark.parametrize("trace", ["status", "progress"])
def test_a_host_without_an_outcome_is_lost_where_its_turn_had_begun(web: Service, trace: str) -> None:
    run = web.begin("d1")
    web.end_host(run, "web1", "ok")
    if trace == "status":
        web.client.txn([deployments.status_op(web.keys, "n2", "d1", "draining")])
    else:
        web.client.txn([Progress(batch=2).op(web.keys, "d1")])
    assert web.finish(run)["hosts"]["web2"] == "lost"
    assert deployments.require(web.client, web.keys, "d1").outcomes["web2"].error.startswith("lost after its turn")


def left_by_a_stopped_hook(web: Service, run: Run) -> None:
    web.end_host(run, "web1", "ok", batch=1)
    web.client.txn([Progress(batch=1, stop="the before_batch hook failed: no").op(web.keys, run.id)])


def left_by_a_lost_batch(web: Service, run: Run) -> None:
    web.end_host(run, "web1", "failed", batch=1)
    web.client.txn([Progress(batch=2).op(web.keys, run.id)])


def left_by_a_host_cut_off(web: Service, run: Run) -> None:
    web.client.txn([deployments.status_op(web.keys, "n1", run.id, "deploying")])


def left_by_nothing(web: Service, run: Run) -> None:
    pass


@pytest.mark.parametrize(
    "leave", [left_by_a_stopped_hook, left_by_a_lost_batch, left_by_a_host_cut_off, left_by_nothing]
)
def test_its_own_end_and_an_interrupted_one_come_to_the_same(web: Service, leave: Callable[..., None]) -> None:
    """Only what Consul holds counts."""
    lists = []
    for way in ("finish", "interrupt"):
        run = web.begin(f"d-{way}")
        leave(web, run)
        if way == "finish":
            lists.append((web.finish(run)["hosts"], ""))
        else:
            web.unlock(run)
            session = web.lock("other")
            (ended,) = ending.mark_interrupted(web.client, web.keys, session)
            assert ended.record.state == "interrupted"
            lists.append((ended.results, ""))
        web.client.delete_key(web.keys.lock)
        web.client.delete_key(f"{web.keys.nodes}/", recurse=True)
    assert lists[0] == lists[1]
    stopped = leave is left_by_a_stopped_hook
    assert ("the before_batch hook failed" in ended.record.description) is stopped


def test_the_status_of_an_earlier_deployment_is_no_trace_of_this_one(web: Service) -> None:
    web.client.txn([deployments.status_op(web.keys, "n2", "d0", "draining")])
    assert web.finish(web.begin("d1"))["hosts"]["web2"] == "pending"


def test_who_lost_the_lock_writes_nothing_but_still_tells(web: Service) -> None:
    run = web.begin("d1")
    web.end_host(run, "web1", "ok")
    web.unlock(run)
    ended = web.finish(run)
    assert ended["unrecorded"].startswith("The end could not be recorded.")
    assert ended["failed_hosts"] == []
    assert f"\n\n{ended['verdict']}" in web.shown[0]
    assert web.state("d1") == "running"
    told = web.finish(replace(run, options={**run.options, "finish_tasks": "finish.yml"}))["told"]
    assert told["result"]["verdict"].endswith(ended["unrecorded"])
    assert ended["unrecorded"] in release(web._task({}), run, ended, ["the finish hook failed"])["why"]
    with pytest.raises(LockLost):
        web.start(web.rollout("d2", run.session))
    assert web.state("d2") is None


def test_why_a_run_fails_although_its_hosts_are_well(web: Service) -> None:
    run = web.begin("d1", strict=True)
    for host in ("web1", "web2"):
        web.end_host(run, host, "ok")
    result = web.finish(run)
    told = release(web._task({}), run, result, ["the finish hook failed: no"])
    assert told["why"] == "the finish hook failed: no. Skipped: web4 (rollout_strict)."
    assert told["failed_hosts"] == ["localhost"]
    assert read_lock(web.client, web.keys) is None
    lenient = Run.of({**run.as_dict(), "options": {**run.options, "strict": False}})
    assert release(web._task({}), lenient, result, [])["failed_hosts"] == []


def test_an_interrupted_run_is_seen_so_and_the_next_one_writes_it(web: Service) -> None:
    run = web.begin("d1")
    web.end_host(run, "web1", "ok")
    step(web, "n2", "draining", "2026-11-23T14:26:00Z")
    assert web.info(id="d1")["deployment"]["state"] == "running"
    web.unlock(run)
    assert web.info(id="last")["deployment"]["state"] == "interrupted"
    assert web.info()["services"][web.keys.service]["deployments"][0]["state"] == "interrupted"
    assert web.state("d1") == "running"

    assert web.start(web.rollout("d2", web.lock("d2", "ben@ci"))) == ["d1"]
    assert (web.state("d1"), web.state("d2")) == ("interrupted", "running")
    found = deployments.require(web.client, web.keys, "d1")
    assert found.results["web1"] == "ok"
    assert found.results["web2"] == "lost"
    assert found.record.finished == "2026-11-23T14:26:00Z"


def test_a_run_whose_lock_is_held_for_another_was_interrupted(web: Service) -> None:
    web.unlock(web.begin("d1"))
    web.lock("d2")
    assert deployments.require(web.client, web.keys, "d1").state == "interrupted"


def recovers(web: Service, *, check_mode: bool = False) -> Run:
    task = web._task({})
    task.check_mode = check_mode
    return recovery.begin(task, web.rollout("r", plan={}), NO_CONTROLLER, ["a"])


def test_recover_names_what_an_interrupted_run_left_and_clears_its_record(web: Service) -> None:
    node = web.register()
    run = web.begin("d1")
    web.maintain("d1")
    web.client.txn([deployments.status_op(web.keys, node, "d1", "draining")])
    web.unlock(run)

    recovers(web, check_mode=True)
    assert web.state("d1") == "running"
    assert f"{web.keys.service}: interrupted deployments" in web.shown[0]
    assert f"{web.keys.service}: still in a deployment's maintenance" in web.shown[0]
    told = web.remains()
    assert [one["id"] for one in told["interrupted"]] == ["d1"]
    assert told["maintenance"] == [
        {
            "host": node,
            "node": node,
            "service": web.keys.service,
            "service_id": web.keys.service,
            "deployment": "d1",
            "reason": f"deploy:d1 {web.keys.service}",
            "outcome": None,
            "step": "draining",
            "from_version": None,
            "to_version": None,
            "advice": "end_maintenance",
            "why": "its turn was cut off before anything was deployed",
            "unsure": False,
        }
    ]
    web.client.txn([deployments.status_op(web.keys, node, "d1", "deploying")])
    remains = web.remains()
    assert [(one["step"], one["advice"]) for one in remains["maintenance"]] == [("deploying", "verify")]
    text = report.remains(web.keys.service, remains["interrupted"], remains["maintenance"])
    assert "interrupted deployments" in text
    assert "recover: verify, then return" in text

    begun = recovers(web)
    assert web.state("d1") == "interrupted"
    assert ([one["host"] for one in begun.leftovers], begun.order, begun.unknown) == ([node], [], [node])
    with pytest.raises(HitlessError, match=f"Still in maintenance: {node}. .*Not in the inventory: {node}."):
        recovery.finish(web._task({}), begun, {})
    assert read_lock(web.client, web.keys) is None


TURN = {"node": "", "state": "to_change", "from": "1.7.0", "to": "1.8.0", "rollback_to": "1.7.0"}


def begin_here(web: Service, deployment_id: str = "d1") -> tuple[Run, str]:
    """A deployment of the server's own node, recorded as 1.7.0, and of another one -> the run and the node."""
    node = web.register()
    hosts = {"web1": {**TURN, "node": node}, "web2": {**TURN, "node": "n2"}}
    run = web.begin(deployment_id, {"batches": [["web1"], ["web2"]], "hosts": hosts}, version="1.8.0")
    record_version(web.client, web.keys, node, "1.7.0", previous="1.6.0", session=run.session)
    return run, node


def step(web: Service, node: str, state: str, at: str, deployment_id: str = "d1") -> None:
    """The host's status, as of that time."""
    status = {"deployment": deployment_id, "state": state, "at": at, "message": ""}
    web.client.set_key(web.keys.status(node), json.dumps(status))


def stop(web: Service, run: Run, *, by_keeper: str = "") -> None:
    """The end of a run; with its keeper it is written down, without it the lock just ends."""
    if by_keeper:
        pair = web.client.key(web.keys.record(run.id))
        assert pair is not None
        record = {**json.loads(pair.value), "state": "interrupted", "finished": by_keeper, "description": "It ended."}
        web.client.set_key(pair.key, json.dumps(record))
    web.unlock(run)


def screen(web: Service) -> tuple[dict[str, Any], str]:
    """What the status says of the service, and its text on single spaces."""
    told = web.info()
    return told["services"][web.keys.service], " ".join(told["report"].split())


@pytest.mark.parametrize(
    ("state", "alive", "version", "trusted"),
    [
        ("draining", True, "1.7.0", True),
        ("deploying", True, "1.7.0 recorded, going to 1.8.0 now", False),
        ("draining", False, "1.7.0", True),
        ("deploying", False, "1.7.0 recorded, cut off while going to 1.8.0", False),
        ("verifying", False, "1.7.0 recorded, cut off while going to 1.8.0", False),
        ("returning", False, "1.7.0 recorded, cut off while going to 1.8.0", False),
        ("failed", False, "1.7.0 recorded, failed while going to 1.8.0", False),
        ("lost", False, "1.7.0 recorded, lost while going to 1.8.0", False),
        ("rolled_back", False, "1.7.0", True),
    ],
)
def test_a_version_that_is_not_known_to_run_is_told_so(
    web: Service, state: str, alive: bool, version: str, trusted: bool
) -> None:
    run, node = begin_here(web)
    step(web, node, state, "2026-11-23T14:25:00Z")
    if not alive:
        stop(web, run)
    found, text = screen(web)
    one = found["nodes"][node]
    assert (one["version"], one["version_told"], one["version_is_trusted"]) == ("1.7.0", version, trusted)
    assert f"{node} {version} 1.6.0 in rotation" in text


def test_a_deployment_that_is_not_kept_any_more_is_still_no_proof(web: Service) -> None:
    run, node = begin_here(web)
    step(web, node, "deploying", "2026-11-23T14:25:00Z", "d0")
    assert "1.7.0 recorded, cut off while going to another version" in screen(web)[1]
    web.unlock(run)


def test_the_screen_says_what_an_interrupted_deployment_left_and_what_to_do(web: Service) -> None:
    run, node = begin_here(web)
    step(web, node, "deploying", "2026-11-23T14:25:00Z")
    web.maintain("d1")
    found, text = screen(web)
    assert found["nodes"][node]["why"] == "being deployed by d1 (deploying)"
    assert found["running"]["under_way"] == {"web1": "deploying"}
    assert "none of 2 batches begun: 1 under way (web1 deploying), 1 to come" in text
    stop(web, run)
    found, text = screen(web)
    why = "left by the interrupted deployment d1: run the rollout again, or hitless.consul.recover"
    assert found["nodes"][node]["why"] == why
    assert found["nodes"][node]["reason"] == f"deploy:d1 {web.keys.service}"
    hosts = {"web1": {**TURN, "node": node}}
    plan = {"batches": [["web1"]], "hosts": hosts}
    web.start(web.rollout("d2", web.lock("d2", "ben@ci"), plan, version="1.8.0"))
    assert screen(web)[0]["nodes"][node]["why"] == why
    step(web, node, "deploying", "2026-11-23T14:26:00Z", "d2")
    assert screen(web)[0]["nodes"][node]["why"] == "being deployed by d2 (deploying)"


def test_the_screen_says_why_a_host_failed_and_whose_another_maintenance_is(web: Service) -> None:
    run, node = begin_here(web)
    web.maintain("d1")
    failed = Outcome("web1", node, "failed", "1.7.0", "1.8.0", error="Deploy: It exited with 3.")
    web.client.txn(deployments.outcome_ops(web.keys, "d1", failed))
    web.finish(run)
    assert screen(web)[0]["nodes"][node]["why"] == "Deploy: It exited with 3. Deploy a version that works."
    service = web.keys.service
    web.consul.put(f"agent/service/maintenance/{service}?enable=false")
    web.consul.put(f"agent/service/maintenance/{service}?enable=true&reason=disk")
    wait_until("it is seen", lambda: screen(web)[0]["nodes"][node]["reason"] == "disk")
    assert screen(web)[0]["nodes"][node]["why"] == "disk"


@pytest.mark.parametrize("by_keeper", ["", "2026-11-23T14:23:00Z"])
def test_what_is_told_of_an_interrupted_deployment_does_not_change_when_it_is_settled(
    web: Service, by_keeper: str
) -> None:
    run, node = begin_here(web)
    pair = web.client.key(web.keys.record("d1"))
    assert pair is not None
    web.client.set_key(pair.key, json.dumps({**json.loads(pair.value), "started": "2026-11-23T14:22:33Z"}))
    step(web, node, "deploying", "2026-11-23T14:22:41Z")
    stop(web, run, by_keeper=by_keeper)
    seconds = 27.0 if by_keeper else 8.0

    def told() -> tuple[Any, Any, str]:
        one = screen(web)[0]["deployments"][-1]
        whole = web.info(id="d1")
        return one, whole["deployment"], whole["report"]

    before = told()
    assert before[0]["seconds"] == seconds
    assert before[0]["summary"] == {"lost": 1, "pending": 1}
    assert f"interrupted after {seconds:.0f} s: 1 cut off (web1), 1 not begun (web2)." in before[0]["description"]
    assert "1 cut off, 1 not begun" in screen(web)[1]
    web.start(web.rollout("d2", web.lock("d2", "ben@ci"), {"batches": [], "hosts": {}}, version="1.8.0"))
    step(web, node, "deploying", "2026-11-23T14:30:00Z", "d2")
    assert web.state("d1") == "interrupted"
    assert told() == before


def test_every_deployment_that_is_kept_is_settled(web: Service) -> None:
    for number in range(30):
        state = "running" if number == 0 else "failed"
        web.write(Record(f"d{number:02}", web.keys.service, "1", state=state))
    assert [one.record.id for one in deployments.find_interrupted(web.client, web.keys)] == ["d00"]


def test_recover_leaves_what_is_known_to_be_broken(web: Service) -> None:
    node = web.register()
    run = web.begin("d1", {"batches": [["a"]], "hosts": {"a": {"node": node}}})
    web.maintain("d1")
    web.client.txn(deployments.outcome_ops(web.keys, "d1", Outcome("a", node, "failed", error="broken")))
    web.finish(run)
    left = web.remains()["maintenance"]
    assert [(one["host"], one["outcome"], one["advice"]) for one in left] == [("a", "failed", "leave")]


def test_recover_touches_neither_a_run_in_progress_nor_the_maintenance_of_others(web: Service) -> None:
    web.register()
    web.begin("d1")
    web.consul.put(f"agent/service/maintenance/{web.keys.service}?enable=true&reason=deploy:d1%20another")
    with pytest.raises(HitlessError, match="deployment lock of web-.* is held by anna@ci"):
        recovers(web)
    recovers(web, check_mode=True)
    assert "A rollout of web-" in web.shown[0]
    assert "is in progress; nothing was changed." in web.shown[0]
    assert (web.remains()["maintenance"], web.state("d1")) == ([], "running")


def test_old_deployments_go_and_the_running_one_stays(web: Service) -> None:
    for number in range(30):
        record = Record(f"d{number:02}", web.keys.service, "1", state="failed")
        web.write(record)
        web.client.set_key(web.keys.outcome(record.id, "n1"), Outcome("a", "n1", "failed").to_json())
    session = web.lock("d05")
    gone = prune(web.client, web.keys, session, keep=20)
    assert sorted(gone) == [f"d{number:02}" for number in range(10) if number != 5]
    left = {key.key.split("/")[3] for key in web.client.keys(web.keys.deployments)}
    assert left == {"d05", *(f"d{number}" for number in range(10, 30))}
    web.client.put(f"/v1/session/destroy/{session}")
    with pytest.raises(LockLost):
        prune(web.client, web.keys, session, keep=5)


def test_what_a_rollback_would_go_to_stays_and_the_logs_of_others_go(web: Service) -> None:
    for number, version in enumerate(("1", "2", "1", "2", "3")):
        hosts = {"a": PlannedHost("a", "n1", batch=1, to_version=version)}
        identity = f"2026010{number}T000000Z-{version}-0000"
        one = Record(identity, web.keys.service, version, state="failed", hosts=hosts, options={"mode": "agent"})
        web.write(one)
        web.client.set_key(f"{web.keys.agent_log('n1', identity)}000001", "a line\n")
    session = web.lock("another")
    record_version(web.client, web.keys, "n1", "3", previous="2", session=session)
    kept = ["20260103T000000Z-2-0000", "20260104T000000Z-3-0000"]
    assert len(prune(web.client, web.keys, session, keep=1)) == 3
    assert sorted(deployments.list_ids(web.client, web.keys)) == kept
    logs = web.client.key_names(f"nodes/n1/log/{web.keys.service}/")
    assert [name.split("/")[4] for name in logs] == kept


def test_the_story_of_a_deployment_is_followed_while_it_runs(web: Service) -> None:
    run = web.begin("d1", mode="agent")
    web.client.txn([Progress(batch=1).op(web.keys, "d1"), deployments.status_op(web.keys, "n1", "d1", "draining")])
    with ThreadPoolExecutor() as pool:
        told = pool.submit(web.info, id="d1", follow=True)
        wait_until("the step is told", lambda: "web1: draining" in "\n".join(web.shown))
        log = web.keys.agent_log("n1", "d1")
        web.client.set_key(f"{log}000001", "first\nsec")
        wait_until("the line is told", lambda: "web1 | first" in "\n".join(web.shown))
        web.client.set_key(f"{log}000002", "ond\n\x1b[2J\n")
        steps = ({"state": "draining", "at": "2026-11-23T14:22:40Z"}, {"state": "failed", "at": "2026-11-23T14:24:40Z"})
        web.end_host(run, "web1", "failed", error="It exited with 3.", steps=steps)
        web.finish(run)
        found = told.result()["deployment"]
    # What the run itself shows at its end, beside the story that is followed.
    text = "\n".join(line for line in web.shown if f"{web.keys.service}: 0 of" not in line)
    assert text.index("Deployment of web-") < text.index("web1: draining") < text.index("web1 | first")
    assert "web1 | second\nweb1 | ?[2J\n" in text
    assert "14:24:40 web1: failed" in text
    # Its outcome says it again, by another clock reading.
    assert text.count("web1: draining") == 1
    assert text.index("web1: draining") < text.index("web1: failed") < text.index("web1: It exited with 3.")
    assert text.count("web1: It exited with 3.") == 1
    assert text.rstrip().endswith("1 not begun (web2).")
    assert found["log"] == {"web1": "first\nsecond\n\x1b[2J\n"}
    assert found["steps"]["web1"] == list(steps)


def test_the_screen_tells_what_runs_where_and_what_is_under_way(web: Service) -> None:
    node = web.register()
    run = web.begin("d1")
    record_version(web.client, web.keys, node, "2", previous="1", session=run.session)
    web.client.txn([Progress(batch=1).op(web.keys, "d1")])
    web.maintain("d1")
    told = web.info()
    found = told["services"][web.keys.service]
    assert found["nodes"][node] == {
        "version": "2",
        "previous": "1",
        "meta_version": None,
        "version_is_trusted": True,
        "version_told": "2",
        "status": None,
        "health": "maintenance",
        "reason": f"deploy:d1 {web.keys.service}",
        "why": "being deployed by d1",
        "instances": 1,
    }
    assert found["lock"]["holder"] == "anna@ci"
    assert (found["running"]["id"], found["running"]["batch"], found["running"]["batches"]) == ("d1", 1, 2)
    assert web.shown == [told["report"]]
    assert "batch 1 of 2: 1 already there, 1 skipped (web4), 2 to come" in told["report"]


def test_the_screen_as_json_and_not_at_all(web: Service) -> None:
    web.register()
    told = web.info(format="json")
    assert json.loads(web.shown.pop()) == {"services": told["services"]}
    web.info(quiet=True)
    assert web.shown == []


def test_the_screen_goes_to_a_file_alone(web: Service, tmp_path: Path) -> None:
    web.register()
    path = tmp_path / "status.json"
    told = web.info(format="json", path=str(path))
    assert json.loads(path.read_text(encoding="utf-8")) == {"services": told["services"]}
    assert path.stat().st_mode & 0o777 == 0o600
    assert web.shown == [f"Written to {path}."]
    told = web.info(path=str(path))
    assert path.read_text(encoding="utf-8") == f"{told['report']}\n"
    assert web.shown[-1] == told["report"]
    with pytest.raises(HitlessError, match="cannot be written: No such file or directory. Its folder has to exist."):
        web.info(path=str(tmp_path / "nowhere" / "status.json"))


def test_without_a_service_all_that_were_deployed_are_shown(web: Service) -> None:
    web.finish(web.begin("d1"))
    assert web.keys.service in web.info(service=None)["services"]


def test_the_number_of_requests_of_a_screen_does_not_depend_on_the_hosts(web: Service) -> None:
    web.register()
    hosts = {f"web{number}": {"node": f"n{number}"} for number in range(1000)}
    web.begin("d1", {"batches": [[host] for host in hosts], "hosts": hosts})
    task = web._task(
        {"service": web.keys.service, "id": None, "limit": 5, "format": "text", "quiet": True, "path": None}
    )
    deployment_info.perform(task)
    assert task.consul.requests <= 6


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({}, "knows no instance and no deployment of web-"),
        ({"id": "d9"}, "knows no deployment d9 of web-"),
        ({"id": "last"}, "knows no deployment of web-"),
    ],
)
def test_what_is_not_there_is_said(web: Service, params: dict, sentence: str) -> None:
    with pytest.raises(HitlessError, match=sentence):
        web.info(**params)
