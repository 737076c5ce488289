"""What runs the checks: it has nothing of whoever runs it, misses no failure, and ends with pytest's closing line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from lab import wait_until
from lab.testkit import link_tree

CLOSING = "=============== 1 failed, 2 passed in 1.00s ==============="
MAKEFILE = f"""
test:
\t@env >seen; find "$$HOME" >home; echo "{CLOSING}"; exit $$(cat code)
"""


def test_it_runs_as_on_a_fresh_machine(tmp_path: Path) -> None:
    shutil.copytree(link_tree.CHECKOUT / ".ci", tmp_path / ".ci")
    (tmp_path / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    (tmp_path / "code").write_text("0", encoding="utf-8")
    developers = {
        "HOME": str(tmp_path),
        "PATH": f"/opt/mine:{os.environ['PATH']}",
        "ANSIBLE_FORKS": "1",
        "LANG": "de_DE",
    }
    reach = {
        "https_proxy": "http://proxy.example:3128",
        "PIP_INDEX_URL": "https://index.example/simple",
        "NO_PROXY": "",
    }
    done = ci(tmp_path, {**developers, **reach})
    assert done.returncode == 0
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text(encoding="utf-8").splitlines())
    assert seen["HOME"] != str(tmp_path)
    assert (tmp_path / "home").read_text(encoding="utf-8").split() == [seen["HOME"]]
    assert not Path(seen["HOME"]).exists()
    assert seen["XDG_CACHE_HOME"].startswith(f"{tmp_path}/.cache/")
    assert seen["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert {name: seen[name] for name in reach} == reach
    of_make_and_the_shell = {"MAKEFLAGS", "MAKELEVEL", "MAKE_TERMOUT", "MAKE_TERMERR", "MFLAGS", "PWD", "SHLVL", "_"}
    assert set(seen) - of_make_and_the_shell == {"CI", "HOME", "PATH", "XDG_CACHE_HOME", *reach}


@pytest.mark.parametrize("code", [0, 1])
def test_the_closing_line_comes_last(tmp_path: Path, code: int) -> None:
    shutil.copytree(link_tree.CHECKOUT / ".ci", tmp_path / ".ci")
    (tmp_path / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    (tmp_path / "code").write_text(str(code), encoding="utf-8")
    done = ci(tmp_path, dict(os.environ))
    assert (done.returncode != 0) == bool(code)
    assert done.stdout.splitlines()[-1] == CLOSING


def ci(checkout: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [checkout / ".ci" / "run"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


class Checks:
    """scripts/test in a folder where each check only says that it ran, and fails where it is told to."""

    STEPS = ("scripts/lint", "scripts/sanity", "scripts/molecule", ".venv-oldest/bin/pytest", ".venv/bin/pytest")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir()
        for name in ("test", "step"):
            shutil.copy(link_tree.CHECKOUT / "scripts" / name, folder / "scripts" / name)
        for name in self.STEPS:
            self.write(name, f'echo "{name} $*" >>ran; echo "{CLOSING}"')

    def write(self, name: str, script: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.folder / "scripts" / "test"], stdout=subprocess.PIPE, text=True, start_new_session=True
        )


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    return Checks(tmp_path)


def test_every_check_runs(checks: Checks) -> None:
    with checks.start() as running:
        output = running.communicate(timeout=60)[0]
    assert running.returncode == 0, output
    ran = [line.split()[0] for line in (checks.folder / "ran").read_text(encoding="utf-8").splitlines()]
    assert set(ran) == set(checks.STEPS)
    assert output.splitlines()[-1] == CLOSING
    assert output.count(CLOSING) == 1


@pytest.mark.parametrize("last", ["scripts/sanity", ".venv-oldest/bin/pytest"])
def test_the_closing_line_waits_for_what_ends_last(checks: Checks, last: str) -> None:
    checks.write(last, f"sleep 1; echo {last} >>ran")
    with checks.start() as running:
        output = running.communicate(timeout=60)[0]
    assert running.returncode == 0, output
    ran = (checks.folder / "ran").read_text(encoding="utf-8").splitlines()
    assert ran[-1] == last
    assert len(ran) == len(checks.STEPS)
    assert output.splitlines()[-1] == CLOSING


@pytest.mark.parametrize("name", Checks.STEPS)
def test_no_check_that_fails_is_missed(checks: Checks, name: str) -> None:
    checks.write(name, f'echo "{name}" >>ran; echo "what is wrong"; echo "{CLOSING}"; exit 1')
    with checks.start() as running:
        output = running.communicate(timeout=60)[0]
    assert running.returncode == 1
    assert "what is wrong" in output
    ran = (checks.folder / "ran").read_text(encoding="utf-8").splitlines()
    assert {line.split()[0] for line in ran} == set(checks.STEPS)
    assert output.splitlines()[-1] == CLOSING
    step = {".venv-oldest/bin/pytest": "oldest"}.get(name, Path(name).name)
    assert f"FAILED: {'newest' if step == 'pytest' else step}\n" in output


def test_what_goes_on_beside_the_tests_ends_with_them(checks: Checks) -> None:
    checks.write("scripts/lint", "echo $$ >pid; exec sleep 60")
    checks.write(".venv-oldest/bin/pytest", "exec sleep 60")
    with checks.start() as running:
        wait_until("the checks run", (checks.folder / "pid").exists)
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=10)
    assert running.returncode != 0
    beside = Path("/proc", (checks.folder / "pid").read_text(encoding="utf-8").strip())
    wait_until("it has ended", lambda: not beside.exists(), 10)
