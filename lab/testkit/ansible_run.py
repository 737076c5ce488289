# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run Ansible as a user would: the installed collection, a clean HOME, nothing of this shell's environment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ..supervisor import descendants
from .link_tree import CHECKOUT

# It runs the Ansible of the Python that it runs in: that is how the tests choose a column (oldest, newest).
BIN = Path(sys.executable).parent
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RECAP_LINE = re.compile(r"^(?P<host>\S+)\s+: (?P<counts>ok=\d+ .*)$", re.MULTILINE)


def install_collection() -> Path:
    """Build and install the artifact of this checkout (once for the same sources); return its collections path."""
    built = subprocess.run(
        [CHECKOUT / "scripts" / "install-built"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise RuntimeError(f"the collection could not be built and installed:\n{built.stderr}")
    return Path(built.stdout.strip())


def environment(collections: Path, home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a command: nothing of CONSUL_*, ANSIBLE_* or a proxy leaks in from outside."""
    return {
        "PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_HOST_KEY_CHECKING": "False",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        **(more or {}),
    }


def flat(text: str) -> str:
    """Output on one line, without the line breaks that Ansible puts where a terminal is 79 columns wide.

    ansible-core before 2.19 breaks a word at its hyphens as well: where, depends on the paths in the sentence.
    """
    return " ".join(re.sub(r"(?<=\w-)\n(?=\w)", "", text).split())


def recap(output: str) -> dict[str, dict[str, int]]:
    """Host -> counts (ok, changed, unreachable, failed, skipped, rescued, ignored) of the last PLAY RECAP."""
    _, found, table = COLOUR.sub("", output).rpartition("PLAY RECAP *")
    if not found:
        return {}
    hosts = {}
    for line in RECAP_LINE.finditer(table):
        pairs = (pair.split("=") for pair in line["counts"].split())
        hosts[line["host"]] = {name: int(count) for name, count in pairs}
    return hosts


@dataclass(frozen=True)
class Result:
    """How a command ended. ``rc`` is negative where a signal ended it."""

    rc: int
    stdout: str
    stderr: str
    seconds: float
    recap: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """Both streams, for a search in either and for the message of a failed assertion."""
        return f"{self.stdout}\n{self.stderr}"

    @property
    def red(self) -> set[str]:
        """Hosts that the recap shows failed or unreachable."""
        return {host for host, counts in self.recap.items() if counts["failed"] or counts["unreachable"]}


class Run:
    """A command under way, in a process group of its own, so that a signal or the end of the test reaches all of it.

    Its output goes to files: a process that outlives the run and holds a pipe would keep the reader waiting.
    """

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        number = len(list(logs.glob("*.out"))) + 1
        self._stdout = logs / f"{number:02}.out"
        self._stderr = logs / f"{number:02}.err"
        self._started = time.monotonic()
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        """What it has printed to the error stream so far."""
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Return when ``text`` has been printed; fail when the run ends, or ``timeout`` seconds pass, without it."""
        deadline = time.monotonic() + timeout
        while text not in self.stdout:
            ended = self.process.poll() is not None
            if text in self.stdout:
                return
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{text!r} was not printed:\n{self.stdout}\n{self.stderr}")
            time.sleep(0.02)

    def send(self, number: signal.Signals, group: bool = False) -> None:
        """Signal the command alone (as a person's kill does), or its whole group (as Ctrl-C in a terminal does)."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it with all processes that it has started, those among them that have left its group."""
        for process in [self.process.pid, *descendants(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def wait(self, timeout: float = 240) -> Result:
        """Wait for the command to end, at most ``timeout`` seconds, and return its result."""
        try:
            rc = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.close()
            raise AssertionError(f"still running after {timeout} s:\n{self.stdout}\n{self.stderr}") from None
        seconds = time.monotonic() - self._started
        stdout = self.stdout
        return Result(rc, stdout, self.stderr, seconds, recap(stdout))

    def close(self) -> None:
        """End whatever of its group is left."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Ansible:
    """Ansible's commands with the installed collection; ``home`` is the HOME they get, ``logs`` where output goes."""

    collections: Path
    home: Path
    logs: Path

    def start(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        program: str = "ansible-playbook",
    ) -> Run:
        """Begin ``program`` with these arguments, in ``cwd`` (else HOME), with ``env`` added to the environment."""
        whole = environment(self.collections, self.home, env)
        return Run([BIN / program, *command], whole, cwd or self.home, self.logs)

    def playbook(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 240,
    ) -> Result:
        """Run ansible-playbook to its end."""
        with self.start(*arguments, env=env, cwd=cwd) as run:
            return run.wait(timeout)

    def command(
        self,
        program: str,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
    ) -> Result:
        """Run another of Ansible's programs, such as ansible-inventory, to its end."""
        with self.start(*arguments, env=env, cwd=cwd, program=program) as run:
            return run.wait(timeout)
