"""The programs that run on managed hosts: the deployment command and the question to the application."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._remote.programs import command, probe
from tests.unit.http_server import Asked, HttpServer, Reply, nobody

pytestmark = pytest.mark.oldest

PROGRAM = Path(command.__file__)


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


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a lock that only this test uses."""
    name = f"hitless-test-{os.getpid()}-{time.monotonic_ns()}"
    yield name
    for folder in ("/run/lock", "/tmp"):
        Path(folder, f"hitless-{name}.lock").unlink(missing_ok=True)


def request(name: str, line: str, **more: Any) -> dict[str, Any]:
    return {
        "command": line,
        "environment": {},
        "chdir": None,
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
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{PROGRAM.read_text()}\n{call}"], stdout=subprocess.PIPE, text=True
        )

    def answer(self) -> dict[str, Any]:
        out, _ = self.process.communicate(timeout=60)
        answer: dict[str, Any] = json.loads(out)
        return answer


def run(name: str, line: str, **more: Any) -> dict[str, Any]:
    return Relay(request(name, line, **more)).answer()


# -- the deployment command ---------------------------------------------------------------------------------------


def test_output_of_both_streams_in_order(name: str) -> None:
    answer = run(name, "for i in 1 2 3; do echo out $i; echo err $i >&2; done; exit 3")
    assert answer["rc"] == 3
    assert answer["output"].split("\n") == ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3", ""]
    assert (answer["timed_out"], answer["error"], answer["waited_for"]) == (False, "", "")


def test_only_the_end_of_much_output_comes_back(name: str) -> None:
    answer = run(name, "head -c 5000000 /dev/zero | tr '\\0' x; printf '\\377 the end'", keep=100)
    assert len(answer["output"]) == 100
    assert answer["output"].endswith("x\ufffd the end")


def test_it_gets_its_environment_and_folder_and_no_input(name: str, tmp_path: Path) -> None:
    answer = run(
        name, "echo $DEPLOY_VERSION; pwd; cat; echo end", environment={"DEPLOY_VERSION": "1 $(id)"}, chdir=str(tmp_path)
    )
    assert answer["output"] == f"1 $(id)\n{tmp_path}\nend\n"


def test_a_folder_that_is_not_there(name: str) -> None:
    answer = run(name, "true", chdir="/gone")
    assert answer["rc"] is None
    assert "could not be started" in answer["error"]
    assert "/gone" in answer["error"]


def test_a_second_one_is_kept_out_and_told_by_whom(name: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first = Relay(request(name, f"echo up > {tmp_path}/up; while [ ! -e {go} ]; do sleep 0.05; done"))
    until("the first one runs", (tmp_path / "up").exists)

    second = run(name, "echo never", owner="deployment y", wait=0)
    assert second["rc"] is None
    assert second["error"] == "another deployment command still runs on this host: deployment x"
    assert second["output"] == ""

    third = Relay(request(name, f"test -e {go} && echo after", owner="deployment z", wait=60))
    go.touch()
    assert first.answer()["rc"] == 0
    answer = third.answer()
    assert (answer["rc"], answer["output"]) == (0, "after\n")
    assert answer["waited_for"] in ("deployment x", "")


def test_others_are_not_kept_out(name: str, tmp_path: Path) -> None:
    first = Relay(request(name, f"touch {tmp_path}/up; sleep 60"))
    try:
        until("the first one runs", (tmp_path / "up").exists)
        assert run(f"{name}-other", "echo ok")["output"] == "ok\n"
    finally:
        os.kill(first.process.pid, signal.SIGKILL)
        Path(f"/run/lock/hitless-{name}-other.lock").unlink(missing_ok=True)
        Path(f"/tmp/hitless-{name}-other.lock").unlink(missing_ok=True)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_it_goes_on_under_its_lock_when_the_asker_dies(name: str, tmp_path: Path, number: signal.Signals) -> None:
    """The asker's whole process group gets the signal, as at the end of a connection or by Ctrl-C."""
    go = tmp_path / "go"
    line = f"echo up > {tmp_path}/up; while [ ! -e {go} ]; do sleep 0.05; done; touch {tmp_path}/done"
    program = f"{PROGRAM.read_text()}\nmain({request(name, line)!r})"
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


def lock_path(name: str) -> Path:
    return Path("/run/lock" if os.access("/run/lock", os.W_OK) else "/tmp") / f"hitless-{name}.lock"


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "folder", "fifo"])
def test_what_somebody_laid_in_the_locks_place_is_refused(name: str, tmp_path: Path, kind: str) -> None:
    victim, path = lock_path(f"{name}-victim"), lock_path(name)
    victim.write_text("precious")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "new")
    elif kind == "hard link":
        path.hardlink_to(victim)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    try:
        answer = run(name, f"touch {tmp_path}/ran")
        assert answer["rc"] is None
        assert str(path) in answer["error"]
        assert victim.read_text() == "precious"
        assert not (tmp_path / "ran").exists()
        assert not (tmp_path / "new").exists()
    finally:
        victim.unlink()
        if kind == "folder":
            path.rmdir()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv, to be two users")
