"""What a person sees of a run, with Ansible's default output."""

from __future__ import annotations

from collections import Counter

import pytest

from lab.testkit.ansible_run import Result
from tests.rollout.drive import Drive

NEW = "2.0.0"
HOSTS = 5


def lines_of(result: Result, *hosts: str) -> list[str]:
    """Its lines, of which none is about what Ansible does not do; the recap has these hosts and localhost alone."""
    assert result.rc == 0, result.output
    lines = result.stdout.splitlines()
    assert not [line for line in lines if line.startswith(("skipping:", "included:"))]
    recap = lines[lines.index(next(line for line in lines if line.startswith("PLAY RECAP"))) + 1 :]
    assert {line.split()[0] for line in recap if line} == {"localhost", *hosts}
    return lines


def test_a_run_is_told_in_few_lines(drive: Drive) -> None:
    """Before it, itself, and once more: for each host a line of each step, and Ansible's own two."""
    options = {"batch_size": HOSTS, "min_healthy": 0}
    before = lines_of(drive.run(NEW, "--check", **options))
    assert len(before) <= 30 + HOSTS, before

    run = lines_of(drive.run(NEW, **options), *(f"web{number}" for number in range(1, HOSTS + 1)))
    assert len(run) <= 30 + 6 * HOSTS, run
    words = ["draining", f"deploying {NEW}", f"verifying {NEW}", f"ok: in rotation on {NEW}"]
    told = Counter(line.partition("] ")[2] for line in run if "/5] " in line)
    assert {word: told[word] for word in words} == dict.fromkeys(words, HOSTS)
    assert any(line.endswith(f"5 changed. web: 5 of 5 in rotation, all on {NEW}.") for line in run)

    again = drive.run(NEW, **options)
    assert len(lines_of(again)) <= 25, again.stdout
    assert {counts["changed"] for counts in again.recap.values()} == {0}


def test_a_line_is_there_as_it_happens(drive: Drive) -> None:
    """In a pipe and in a file too, into which Ansible itself writes a task's lines at its end."""
    run = drive.start("2.0.0-deployslow3", hosts="web1")
    run.wait_for("web1 [1/1] deploying")
    assert drive.outcomes().get("web1", "pending") == "pending"
    run.wait_for("web: 1 of 1 in rotation")
    assert run.process.wait(60) == 0, run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("callback", ["minimal", "oneline"])
def test_another_callback_tells_the_steps_as_well(drive: Drive, callback: str) -> None:
    drive = Drive(drive.ansible, drive.lab, {"ANSIBLE_STDOUT_CALLBACK": callback})
    result = drive.run(NEW, batch_size=HOSTS, min_healthy=0)
    assert result.rc == 0, result.output
    for number in range(1, HOSTS + 1):
        assert f"web{number} [{number}/5] ok: in rotation on {NEW}" in result.stdout
    assert f"web: 5 of 5 in rotation, all on {NEW}." in result.stdout
