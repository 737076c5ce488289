"""A guard is a process beside the run: it outlives the task that has started it, and never the run."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.maintenance_guard import MaintenanceGuard, Run
from lab import wait_until


class Watch:
    """Stands in for the watch, whose own tests have a real Consul: it writes down when it begins and ends."""

    def __init__(self, log: Path, *, dropped: bool = False) -> None:
        self.log = log
        self.dropped = dropped

    def __enter__(self) -> Watch:
        self.log.write_text(f"{self.log.read_text() if self.log.exists() else ''}began ", encoding="utf-8")
        return self

    def __exit__(self, *_error: object) -> None:
        self.log.write_text(f"{self.log.read_text()}ended ", encoding="utf-8")


class Guarded:
    """A run with a pipe, and a guard of one of its hosts."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.read_end, self.write_end = os.pipe()
        self.guard = MaintenanceGuard(Run(self.read_end, lambda: os.close(self.write_end)), str(folder), "web1")

    def start(self, **about: Any) -> None:
        with warnings.catch_warnings():  # pytest's own threads; in a task there are none
            warnings.simplefilter("ignore", DeprecationWarning)
            self.guard.start(lambda: Watch(self.log, **about))  # type: ignore[arg-type, return-value]
        wait_until("it watches", self.log.exists)

    def end_run(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    @property
    def story(self) -> str:
        return self.log.read_text(encoding="utf-8").strip()


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one = Guarded(tmp_path)
    yield one
    one.end_run()
    one.guard.end()
    os.close(one.read_end)


def files(folder: Path) -> list[Path]:
    return list(folder.glob("hitless-guard-*"))


@pytest.mark.parametrize("dropped", [True, False])
def test_it_watches_until_it_is_ended(guarded: Guarded, tmp_path: Path, dropped: bool) -> None:
    guarded.start(dropped=dropped)
    assert guarded.story == "began"
    assert guarded.guard.end() is dropped
    assert guarded.story == "began ended"
    assert not files(tmp_path)
    assert guarded.guard.end() is False


def test_a_second_start_changes_nothing(guarded: Guarded) -> None:
    guarded.start()
    guarded.start(dropped=True)
    assert guarded.guard.end() is False
    assert guarded.story == "began ended"


def test_it_ends_with_the_run(guarded: Guarded, tmp_path: Path) -> None:
    guarded.start()
    guarded.end_run()
    wait_until("it has ended", lambda: guarded.story == "began ended" and not files(tmp_path))


def test_one_that_was_killed_is_begun_anew(guarded: Guarded, tmp_path: Path) -> None:
    guarded.start()
    process = int(files(tmp_path)[0].read_text(encoding="utf-8"))
    os.kill(process, 9)
    os.waitpid(process, 0)
    guarded.start()
    wait_until("another one watches", lambda: guarded.story == "began began")
    assert guarded.guard.end() is False
    assert guarded.story == "began began ended"


def test_its_file_is_its_owners_alone(guarded: Guarded, tmp_path: Path) -> None:
    guarded.start()
    assert files(tmp_path)[0].stat().st_mode & 0o777 == 0o600