def test_two_users_share_one_lock(name: str, tmp_path: Path) -> None:
    """The first one's umask does not keep the second one from finding the lock taken."""
    script = tmp_path / "program.py"
    asked = request(name, "echo never", owner="deployment of nobody")
    script.write_text(f"{PROGRAM.read_text()}\nimport json\nprint(json.dumps(main({asked!r})))\n")
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-"]

    def nobodys() -> dict[str, Any]:
        done = subprocess.run(
            as_nobody, input=script.read_text(), capture_output=True, text=True, check=True, cwd="/", timeout=60
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    os.umask(0o077)
    first = Relay(request(name, f"touch {tmp_path}/up; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"))
    os.umask(0o022)
    until("the first one runs", (tmp_path / "up").exists)
    assert nobodys()["error"] == "another deployment command still runs on this host: deployment x"
    (tmp_path / "go").touch()
    assert first.answer()["rc"] == 0
    assert nobodys()["output"] == "never\n"
    # And the other way round.
    assert run(name, "echo root again")["output"] == "root again\n"


def test_it_runs_through_the_relay(name: str) -> None:
    def shell(line: str, data: bytes) -> tuple[int, bytes, bytes]:
        done = subprocess.run(["/bin/sh", "-c", f"echo Welcome; {line}"], input=data, capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    host = Host(None, sys.executable, as_user=shell)
    assert host.call("command", request(name, "echo hello"), as_user=True)["output"] == "hello\n"


# -- the question to the application ------------------------------------------------------------------------------


def question(url: str, **more: Any) -> dict[str, Any]:
    asked = {"url": url, "match": None, "deadline": 20, "interval": 0.05, "timeout": 5, "stable_for": 0, **more}
    answer: dict[str, Any] = probe.main(asked)
    return answer


def test_an_application_that_answers() -> None:
    with HttpServer(Reply(200, '{"version": "2"}')) as server:
        answer = question(f"{server.url}/health?x=1", match='"version": "2"')
    assert (answer["ok"], answer["status"], answer["body"], answer["tries"]) == (True, 200, '{"version": "2"}', 1)
    assert server.asked[0].path == "/health?x=1"


def test_the_old_process_is_not_the_new_one() -> None:
    replies = [Reply(200, "version 1"), Reply(503, "starting"), Reply(200, "version 2")]
    with HttpServer(*replies) as server:
        answer = question(server.url, match=r"version 2\b")
    assert (answer["ok"], answer["tries"]) == (True, 3)


@pytest.mark.parametrize(
    ("reply", "error", "body"),
    [
        (Reply(500, "broken"), "it answered 500", "broken"),
        (Reply(404, ""), "it answered 404", ""),
        (Reply(200, "version 1"), "its answer does not match 'version 2'", "version 1"),
        (Reply(raw=b""), "closed connection", ""),
        (Reply(raw=b"what is this\r\n\r\n"), "what is this", ""),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"), "its answer does not match", "short"),
        (Reply(raw=b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "it answered 500", ""),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "IncompleteRead", ""),
    ],
)
def test_an_application_that_does_not_answer_well(reply: Reply, error: str, body: str) -> None:
    with HttpServer(reply) as server:
        answer = question(server.url, match="version 2", deadline=0)
    assert not answer["ok"]
    assert error in answer["error"]
    assert answer["body"] == body


def test_nobody_there_and_no_url() -> None:
    assert "refused" in question(nobody(), deadline=0)["error"]
    assert not question("nonsense", deadline=0)["ok"]


def test_a_process_that_starts_meanwhile_is_found() -> None:
    with HttpServer(Reply(200, "ok")) as server:
        ready = threading.Event()
        server._answer = lambda asked: Reply(200, "ok") if ready.is_set() else Reply(503, "")
        threading.Timer(0.3, ready.set).start()
        answer = question(server.url)
    assert answer["ok"]
    assert answer["tries"] > 1


def test_it_must_go_on_answering() -> None:
    answers = iter([200, 500, 200] + [200] * 1000)

    def answer(asked: Asked) -> Reply:
        return Reply(next(answers), "x")

    with HttpServer(answer=answer) as server:
        found = question(server.url, stable_for=0.3)
    assert found["ok"]
    assert found["tries"] > 4


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpServer() as proxy, HttpServer(Reply(200, "ok")) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert question(server.url)["ok"]
        assert proxy.asked == []
