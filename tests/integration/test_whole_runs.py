"""No playbook of the collection runs in part: Ansible would leave out what guards it, and still succeed.

No Consul is asked: each is refused before its first task.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.testkit import link_tree
from lab.testkit.ansible_run import Ansible

PLAYBOOKS = sorted(path.stem for path in (link_tree.CHECKOUT / "playbooks").glob("*.yml"))
# Names of tasks: the first one's, a pattern, nobody's.
TASKS = ["Plan", "*", "x"]
# One with its role, plays', later ones', another pattern, a hook's.
RARER = ["hitless.consul.rollout : Plan", "Prepare", "Roll out", "Status", "Pl*", "Install"]
PARTS = [
    (["--limit", "web1"], "--limit (web1)"),
    (["--limit", "web1,localhost"], "--limit (web1,localhost)"),
    (["--start-at-task", "Plan"], "--start-at-task (Plan)"),
    (["--tags", "deploy"], "--tags (deploy)"),
]
# All of them ask one lookup: each playbook shows that it does, and one of them shows all that is refused.
EACH = [
    pytest.param(
        playbook,
        *part,
        id=f"{playbook} {' '.join(part[0])}",
        marks=[pytest.mark.slow] * (number % 2 and playbook != "rollout"),
    )
    for playbook in PLAYBOOKS
    for number, part in enumerate(PARTS)
]

pytestmark = pytest.mark.oldest


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(link_tree.COLLECTIONS, tmp_path, tmp_path / "logs")


def check_refused(ansible: Ansible, playbook: str, *arguments: str, told: str) -> None:
    needed = ["-e", "rollout_service=web", "-e", "rollout_version=2.0.0"]
    result = ansible.playbook("-i", "web1,", f"hitless.consul.{playbook}", *needed, *arguments)
    assert result.rc != 0, result.output
    assert f"{told} cannot be used with this playbook" in " ".join(result.output.split()), result.output
    assert "TASK [" not in result.stdout


@pytest.mark.parametrize(("playbook", "arguments", "told"), EACH)
def test_each_playbook_refuses_to_run_in_part(ansible: Ansible, playbook: str, arguments: list[str], told: str) -> None:
    check_refused(ansible, playbook, *arguments, told=told)


@pytest.mark.parametrize("task", [*TASKS, *(pytest.param(task, marks=pytest.mark.slow) for task in RARER)])
def test_whatever_the_task_to_start_at_is_called(ansible: Ansible, task: str) -> None:
    check_refused(ansible, "rollout", "--start-at-task", task, told=f"--start-at-task ({task})")


@pytest.mark.parametrize(
    ("arguments", "told"), [(["--skip-tags", "deploy"], "--skip-tags (deploy)"), (["--step"], "--step")]
)
def test_other_options_that_leave_tasks_out(ansible: Ansible, arguments: list[str], told: str) -> None:
    check_refused(ansible, "rollout", *arguments, told=told)
