"""The roles that set machines up, on a running lab under load: a VM joins and leaves, wrong input changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import VM, Lab, wait_until
from lab.testkit.ansible_run import CHECKOUT, Ansible, Result
from tests.fleet import CONSUL
from tests.rollout.drive import Load


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=2, ssh=False, consul=CONSUL) as running:
        yield running


class Machines:
    """Runs the roles on machines of a lab."""

    def __init__(self, ansible: Ansible, lab: Lab) -> None:
        self.lab = lab
        self._ansible = ansible

    def set_up(self, limit: str, *more: str, **variables: Any) -> Result:
        inventory = self.lab.directory / "inventory" / "machines.yml"
        playbook = CHECKOUT / "lab" / "machines.yml"
        arguments = ["-i", inventory, playbook, "--limit", limit, "-e", json.dumps(variables), "--diff", *more]
        return self._ansible.playbook(*arguments, env={**self.lab.environment, "ANSIBLE_PIPELINING": "1"})


@pytest.fixture
def machines(ansible: Ansible, fleet: Lab) -> Machines:
    return Machines(ansible, fleet)


def definition(vm: VM) -> Path:
    return vm.directory / "consul.d" / "service-web.json"


def test_the_lab_is_what_the_roles_make_of_it(machines: Machines) -> None:
    """Also where an instance is in maintenance just then, which stays as it is."""
    vm = machines.lab.vms[0]
    vm.operator_maintenance("disk")
    wait_until("the catalog shows it", lambda: vm.maintenance_reason() == "disk")
    result = machines.set_up("all")
    assert result.rc == 0, result.output
    assert {host: counts["changed"] for host, counts in result.recap.items()} == {"lb": 0, "web1": 0, "web2": 0}
    assert vm.maintenance_reason() == "disk"


def test_a_sixth_machine_joins_under_load_and_leaves(machines: Machines) -> None:
    """No task runs on the load balancer."""
    lab = machines.lab
    with Load(lab) as load:
        vm = lab.add_vm("2.0.0", wait=False, register=False)
        try:
            joined = machines.set_up(vm.name)
            assert joined.rc == 0, joined.output
            assert [entry["Node"]["Node"] for entry in lab.services()] == ["web1", "web2", "web3"]
            wait_until("it serves", lambda: "2.0.0" in load.report.by_version)
            gone = [{**vm.service_definition(), "state": "absent"}]
            left = machines.set_up(vm.name, consul_service_services=gone)
            assert left.rc == 0, left.output
            assert not definition(vm).exists()
            assert f"{vm.address}:8080" not in lab.balancer.servers_up()
            # The role has waited, so that whoever called it may go on at once.
            vm.stop_app()
        finally:
            lab.remove_vm(vm.name)
    load.check_nothing_lost()
    again = lab.services()
    assert [entry["Node"]["Node"] for entry in again] == ["web1", "web2"]


@pytest.mark.slow
def test_a_change_is_shown_first_and_made_then_without_a_restart(machines: Machines) -> None:
    vm = machines.lab.vms[0]
    before = definition(vm).read_text(encoding="utf-8")
    pid = machines.lab.units()[f"{vm.name}.consul"]["pid"]
    vm.operator_maintenance("disk")
    changed = [{**vm.service_definition(), "tags": ["blue"], "weights": {"passing": 5, "warning": 1}}]
    told = machines.set_up(vm.name, "--check", consul_service_services=changed)
    assert told.rc == 0, told.output
    assert '"blue"' in told.stdout
    assert definition(vm).read_text(encoding="utf-8") == before
    try:
        done = machines.set_up(vm.name, consul_service_services=changed)
        assert done.rc == 0, done.output
        entry = next(entry for entry in machines.lab.services() if entry["Node"]["Node"] == vm.name)
        assert (entry["Service"]["Tags"], entry["Service"]["Weights"]["Passing"]) == (["blue"], 5)
        assert vm.maintenance_reason() == "disk"
        assert machines.lab.units()[f"{vm.name}.consul"]["pid"] == pid
    finally:
        definition(vm).write_text(before, encoding="utf-8")
        vm.reload_agent()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"prot": 80}, "invalid config key service.prot"),
        ({"version": 1.1}, "must be text"),
    ],
    ids=["key", "version"],
)
def test_a_wrong_service_is_refused_before_the_agent_sees_it(
    machines: Machines, wrong: dict[str, Any], text: str
) -> None:
    vm = machines.lab.vms[0]
    before = definition(vm).read_text(encoding="utf-8")
    refused = machines.set_up(vm.name, consul_service_services=[{**vm.service_definition(), **wrong}])
    assert refused.rc != 0
    assert text in refused.output
    assert definition(vm).read_text(encoding="utf-8") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"consul_load_balancer_extra_frontend": ["bnid *:80"]}, "unknown keyword 'bnid'"),
        pytest.param(
            {"consul_load_balancer_slots": 1},
            "web has 2 instances and HAProxy 1 slots for it",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["keyword", "slots"],
)
def test_a_wrong_configuration_is_refused_before_the_load_balancer_sees_it(
    machines: Machines, options: dict[str, Any], text: str
) -> None:
    balancer = machines.lab.balancer
    config = balancer.config.read_text(encoding="utf-8")
    refused = machines.set_up("lb", **options)
    assert refused.rc != 0
    assert text in refused.output
    assert balancer.config.read_text(encoding="utf-8") == config


@pytest.mark.slow
def test_an_image_gets_files_only(machines: Machines, tmp_path: Path) -> None:
    """Nothing is asked or reloaded, several instances of a service included; a machine made of it registers itself."""
    vm = machines.lab.vms[0]
    right = vm.service_definition()
    two = [{**right, "id": f"web-{port}", "port": port} for port in (8081, 8082)]
    services = tmp_path / "consul.d"
    services.mkdir()
    offline = {"consul_service_offline": True, "consul_service_config_dir": str(services)}
    # Neither an agent nor a Consul answers there.
    nobody = {"hitless_consul_agent_url": "http://127.0.0.1:9", "consul_load_balancer_consul_url": "http://127.0.0.1:9"}
    built = machines.set_up(vm.name, consul_service_services=two, **offline, **nobody)
    assert built.rc == 0, built.output
    found = {path.name: json.loads(path.read_text(encoding="utf-8"))["service"] for path in services.iterdir()}
    assert {name: one["port"] for name, one in found.items()} == {
        "service-web-8081.json": 8081,
        "service-web-8082.json": 8082,
    }
    gone = machines.set_up(vm.name, consul_service_services=[{**two[0], "state": "absent"}], **offline, **nobody)
    assert gone.rc == 0, gone.output
    assert [path.name for path in services.iterdir()] == ["service-web-8082.json"]

    folder = tmp_path / "lb"
    balancer = {"consul_load_balancer_offline": True, "consul_load_balancer_directory": str(folder)}
    built = machines.set_up("lb", **balancer, **nobody)
    assert built.rc == 0, built.output
    assert "server-template web 1-50" in (folder / "haproxy.cfg").read_text(encoding="utf-8")
    again = machines.set_up("lb", **balancer, **nobody)
    assert again.recap["lb"]["changed"] == 0
