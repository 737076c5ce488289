"""The keeper's decisions, with a Consul that answers as told; tests/integration/test_lock.py has the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import keeper
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from tests.http_server import HttpServer, Reply
from tests.keeper_config import config

STANDARD_LIBRARY = sys.stdlib_module_names


class Answers:
    """Stands for Consul: each renewal takes the next of ``renewals`` (raises an error); with the last the run ends."""

    def __init__(self, renewals: list[bool | Exception], end_run: int) -> None:
        self.renewals = renewals
        self.end_run = end_run
        self.finished: list[str] = []
        self.outcome = 0

    def renew(self) -> bool:
        answer = self.renewals.pop(0)
        if not self.renewals:
            os.close(self.end_run)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def newest_outcome(self) -> int:
        return self.outcome

    def holds_lock(self) -> bool:
        return True

    def mark_orphaned(self) -> None:
        self.finished.append("orphaned")

    def mark_interrupted(self) -> None:
        self.finished.append("marked")

    def release(self) -> None:
        self.finished.append("released")


def make(answers: Answers, pipe: int, **settings: Any) -> keeper.Keeper:
    wake, _ = os.pipe()
    return keeper.Keeper(config(pipe=pipe, **settings), answers, wake)  # type: ignore[arg-type]


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


def test_errors_are_tried_again_until_the_run_ends(pipe: tuple[int, int]) -> None:
    errors = [keeper.NoAnswer("500")] * 5
    answers = Answers([True, *errors, True], pipe[1])

    make(answers, pipe[0]).run()

    assert answers.renewals == []
    assert answers.finished == ["marked", "released"]


@pytest.mark.parametrize("status", [429, 403, 500])
def test_a_refusal_is_no_answer(status: int) -> None:
    """A limit that is reached says nothing of the lock: neither that it is lost nor that anything was written."""
    with HttpServer(Reply(status, "too many requests")) as server:
        consul = keeper.Consul(config(url=server.url, timeout=5))
        for ask in (consul.renew, consul.holds_lock, lambda: consul.newest_outcome("d1"), consul.release):
            with pytest.raises(keeper.NoAnswer, match=str(status)):
                ask()


def test_it_asks_with_all_that_the_run_asks_with() -> None:
    with HttpServer(Reply(404)) as server:
        connection = Connection(server.url, token="t", http_auth="anna:secret", datacenter="dc2")
        consul = keeper.Consul(config(url=server.url, timeout=5, headers=connection.headers, datacenter="dc2"))
        assert consul.renew() is False
    assert server.asked[0].path == "/v1/session/renew/?dc=dc2"
    assert {name: server.asked[0].headers[name] for name in connection.headers} == connection.headers


def test_a_lost_session_ends_it_at_once(pipe: tuple[int, int]) -> None:
    answers = Answers([True, False, True], pipe[1])

    make(answers, pipe[0]).run()

    assert answers.renewals == [True]
    assert answers.finished == []


def test_workers_that_hang_do_not_keep_the_lock_for_ever(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    monkeypatch.setattr(keeper, "ORPHANS_FOR", 0.2)
    answers = Answers([True] * 50, pipe[1])

    make(answers, pipe[0], controller=dead.pid).run()

    assert 0 < len(answers.renewals) < 50
    assert answers.finished == ["orphaned"]


def test_what_workers_hand_over_after_its_death_is_thrown_away(pipe: tuple[int, int]) -> None:
    """More than a pipe holds: whoever writes it would hang."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    results, into = os.pipe()
    # The run ends when this worker has got rid of its result.
    worker = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.write({into}, bytes(300000))"], pass_fds=(into, pipe[1])
    )
    os.close(into)
    os.close(pipe[1])
    answers = Answers([True] * 100, os.open(os.devnull, os.O_RDONLY))

    make(answers, pipe[0], controller=dead.pid, results=results).run()

    assert worker.wait(10) == 0
    assert answers.finished == ["orphaned", "marked", "released"]


def test_a_living_main_process_is_no_reason_to_give_up(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "ORPHANS_FOR", 0.0)
    answers = Answers([True] * 3, pipe[1])

    make(answers, pipe[0]).run()

    assert answers.finished == ["marked", "released"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("proc", [True, False])
def test_the_state_of_a_process_with_and_without_proc(
    sleeper: subprocess.Popen[bytes], proc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not proc:
        monkeypatch.setattr(keeper, "open", no_proc, raising=False)
        monkeypatch.setattr(keeper.os.path, "isdir", lambda path: False)
    running, started = keeper.process_state(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)

    assert running in ("S", "R")
    assert started
    assert keeper.process_state(sleeper.pid) == ("T", started)
    sleeper.kill()
    sleeper.wait()
    assert keeper.process_state(sleeper.pid) == ("", "")


def no_proc(*arguments: object, **more: object) -> None:
    raise FileNotFoundError("/proc")


def test_it_needs_nothing_but_the_standard_library() -> None:
    """It runs with -I, without the collection's packages on the path."""
    lines = Path(keeper.__file__).read_text(encoding="utf-8").splitlines()
    imports = [line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))]

    assert imports
    assert set(imports) <= STANDARD_LIBRARY
