"""The lab itself: it serves, it counts what is lost, it is a fleet as real as the tests on top of it need."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lab import ConsulError, Lab, LabError, wait_until
from lab.testkit import link_tree
from lab.testkit.ansible_run import environment
from tests.fleet import CONSUL

# Past the proxy of whoever runs the tests.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def traffic_without(lab: Lab, address: str) -> bool:
    return address not in {server.rpartition(":")[0] for server in lab.balancer.servers_up()}


@pytest.mark.oldest
def test_every_instance_serves_and_nothing_is_lost(fleet: Lab) -> None:
    def answered() -> bool:
        report = load.report()
        return len(report.by_instance) == 5 and {row.connection for row in report.rows} == {"new", "kept"}

    with fleet.load(rate=200) as load:
        wait_until("every instance has answered, on new and on kept connections", answered, 10)
    report = load.report()
    assert report.lost == []
    assert set(report.by_version) == {"1.0.0"}
    assert sum(report.by_instance.values()) == report.total


@pytest.mark.oldest
def test_control_a_restart_without_drain_loses_requests_and_the_account_shows_them(fleet: Lab) -> None:
    with fleet.load(rate=200) as load:
        for vm in fleet.vms[:2]:
            assert vm.deploy("2.0.0-slow1").returncode == 0
            fleet.wait_passing()
    lost = load.report().lost
    assert lost
    assert {row.outcome for row in lost} <= {"status", "reset", "truncated"}
    assert "2.0.0-slow1" in load.report().by_version


def test_maintenance_takes_an_instance_out_and_nothing_is_lost(fleet: Lab) -> None:
    vm = fleet.vms[2]
    with fleet.load(rate=200) as load:
        wait_until("it has served", lambda: vm.name in load.report().by_instance)
        vm.operator_maintenance("operator: disk")
        wait_until("it is out of rotation", lambda: traffic_without(fleet, vm.address))
        out = time.time()
        assert vm.stop_app()
        time.sleep(1)
        vm.start_app("2.0.0")
        back = time.time()
        assert vm.maintenance_reason() == "operator: disk"
        vm.operator_maintenance("", enable=False)
        fleet.wait_passing()
        wait_until("it serves again", lambda: "2.0.0" in load.report().by_version)
    report = load.report()
    assert report.lost == []
    assert vm.name not in report.between(out, back).by_instance
    assert report.between(out, back).total > 0
    assert set(report.of(vm.name).by_version) == {"1.0.0", "2.0.0"}


def test_load_counts_what_is_refused(fleet: Lab) -> None:
    fleet.balancer.stop()
    try:
        with fleet.load(rate=50) as load:
            wait_until("some were sent", lambda: load.report().total >= 5, 10)
        assert load.report().by_outcome == {"refused": load.report().total}
    finally:
        fleet.balancer.start()


def test_reload_of_the_load_balancer_loses_nothing(fleet: Lab) -> None:
    with fleet.load(rate=200) as load:
        before = load.report().total
        fleet.balancer.reload()
        wait_until("the load went on", lambda: load.report().total > before + 200, 20)
    assert load.report().lost == []


def test_a_request_in_flight_is_answered_when_the_application_stops(fleet: Lab) -> None:
    vm = fleet.vms[0]
    vm.start_app("2.0.0-latency800")
    wait_until("it listens", lambda: answer(vm.app_url) is not None, 10)
    found: list[str | None] = []
    request = threading.Thread(target=lambda: found.append(answer(vm.app_url)))
    request.start()
    time.sleep(0.3)
    vm.stop_app()
    request.join()
    assert found == ["2.0.0-latency800"]


def answer(url: str) -> str | None:
    """The version that answers there, None when nobody does."""
    try:
        with DIRECT.open(url, timeout=5) as response:
            return str(json.load(response)["version"])
    except OSError:
        return None


def health(url: str) -> int:
    """The status of /health, 0 when nobody answers."""
    try:
        with DIRECT.open(f"{url}/health", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_versions_that_are_broken_warning_or_turn_bad(fleet: Lab) -> None:
    one, two, three, four, _five = fleet.vms
    one.start_app("3.0.0-brokenon-web1")
    two.start_app("3.0.0-brokenon-web1")
    three.start_app("3.0.0-warning")
    four.start_app("3.0.0-badafter3")
    wait_until("it is broken where it should be", lambda: health(one.app_url) == 500, 10)
    wait_until("and only there", lambda: health(two.app_url) == 200, 10)
    wait_until("a warning", lambda: health(three.app_url) == 429, 10)
    wait_until("good first", lambda: health(four.app_url) == 200, 10)
    wait_until("bad then", lambda: health(four.app_url) == 500, 10)
    states = {"web1": "critical", "web2": "passing", "web3": "warning", "web4": "critical", "web5": "passing"}

    def shown() -> dict[str, str]:
        return {entry["Node"]["Node"]: entry["Checks"][-1]["Status"] for entry in fleet.services()}

    wait_until("Consul sees it", lambda: shown() == states, 15)


def test_a_slow_version_listens_later_and_consul_still_says_passing(fleet: Lab) -> None:
    vm = fleet.vms[0]
    # A long interval, so that the old "passing" stands while nobody listens: the trap.
    definition = vm.directory / "consul.d" / "service-web.json"
    original = definition.read_text(encoding="utf-8")
    definition.write_text(original.replace('"interval": "1s"', '"interval": "60s"'), encoding="utf-8")
    try:
        vm.reload_agent()
        wait_until("it is passing", lambda: len(fleet.services(passing=True)) == 5)
        vm.start_app("2.0.0-slow2")
        assert health(vm.app_url) == 0
        assert len(fleet.services(passing=True)) == 5
        wait_until("it listens", lambda: answer(vm.app_url) == "2.0.0-slow2", 10)
    finally:
        definition.write_text(original, encoding="utf-8")


@pytest.mark.oldest
def test_a_version_that_registers_anew_drops_maintenance(fleet: Lab) -> None:
    vm = fleet.vms[1]
    vm.operator_maintenance("operator: disk")
    wait_until("the catalog shows it", lambda: vm.maintenance_reason() == "operator: disk")
    vm.start_app("2.0.0-reregister")
    wait_until("it is lost", lambda: vm.maintenance_reason() is None)
    fleet.wait_passing()


def test_deployments_that_fail_change_nothing(fleet: Lab) -> None:
    vm = fleet.vms[0]
    done = vm.deploy("3.0.0-deployfail")
    assert done.returncode == 3
    assert "Unable to locate package" in done.stderr
    assert vm.running_version() == "1.0.0"
    assert vm.deploy("1.0.1-rollbackfail").returncode == 0
    assert vm.deploy("1.0.1-rollbackfail", reason="rollback").returncode == 3
    assert vm.running_version() == "1.0.1-rollbackfail"
    runs = vm.deploys()
    assert [(run.version, run.reason, run.code) for run in runs] == [
        ("3.0.0-deployfail", "deploy", 3),
        ("1.0.1-rollbackfail", "deploy", 0),
        ("1.0.1-rollbackfail", "rollback", 3),
    ]
    assert all(run.end is not None and run.start <= run.end for run in runs)


def test_a_hanging_deployment_is_on_record_and_ends_on_a_signal(fleet: Lab) -> None:
    vm = fleet.vms[0]
    process = subprocess.Popen([vm.directory / "deploy", "3.0.0-deployhang"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("fetching" in line for line in process.stdout)
        wait_until("it is on record", lambda: len(vm.deploys()) == 1, 10)
        assert vm.deploys()[0].end is None
        assert process.poll() is None
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert vm.deploys()[0].code == 128 + 15
    assert vm.running_version() == "1.0.0"


def test_the_deploy_script_refuses_to_guess_a_version(fleet: Lab) -> None:
    done = subprocess.run([fleet.vms[0].directory / "deploy"], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "DEPLOY_VERSION" in done.stderr


def ssh(lab: Lab, address: str, command: str) -> list[str]:
    return ["ssh", "-F", f"{lab.directory}/ssh/config", "-o", "BatchMode=yes", address, command]


def test_ssh_reaches_a_vm_and_knows_its_host_key(fleet: Lab) -> None:
    one, two = fleet.vms[:2]
    done = subprocess.run(ssh(fleet, one.address, "echo here"), capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "here\n"
    known = fleet.directory / "ssh" / "known_hosts"
    original = known.read_text(encoding="utf-8")
    keys = dict(line.split(" ", 1) for line in original.splitlines())
    swapped = f"[{one.address}]:2222 {keys[f'[{two.address}]:2222']}\n"
    known.write_text(swapped, encoding="utf-8")
    try:
        done = subprocess.run(ssh(fleet, one.address, "true"), capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 255
        assert "Host key verification failed" in done.stderr
    finally:
        known.write_text(original, encoding="utf-8")


def test_a_vm_out_of_reach_loses_its_sessions_but_not_its_commands(fleet: Lab, tmp_path: Path) -> None:
    vm = fleet.vms[0]
    mark = tmp_path / "mark"
    command = f"trap '' HUP PIPE; echo begun; while [ ! -e {mark}.go ]; do sleep 0.1; done; touch {mark}"
    pipe = subprocess.PIPE
    session = subprocess.Popen(ssh(fleet, vm.address, command), stdout=pipe, stderr=pipe, text=True)
    assert session.stdout is not None
    assert session.stdout.readline() == "begun\n"
    vm.stop_sshd()
    session.communicate(timeout=20)
    assert session.returncode == 255
    refused = subprocess.run(ssh(fleet, vm.address, "true"), capture_output=True, text=True, timeout=20, check=False)
    assert refused.returncode == 255
    Path(f"{mark}.go").touch()
    wait_until("the command lived on", mark.exists, 10)
    vm.start_sshd()
    assert subprocess.run(ssh(fleet, vm.address, "true"), timeout=20, check=False).returncode == 0


@pytest.mark.parametrize(
    "inventory",
    [
        "static-local.yml",
        "static-ssh.yml",
        # All rollouts use these two.
        pytest.param("local/web.consul.yml", marks=pytest.mark.slow),
        pytest.param("ssh/web.consul.yml", marks=pytest.mark.slow),
    ],
)
def test_ansible_reaches_the_vms_by_each_inventory(fleet: Lab, inventory: str, short_home: Path) -> None:
    path = fleet.write_inventory() / inventory
    program = Path(sys.executable).with_name("ansible")
    pattern = "web" if inventory.startswith("static") else "service_web"
    command = [program, "-i", path, pattern, "-m", "ansible.builtin.raw", "-a", "{{ lab_vm_dir }}/deploy 2.0.0"]
    env = environment(link_tree.make(), short_home, fleet.environment)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [vm.running_version() for vm in fleet.vms] == ["2.0.0"] * 5


@pytest.mark.oldest
def test_an_agent_killed_leaves_the_rotation_and_comes_back(fleet: Lab) -> None:
    vm = fleet.vms[4]
    pid = vm.app_pid()
    vm.kill_agent()
    wait_until("gossip noticed", lambda: len(fleet.services(passing=True)) == 4)
    wait_until("no traffic", lambda: traffic_without(fleet, vm.address))
    vm.start_agent()
    fleet.wait_passing()
    assert vm.app_pid() == pid


def test_a_vm_comes_and_goes(fleet: Lab) -> None:
    vm = fleet.add_vm("1.0.0")
    assert vm.name == "web6"
    assert f"{vm.address}:8080" in fleet.balancer.servers_up()
    assert "web6" in (fleet.directory / "inventory" / "static-ssh.yml").read_text(encoding="utf-8")
    fleet.remove_vm("web6")
    fleet.wait_passing()
    assert [entry["Node"]["Node"] for entry in fleet.services()] == ["web1", "web2", "web3", "web4", "web5"]
    with pytest.raises(LabError, match="no VM is called web6"):
        fleet.vm("web6")


def test_keys(fleet: Lab) -> None:
    assert fleet.kv("nodes/web1/text") is None
    fleet.consul_put("kv/nodes/web1/text", b"1.10")
    assert fleet.kv("nodes/web1/text") == "1.10"
    with pytest.raises(ConsulError) as failure:
        fleet.consul_get("kv/nothing")
    assert failure.value.status == 404


def test_another_process_can_use_a_running_lab(fleet: Lab) -> None:
    same = Lab.attach(fleet.directory)
    assert same.url == fleet.url
    same.vms[0].start_app("2.0.0")
    assert fleet.vms[0].running_version() == "2.0.0"
    with pytest.raises(LabError, match="no lab runs in"):
        Lab.attach("/nowhere")


@pytest.mark.parametrize("kind", ["watch", "consul"])
def test_deploy_agents_run_however_they_watch(kind: str) -> None:
    """`consul watch` ends where no agent answers yet."""
    with Lab(vms=1, ssh=False, agent=kind, consul=CONSUL) as lab:
        vm = lab.vms[0]
        wait_until("it has begun", lambda: bool(vm.deploy_agent.processes("watch", "run")), 10)
        assert vm.deploy_agent.runs()
