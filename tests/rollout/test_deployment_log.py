"""The callback deployment_log: what happens in a rollout, in the deployment's log keys and in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Lab
from lab.testkit.ansible_run import Result
from tests.fleet import CONSUL
from tests.rollout.drive import Drive

SECRET = "5ecret-of-the-deployment"
TASKS = f"""
- name: Tell
  ansible.builtin.command: echo "telling {{{{ deploy_version }}}}"
- name: Keep for itself {SECRET}
  ansible.builtin.command: echo {SECRET}
  no_log: true
- name: With a secret argument
  ansible.builtin.command:
    argv: [sh, -c, "true {SECRET}"]
- name: Deploy
  ansible.builtin.command: "{{{{ lab_vm_dir }}}}/deploy"
  environment:
    DEPLOY_VERSION: "{{{{ deploy_version }}}}"
    DEPLOY_REASON: "{{{{ deploy_reason }}}}"
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=2, consul=CONSUL, ssh=False) as running:
        yield running


def rollout(drive: Drive, folder: Path, **more: str) -> tuple[Result, list[dict[str, Any]]]:
    """A rollout by tasks of one's own; its result, and the lines of the file."""
    tasks, path = folder / "deploy.yml", folder / "log.jsonl"
    tasks.write_text(TASKS, encoding="utf-8")
    arguments = drive.arguments(
        "2.0.0",
        name="rollout",
        kind="local",
        hosts="web1",
        deploy_command="",
        deploy_tasks=str(tasks),
    )
    environment = {
        **drive.lab.environment,
        "ANSIBLE_CALLBACKS_ENABLED": "hitless.consul.deployment_log",
        "HITLESS_LOG_PATH": str(path),
        **more,
    }
    result = drive.ansible.playbook(*arguments, env=environment)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return result, [json.loads(line) for line in lines]


def sent(drive: Drive, host: str) -> str:
    prefix = f"deploy/web/deployments/{drive.record()['id']}/log/{host}/"
    return "".join(drive.lab.kv(key) or "" for key in sorted(drive.all_keys()) if key.startswith(prefix))


@pytest.mark.oldest
def test_what_happened_is_in_consul_and_in_the_file(drive: Drive, tmp_path: Path) -> None:
    result, entries = rollout(drive, tmp_path)
    assert result.rc == 0, result.output
    assert "deployment_log" not in result.stderr, result.stderr
    mine = {entry["task"]: entry for entry in entries if entry["host"] == "web1"}
    assert mine["Tell"]["output"] == "telling 2.0.0"
    assert mine["Tell"]["outcome"] == "changed"
    assert "2.0.0 started" in mine["Deploy"]["output"]
    assert {entry["deployment"] for entry in entries[-5:]} == {drive.record()["id"]}
    told = sent(drive, "web1")
    assert "changed: Tell" in told
    assert "telling 2.0.0\n" in told
    assert "Watch, and find the verdict" in sent(drive, "localhost")
    hidden = [entry for entry in entries if entry["task"].startswith("deploy.yml:")]
    assert [entry["outcome"] for entry in hidden] == ["changed"]
    everything = "".join(drive.lab.kv(key) or "" for key in drive.all_keys()) + (tmp_path / "log.jsonl").read_text()
    assert SECRET not in everything
