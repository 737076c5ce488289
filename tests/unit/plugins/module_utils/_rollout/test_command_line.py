"""What of Ansible's command line leaves parts of a playbook out."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.command_line import CommandLine, refusal


@pytest.mark.parametrize(
    ("started", "told"),
    [
        (CommandLine(limit="web1"), "--limit (web1) cannot be used"),
        (CommandLine(tags=["deploy", "smoke"]), "--tags (deploy, smoke) cannot be used"),
        (CommandLine(skip_tags=["slow"]), "--skip-tags (slow) cannot be used"),
        (CommandLine(start_at_task="Plan"), "--start-at-task (Plan) cannot be used"),
        (CommandLine(step=True), "--step cannot be used"),
        (CommandLine(tags=["x"], start_at_task="Plan"), "--tags (x) and --start-at-task (Plan) cannot be used"),
    ],
)
def test_a_part_of_a_playbook_is_refused(started: CommandLine, told: str) -> None:
    assert refusal(started).startswith(told)


@pytest.mark.parametrize("started", [CommandLine(), CommandLine(limit="")])
def test_the_whole_of_it_is_not(started: CommandLine) -> None:
    assert refusal(started) == ""
