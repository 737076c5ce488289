"""What a run does where a deployment is paused, and the plan with which it goes on."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import paused
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import (
    CLOSED,
    FREEZE,
    PAUSE,
    STAGE,
    Control,
    Controlled,
    Order,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.findings import Finding
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import History
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.paused import BEGIN, GO_ON, TAKE_OVER, WAIT, Claim
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import HostPlan, Plan
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import (
    CURRENT,
    PAUSED,
    TO_CHANGE,
    UNREACHABLE,
    PlannedHost,
    Record,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp

pytestmark = pytest.mark.oldest

HOSTS = ["web1", "web2", "web3"]
NEVER = "Mon 00:00-00:01 UTC" if datetime.now(timezone.utc).weekday() != 0 else "Tue 00:00-00:01 UTC"


def a_run(**changes: Any) -> Run:
    options = {**DEFAULTS, "service": "web", "version": "2", **changes}
    return Run("new", options, hosts=HOSTS, steps=["turn"], operator="ben@there")


def a_deployment(kind: str = STAGE, said: str = "", freeze: str | None = None, **changes: Any) -> Deployment:
    """Of three hosts in two stages, the first of which has ended."""
    hosts = {name: PlannedHost(name, name, batch=min(number, 2)) for number, name in enumerate(HOSTS, 1)}
    record = Record("d1", "web", "2", state=PAUSED, holder="anna@ci", windows=(1, 2), hosts=hosts, summary={"ok": 1})
    ended = {"web1": Outcome("web1", "web1", "ok")}
    frozen = (Order.of_freeze(freeze, 40),) if freeze is not None else ()
    seen = Control(Order.of_control(said, 50), frozen, Controlled(kind, f"{kind} says so", used=30), 50)
    at = timestamp(datetime.now(timezone.utc) - timedelta(hours=1))
    about = {"finished": at, **changes}
    return Deployment(Record(**{**record.__dict__, **about}), outcomes=ended, stop="why", control=seen)


class Consul:
    """Keys of control, where no deployment is paused."""

    def __init__(self, freeze: str | None) -> None:
        self.freeze = freeze

    def txn(self, operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        key = operations[-1]["Key"]
        value = b64encode((self.freeze or "").encode()).decode()
        return [] if self.freeze is None else [{"Key": key, "Value": value, "ModifyIndex": 7}]


def look(found: Deployment | None, run: Run, freeze: str | None = None) -> Claim:
    history = History([found] if found else [], lambda _id: found)
    task = Task({}, {}, Host(None))
    task.__dict__["consul"] = Consul(freeze)
    return paused.look(task, run, history)


def refused(found: Deployment | None, run: Run, freeze: str | None = None) -> str:
    with pytest.raises(HitlessError) as caught:
        look(found, run, freeze)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "said", "freeze", "options", "does"),
    [
        (STAGE, "", None, {}, WAIT),
        (STAGE, "promote", None, {}, GO_ON),
        (STAGE, "resume", None, {}, GO_ON),
        (STAGE, "promote", "holidays", {}, WAIT),
        (STAGE, "pause", None, {}, WAIT),
        (STAGE, "abort", None, {}, GO_ON),  # its first gate hears it
        (STAGE, "stop", "holidays", {}, GO_ON),
        (PAUSE, "pause", None, {}, WAIT),
        (PAUSE, "resume", None, {}, GO_ON),
        (PAUSE, "", None, {"auto_promote": 60, "pause_after": [1]}, WAIT),
        (FREEZE, "", "holidays", {}, WAIT),
        (FREEZE, "", None, {}, GO_ON),
        (CLOSED, "", None, {"windows": [NEVER]}, WAIT),
        (CLOSED, "", None, {}, GO_ON),
    ],
)
def test_the_same_start_goes_on_or_waits(
    kind: str, said: str, freeze: str | None, options: dict[str, Any], does: str
) -> None:
    claim = look(a_deployment(kind, said, freeze), a_run(**options))
    assert (claim.does, claim.id) == (does, "d1")
    assert (claim.order is not None) == (does == GO_ON and said in ("promote", "resume"))
    assert claim.why


def test_what_a_watcher_could_not_tell_is_asked_anew() -> None:
    """What it said stands in its key until then."""
    for said, does in (("resume", GO_ON), ("", WAIT)):
        found = a_deployment(PAUSE, said)
        doubt = replace(found.control, findings=(Finding("analysis", False, "no answer"),))
        assert look(replace(found, control=doubt), a_run()).does == does


def test_it_is_promoted_by_itself_once_it_was_healthy_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    bad: set[str] = set()
    monkeypatch.setattr(paused, "unhealthy_nodes", lambda *_of: bad)
    run = a_run(auto_promote=60, pause_after=[1])
    assert look(a_deployment(), run).does == GO_ON
    bad.add("web1")
    assert look(a_deployment(), run).does == WAIT
    bad.clear()
    assert look(a_deployment(finished=timestamp()), run).does == WAIT


def test_another_version_is_refused_unless_it_takes_over() -> None:
    why = refused(a_deployment(), a_run(version="3"))
    assert "The deploy of web 2 (d1, by anna@ci) is paused, since stage says so." in why
    assert "rollout_supersede=true" in why
    assert look(a_deployment(), a_run(version="3", supersede=True)).does == TAKE_OVER
    assert "holidays" in refused(a_deployment(freeze="holidays"), a_run(version="3", supersede=True))
    assert look(a_deployment(), a_run(version=None, direction="rollback")).does == TAKE_OVER
    assert look(a_deployment(freeze="holidays"), a_run(version=None, direction="rollback")).does == TAKE_OVER


def test_a_paused_rollout_stands_before_a_restart_and_the_other_way_round() -> None:
    restart = {"version": None, "direction": "restart"}
    why = refused(a_deployment(), a_run(**restart))
    assert "The deploy of web 2 (d1, by anna@ci) is paused, since stage says so. It stands before any restart;" in why
    assert look(a_deployment(), a_run(**restart, supersede=True)).does == TAKE_OVER
    other = refused(a_deployment(**restart), a_run())
    assert (
        "The restart of web (d1, by anna@ci) is paused, since stage says so. It stands before any deployment;" in other
    )
    assert look(a_deployment(STAGE, "promote", **restart), a_run(**restart)).does == GO_ON


def test_a_run_with_other_hosts_cannot_go_on() -> None:
    few = Run.of({**a_run().as_dict(), "hosts": HOSTS[:2]})
    assert "1 host: web3 of it are not among the hosts of this run" in refused(a_deployment(said="promote"), few)
    batches = Run.of({**a_run().as_dict(), "steps": ["drain"]})
    assert "takes its hosts in a window, and this run would take them in batches" in refused(a_deployment(), batches)
    over = Run.of({**few.as_dict(), "options": {**few.options, "supersede": True}})
    assert look(a_deployment(said="promote"), over).does == TAKE_OVER


def test_without_a_paused_one_it_begins_unless_it_is_frozen() -> None:
    assert look(None, a_run()).does == BEGIN
    assert "web is not rolled out now: rollouts are frozen by somebody (by hand): sale" in refused(
        None, a_run(), "sale"
    )
    assert look(None, a_run(direction="rollback"), "sale").does == BEGIN
    assert look(None, a_run(), json.dumps({"until": "2020-01-01T00:00:00Z"})).does == BEGIN
    assert "outside of rollout_windows" in refused(None, a_run(windows=[NEVER]))


def test_what_was_said_before_is_used_up() -> None:
    """Its key is emptied, unless the first gate has to hear it; where there is no key it is made."""
    assert look(a_deployment(said="promote"), a_run()).used_up == 50
    assert look(a_deployment(said="abort"), a_run()).used_up == -1
    assert look(a_deployment(FREEZE), a_run()).used_up == -1, "it is empty"
    assert look(a_deployment(said="pause"), a_run(version="3", supersede=True)).used_up == 50
    assert look(None, a_run()).used_up == 0


# -- the plan -----------------------------------------------------------------------------------------------------


def a_plan(**states: str) -> Plan:
    """As it would be for a deployment that begins now."""
    hosts = {
        name: HostPlan(name, name, states.get(name, TO_CHANGE), "1", "2", "1", True, batch=1, coordinator="x")
        for name in [*HOSTS, "web4"]
    }
    return Plan("web", hosts, [list(hosts)], 2, 4, 4, "anew", [], (), (1,))


def test_it_goes_on_where_it_was() -> None:
    plan = paused.continued(a_plan(web1=CURRENT), a_deployment())
    assert plan.batches == [[], ["web2", "web3"]]
    assert plan.windows == (1, 2)
    assert {name: host.batch for name, host in plan.hosts.items()} == {"web1": None, "web2": 2, "web3": 2, "web4": None}
    told = plan.as_dict()
    assert (told["order"], told["serial"]) == (["web2", "web3"], [2]), (
        "an empty stage has no play: 0 would be all hosts"
    )
    assert plan.description == "web: goes on with d1 at stage 2 of 2, 2 hosts to come; at least 2 of 4 stay healthy"
    assert plan.warnings == ["Not in its plan, and left as they are: 1 host: web4."]


def test_where_only_the_last_bake_is_to_come_it_says_so() -> None:
    ended = {name: Outcome(name, name, "ok") for name in HOSTS}
    plan = paused.continued(a_plan(**dict.fromkeys(HOSTS, CURRENT)), replace(a_deployment(PAUSE), outcomes=ended))
    assert plan.batches == [[], []]
    assert "goes on with d1 where all but its last bake is done; " in plan.description


def test_hosts_are_looked_at_anew() -> None:
    plan = paused.continued(a_plan(web1=CURRENT, web2=CURRENT, web3=UNREACHABLE), a_deployment())
    assert plan.batches == [[], []]
    assert plan.nothing_to_do


def test_batches_keep_their_coordinators() -> None:
    plan = paused.continued(a_plan(web1=CURRENT), a_deployment(windows=()))
    assert [plan.hosts[name].coordinator for name in HOSTS] == [None, "web-batch-2-of-2", "web-batch-2-of-2"]
    assert plan.as_dict()["order"] == ["web-batch-2-of-2", "web2", "web3"]
