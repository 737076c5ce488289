"""A version whose health check stays well, and a fifth of whose answers are errors, found by what HAProxy counts."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout import haproxy
from lab import Lab, wait_until
from lab.balancer import Balancer
from lab.testkit.ansible_run import flat
from tests.fleet import CONSUL
from tests.rollout.drive import VARIABLES, Drive
from tests.rollout.test_killed import kill

OLD, FLAKY = "1.0.0", "2.0.0-flaky20"
HOSTS = 4
RATE = 200
STAGES = {"batch_size": [1, "100%"], "bake_time": 20}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=HOSTS, consul=CONSUL, inventory_variables=VARIABLES) as running:
        yield running


def compared(drive: Drive) -> dict[str, str]:
    return {**STAGES, "load_balancers": drive.lab.balancer.stats_url, "analysis": "load_balancers"}


def processes_of(drive: Drive) -> list[int]:
    """Processes of runs that compare by the lab's load balancer; what is forked from one has its command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if drive.lab.balancer.stats_url.encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found


def check_back(drive: Drive, output: str) -> None:
    assert drive.running() == [OLD] * HOSTS, output
    assert drive.record("deploy")["state"] == "failed", output
    assert drive.record("rollback")["state"] == "successful", output
    assert drive.is_settled()


def test_it_is_stopped_and_put_back(drive: Drive) -> None:
    with drive.lab.load(rate=RATE) as load:
        result = drive.run(FLAKY, **compared(drive))
    report = load.report()
    print(result.output, report)
    assert result.rc not in (0, 4), result.output
    check_back(drive, result.output)
    told = re.search(
        r"analysis: (\d+) of \d+ requests failed on new instances, (\d+) of \d+ on old ones: worse", flat(result.output)
    )
    assert told, result.output
    assert int(told[1]) > int(told[2]) == 0
    assert drive.record("deploy")["description"].count("It stopped because analysis: ") == 1
    assert len(drive.deployed()) == 1, "the stages after the first never had it"
    lost = report.lost
    assert {row.version for row in lost} == {FLAKY}, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "everything"])
def test_killed_in_a_bake_with_analysis_the_same_command_again_ends_clean(drive: Drive, how: str) -> None:
    """Nothing compares any more once the run is gone, and the next one finds the same."""
    asked = {**compared(drive), "bake_time": 8}
    run = drive.start("2.0.0", **asked)
    wait_until("it bakes", lambda: "baking for" in run.stdout, 60)
    assert len(processes_of(drive)) >= 2
    kill(drive, run, how)
    wait_until("its lock is free", lambda: not drive.holds_lock(), 60)
    wait_until("nothing of it is left", lambda: not processes_of(drive), 60)
    result = drive.run("2.0.0", **asked)
    assert result.rc == 0, result.output
    assert drive.running() == ["2.0.0"] * HOSTS
    assert drive.is_settled()


@pytest.mark.slow
def test_a_good_version_is_told_to_be_no_worse(drive: Drive) -> None:
    with drive.lab.load(rate=RATE) as load:
        result = drive.run("2.0.0", **{**compared(drive), "bake_time": 5})
    assert result.rc == 0, result.output
    assert not load.report().lost, str(load.report())
    assert re.search(
        r"analysis: 0 of \d+ requests failed on new instances, 0 of \d+ on old ones: no worse", result.output
    )


@pytest.mark.slow
def test_a_load_balancer_that_does_not_answer_is_refused_before_anything_is_touched(drive: Drive) -> None:
    result = drive.run("2.0.0", **{**compared(drive), "load_balancers": "http://127.0.0.1:9/"})
    assert result.rc not in (0, 4)
    assert "rollout_analysis cannot compare: http://127.0.0.1:9/ does not answer" in flat(result.output)
    assert not drive.deployed()


class Metrics:
    """Answers a query as Prometheus does: the share of all requests since the last one that have failed."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._before = (0, 0)
        metrics = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = metrics.answer().encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/api/v1/query?query=errors"

    def answer(self) -> str:
        shown = haproxy.ask(self._balancer.stats_url).servers.values()
        now = (sum(one.requests for one in shown), sum(one.errors for one in shown))
        asked, failed = (after - before for after, before in zip(now, self._before, strict=True))
        self._before = now
        value = str(failed / asked) if asked else "NaN"
        return json.dumps({"status": "success", "data": {"result": [{"metric": {}, "value": [0, value]}]}})

    def __enter__(self) -> Metrics:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.answer()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.slow
def test_a_threshold_for_the_whole_service_sees_it_later(drive: Drive) -> None:
    """One of four instances makes a fifth of errors, which is a twentieth of all; beside it, without any analysis."""
    query = {"name": "errors", "json": "data.result[0].value[1]", "condition": "< 0.1", "interval": 5}
    with Metrics(drive.lab.balancer) as metrics, drive.lab.load(rate=RATE) as load:
        result = drive.run(FLAKY, **STAGES, analysis=[{**query, "url": metrics.url}])
    print(load.report())
    assert result.rc not in (0, 4), result.output
    assert "analysis: errors: passed, 0.0" in result.output, "with the first host"
    assert re.search(r"stops: analysis: the check errors has failed once \(0\.\d+, not < 0\.1\)", result.output)
    check_back(drive, result.output)
    assert len(drive.deployed()) == HOSTS
    with drive.lab.load(rate=RATE) as load:
        result = drive.run(FLAKY, **STAGES)
    print(load.report())
    assert result.rc == 0, "and nothing else sees it at all"


@pytest.mark.slow
def test_in_batches_it_is_the_same(drive: Drive, tmp_path: Path) -> None:
    """Ansible takes each step for a batch; what compares goes on beside all of it."""
    tasks = tmp_path / "deploy.yml"
    command = "'{{ lab_vm_dir }}/deploy {{ deploy_version }}'"
    tasks.write_text(f"- name: Install\n  ansible.builtin.command: {command}\n", encoding="utf-8")
    asked = {**compared(drive), "deploy_command": "", "deploy_tasks": str(tasks)}
    with drive.lab.load(rate=RATE):
        result = drive.run(FLAKY, **asked)
    assert result.rc not in (0, 4), result.output
    assert ": worse (e " in result.output
    check_back(drive, result.output)
    assert len(drive.deployed()) == 1
