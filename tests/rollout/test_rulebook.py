"""The rulebook by the real ansible-rulebook: a key starts a rollout, its answer starts a recovery."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.nodes import wait_until
from tests.link_tree import CHECKOUT
from tests.rollout.drive import Drive, Load
from tests.rollout.support import Ansible, Run, environment

EDA = CHECKOUT / ".venv-eda" / "bin"
RULEBOOKS = sorted((CHECKOUT / "extensions" / "eda" / "rulebooks").glob("*.yml"))
LIMIT = 180.0
"""Seconds that something may take on a machine that does much else."""

pytestmark = pytest.mark.slow
needs_rulebook = pytest.mark.skipif(not (EDA / "ansible-rulebook").exists(), reason="no .venv-eda: make setup-tools")


@pytest.fixture
def start(ansible: Ansible, drive: Drive, tmp_path: Path) -> Iterator[Callable[[], Run]]:
    """Starts one more rulebook, and returns when it takes events."""
    variables = tmp_path / "vars.yml"
    variables.write_text("service: web\n", encoding="utf-8")
    # In a folder of their own, so that a rulebook's hot reload watches that alone.
    rulebook = tmp_path / "rulebook.yml"
    collection = ansible.collections / "ansible_collections/hitless/consul"
    shutil.copy(collection / "extensions/eda/rulebooks/rollout-on-request.yml", rulebook)
    path = {"PATH": f"{EDA}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    java = {name: os.environ[name] for name in ("JAVA_HOME",) if name in os.environ}
    whole = environment(ansible.collections, ansible.home, {**drive.lab.environment, **path, **java})
    inventory = drive.lab.directory / "inventory" / "local"

    with ExitStack() as stack:

        def begin(*more: str) -> Run:
            command = [EDA / "ansible-rulebook", "--rulebook", rulebook, "-i", inventory, "--vars", variables, "-v"]
            run = stack.enter_context(Run([*command, *more], whole, tmp_path, tmp_path / "rulebooks"))
            run.wait_for("Waiting for events", LIMIT)
            return run

        yield begin


def wait_for_answer(drive: Drive, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    def there() -> bool:
        text = drive.lab.kv("deploy/web/request") or ""
        return text.startswith("{") and what(json.loads(text))

    wait_until("the request is answered", there, LIMIT)
    return drive.answer()


def is_now(state: str) -> Callable[[dict[str, Any]], bool]:
    return lambda answer: answer.get("state") == state


def deployments(drive: Drive) -> list[str]:
    return [key for key in drive.all_keys() if key.endswith("/record")]


@contextmanager
def running_children(run: Run) -> Iterator[Callable[[], list[int]]]:
    """The ansible-playbook processes that a rulebook has started, its direct children; ended with the block."""

    def children() -> list[int]:
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(run.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(line.split()[0]) for line in listed.stdout.splitlines() if "ansible-playbook" in line]

    try:
        yield children
    finally:
        for pid in children():
            os.kill(pid, signal.SIGKILL)


@needs_rulebook
def test_two_rulebooks_start_what_is_asked_for_once(drive: Drive, start: Callable[..., Run]) -> None:
    """Consul is restarted in between."""
    rulebooks = [start(), start()]
    with Load(drive.lab) as load:
        drive.ask("2.0.0")
        told = wait_for_answer(drive, is_now("successful"))
    load.check_nothing_lost()
    assert drive.running() == ["2.0.0"] * 5
    assert len(deployments(drive)) == 1
    assert told["deployment"] == drive.record()["id"]

    drive.lab.servers[0].kill()
    drive.lab.controller.kill_agent()
    drive.lab.controller.start_agent()
    drive.lab.servers[0].start()
    drive.lab.wait_passing()
    drive.ask('{"version": "2.1.0", "message": "after the restart"}')
    wait_for_answer(drive, is_now("successful"))
    assert drive.running() == ["2.1.0"] * 5
    assert drive.record()["message"] == "after the restart"
    assert len(deployments(drive)) == 2, "nothing was repeated after the restart"

    drive.ask("3.0.0-broken")
    told = wait_for_answer(drive, lambda answer: "recovered" in answer)
    assert (told["state"], told["recovered"]["left"]) == ("failed", [])
    assert "1 rolled back (web1)" in told["reason"]
    assert drive.running() == ["2.1.0"] * 5
    assert len(deployments(drive)) == 3
    wait_until("nothing is locked", drive.is_settled, LIMIT)
    assert [run.process.poll() for run in rulebooks] == [None, None]


@needs_rulebook
def test_a_run_that_is_killed_is_recovered(drive: Drive, start: Callable[..., Run]) -> None:
    rulebook = start()
    with running_children(rulebook) as children:
        drive.ask("2.0.0-deployslow4")
        wait_until("the deployment runs on web1", lambda: bool(drive.lab.vm("web1").deploys()), LIMIT)
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        told = wait_for_answer(drive, lambda answer: "recovered" in answer)
    assert told["state"] == "interrupted"
    assert not drive.maintenance()
    assert rulebook.process.poll() is None


@needs_rulebook
def test_what_a_rulebook_missed_is_followed_when_it_starts_and_nothing_twice(
    drive: Drive, start: Callable[..., Run], tmp_path: Path
) -> None:
    drive.ask("2.0.0")
    first = start("--hot-reload")
    wait_for_answer(drive, is_now("successful"))
    # A reload reads the request again, and finds it answered.
    with (tmp_path / "rulebook.yml").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    wait_until("it has reloaded", lambda: first.stdout.count("Waiting for events") == 2, LIMIT)
    drive.ask("not a version")
    told = wait_for_answer(drive, is_now("refused"))
    assert "is not a version" in told["reason"]
    first.send(signal.SIGTERM)
    first.wait(LIMIT)
    drive.ask("2.1.0")
    start()
    wait_for_answer(drive, is_now("successful"))
    assert drive.running() == ["2.1.0"] * 5
    assert len(deployments(drive)) == 2


@needs_rulebook
@pytest.mark.parametrize("file", RULEBOOKS, ids=lambda file: file.stem)
def test_a_rulebook_is_as_its_schema_wants_it(file: Path) -> None:
    code = "import sys, yaml; from ansible_rulebook.validators import Validate; "
    code += "Validate.rulebook(yaml.safe_load(open(sys.argv[1])))"
    done = subprocess.run([EDA / "python", "-c", code, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(file.read_text(encoding="utf-8"))[0]["hosts"] == "", "a rollout refuses a limit"
