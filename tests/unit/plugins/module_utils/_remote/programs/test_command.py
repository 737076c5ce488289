"""The deployment command on a host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host, program_text
from tests.shell import in_a_shell

pytestmark = pytest.mark.oldest


PROGRAM = program_text("command")


def until(what: str, condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in time"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def request(name: str, line: str, **more: Any) -> dict[str, Any]:
    return {
        "command": line,
        "environment": {},
        "timeout": 30,
        "lock": name,
        "owner": "deployment x",
        "wait": 0,
        "keep": 1000,
        **more,
    }


class Relay:
    """The program in a process of its own, as a host runs it."""

    def __init__(self, asked: dict[str, Any]) -> None:
        call = f"import sys, json; print(json.dumps(main(json.loads({json.dumps(asked)!r}))))"
        self.process = subprocess.Popen([sys.executable, "-c", f"{PROGRAM}\n{call}"], stdout=subprocess.PIPE, text=True)

    def answer(self) -> dict[str, Any]:
        out, _ = self.process.communicate(timeout=60)
        answer: dict[str, Any] = json.loads(out)
        return answer


def shell(line: str, data: bytes) -> tuple[int, bytes, bytes]:
    return in_a_shell(f"echo Welcome; {line}", data)


def run(name: str, line: str, **more: Any) -> dict[str, Any]:
    return Relay(request(name, line, **more)).answer()


def test_output_of_both_streams_in_order(name: str) -> None:
    answer = run(name, "for i in 1 2 3; do echo out $i; echo err $i >&2; done; exit 3")
    assert answer["rc"] == 3
    assert answer["output"].split("\n") == ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3", ""]
    assert (answer["timed_out"], answer["error"], answer["waited_for"]) == (False, "", "")


def test_only_the_end_of_much_output_comes_back(name: str) -> None:
    answer = run(name, "head -c 5000000 /dev/zero | tr '\\0' x; printf '\\377 the end'", keep=100)
    assert len(answer["output"]) == 100
    assert answer["output"].endswith("x\ufffd the end")


def test_it_gets_its_environment_and_no_input(name: str) -> None:
    answer = run(name, "echo $DEPLOY_VERSION; cat; echo end", environment={"DEPLOY_VERSION": "1 $(id)"})
    assert answer["output"] == "1 $(id)\nend\n"


def test_it_may_be_ended_by_what_it_writes_to_as_any_command(name: str) -> None:
    """Python ignores SIGPIPE, and what is ignored stays so in what it starts."""
    assert run(name, "(yes; echo $? >&2) | head -n 1 | grep -c y")["output"].split() in (["1", "141"], ["141", "1"])
    assert run(name, "kill -9 $$")["rc"] == -9


@pytest.mark.parametrize(
    ("version", "why"), [("x" * 200_000, "[Errno 7] Argument list too long"), ("1\0", "embedded null byte")]
)
def test_a_command_that_the_kernel_does_not_take(name: str, version: str, why: str) -> None:
    asked = request(name, "true", environment={"DEPLOY_VERSION": version})
    answer = Host(None, sys.executable, as_user=shell).call("command", asked, as_user=True)
    assert answer["rc"] == 126
    assert f"could not be started: {why}" in answer["output"]


def test_what_it_prints_has_a_file_that_nobody_else_can_read_nor_is_left(name: str) -> None:
    show = "ls -lL /proc/self/fd/1; ls -l /proc/self/fd/1"
    inherited, named = run(name, show, environment={"LC_ALL": "C"})["output"].splitlines()
    assert inherited.startswith("-rw-------")
    assert named.endswith("(deleted)")


def test_no_folder_for_what_it_prints(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that is not there is passed over."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    assert run(name, "echo yes")["output"] == "yes\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_it_goes_on_under_its_lock_when_the_asker_dies(name: str, tmp_path: Path, number: signal.Signals) -> None:
    """The asker's whole process group gets the signal, as at the end of a connection or by Ctrl-C."""
    go = tmp_path / "go"
    line = f"echo up > {tmp_path}/up; while [ ! -e {go} ]; do sleep 0.05; done; touch {tmp_path}/done"
    program = f"{PROGRAM}\nmain({request(name, line)!r})"
    code = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {program!r}])\nsys.stdin.read()\n"
    asker = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    until("the command runs", (tmp_path / "up").exists)
    os.killpg(asker.pid, number)
    asker.wait(20)
    assert run(name, "echo never")["error"].startswith("another deployment command still runs")
    go.touch()
    until("the command ends", (tmp_path / "done").exists)
    assert run(name, "echo then", wait=20)["output"] == "then\n"


def test_a_time_limit_ends_all_of_it(name: str, tmp_path: Path) -> None:
    """Also what ignores being asked, and what outlives the shell that started it."""
    stubborn = f"sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done' & wait"
    answer = run(name, f"echo begun; {stubborn}", timeout=1)
    assert answer["timed_out"] is True
    assert answer["output"].startswith("begun\n")
    assert answer["rc"] != 0
    assert not runs(int((tmp_path / "pid").read_text()))
    assert run(name, "echo free")["output"] == "free\n"


def test_what_is_asked_to_end_may_tidy_up(name: str, tmp_path: Path) -> None:
    """The shell in between is gone at once; what it waited for is given its time."""
    inner = tmp_path / "inner"
    inner.write_text(
        f"trap 'sleep 0.5; echo tidy > {tmp_path}/tidy; exit 0' TERM\necho up\nwhile :; do sleep 0.1; done\n"
    )
    answer = run(name, f"sh {inner}; true", timeout=1)
    assert answer["timed_out"] is True
    assert (tmp_path / "tidy").exists()


def test_a_service_that_it_starts_holds_nothing_up(name: str, tmp_path: Path) -> None:
    answer = run(name, f"(sleep 60; echo late) & echo $! > {tmp_path}/pid; echo started")
    pid = int((tmp_path / "pid").read_text())
    try:
        assert (answer["rc"], answer["output"]) == (0, "started\n")
        assert runs(pid)
        # It does not hold the lock either, nor die of its output.
        assert run(name, "echo next")["output"] == "next\n"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_it_runs_through_the_relay(name: str) -> None:
    host = Host(None, sys.executable, as_user=shell)
    assert host.call("command", request(name, "echo hello"), as_user=True)["output"] == "hello\n"


def test_it_is_no_part_of_the_process_that_asks(name: str) -> None:
    with pytest.raises(ValueError, match="nothing runs command apart"):
        Host(None, sys.executable).call("command", request(name, "true"), as_user=True)
