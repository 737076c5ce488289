"""A rollback by hand, planned and recorded on a real Consul: what the records of deployments are worth afterwards."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store
from ansible_collections.hitless.consul.plugins.module_utils._rollout.beginning import begin
from ansible_collections.hitless.consul.plugins.module_utils._rollout.finishing import finish, release
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import WantedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_reader import TURN
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS, ROLLBACK_SIZE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import TO_CHANGE
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import FORGET, record_version
from tests.integration.consul_agent import Server

pytestmark = pytest.mark.oldest

OLD, GOOD, BAD = "1.0.0", "1.4.2", "2.0.0"
NO_CONTROLLER = Controller("test", -1, 0)
numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def without_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "start_keeper", lambda *_args, **_options: None)


class Web:
    """A service of one test alone on five nodes of its own, and runs over it, without their steps."""

    def __init__(self, consul: Server) -> None:
        self.keys = Keys(f"back{next(numbers)}")
        self.client = Client(Connection(consul.url))
        self.warned: list[str] = []
        self.shown: list[str] = []
        self._url = consul.url
        self._hosts = [f"{self.keys.service}-web{number}" for number in range(1, 6)]
        for host in self._hosts:
            service = {"ID": self.keys.service, "Service": self.keys.service, "Port": 80}
            check = {
                "Node": host,
                "CheckID": "http",
                "Name": "http",
                "Status": "passing",
                "Definition": {"Interval": "1s"},
            }
            body = {"Node": host, "Address": "127.0.0.1", "Service": service}
            checks = [{**check, "ServiceID": self.keys.service}]
            self.client.put("/v1/catalog/register", body=json.dumps({**body, "Checks": checks}))
            record_version(self.client, self.keys, host, OLD)

    def name(self, number: int) -> str:
        return self._hosts[number - 1]

    def task(self, *, check_mode: bool = False) -> Task:
        options = {"url": self._url}
        return Task({}, options, Host(None), warn=self.warned.append, show=self.shown.append, check_mode=check_mode)

    def begin(self, number: int, version: str | None, *, check_mode: bool = False, **options: Any) -> Run:
        """The run with its plan, and its record.

        :param number: its place in time, in its id.
        """
        about = {**DEFAULTS, "service": self.keys.service, "version": version, **options}
        run = Run(f"20261128T14000{number}Z-{version or 'rollback'}-0000", about, steps=[TURN], operator="anna@ci")
        self.warned.clear()
        self.shown.clear()
        hosts = [WantedHost(host, host, version) for host in self._hosts]
        return begin(self.task(check_mode=check_mode), run, hosts, NO_CONTROLLER, 0)

    def back(self, number: int, *, version: str | None = None, **options: Any) -> Run:
        about = {"direction": "rollback", "batch_size": ROLLBACK_SIZE, **options}
        return self.begin(number, version, **about)

    def end_hosts(self, run: Run, outcomes: Mapping[int, str]) -> None:
        """Host number -> its outcome, written as its turn does."""
        for number, outcome in outcomes.items():
            planned = run.host(self.name(number))
            at = f"2026-11-28T14:00:{number:02}Z"
            told = Outcome(
                planned.host, planned.node, outcome, planned.from_version, planned.to_version, 1, finished=at
            )
            written = store.outcome_ops(self.keys, run.id, told)
            previous = FORGET if run.options["direction"] == "rollback" else planned.from_version
            to = str((planned.to_version if outcome == "ok" else planned.from_version) or "")
            record_version(
                self.client, self.keys, planned.node, to, previous=previous, session=run.session, extra_ops=written
            )

    def end(self, run: Run) -> dict[str, Any]:
        return release(self.task(), run, finish(self.task(), run), [])

    def cut(self, run: Run) -> None:
        """The run is gone, and so is its lock."""
        self.client.put(f"/v1/session/destroy/{run.session}")

    def roll_out(self, number: int, version: str, outcomes: Mapping[int, str] | None = None, **options: Any) -> str:
        """A whole deployment -> its id; of all hosts, ok, where not said otherwise."""
        run = self.begin(number, version, **options)
        self.end_hosts(run, outcomes or dict.fromkeys(range(1, 6), "ok"))
        self.end(run)
        return run.id

    def targets(self, run: Run) -> dict[int, str]:
        """Host number -> where it goes, in the order of the turns."""
        hosts = [name for stage in run.plan["batches"] for name in stage]
        return {self._hosts.index(name) + 1: run.plan["hosts"][name]["to"] for name in hosts}


@pytest.fixture
def web(consul: Server) -> Web:
    return Web(consul)


def test_half_a_rollout_is_undone_and_no_more(web: Web) -> None:
    web.roll_out(1, GOOD)
    half = web.roll_out(2, BAD, {1: "ok", 2: "ok", 3: "rolled_back"})
    run = web.back(3)
    assert web.targets(run) == {2: GOOD, 1: GOOD}
    assert web.shown[0].startswith(
        f"undo {half}: {web.keys.service} {BAD} -> {GOOD} on 2 hosts 2 at a time; at least 3 of 5 stay healthy; "
        "3 not changed by it; takes 20 s or more (Consul at http://"
    )
    record = store.require(web.client, web.keys, run.id).record
    assert (record.undoes, record.resumes, record.direction) == (half, "", "rollback")
    assert {planned.state for planned in record.hosts.values()} == {TO_CHANGE, "current"}
    web.end_hosts(run, {1: "ok", 2: "ok"})
    assert web.end(run)["result"] == "successful"

    # Once more, by mistake: the good version stays.
    again = web.back(4)
    assert again.plan["nothing_to_do"]
    assert (
        f"nothing to undo: all 5 hosts run {GOOD}, which is what they had before the last deployment ({half})"
        in (web.shown[0])
    )
    assert web.end(again)["result"] == "successful"
    web.cut(web.back(5))
    assert "nothing to undo" in web.shown[0]


def test_a_rollout_that_has_put_everything_back_leaves_nothing_to_undo(web: Web) -> None:
    before = web.roll_out(1, GOOD)
    failed = web.roll_out(2, BAD, {1: "rolled_back"})
    told = web.back(3, check_mode=True)
    assert told.plan["nothing_to_do"]
    assert (
        web.shown[0]
        .splitlines()[-1]
        .startswith(
            f"{web.keys.service}: nothing to undo: all 5 hosts run {GOOD}, which is what they had before the last "
            f"deployment ({failed}); for an older version say rollout_version, to undo the one before it "
            f"rollback_deployment={before} ("
        )
    )
    earlier = web.back(4, rollback_deployment=before)
    assert set(web.targets(earlier).values()) == {OLD}
    web.cut(earlier)


def test_what_an_interrupted_run_had_changed_goes_back_with_the_one_that_resumed_it(web: Web) -> None:
    """Also where only the newest deployment is to be kept."""
    web.roll_out(1, GOOD)
    cut = web.begin(2, BAD)
    web.end_hosts(cut, {1: "ok", 2: "ok"})
    web.cut(cut)
    resumed = web.begin(3, BAD, keep_deployments=1)
    assert store.require(web.client, web.keys, resumed.id).record.resumes == cut.id
    web.end_hosts(resumed, {3: "ok", 4: "ok", 5: "ok"})
    web.end(resumed)
    assert set(store.list_ids(web.client, web.keys)) >= {cut.id, resumed.id}

    nothing = web.begin(4, BAD, keep_deployments=1)
    web.end(nothing)
    assert store.require(web.client, web.keys, nothing.id).record.resumes == ""
    run = web.back(5)
    assert web.targets(run) == {5: GOOD, 4: GOOD, 3: GOOD, 2: GOOD, 1: GOOD}
    assert run.plan["windows"] == [2], "five less the minimum of three"
    assert run.plan["undoes"] == resumed.id
    web.cut(run)


def test_a_rollback_that_was_cut_off_is_finished_by_the_next(web: Web) -> None:
    web.roll_out(1, GOOD)
    bad = web.roll_out(2, BAD)
    cut = web.back(3)
    web.end_hosts(cut, {5: "ok", 4: "ok"})
    web.cut(cut)
    run = web.back(4)
    assert any("interrupted" in told for told in web.warned)
    assert (web.targets(run), run.plan["undoes"]) == ({3: GOOD, 2: GOOD, 1: GOOD}, bad)
    web.cut(run)


def test_what_was_changed_again_is_named_and_the_mixed_fleet_with_it(web: Web) -> None:
    good = web.roll_out(1, GOOD)
    later = web.roll_out(2, BAD, {1: "ok", 2: "rolled_back"})
    run = web.back(3, rollback_deployment=good)
    assert web.targets(run) == {5: OLD, 4: OLD, 3: OLD, 2: OLD}
    assert f"{web.name(1)} is skipped: {later} has changed it again since, to {BAD}." in web.warned
    assert any(told.startswith("After this rollback the hosts run different versions: ") for told in web.warned)
    web.end_hosts(run, dict.fromkeys((2, 3, 4, 5), "ok"))
    ended = web.end(run)
    assert (ended["result"], ended["hosts"][web.name(1)]) == ("successful", "skipped")


def test_a_version_that_failed_is_passed_over_unless_it_is_named(web: Web) -> None:
    """It stopped half way, and the next one was rolled over all."""
    stopped = web.roll_out(1, GOOD, {1: "ok", 2: "rolled_back"})
    web.roll_out(2, BAD)
    run = web.back(3)
    assert web.targets(run) == {5: OLD, 4: OLD, 3: OLD, 2: OLD, 1: OLD}
    assert run.plan["hosts"][web.name(1)]["why"] == f"{GOOD}, which it had before, failed in {stopped}"
    web.cut(run)
    run = web.back(4, version=GOOD)
    assert web.targets(run) == dict.fromkeys(range(1, 6), GOOD)
    assert any(told.startswith(f"{GOOD} failed or was rolled back from in {stopped};") for told in web.warned)
    assert store.require(web.client, web.keys, run.id).record.undoes == ""
    web.cut(run)


def test_what_cannot_be_undone_is_refused_and_nothing_is_written(web: Web) -> None:
    with pytest.raises(HitlessError, match="No deployment of .* is recorded"):
        web.back(1)
    good = web.roll_out(2, GOOD)
    with pytest.raises(HitlessError, match=f"knows no deployment 20260101T.* It could be one of {good}"):
        web.back(3, rollback_deployment="20260101T000000Z-1.0.0-0000")
    running = web.begin(4, BAD)
    with pytest.raises(HitlessError, match="is still running, and cannot be undone before its end"):
        web.back(5, check_mode=True, rollback_deployment=running.id)
    web.cut(running)
    assert store.list_ids(web.client, web.keys) == [running.id, good]
    assert not store.read_records(web.client, web.keys, [good])[0].lock.alive  # type: ignore[union-attr]


def test_a_host_with_no_version_before(web: Web) -> None:
    web.client.delete_key(web.keys.version(web.name(1)))
    web.roll_out(1, GOOD)
    with pytest.raises(HitlessError, match="There is no version of .* to go back to on 1 host: .* is not recorded"):
        web.back(2)
    run = web.back(3, previous_version="0.9.0")
    assert web.targets(run) == {5: OLD, 4: OLD, 3: OLD, 2: OLD, 1: "0.9.0"}
    web.cut(run)


def test_a_quarter_is_a_quarter_of_all(web: Web) -> None:
    web.roll_out(1, GOOD, {1: "ok", 2: "ok", 3: "ok"})
    assert web.back(2, check_mode=True, batch_size="50%").plan["windows"] == [2]
    assert web.back(3, check_mode=True, batch_size=[1, "50%"]).plan["windows"] == [1, 2]
    assert web.back(4, check_mode=True, min_healthy=1).plan["windows"] == [3]
