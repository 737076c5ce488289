"""Drains that the load balancer itself declares over, and load balancers that only the user's tasks can drive."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, wait_until
from lab.binaries import find_tool
from lab.testkit.ansible_run import CHECKOUT, flat
from tests.fleet import CONSUL
from tests.http_server import nobody
from tests.rollout.drive import Drive, Load, RotationWatch

OLD, NEW = "1.0.0", "2.0.0"
# Nobody waits for that long: a drain that is not observed fails its test.
FIXED = 100


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=2, consul=CONSUL) as running:
        yield running


class LongRequests:
    """Requests that take two seconds each, so many at a time that each instance has some at any moment.

    Of each in ``done``: (instance, version, sent).
    """

    SECONDS, AT_A_TIME = 2.0, 24

    def __init__(self, url: str) -> None:
        self.url = f"{url}latency/{self.SECONDS * 1000:.0f}"
        self.done: list[tuple[str, str, float]] = []
        self.problems: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(self.AT_A_TIME)]

    def _send(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self._end.is_set():
            sent = time.time()
            try:
                with opener.open(self.url, timeout=30) as answer:
                    told = json.load(answer)
                    self.done.append((told["instance"], told["version"], sent))
            except (OSError, ValueError) as error:
                self.problems.append(str(error))

    def __enter__(self) -> LongRequests:
        for thread in self._threads:
            thread.start()
            time.sleep(self.SECONDS / self.AT_A_TIME)
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_the_drain_ends_when_the_load_balancer_shows_no_session(drive: Drive) -> None:
    lab = drive.lab
    observe = {"load_balancers": lab.balancer.stats_url, "drain_min_time": 0, "drain_deadline": 90, "drain_time": FIXED}
    with Load(lab) as load, LongRequests(f"{lab.frontend}/") as long, RotationWatch(lab) as watch:
        result = drive.run(NEW, kind="ssh", **observe)
    assert result.rc == 0, result.output
    assert "waited for by the fixed time" not in flat(result.output)
    load.check_nothing_lost()
    assert not long.problems
    for vm in lab.vms:
        sent = [at for instance, version, at in long.done if (instance, version) == (vm.name, OLD)]
        (deploy,) = vm.deploys()
        shown = watch.seen[vm.name][0]
        assert max(sent) + long.SECONDS > shown + 0.5, "nothing was in flight to judge by"
        assert max(sent) + long.SECONDS <= deploy.start, f"{vm.name} was deployed to under a request"
        assert deploy.start < shown + FIXED


@pytest.mark.slow
def test_a_load_balancer_that_does_not_answer_is_named_and_waited_for(drive: Drive) -> None:
    gone = f"{nobody()}/"
    observe = [drive.lab.balancer.stats_url, gone]
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(NEW, hosts="web1", load_balancers=observe, drain_min_time=0, drain_time=3)
    assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert f"web1: {gone} does not answer" in flat(result.output)
    assert "It was waited for by the fixed time (3 s)." in flat(result.output)
    (deploy,) = drive.lab.vm("web1").deploys()
    # The watch looks every 0.05 s and sees it late by its own answer's time.
    assert deploy.start > watch.seen["web1"][0] + 2


@pytest.mark.slow
def test_what_is_no_statistics_is_refused_before_anything_is_changed(drive: Drive) -> None:
    result = drive.run(NEW, load_balancers=f"{drive.lab.frontend}/")
    assert result.rc != 0
    assert "does not answer with HAProxy's statistics" in flat(result.output)
    assert drive.running() == [OLD] * 2
    assert drive.deployed() == []
    assert not drive.maintenance()


# -- a load balancer that Consul does not drive --------------------------------------------------------------------

TELL = """
import os, socket, sys
log, path, server, state, *about = sys.argv[1:]
with open(log, "a") as file:
    file.write(" ".join([state, server, *about, "by ssh" if "SSH_CONNECTION" in os.environ else "here"]) + "\\n")
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
    connection.connect(path)
    connection.sendall(f"set server web/{server} state {state}\\n".encode())
    connection.recv(100)
