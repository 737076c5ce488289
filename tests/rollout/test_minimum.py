"""What may be in flight while other instances break: the gate waits for the minimum, and stops the rollout at it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import ConsulError, Lab, wait_until
from tests.rollout.drive import Drive, Load, RotationWatch

OLD, NEW = "1.0.0", "2.0.0"
# One of five is in flight at a time; with one broken beside it the next one has to wait.
MINIMUM = 4
HOLD = 4.0
"""Seconds in which a gate that does not wait would have begun the next host."""
IN_BATCHES = {"gather_facts": True}
"""Any task between the steps of a host means batches, whose gate is another."""


class Broken:
    """An instance that Consul finds critical, so that it gets no traffic; what it gets until then it answers."""

    def __init__(self, lab: Lab, name: str) -> None:
        self._lab, self._name, self._agent = lab, name, lab.vm(name).agent

    def begin(self) -> None:
        check = {"ID": "disk", "Name": "disk", "ServiceID": "web", "TTL": "1h", "Status": "critical"}
        self._agent.call("PUT", "agent/check/register", check)
        wait_until("the catalog shows it", lambda: self._name not in self._passing())

    def end(self) -> None:
        self._agent.call("PUT", "agent/check/deregister/disk")

    def _passing(self) -> set[str]:
        return {one["Node"]["Node"] for one in self._lab.services(passing=True)}


@pytest.fixture
def web5(fleet: Lab) -> Iterator[Broken]:
    broken = Broken(fleet, "web5")
    yield broken
    with suppress(ConsulError):
        broken.end()


@dataclass(frozen=True)
class Held:
    """A deployment that waits for the test; ``options`` of a rollout that uses it, and keeps to the minimum."""

    folder: Path

    @property
    def options(self) -> dict[str, object]:
        script = self.folder / "deploy.sh"
        script.write_text('until [ -e "$1" ]; do sleep 0.1; done\nexec "$2/deploy"\n', encoding="utf-8")
        command = f"sh {script} {self.folder / 'go'} {{{{ lab_vm_dir }}}}"
        return {"min_healthy": MINIMUM, "deploy_command": command}

    def break_between_two_hosts(self, drive: Drive, broken: Broken) -> None:
        """Break it while the first host has its turn; return when that has ended."""
        wait_until("web1 is deployed to", lambda: drive.status("web1") == "deploying", 120)
        broken.begin()
        (self.folder / "go").touch()
        wait_until("web1 has ended its turn", lambda: "web1" in drive.results(), 60)


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(tmp_path)


WAYS = [pytest.param({}, id="window"), pytest.param(IN_BATCHES, id="batches", marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_it_waits_for_the_minimum(drive: Drive, held: Held, web5: Broken, way: dict[str, object]) -> None:
    options = {**held.options, "healthy_deadline": 120, **way}
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch, drive.start(NEW, **options) as run:
        held.break_between_two_hosts(drive, web5)
        time.sleep(HOLD)
        assert watch.seen.keys() == {"web1"}
        repaired = time.time()
        web5.end()
        result = run.wait()
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert watch.seen["web2"][0] > repaired
    assert watch.most == 1
    assert drive.running() == [NEW] * 5
    assert set(drive.outcomes().values()) == {"ok"}
    assert drive.is_settled()


@pytest.mark.slow  # both gates do so in tests/integration/test_window.py and test_gate.py
@pytest.mark.parametrize("way", WAYS)
def test_it_stops_at_the_minimum(drive: Drive, held: Held, web5: Broken, way: dict[str, object]) -> None:
    options = {**held.options, **way}
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch, drive.start(NEW, **options) as run:
        held.break_between_two_hosts(drive, web5)
        result = run.wait()
    assert result.rc != 0
    load.check_nothing_lost()
    assert watch.seen.keys() == {"web1"}
    assert drive.running() == [NEW] + [OLD] * 4
    assert drive.outcomes() == {"web1": "ok", **dict.fromkeys(("web2", "web3", "web4", "web5"), "pending")}
    stopped = drive.record()["description"].partition("It stopped because ")[2]
    assert stopped.startswith("only 4 of 5 instances are healthy after "), drive.record()["description"]
    assert "would leave 3, fewer than the minimum of 4 (rollout_min_healthy)" in stopped
    assert result.red == {"localhost"}
    assert drive.record()["description"] in result.stdout.rpartition("TASK [Result]")[2]
    assert drive.is_settled()
