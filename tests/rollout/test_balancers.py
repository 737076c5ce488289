"""The three ways of the role consul_load_balancer, each under load with retries off."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab import BinaryError, Lab, wait_until
from lab.balancer import METHODS, Balancer
from lab.binaries import find_consul_template
from tests.fleet import CONSUL
from tests.rollout.drive import Drive, Load

OLD, NEW = "1.0.0", "2.0.0"


def start(method: str, vms: int) -> Iterator[Lab]:
    """A lab of that many VMs; NOT RUN where consul-template cannot be had."""
    if method.endswith("-template"):
        try:
            find_consul_template()
        except BinaryError as error:
            pytest.skip(f"NOT RUN: {error}")
    with Lab(vms=vms, ssh=False, consul=CONSUL, balancer=method) as running:
        yield running


BY_DNS_AT_FIRST = pytest.mark.parametrize(
    "lab", [pytest.param(one, marks=[pytest.mark.slow] * (one != "haproxy-dns")) for one in METHODS], indirect=True
)


@pytest.fixture(scope="module", params=METHODS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from start(request.param, 3)


@BY_DNS_AT_FIRST
def test_a_rollout_while_the_load_balancer_reloads(drive: Drive) -> None:
    lab, balancer = drive.lab, drive.lab.balancer
    with Load(lab) as load, drive.start(NEW, hosts="web1:web2") as run:
        wait_until("the first host is under way", lambda: any(vm.deploys() for vm in lab.vms), 120)
        balancer.reload()
        if balancer.by_template:
            balancer.kill_following()
            time.sleep(0.5)
            balancer.start_following()
        result = run.wait()
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [NEW, NEW, OLD]
    assert drive.is_settled()
    wait_until("it serves what Consul calls healthy", lambda: balancer.script("status").returncode == 0, 10)


def away(lab: Lab, seconds: float) -> None:
    """The load balancer's agent is gone for that long: the last good configuration holds.

    Over a reload too; HAProxy that follows DNS is not reloaded meanwhile.
    """
    served = lab.balancer.servers_up()
    with Load(lab) as load:
        lab.load_balancer.kill_agent()
        time.sleep(seconds / 2)
        assert lab.balancer.servers_up() == served
        reloaded = lab.balancer.script("reload")
        assert (reloaded.returncode == 0) == lab.balancer.by_template, reloaded.stderr
        assert lab.balancer.by_template or "Consul does not answer" in reloaded.stderr
        time.sleep(seconds / 2)
        assert lab.balancer.servers_up() == served
        lab.load_balancer.start_agent()
        lab.vms[0].operator_maintenance("it follows again")
        wait_until("it follows again", lambda: len(lab.balancer.servers_up()) == len(served) - 1)
        lab.vms[0].operator_maintenance("", enable=False)
        lab.wait_passing()
    load.check_nothing_lost()
    assert set(load.report.by_instance) == {vm.name for vm in lab.vms}


@BY_DNS_AT_FIRST
def test_consul_is_away(fleet: Lab) -> None:
    away(fleet, 5)


@pytest.mark.slow
def test_consul_is_away_for_a_minute(fleet: Lab) -> None:
    away(fleet, 60)


@pytest.mark.parametrize("lab", ["haproxy-dns"], indirect=True)  # no other begins a reload with a saved state
def test_an_instance_leaves_while_haproxy_reloads(fleet: Lab) -> None:
    """HAProxy alone would go on sending it requests: it believes its saved state until "hold timeout"."""
    balancer = fleet.balancer
    saved = balancer.folder / "haproxy.state"
    saved.write_text(balancer.command("show servers state"), encoding="utf-8")
    with Load(fleet) as load:
        vm = fleet.vms[0]
        vm.operator_maintenance("just now")
        wait_until("it is out", lambda: len(balancer.servers_up()) == 2)
        master = Balancer.ask(balancer.folder / "master.sock", "reload")
        assert "rror" not in master
        # Debian's HAProxy takes it in again, and others may not.
        time.sleep(1)
        balancer.reload()
        assert f"{vm.address}:8080" not in balancer.servers_up()
        assert balancer.script("status").returncode == 0
        vm.operator_maintenance("", enable=False)
        fleet.wait_passing()
    load.check_nothing_lost()


def test_without_draining_requests_are_lost(fleet: Lab) -> None:
    """The control: the load would show a loss, behind each of them."""
    with Load(fleet) as load:
        fleet.vms[0].stop_app()
        fleet.vms[0].start_app("2.0.0-slow1")
    assert load.report.lost


def test_what_does_not_pass_the_programs_own_check_is_not_put_in_place(fleet: Lab) -> None:
    balancer = fleet.balancer
    good = balancer.config.read_text(encoding="utf-8")
    bad = balancer.folder / "bad"
    bad.write_text(good + "\nbackend {\n", encoding="utf-8")
    done = balancer.script("apply", str(bad))
    assert done.returncode == 1
    assert "refuses the new configuration, the last good one stays" in done.stderr
    assert balancer.config.read_text(encoding="utf-8") == good
    assert len(balancer.servers_up()) == 3


@pytest.fixture(params=METHODS)
def twenty(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from start(request.param, 20)


@pytest.mark.slow
def test_twenty_instances(twenty: Lab) -> None:
    with Load(twenty) as load:
        for vm in twenty.vms[:5]:
            vm.operator_maintenance("in turn")
            wait_until("it is out", lambda: len(twenty.balancer.servers_up()) == 19)
            time.sleep(0.5)
            vm.stop_app()
            vm.start_app(NEW)
            wait_until("it has been checked", vm.checked)
            vm.operator_maintenance("", enable=False)
            twenty.wait_passing()
    load.check_nothing_lost()
    assert set(load.report.by_instance) == {vm.name for vm in twenty.vms}
