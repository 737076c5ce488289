"""One command at a time on a host, by a file that nobody else can have laid there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._remote.programs import command, lockfile
from tests.unit.plugins.module_utils._remote.programs.test_command import PROGRAM, Relay, request, run, until

pytestmark = pytest.mark.oldest


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


def lock_path(name: str) -> Path:
    return Path(lockfile.lock_folder()) / f"hitless-{name}.lock"


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
    script.write_text(f"{PROGRAM}\nimport json\nprint(json.dumps(main({asked!r})))\n")
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


@pytest.mark.parametrize("whose", [0o755, 0o775, 0o770])
def test_a_folder_that_only_root_may_write_to_holds_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: int
) -> None:
    """Red Hat's /run/lock: root would lock there, and a user elsewhere."""
    first, second = tmp_path / "run-lock", tmp_path / "tmp"
    for folder in (first, second):
        folder.mkdir()
    first.chmod(whose)
    second.chmod(0o1777)
    monkeypatch.setattr(lockfile, "LOCK_FOLDERS", ("/gone", str(first), str(second)))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert lockfile.lock_folder() == str(second)
    first.chmod(0o1777)
    assert lockfile.lock_folder() == str(first)
    monkeypatch.setattr(lockfile, "LOCK_FOLDERS", ("/gone", "/proc"))
    answer = command.main({**request("x", "true"), "lock": "x"})
    assert "no folder that all users may write to" in answer["error"]
