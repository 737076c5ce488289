"""An application that deregisters and registers itself while it is deployed: its maintenance is lost with that."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.testkit.ansible_run import flat
from tests.rollout.drive import Drive, Load, RotationWatch

OLD = "1.0.0"
STABLE = 3.0


def first_request(load: Load, host: str, version: str) -> float:
    """When the version got its first request there."""
    return min(row.sent for row in load.report.of(host).rows if row.version == version)


@pytest.mark.slow
@pytest.mark.oldest
@pytest.mark.parametrize("kind", ["local", "ssh"])
@pytest.mark.parametrize("version", ["2.0.0-reregister", "2.0.0-reregister-slow3"])
@pytest.mark.parametrize("with_url", [True, False])
def test_no_traffic_before_its_checks_pass(drive: Drive, kind: str, version: str, with_url: bool) -> None:
    """The maintenance is put back, so that traffic comes after the time for which its checks have to pass."""
    url = {} if with_url else {"health_url": "", "health_match": "", "check_interval": 2}
    options = {"hosts": "web1:web2:web3", "batch_size": 2, "min_healthy_time": STABLE, "healthy_deadline": 30, **url}
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(version, kind=kind, **options)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [version] * 3 + [OLD] * 2
    for vm in drive.lab.vms[:3]:
        assert "registered anew" in vm.app_log.read_text(encoding="utf-8")
        deployed = vm.deploys()[-1].end
        assert deployed is not None
        first = first_request(load, vm.name, version)
        assert first > deployed + STABLE, f"{vm.name} got traffic {first - deployed:.1f} s after its deployment"
        assert watch.seen[vm.name][1] > deployed, "the catalog showed no maintenance after the deployment"
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.0.0-reregister-broken", "3.0.0-reregister-badafter2"])
def test_a_broken_one_gets_none_at_all(drive: Drive, version: str) -> None:
    with Load(drive.lab) as load:
        result = drive.run(version, kind="ssh", min_healthy_time=STABLE)
    assert result.rc != 0
    load.check_nothing_lost()
    assert load.report.by_version.keys() == {OLD}, "the version that failed got traffic"
    assert drive.outcomes()["web1"] == "rolled_back", result.output
    assert drive.running() == [OLD] * 5
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_it_stays_in_maintenance_while_its_deployment_goes_on(drive: Drive, kind: str) -> None:
    """Its process has registered itself and answers well, and the command still migrates, or warms up."""
    goes_on = 6.0
    command = f"{{{{ lab_vm_dir }}}}/deploy && sleep {goes_on:g}"
    with Load(drive.lab) as load:
        result = drive.run("2.0.0-reregister", kind=kind, hosts="web1", deploy_command=command)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    deployed = drive.lab.vm("web1").deploys()[-1].end
    assert deployed is not None
    first = first_request(load, "web1", "2.0.0-reregister")
    assert first > deployed + goes_on, f"it got traffic {first - deployed:.1f} s after it had registered itself"
    assert "web1: its maintenance ended while the deployment command ran, and was put back" in flat(result.output)


@pytest.mark.slow
def test_it_stays_in_maintenance_while_deployment_tasks_run(drive: Drive, tmp_path: Path) -> None:
    """Ansible runs them, each in a process of its own, and the service has registered itself with the first."""
    tasks = tmp_path / "tasks.yml"
    tasks.write_text(
        '- ansible.builtin.command: "{{ lab_vm_dir }}/deploy {{ deploy_version }}"\n'
        "- ansible.builtin.command: sleep 3\n",
        encoding="utf-8",
    )
    with Load(drive.lab) as load:
        result = drive.run("2.0.0-reregister", hosts="web1", deploy_command="", deploy_tasks=str(tasks))
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    deployed = drive.lab.vm("web1").deploys()[-1].end
    assert deployed is not None
    first = first_request(load, "web1", "2.0.0-reregister")
    assert first > deployed + 3, f"it got traffic {first - deployed:.1f} s after it had registered itself"
    assert "web1: its maintenance ended during its deployment, and was put back" in flat(result.output)
    assert drive.is_settled()
