"""The rulebook by the real ansible-rulebook: a key starts a rollout, its answer starts a recovery."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import wait_until
from lab.testkit.ansible_run import Ansible, Run, environment
from lab.testkit.link_tree import CHECKOUT
from tests.rollout.drive import VARIABLES, Drive, Load

EDA = CHECKOUT / ".venv-eda" / "bin"
RULEBOOKS = sorted((CHECKOUT / "extensions" / "eda" / "rulebooks").glob("*.yml"))
LIMIT = 180.0
"""Seconds that something may take on a machine that does much else."""

pytestmark = pytest.mark.slow
needs_rulebook = pytest.mark.skipif(not (EDA / "ansible-rulebook").exists(), reason="no .venv-eda: make setup-tools")


@pytest.fixture
def start(ansible: Ansible, drive: Drive, tmp_path: Path) -> Iterator[Callable[[], Run]]:
    """Starts one more rulebook, and returns when it takes events."""
    # The lab's checks run each second, which a recovery cannot know.
    drive.lab.write_inventory({**VARIABLES, "rollout_check_interval": 2})
    variables = tmp_path / "vars.yml"
    variables.write_text("service: web\n", encoding="utf-8")
    rulebooks = ansible.collections / "ansible_collections/hitless/consul/extensions/eda/rulebooks"
    path = {"PATH": f"{EDA}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    java = {name: os.environ[name] for name in ("JAVA_HOME",) if name in os.environ}
    whole = environment(ansible.collections, ansible.home, {**drive.lab.environment, **path, **java})
    inventory = drive.lab.directory / "inventory" / "local"

    with ExitStack() as stack:

        def begin(*more: str, name: str = "rollout-on-request") -> Run:
            # In a folder of their own, so that a rulebook's hot reload watches that alone.
            rulebook = tmp_path / f"{name}.yml"
            shutil.copy(rulebooks / rulebook.name, rulebook)
            command = [EDA / "ansible-rulebook", "--rulebook", rulebook, "-i", inventory, "--vars", variables, "-v"]
            run = stack.enter_context(Run([*command, *more], whole, tmp_path, tmp_path / "rulebooks"))
            stack.callback(kill_with_playbooks, run)
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


def playbooks_of(run: Run) -> list[int]:
    """The ansible-playbook processes that a rulebook has started: its direct children."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(run.process.pid)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "ansible-playbook" in line]


def kill_playbooks_of(run: Run) -> list[int]:
    killed = playbooks_of(run)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    return killed


def kill_with_playbooks(run: Run) -> None:
    """A rulebook and what it runs, which would go on without it and claim what the next test asks for."""
    if run.process.poll() is None:
        run.send(signal.SIGSTOP)
        kill_playbooks_of(run)
        run.close()


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
    """Its playbook alone, and then the rulebook with its playbook, which another finds when it starts."""
    rulebook = start()
    drive.ask("2.0.0-deployslow4")
    wait_until("the deployment runs on web1", lambda: bool(drive.lab.vm("web1").deploys()), LIMIT)
    assert kill_playbooks_of(rulebook)
    told = wait_for_answer(drive, lambda answer: "recovered" in answer)
    assert (told["state"], told["recovered"]["left"]) == ("interrupted", [])
    assert drive.record()["state"] == "interrupted"
    assert rulebook.process.poll() is None

    before = len(drive.lab.vm("web1").deploys()) + len(drive.lab.vm("web2").deploys())
    drive.ask("2.1.0-deployslow4")
    wait_until(
        "the next deployment runs",
        lambda: len(drive.lab.vm("web1").deploys()) + len(drive.lab.vm("web2").deploys()) > before,
        LIMIT,
    )
    kill_with_playbooks(rulebook)
    start()
    told = wait_for_answer(drive, lambda answer: "recovered" in answer)
    assert told["state"] == "interrupted"
    assert len(deployments(drive)) == 2
    wait_until("nothing is left in maintenance, or locked", drive.is_settled, LIMIT)


@needs_rulebook
def test_what_a_rulebook_missed_is_followed_when_it_starts_and_nothing_twice(
    drive: Drive, start: Callable[..., Run], tmp_path: Path
) -> None:
    drive.ask("2.0.0")
    first = start("--hot-reload")
    wait_for_answer(drive, is_now("successful"))
    # A reload reads the request again, and finds it answered.
    with (tmp_path / "rollout-on-request.yml").open("a", encoding="utf-8") as file:
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
def test_a_key_approves_a_stage_or_rejects_it(drive: Drive, start: Callable[..., Run]) -> None:
    """Neither rulebook starts anything by hand: one says the word, the other goes on."""
    canary = {"rollout_batch_size": [1, "100%"], "rollout_pause_after": [1], "rollout_bake_time": 1}
    drive.lab.write_inventory({**VARIABLES, "rollout_check_interval": 2, **canary})
    start()
    start(name="promote-on-approval")
    with Load(drive.lab) as load:
        drive.ask("2.0.0")
        wait_for_answer(drive, is_now("paused"))
        assert drive.running() == ["2.0.0", *["1.0.0"] * 4]
        drive.lab.consul.call("PUT", "kv/approvals/web", b"approved")
        wait_for_answer(drive, is_now("successful"))
        assert drive.running() == ["2.0.0"] * 5
        assert len(deployments(drive)) == 1
        drive.ask("2.1.0")
        wait_for_answer(drive, is_now("paused"))
        drive.lab.consul.call("PUT", "kv/approvals/web", b"rejected")
        told = wait_for_answer(drive, is_now("failed"))
    load.check_nothing_lost()
    assert "rejected by key" in told["reason"]
    wait_until("it has gone back", lambda: drive.running() == ["2.0.0"] * 5 and drive.is_settled(), LIMIT)


@needs_rulebook
@pytest.mark.parametrize("file", RULEBOOKS, ids=lambda file: file.stem)
def test_a_rulebook_is_as_its_schema_wants_it(file: Path) -> None:
    code = "import sys, yaml; from ansible_rulebook.validators import Validate; "
    code += "Validate.rulebook(yaml.safe_load(open(sys.argv[1])))"
    done = subprocess.run([EDA / "python", "-c", code, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(file.read_text(encoding="utf-8"))[0]["hosts"] == "", "a rollout refuses a limit"
