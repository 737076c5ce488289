"""Which version a host may be trusted to run, after a turn in which nothing was deployed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import rotation
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_protocol import Order, Request
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import UNTOUCHED
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import outcome_ops, status_op
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_version
from tests.integration.consul_agent import Server
from tests.integration.services import ENDS, Services, started

ID, BEFORE = "20261123T142233Z-2.0.0-7f3a", "20251123T142233Z-1.4.1-aaaa"


@pytest.fixture(scope="module", params=ENDS, ids=["oldest", "newest"])
def consul(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from started(request.param)


@pytest.fixture
def web(consul: Server) -> Services:
    web = Services(consul)
    web.register()
    return web


def turn_of(web: Services) -> rotation.Turn:
    keys = Keys(web.name)
    return rotation.Turn(web.client(), web.client(), keys, ID, web.node, web.session(keys.lock))


def is_sure(turn: rotation.Turn) -> bool:
    return read_version(turn.cluster, turn.keys, turn.node).is_sure


def left_at(turn: rotation.Turn, state: str) -> None:
    turn.cluster.txn([status_op(turn.keys, turn.node, BEFORE, state)])


@pytest.mark.parametrize("before", ["ok", "rolled_back", "untouched"])
def test_a_host_that_was_drained_and_put_back_is_as_trusted_as_before(web: Services, before: str) -> None:
    turn = turn_of(web)
    left_at(turn, before)
    rotation.take_out(turn, rotation.Drain())
    assert is_sure(turn)
    turn.cluster.txn(turn.untouched_ops(Outcome("web1", turn.node, UNTOUCHED)))
    assert is_sure(turn)


@pytest.mark.parametrize("before", ["deploying", "returning", "failed", "lost"])
def test_what_an_earlier_deployment_left_open_stays_open(web: Services, before: str) -> None:
    turn = turn_of(web)
    left_at(turn, before)
    rotation.take_out(turn, rotation.Drain())
    assert not is_sure(turn)
    turn.cluster.txn(turn.untouched_ops(Outcome("web1", turn.node, UNTOUCHED)))
    assert not is_sure(turn)
    # And through one more of the same, and through one that nobody took.
    rotation.put_back(turn, rotation.Proof(), deployed=False)
    rotation.take_out(turn, rotation.Drain())
    assert not is_sure(turn)
    request = Request(turn.cluster, turn.keys, turn.node, Order(ID, "2.0.0"), turn.session)
    request.submit()
    assert request.follow(0.1).state == "withdrawn"
    assert not is_sure(turn)
    # Until something is known of it again.
    turn.cluster.txn(outcome_ops(turn.keys, ID, Outcome("web1", turn.node, "ok")))
    assert is_sure(turn)


@pytest.mark.parametrize(
    ("touched", "unsure", "sure"), [(False, False, True), (False, True, False), (True, False, False)]
)
def test_what_its_deploy_agent_tells_of_a_failed_request(
    web: Services, touched: bool, unsure: bool, sure: bool
) -> None:
    turn = turn_of(web)
    status = f'{{"state": "failed", "touched": {str(touched).lower()}, "unsure": {str(unsure).lower()}}}'
    turn.cluster.set_key(turn.keys.status(turn.node), status)
    assert is_sure(turn) is sure


def test_a_scope_without_the_service_is_refused_before_anything(web: Services) -> None:
    keys = Keys(web.name)
    turn = rotation.Turn(web.client(), web.client(), keys, ID, web.node, scope=("other",))
    with pytest.raises(HitlessError, match="not among the services that go into maintenance .other.*rollout_maint"):
        rotation.take_out(turn, rotation.Drain())
    assert web.reasons() == {web.name: None}
