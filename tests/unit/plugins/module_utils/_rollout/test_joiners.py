"""What has joined while a deployment ran: what is named, and what the deployment that rolls it is like."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import Instance, parse_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import joiners
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment
from ansible_collections.hitless.consul.plugins.module_utils._views.standing import standing
from tests.unit.plugins.module_utils._rollout.deployments import all_of, deployment
from tests.unit.plugins.module_utils._rollout.test_fleet import entry

pytestmark = pytest.mark.oldest

KEYS = Keys("web")


class FakeConsul:
    """Versions that are recorded, and how often they were asked for."""

    def __init__(self, recorded: dict[str, str] | None = None) -> None:
        self.asked = 0
        self._recorded = recorded or {}

    def txn(self, _operations: object) -> list[dict[str, Any]]:
        self.asked += 1
        return [
            {"Key": KEYS.version(node), "Value": b64encode(version.encode()).decode(), "ModifyIndex": 1}
            for node, version in self._recorded.items()
        ]


def there(**versions: str) -> list[Instance]:
    """An instance on each node; its version as the service's meta tells it."""
    return parse_instances([entry(node, meta={"version": one} if one else None) for node, one in versions.items()])


def an_end(**about: Any) -> Deployment:
    ended = deployment("d1", "2", all_of(["web1", "web2"], ("ok", "1", "2")), **about)
    return replace(ended, record=replace(ended.record, description="It went well."))


OURS = {"node-web1": "1", "node-web2": "1"}


def joined(consul: FakeConsul, ended: Deployment, **versions: str) -> Record:
    return joiners.with_joiners(consul, KEYS, ended, there(**OURS, **versions)).record  # type: ignore[arg-type]


def test_what_does_not_run_the_version_is_named() -> None:
    found = joined(FakeConsul({"web4": "2", "web5": "1"}), an_end(), web3="1", web4="1", web5="2", web6="")
    assert found.joined == {"web3": "1", "web5": "1", "web6": ""}, "what is recorded counts, else the service's meta"
    assert found.description == (
        "It went well. Joined meanwhile, and not changed: web3 on 1, web5 on 1, web6 on an unknown version."
    )
    assert json.loads(found.to_json())["joined"] == found.joined
    assert Record.from_json(found.to_json(), "d1", "web").joined == found.joined


def test_what_runs_the_version_is_not() -> None:
    assert joined(FakeConsul(), an_end(), web3="2") == an_end().record


def test_where_nothing_has_joined_nothing_is_asked() -> None:
    consul = FakeConsul()
    assert joined(consul, an_end(uncovered=("web3",)), web3="1") == an_end(uncovered=("web3",)).record
    assert consul.asked == 0


@pytest.mark.parametrize("state", ["paused", "cancelled", "interrupted"])
def test_what_goes_on_later_is_not_over(state: str) -> None:
    assert not joined(FakeConsul(), an_end(state=state), web3="1").joined


def test_a_restart_has_no_version_that_it_could_lack() -> None:
    assert not joined(FakeConsul(), an_end(direction="restart"), web3="1").joined


def test_of_many_three_are_named_and_a_hundred_kept() -> None:
    found = joined(FakeConsul(), an_end(), **{f"other{number:03}": "1" for number in range(150)})
    assert len(found.joined) == joiners.JOINED_LIMIT
    assert found.description.endswith("other000 on 1, other001 on 1, other002 on 1 and 147 more.")


def test_what_to_do_is_said() -> None:
    ended = joiners.with_joiners(FakeConsul(), KEYS, an_end(), there(**OURS, web3="1"))  # type: ignore[arg-type]
    told = standing(ended.record, ended.outcomes, {"node-web1", "node-web2", "web3"})
    assert "Next: run the same command again; it rolls what has joined, where that is among rollout_hosts." in told


# --- rolled by the same run ----------------------------------------------------------------------------------


def a_run(**changes: Any) -> Run:
    options = {**DEFAULTS, "service": "web", "version": "2", "joiners": "roll", **changes}
    return Run("d1", options, session="s", claim="c", resumed=["d0"])


def never() -> Any:
    raise AssertionError("the options are read anew")


@pytest.mark.parametrize(
    "run", [a_run(joiners="name"), a_run(direction="rollback"), replace(a_run(), undoes="d0")], ids=str
)
def test_where_it_is_not_asked_for_nothing_is_read(run: Run) -> None:
    task = Task({}, {"url": "http://127.0.0.1:1"}, Host(None))
    assert joiners.follow(task, run, never, 5) is run


def test_whatever_is_wrong_the_run_ends_with_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_given: object, **_named: object) -> None:
        raise ConsulError("no leader")

    monkeypatch.setattr(joiners.ending, "conclude", fails)
    warned: list[str] = []
    task = Task({}, {"url": "http://127.0.0.1:1"}, Host(None), warn=warned.append)
    run = a_run()
    assert joiners.follow(task, run, never, 5) is run
    assert warned == ["What joined web meanwhile is not rolled: no leader"]


def test_the_deployment_of_what_has_joined() -> None:
    prepared = Run("d2", {**DEFAULTS, "pause_after": [1], "skip_current": False}, hosts=["web1", "web2", "web3"])
    after = joiners._after(a_run(), prepared)
    assert (after.id, after.follows, after.resumed) == ("d2", "d1", ["d1", "d0"])
    assert (after.session, after.claim, after.hosts) == ("s", "c", prepared.hosts)
    wanted = ("rollback", "skip_current", "pause_after", "auto_promote")
    assert [after.options[name] for name in wanted] == ["host", True, [], 0]
    assert joiners._after(a_run(rollback="none"), prepared).options["rollback"] == "none"
    assert after.is_second
    assert (after.plays["out"]["hosts"], after.plays["again"]["hosts"]) == (["localhost"], ["localhost"])
