"""A lab ends completely, whatever happens to the one who started it, and disturbs no other lab."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import Lab, LabError, wait_until
from lab.supervisor import descendants
from tests.fleet import CONSUL

ROOT = Path(__file__).resolve().parents[2]

# A lab whose owner then hangs: two deployments run, one by hand and one through SSH, and load.
OWNER = """
import json, subprocess, sys, time
from lab import Lab
lab = Lab(vms=2, consul=json.loads(sys.argv[1]))
lab.start()
assert lab.vms[0].deploy("2.0.0").returncode == 0
ssh = ["ssh", "-F", f"{lab.directory}/ssh/config", lab.vms[1].address]
ssh.append(f"{lab.vms[1].directory}/deploy 3.0.0-deployhang")
session = subprocess.Popen(ssh, stdout=subprocess.PIPE)
session.stdout.readline()
by_hand = subprocess.Popen([lab.vms[0].directory / "deploy", "3.0.0-deployhang"], stdout=subprocess.PIPE)
by_hand.stdout.readline()
load = lab.load()
load.start()
print(json.dumps([str(lab.directory), [session.pid, by_hand.pid, load._process.pid]]), flush=True)
time.sleep(600)
"""


def started(pid: int) -> str | None:
    """When that process started, in the kernel's ticks; None when it has gone. With the pid it names a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def start_owner() -> tuple[subprocess.Popen[str], Path, dict[int, str | None]]:
    """The owner, its lab's directory, and every process of the lab."""
    command = [sys.executable, "-c", OWNER, json.dumps(CONSUL)]
    owner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    directory, others = json.loads(owner.stdout.readline())
    # Its own helpers and the lab, which a detached session does not take out of the family.
    pids = {*descendants(owner.pid), *others}
    return owner, Path(directory), {pid: started(pid) for pid in pids}


def assert_nothing_is_left(directory: Path, processes: dict[int, str | None]) -> None:
    wait_until("the directory has gone", lambda: not directory.exists(), 20)

    def left() -> list[int]:
        return [pid for pid, start in processes.items() if start is not None and started(pid) == start]

    wait_until("all processes have gone", lambda: not left(), 20)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, marks=pytest.mark.oldest),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_left_when_the_owner_dies(number: signal.Signals) -> None:
    owner, directory, processes = start_owner()
    assert len(processes) > 10
    owner.send_signal(number)
    owner.wait()
    assert_nothing_is_left(directory, processes)


@pytest.mark.slow
def test_a_lab_ends_with_its_lifetime() -> None:
    owner, directory, processes = start_owner()
    try:
        Lab.attach(directory).set_lifetime(1)
        assert_nothing_is_left(directory, processes)
        assert owner.poll() is None
    finally:
        owner.kill()
        owner.wait()


def test_no_process_outlives_the_supervisor() -> None:
    with Lab(vms=1, ssh=False, consul=CONSUL) as lab:
        pids = {unit["pid"]: started(unit["pid"]) for unit in lab.units().values()}
        assert lab._supervisor is not None
        lab._supervisor.kill()
        wait_until("all have gone", lambda: all(started(pid) != start for pid, start in pids.items()), 10)
        with pytest.raises(LabError, match="does not run any more"):
            lab.units()
        directory = lab.directory
    assert not directory.exists()


@pytest.mark.slow
def test_two_labs_beside_each_other(fleet: Lab) -> None:
    with Lab(vms=2, ssh=False, consul=CONSUL, service="api") as other:
        assert other.settings.network != fleet.settings.network
        with fleet.load() as load, other.load() as other_load:
            wait_until("both serve", lambda: len(other_load.report().by_instance) == 2, 10)
            wait_until("all serve", lambda: len(load.report().by_instance) == 5, 10)
        assert load.report().lost == other_load.report().lost == []
        assert set(other_load.report().by_instance) == {"api1", "api2"}
        nodes = {entry["Node"] for entry in other.consul_get("catalog/nodes")}
        assert nodes == {"server1", "lb", "controller", "api1", "api2"}
        directory = other.directory
    assert not directory.exists()
    assert len(fleet.services(passing=True)) == 5


def test_a_lab_that_cannot_start_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "consul"
    broken.write_text('#!/bin/sh\n[ "$1" = version ] && echo Consul v1.20.1 || { echo no disk >&2; exit 1; }\n')
    broken.chmod(0o755)
    directory = tmp_path / "state"
    with pytest.raises(LabError, match="no disk"):
        Lab(vms=1, ssh=False, consul=str(broken), directory=directory).start()
    assert not directory.exists()


def test_a_directory_with_something_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(LabError, match="not empty"):
        Lab(vms=1, ssh=False, consul=CONSUL, directory=tmp_path).start()
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize(("settings", "text"), [({"vms": 0}, "1 to 50"), ({"servers": 5}, "1 to 3")])
def test_sizes_that_a_lab_cannot_have(settings: dict[str, int], text: str) -> None:
    with pytest.raises(LabError, match=text):
        Lab(**settings)  # type: ignore[arg-type]


def run_cli(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "lab", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_commands(tmp_path: Path) -> None:
    done = run_cli(tmp_path, "status")
    assert done.returncode == 1
    assert re.search("start one with `.*python.* -m lab up`", done.stderr)
    consul = ["--consul", CONSUL] if CONSUL else []
    done = run_cli(tmp_path, "up", "--vms", "2", "--no-ssh", "--no-retries", *consul)
    assert done.returncode == 0, done.stderr
    assert "ansible-playbook -i" in done.stdout
    directory = Path((tmp_path / "hitless" / "lab").read_text().strip())
    try:
        assert run_cli(tmp_path, "up").returncode == 1
        assert run_cli(tmp_path, "env").stdout.startswith("export CONSUL_HTTP_ADDR=http://127.0.")
        done = run_cli(tmp_path, "load", "--seconds", "1")
        assert done.returncode == 0
        assert "0 lost" in done.stdout
        assert run_cli(tmp_path, "maintenance", "web1", "operator: disk").returncode == 0
        assert run_cli(tmp_path, "stop-app", "web2").returncode == 0
        status = run_cli(tmp_path, "status").stdout
        assert "_service_maintenance:web critical" in status
        done = run_cli(tmp_path, "load", "--seconds", "1")
        assert done.returncode == 1
        assert "lost" in done.stdout
    finally:
        assert run_cli(tmp_path, "down").returncode == 0
    assert not directory.exists()
    assert not (tmp_path / "hitless" / "lab").exists()


def test_the_printed_commands_work_in_a_fresh_shell(short_home: Path) -> None:
    tmp_path = short_home
    consul = ["--consul", CONSUL] if CONSUL else []
    started = run_cli(tmp_path, "up", "--vms", "2", *consul)
    assert started.returncode == 0, started.stderr
    try:
        shell = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
        commands = started.stdout[started.stdout.index("  eval ") :]
        assert commands.count("ansible-playbook") == 1
        done = subprocess.run(
            ["bash", "-ec", f"{commands}\npython -m lab status"],
            cwd=ROOT,
            env=shell,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(re.findall(r"web\d .* 2\.0\.0 .* gets traffic", done.stdout)) == 2, done.stdout
    finally:
        assert run_cli(tmp_path, "down").returncode == 0
