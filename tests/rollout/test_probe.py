"""The public address as the rollout itself sees it, beside what the load generator counts."""

from __future__ import annotations

import os
import re
import signal

import pytest

from lab import wait_until
from lab.testkit.ansible_run import Run, flat
from tests.http_server import Asked, HttpServer, Reply
from tests.integration.consul_agent import processes
from tests.rollout.drive import Drive, Load
from tests.rollout.test_rollout import following_slowly

ACCOUNT = re.compile(r"([\d,]+) probes, ([\d,]+) failed, longest gap ([\d.]+) s")
NEW = "2.0.0"


def account(output: str) -> tuple[int, int, float]:
    """Of the verdict: probes, failed, longest gap."""
    found = ACCOUNT.search(flat(output))
    assert found, output
    return int(found[1].replace(",", "")), int(found[2].replace(",", "")), float(found[3])


def probes(drive: Drive) -> list[int]:
    """The programs that ask for the last deployment."""
    program = "ansible_collections/hitless/consul/plugins/module_utils/_rollout/prober.py"
    return processes(str(drive.ansible.collections / program), str(drive.record("deploy").get("id")))


def killed_in_the_bake(drive: Drive, run: Run) -> None:
    wait_until("it bakes", lambda: "baking for" in run.stdout, 90)
    assert len(probes(drive)) == 1
    os.kill(run.process.pid, signal.SIGKILL)


def test_killed_in_the_bake_it_leaves_no_probe_and_the_same_command_ends_clean(drive: Drive) -> None:
    options = {"probe_url": drive.lab.frontend, "hosts": "web1,web2", "batch_size": 2}
    with drive.start(NEW, bake_time=60, **options) as run:
        killed_in_the_bake(drive, run)
    wait_until("its probe has ended", lambda: not probes(drive), 30)
    wait_until("its lock is free", lambda: not drive.holds_lock(), 90)
    with Load(drive.lab) as load:
        again = drive.run(NEW, **options)
    assert again.rc == 0, again.output
    load.check_nothing_lost()
    assert not probes(drive)
    assert drive.is_settled()


@pytest.mark.slow
def test_it_counts_what_the_load_counts_where_nothing_is_drained(drive: Drive) -> None:
    """The control. It asks ten times a second, the load a hundred times: of as many requests it sees as many lost."""
    with following_slowly(drive.lab), Load(drive.lab) as load:
        result = drive.run("2.0.0-slow2", drain_time=0, probe_url=drive.lab.frontend, probe_failures=1000)
    assert result.rc == 0, result.output
    count, failed, gap = account(result.output)
    report = load.report
    assert report.lost
    assert failed
    share, seen = len(report.lost) / report.total, failed / count
    assert share / 3 < seen < share * 3, f"{seen:.3f} of the probes, {share:.3f} of the load"
    assert gap > 0.1
    assert drive.record()["probe"].items() >= {"count": count, "failed": failed}.items()


@pytest.mark.slow
def test_where_clients_get_no_answer_it_stops_and_goes_back(drive: Drive) -> None:
    """Every check is well all the while: only who asks the public address knows."""

    def answer(_asked: Asked) -> Reply:
        return Reply(503 if drive.lab.vms[0].deploys() else 200)

    with HttpServer(answer=answer) as public:
        failed = drive.run(NEW, probe_url=public.url, probe_failures=3)
    assert failed.rc != 0
    assert "probes have failed, more than rollout_probe_failures (3)" in flat(failed.output)
    assert drive.running() == ["1.0.0"] * 5
    assert account(failed.output)[1] > 3
    assert drive.record("deploy")["state"] == "failed"
    assert drive.record("deploy")["probe"]["failed"] > 3
    assert not probes(drive)
    assert drive.is_settled()
