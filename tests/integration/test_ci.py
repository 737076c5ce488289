"""What continuous integration runs has nothing of whoever runs it, and ends with pytest's closing line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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
