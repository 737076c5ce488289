"""A deployment that fails before it has touched its host leaves that host as it was: in rotation."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.testkit.ansible_run import flat
from tests.rollout.drive import Drive, Load

# Conditions keep the variable from being missed before the host is drained.
HOOKS = {
    "undefined": "- name: Install\n  ansible.builtin.command: install {{ typo }}\n  when: true\n",
    "assertion": "- name: Check\n  ansible.builtin.assert: {that: deploy_version != '2.0.0', quiet: true}\n",
}


@pytest.mark.slow
@pytest.mark.oldest
@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_fails_before_it_touches_the_host(drive: Drive, tmp_path: Path, name: str) -> None:
    hook = tmp_path / "deploy.yml"
    hook.write_text(HOOKS[name], encoding="utf-8")
    with Load(drive.lab) as load:
        result = drive.run("2.0.0", deploy_tasks=str(hook), deploy_command="")
    assert result.rc != 0
    load.check_nothing_lost()
    assert "Nothing was deployed." in flat(drive.results()["web1"]["error"])
    assert drive.outcomes()["web1"] == "untouched"
    assert drive.maintenance() == {}, result.output
    assert drive.running() == ["1.0.0"] * 5
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.oldest
def test_a_hook_that_has_touched_the_host_is_rolled_back(drive: Drive, tmp_path: Path) -> None:
    """The control: the second task fails in the same way."""
    hook = tmp_path / "deploy.yml"
    hook.write_text(
        "- name: Install\n  ansible.builtin.command: '{{ lab_vm_dir }}/deploy {{ deploy_version }}'\n"
        "- name: Restart\n  ansible.builtin.command: restart {{ typo }}\n  when: deploy_version == '2.0.0'\n",
        encoding="utf-8",
    )
    result = drive.run("2.0.0", deploy_tasks=str(hook), deploy_command="")
    assert result.rc != 0
    assert drive.outcomes()["web1"] == "rolled_back", result.output
    assert drive.running() == ["1.0.0"] * 5
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.oldest
def test_a_before_batch_hook_that_fails(drive: Drive, tmp_path: Path) -> None:
    hook = tmp_path / "before.yml"
    hook.write_text("- name: Ask\n  ansible.builtin.fail: {msg: not on a Friday}\n", encoding="utf-8")
    result = drive.run("2.0.0", before_batch_tasks=str(hook), batch_size=2)
    assert result.rc != 0
    assert "It stopped because the before_batch hook failed: not on a Friday" in flat(result.output)
    assert "itself stopped it" not in flat(result.output)
    assert set(drive.outcomes().values()) <= {"pending"}
    assert drive.maintenance() == {}
    assert drive.running() == ["1.0.0"] * 5
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.oldest
def test_a_before_batch_hook_that_succeeds(drive: Drive, tmp_path: Path) -> None:
    hook = tmp_path / "before.yml"
    hook.write_text("- name: Ask\n  ansible.builtin.debug: {msg: go on}\n", encoding="utf-8")
    result = drive.run("2.0.0", before_batch_tasks=str(hook), batch_size=2)
    assert result.rc == 0, result.output
    assert drive.running() == ["2.0.0"] * 5
