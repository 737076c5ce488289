"""(b) How long after "Consul shows passing" a task that waits for it has returned: health_wait, and uri with until.

Both tasks of a round wait for a service of their own that is critical. This program makes it pass at a random moment
between one and two seconds after the task began, and a callback in Ansible's main process notes when the task's result
came in. Counted is from just before the write to Consul is sent, so that the write itself is in the figure.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from lab import Lab
from lab.testkit.ansible_run import Run

from .runs import Runs

PATIENCE = 120


def measure(folder: Path, rounds: int) -> None:
    """Print the figures."""
    with Lab(vms=1, ssh=False) as lab:
        runs = Runs(lab, folder)
        print(f"(b) from passing in Consul until the task returned: {rounds} rounds in turn", flush=True)
        names = [f"{way}-{number}" for number in range(rounds) for way in ("uri", "health_wait")]
        for name in names:
            register(lab, name, "critical")
        playbook, moments = folder / "waiting.json", folder / "moments"
        playbook.write_text(json.dumps(play(lab.url, names)), encoding="utf-8")
        settings = {
            **lab.environment,
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).with_name("callback")),
            "ANSIBLE_CALLBACKS_ENABLED": "moments",
            "BENCH_MOMENTS": str(moments),
        }
        moments.touch()
        with runs.ansible.start("-i", "localhost,", playbook, env=settings) as run:
            passed = {name: let_pass(lab, run, moments, name) for name in names}
            result = run.wait()
        if result.rc != 0:
            raise RuntimeError(f"the tasks that wait failed:\n{result.output}")
        for way in ("uri", "health_wait"):
            lags = [1000 * (at(moments, "ended", name) - passed[name]) for name in names if name.startswith(way)]
            print(f"    {way:12} {statistics.median(lags):4.0f} ms ({min(lags):.0f} to {max(lags):.0f})", flush=True)


def play(url: str, names: list[str]) -> list[dict[str, Any]]:
    """One play on localhost with a task for each name."""
    passing = "entry.json[0].Checks | rejectattr('Status', 'eq', 'passing') | list == []"
    tasks: list[dict[str, Any]] = []
    for name in names:
        if name.startswith("uri"):
            what = {"ansible.builtin.uri": {"url": f"{url}/v1/health/service/{name}"}}
            tasks.append({"name": name, **what, "register": "entry", "until": passing, "retries": 60, "delay": 1})
        else:
            tasks.append({"name": name, "hitless.consul.health_wait": {"service": name, "count": 1, "deadline": 60}})
    variables = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    return [{"name": "Wait", "hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}]


def register(lab: Lab, name: str, status: str) -> None:
    """The service `name` on a node without an agent, with one check."""
    check = {"Node": "outside", "CheckID": name, "Name": name, "ServiceID": name, "Status": status}
    service = {"ID": name, "Service": name}
    lab.consul_put("catalog/register", {"Node": "outside", "Address": "127.0.0.1", "Service": service, "Check": check})


def let_pass(lab: Lab, run: Run, moments: Path, name: str) -> float:
    """Wait for its task, and some time more; when the write was sent (epoch seconds)."""
    deadline = time.monotonic() + PATIENCE
    while not at(moments, "began", name):
        if run.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the task {name} did not begin:\n{run.stdout}\n{run.stderr}")
        time.sleep(0.02)
    time.sleep(1 + random.random())
    sent = time.time()
    register(lab, name, "passing")
    return sent


def at(moments: Path, what: str, name: str) -> float:
    """When that was noted, 0 where it is not yet."""
    for line in moments.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{what}\t{name}\t"):
            return float(line.rpartition("\t")[2])
    return 0.0
