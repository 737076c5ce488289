"""Labs with several servers, with ACLs and with TLS: closed where they should be, and serving all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import ConsulError, Lab, wait_until
from lab.agents import Http
from tests.fleet import CONSUL


@pytest.fixture(scope="module")
def closed() -> Iterator[Lab]:
    with Lab(vms=2, servers=3, acl=True, tls=True, ssh=False, consul=CONSUL) as lab:
        yield lab


def test_everything_serves(closed: Lab) -> None:
    with closed.load() as load:
        wait_until("both have answered", lambda: len(load.report().by_instance) == 2, 10)
    assert load.report().lost == []


def test_without_a_token_nothing_is_seen_and_nothing_written(closed: Lab) -> None:
    anonymous = Http(closed.url, "", closed.certificate)
    assert anonymous.call("GET", "health/service/web") == []
    with pytest.raises(ConsulError) as failure:
        anonymous.call("PUT", "kv/x", b"y")
    assert failure.value.status == 403
    with pytest.raises(ConsulError) as failure:
        Http(closed.vms[0].agent_url, "", closed.certificate).call("PUT", "agent/service/maintenance/web?enable=true")
    assert failure.value.status == 403


def test_a_token_may_do_what_its_rules_say(closed: Lab) -> None:
    token = closed.create_token('key_prefix "mine/" { policy = "write" }')
    assert closed.consul_put("kv/mine/x", b"y", token=token) is True
    with pytest.raises(ConsulError) as failure:
        closed.consul_put("kv/others/x", b"y", token=token)
    assert failure.value.status == 403


def test_without_a_client_certificate_there_is_no_connection(closed: Lab) -> None:
    certificate = closed.certificate
    assert certificate is not None
    with pytest.raises(ConsulError) as failure:
        Http(closed.url, closed.management_token).call("GET", "status/leader")
    assert failure.value.status == 0
    assert set(closed.environment) == {
        "HITLESS_LAB",
        "CONSUL_HTTP_ADDR",
        "CONSUL_HTTP_TOKEN",
        "CONSUL_HTTP_SSL",
        "CONSUL_CACERT",
        "CONSUL_CLIENT_CERT",
        "CONSUL_CLIENT_KEY",
    }


def test_an_application_registers_anew_with_token_and_certificate(closed: Lab) -> None:
    vm = closed.vms[0]
    vm.operator_maintenance("operator: disk")
    wait_until("the catalog shows it", lambda: vm.maintenance_reason() == "operator: disk")
    vm.start_app("2.0.0-reregister")
    wait_until("it is lost", lambda: vm.maintenance_reason() is None)
    closed.wait_passing()


def test_growth(closed: Lab) -> None:
    vm = closed.add_vm("2.0.0")
    wait_until("it is in the catalog", lambda: len(closed.services(passing=True)) == 3)
    closed.remove_vm(vm.name)
    closed.wait_passing()


def test_the_leader_is_killed_and_another_one_leads(closed: Lab) -> None:
    first = closed.leader()
    assert first is not None
    with closed.load() as load:
        first.kill()
        wait_until("another one leads", lambda: closed.leader() not in (None, first))

        def writes() -> bool:
            try:
                return closed.consul_put("kv/after", b"x") is True
            except ConsulError:
                return False

        wait_until("writes work again", writes)
    assert load.report().lost == []
    first.start()
    wait_until("it is back", lambda: len(closed.consul_get("status/peers")) == 3)
    closed.wait_passing()
