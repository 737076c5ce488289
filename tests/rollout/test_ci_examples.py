"""examples/ci: what its files run, as it stands there, in a copy of the project to copy."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import Lab
from lab.testkit.ansible_run import BIN, Ansible, environment
from tests.rollout.awx import EXAMPLES
from tests.rollout.drive import Drive


@pytest.fixture
def examples(ansible: Ansible) -> Path:
    return ansible.collections / EXAMPLES


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_gitlab_shows_a_plan_and_rolls_out_on_a_tag(
    drive: Drive, ansible: Ansible, fleet: Lab, tmp_path: Path, examples: Path
) -> None:
    ci = read(examples / "ci" / "gitlab-ci.yml")
    project = tmp_path / "project"
    shutil.copytree(examples / "project", project)
    (project / "VERSION").write_text("2.0.0\n", encoding="utf-8")
    # The lab's machines, and one of them.
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ansible-playbook"
    program.write_text(f'#!/bin/sh\nexec {BIN}/ansible-playbook "$@" -e @lab.yml -e rollout_hosts=web1\n', "utf-8")
    program.chmod(0o755)

    def run(script: list[str], **more: str) -> str:
        env = environment(ansible.collections, ansible.home, {**fleet.environment, **more})
        env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
        lines = "\n".join(["set -e", *script])
        done = subprocess.run(["bash", "-c", lines], cwd=project, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "web 1.0.0 -> 2.0.0 on 1 host" in run(ci["plan"]["script"])
    assert drive.all_keys() == []
    run(ci["rollout"]["script"], CI_COMMIT_TAG="v2.0.0", CI_PIPELINE_URL="https://gitlab.example.com/web/-/pipelines/7")
    assert drive.running()[0] == "2.0.0"
    assert drive.record()["message"] == "https://gitlab.example.com/web/-/pipelines/7"
    run(ci["rollout"]["after_script"])
    (artifact,) = ci["rollout"]["artifacts"]["paths"]
    assert "successful" in json.dumps(json.loads((project / artifact).read_text(encoding="utf-8")))


def test_github_runs_the_same_lines(examples: Path) -> None:
    ci, workflow = read(examples / "ci" / "gitlab-ci.yml"), read(examples / "ci" / "github-workflow.yml")
    assert workflow["on"] == {"pull_request": None, "push": {"tags": ["v*"]}}
    names = {"GITHUB_REF_NAME": "CI_COMMIT_TAG", "RUN_URL": "CI_PIPELINE_URL"}

    def lines(job: str) -> list[str]:
        found = "\n".join(step["run"] for step in workflow["jobs"][job]["steps"] if "run" in step)
        for here, there in names.items():
            found = found.replace(here, there)
        return found.splitlines()

    install = [line for line in ci["default"]["before_script"] if "chmod" not in line]
    assert lines("plan") == [*install, *ci["plan"]["script"]]
    assert lines("rollout") == [*install, *ci["rollout"]["script"], *ci["rollout"]["after_script"]]
    steps = workflow["jobs"]["rollout"]["steps"]
    assert [step.get("if") for step in steps[-2:]] == ["always()"] * 2, "also where it failed"