"""


class Static:
    """A HAProxy whose servers stand in its file; it is told to drain one by its runtime API, as an appliance by its."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        address = lab.controller.address
        self.url, self.stats = f"http://{address}:8001", f"http://{address}:8405/"
        self.socket, self.log = folder / "static.sock", folder / "told"
        servers = "\n".join(f"    server {vm.name} {vm.address}:8080" for vm in lab.vms)
        self.config = folder / "static.cfg"
        self.config.write_text(
            f"global\n    stats socket {self.socket} level admin\n"
            "defaults\n    mode http\n    retries 0\n"
            "    timeout connect 2s\n    timeout client 30s\n    timeout server 30s\n"
            f"frontend clients\n    bind {address}:8001\n    default_backend web\n"
            f"backend web\n{servers}\n"
            f"listen stats\n    bind {address}:8405\n    stats enable\n    stats uri /\n    stats show-legends\n",
            encoding="utf-8",
        )
        self.tell = folder / "tell.py"
        self.tell.write_text(TELL, encoding="utf-8")

    def hook(self, name: str, state: str, first: str = "") -> str:
        """A tasks file that tells it of a server."""
        command = [sys.executable, self.tell, self.log, self.socket, "{{ inventory_hostname }}", state]
        command += ["{{ deploy_version }}", "{{ deploy_reason }}"]
        file = self.folder / name
        task = f"- name: Tell it\n  ansible.builtin.command: {json.dumps({'argv': [str(part) for part in command]})}\n"
        file.write_text(first + task, encoding="utf-8")
        return str(file)

    def hooks(self, *, drain: str = "", restore: str = "") -> dict[str, object]:
        return {
            "drain_tasks": self.hook("drain.yml", "drain", drain),
            "restore_tasks": self.hook("restore.yml", "ready", restore),
            "load_balancers": self.stats,
            "drain_min_time": 0,
            "drain_time": FIXED,
        }

    def told(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def states(self) -> dict[str, str]:
        """Server -> its administrative state: 0 is ready, 8 is drain."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(self.socket))
            connection.sendall(b"show servers state web\n")
            lines = b"".join(iter(lambda: connection.recv(65536), b"")).decode().splitlines()
        return {line.split()[3]: line.split()[6] for line in lines[2:] if line}


@pytest.fixture
def static(fleet: Lab, tmp_path: Path) -> Iterator[Static]:
    balancer = Static(fleet, tmp_path)
    fleet.start_unit("static", [str(find_tool("haproxy", "haproxy")), "-f", str(balancer.config)], tmp_path / "log")
    wait_until("it runs", balancer.socket.exists)
    yield balancer
    fleet.stop_unit("static", signal.SIGTERM)


class OfThePage(Static):
    """As docs/haproxy-static-servers.md configures it, with its files; only addresses and paths differ."""

    PAGE = CHECKOUT / "docs" / "haproxy-static-servers.md"

    def __init__(self, lab: Lab, folder: Path) -> None:
        super().__init__(lab, folder)
        address = lab.controller.address
        (config,) = re.findall(r"```haproxy\n(.*?)```", self.PAGE.read_text(encoding="utf-8"), re.DOTALL)
        places = {
            "/run/haproxy/admin.sock mode 660": str(self.socket),
            "mode http\n": "mode http\n    retries 0\n",
            "bind :80\n": f"bind {address}:8001\n",
            "10.0.0.4:8404": f"{address}:8405",
            **{f"10.0.0.1{number}:8080": f"{vm.address}:8080" for number, vm in enumerate(lab.vms, 1)},
        }
        for shown, here in places.items():
            assert shown in config
            config = config.replace(shown, here)
        self.config.write_text(config, encoding="utf-8")
        shutil.copytree(CHECKOUT / "examples" / "haproxy-static", folder / "lb")
        (folder / "lb.ini").write_text("[load_balancers]\nlb1 ansible_connection=local\n", encoding="utf-8")
        self.arguments = [
            "-i",
            str(folder / "lb.ini"),
            "-e",
            f"haproxy_socket={self.socket}",
            "-e",
            "haproxy_backend=web",
        ]

    def options(self) -> dict[str, object]:
        files = {f"{name}_tasks": str(self.folder / "lb" / f"{name}.yml") for name in ("drain", "restore")}
        return {**files, "load_balancers": self.stats, "drain_min_time": 0, "drain_time": FIXED}


@pytest.mark.slow
def test_the_page_about_static_servers(drive: Drive, fleet: Lab, tmp_path: Path) -> None:
    """HAProxy's own check fails while a process restarts: with two machines a hook that did not wait would lose all."""
    static = OfThePage(fleet, tmp_path)
    page = static.PAGE.read_text(encoding="utf-8")
    assert (static.folder / "lb" / "drain.yml").read_text(encoding="utf-8").split("\n", 2)[2] in page
    haproxy = str(find_tool("haproxy", "haproxy"))
    fleet.start_unit("static", [haproxy, "-f", str(static.config)], tmp_path / "log")
    try:
        wait_until("it runs", static.socket.exists)
        with Load(fleet, static.url) as load, LongRequests(f"{static.url}/") as long:
            result = drive.run(f"{NEW}-slow2", *static.arguments, **static.options())
        assert result.rc == 0, result.output
        assert "waited for by the fixed time" not in flat(result.output)
        load.check_nothing_lost()
        assert not long.problems
        assert load.report.by_version.keys() == {OLD, f"{NEW}-slow2"}
        assert set(static.states().values()) == {"0"}
        assert drive.is_settled()
        wrong = drive.run(OLD, *static.arguments, "-e", "haproxy_backend=wep", **static.options())
        assert wrong.rc != 0
        assert "HAProxy: wep/web1 drain: " in flat(wrong.output), wrong.output
        assert drive.outcomes()["web1"] == "failed", "it was not put back either"
    finally:
        fleet.stop_unit("static", signal.SIGTERM)


@pytest.mark.slow
def test_a_load_balancer_that_only_hooks_drive(drive: Drive, static: Static) -> None:
    with Load(drive.lab, static.url) as load, LongRequests(f"{static.url}/") as long:
        result = drive.run(NEW, kind="ssh", **static.hooks())
    assert result.rc == 0, result.output
    assert "waited for by the fixed time" not in flat(result.output)
    load.check_nothing_lost()
    assert not long.problems
    assert load.report.by_version.keys() == {OLD, NEW}
    about = f"{NEW} deploy here"
    steps = [("drain", "web1"), ("ready", "web1"), ("drain", "web2"), ("ready", "web2")]
    assert static.told() == [f"{state} {server} {about}" for state, server in steps]
    assert drive.running() == [NEW] * 2
    assert drive.is_settled()


@pytest.mark.slow
def test_without_the_hooks_requests_are_lost(drive: Drive, static: Static) -> None:
    """The control: maintenance in Consul alone says nothing to it."""
    with Load(drive.lab, static.url) as load:
        result = drive.run(NEW, hosts="web1")
    assert result.rc == 0, result.output
    assert load.report.lost


FAILS = "- name: The appliance says no\n  ansible.builtin.fail: {msg: no licence}\n"


@pytest.mark.slow
def test_a_failing_drain_hook_begins_no_deployment(drive: Drive, static: Static) -> None:
    with Load(drive.lab, static.url) as load:
        result = drive.run(NEW, **static.hooks(drain=FAILS))
    assert result.rc != 0
    assert "no licence. Nothing was deployed." in flat(result.output)
    load.check_nothing_lost()
    assert drive.deployed() == []
    # The hook may have done half of its work.
    assert static.told() == [f"ready web1 {NEW} deploy here"]
    assert drive.outcomes() == {"web1": "untouched", "web2": "pending"}
    assert drive.is_settled()


@pytest.mark.slow
def test_a_failing_restore_hook_keeps_the_host_out_and_names_it(drive: Drive, static: Static) -> None:
    with Load(drive.lab, static.url) as load:
        result = drive.run(NEW, **static.hooks(restore=FAILS))
        assert result.rc != 0
        assert f"{NEW} runs and is healthy, but it was not restored" in flat(result.output)
        assert drive.outcomes() == {"web1": "failed", "web2": "pending"}
        assert drive.maintenance().keys() == {"web1"}
        assert drive.running() == [NEW, OLD], "no other version would help"
        assert static.states() == {"web1": "8", "web2": "0"}
        again = drive.run(NEW, **static.hooks())
    assert again.rc == 0, again.output
    load.check_nothing_lost()
    assert drive.running() == [NEW] * 2
    assert set(static.states().values()) == {"0"}
    assert drive.is_settled()


@pytest.mark.slow
def test_a_rollback_drains_and_restores_too(drive: Drive, static: Static) -> None:
    with Load(drive.lab, static.url) as load:
        result = drive.run("3.0.0-broken", **static.hooks())
    assert result.rc != 0
    load.check_nothing_lost()
    about = [("drain", "3.0.0-broken deploy"), ("drain", f"{OLD} rollback"), ("ready", f"{OLD} rollback")]
    assert static.told() == [f"{state} web1 {why} here" for state, why in about]
    assert drive.outcomes() == {"web1": "rolled_back", "web2": "pending"}
    assert set(static.states().values()) == {"0"}
    assert drive.is_settled()


@pytest.mark.slow
def test_neither_hook_works(drive: Drive, static: Static) -> None:
    """What may be half drained, and cannot be put back, stays in maintenance and is named."""
    hooks = static.hooks(drain=FAILS, restore=FAILS)
    with Load(drive.lab, static.url) as load:
        result = drive.run(NEW, **hooks)
    assert result.rc != 0
    assert "Nothing was deployed. It was not restored either" in flat(result.output)
    load.check_nothing_lost()
    assert drive.outcomes() == {"web1": "failed", "web2": "pending"}
    assert drive.maintenance().keys() == {"web1"}


@pytest.mark.slow
def test_recover_restores_what_an_interrupted_run_had_drained(drive: Drive, static: Static) -> None:
    slow = {**static.hooks(), "drain_tasks": static.hook("slow.yml", "drain")}
    with open(str(slow["drain_tasks"]), "a", encoding="utf-8") as file:
        file.write("- name: It takes its time\n  ansible.builtin.wait_for: {timeout: 30}\n")
    with drive.start(NEW, **slow) as run:
        wait_until("it is drained", lambda: bool(static.told()), 60)
        run.send(signal.SIGKILL)
        run.process.wait(60)
    wait_until("the lock is free", lambda: not drive.holds_lock(), 60)
    assert static.states()["web1"] == "8"
    with Load(drive.lab, static.url) as load:
        recovered = drive.run(None, name="recover", lock_wait=60, **static.hooks())
    assert recovered.rc == 0, recovered.output
    load.check_nothing_lost()
    assert set(static.states().values()) == {"0"}
    assert static.told()[-1].startswith("ready web1")
    assert drive.is_settled()
    assert drive.deployed() == []
