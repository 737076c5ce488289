"""What the user's tasks files and roles hold, as far as it can be told before they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_reader import opaque, read_role, read_tasks
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_tasks import (
    HookTasks,
    missing_handlers,
    variables_set,
)

pytestmark = pytest.mark.oldest


class Files:
    """Files in a folder, as Ansible's loader reads them."""

    def __init__(self, folder: Path, **texts: str) -> None:
        self.folder = folder
        for name, text in texts.items():
            path = folder / (name.replace("__", "/") + ".yml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def load(self, path: str) -> Any:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else None

    def tasks(self, name: str = "deploy") -> HookTasks:
        return read_tasks("deploy_tasks", str(self.folder / f"{name}.yml"), self.load)

    def role(self, name: str = "install") -> HookTasks:
        return read_role("deploy_role", str(self.folder / name), self.load)


def missing(*hooks: HookTasks) -> tuple[str, str] | None:
    found = missing_handlers(hooks)
    assert all(one.sure for one in found)
    return (found[0].task.name, found[0].name) if found else None


# --- handlers ------------------------------------------------------------------------------------------------

NOTIFIES = "- {name: Install, command: install, notify: Restart}\n"


def test_a_tasks_file_has_no_handlers(tmp_path: Path) -> None:
    assert missing(Files(tmp_path, deploy=NOTIFIES).tasks()) == ("Install", "Restart")


@pytest.mark.parametrize(
    "task",
    [
        "- block:\n    - {name: Install, command: install, notify: [Restart]}\n",
        "- name: Install\n  notify: Restart\n  block:\n    - command: install\n",
        "- block:\n    - command: y\n  rescue:\n    - {name: Install, command: install, notify: Restart}\n",
        "- import_tasks: more.yml\n",
        "- ansible.builtin.include_tasks: {file: more.yml}\n",
        "- {name: Install, action: command install, notify: Restart}\n",
        "- {name: Install, some.own.module: {}, notify: Restart}\n",
    ],
)
def test_wherever_the_task_stands(tmp_path: Path, task: str) -> None:
    assert missing(Files(tmp_path, deploy=task, more=NOTIFIES).tasks()) == ("Install", "Restart")


@pytest.mark.parametrize(
    "task",
    [
        "- {name: Install, command: install, notify: '{{ handler }}'}\n",
        # A role brings its own, and it is not known which.
        NOTIFIES + "- include_role: {name: restart}\n",
        NOTIFIES + "- ansible.builtin.import_role: {name: restart}\n",
        NOTIFIES + "- include_tasks: '{{ which }}.yml'\n",
        NOTIFIES + "- include_tasks: not-there.yml\n",
        NOTIFIES + "- 7\n",
        "7\n",
    ],
)
def test_what_cannot_be_told_is_no_fault(tmp_path: Path, task: str) -> None:
    assert missing(Files(tmp_path, deploy=task).tasks()) is None


@pytest.mark.parametrize(
    "handlers",
    [
        "- {name: Restart, service: {}}\n",
        "- {name: Other, service: {}, listen: Restart}\n",
        "- {name: Other, service: {}, listen: [x, Restart]}\n",
        "- {name: 'Restart {{ unit }}', service: {}}\n",
        "- import_tasks: more.yml\n",
    ],
)
def test_a_role_has_handlers(tmp_path: Path, handlers: str) -> None:
    files = Files(tmp_path, install__tasks__main=NOTIFIES, install__handlers__main=handlers)
    assert missing(files.role()) is None


def test_a_role_that_lacks_one(tmp_path: Path) -> None:
    texts = {"install__tasks__main": NOTIFIES, "install__handlers__main": "- {name: Reload, service: {}}\n"}
    assert missing(Files(tmp_path, **texts).role()) == ("Install", "Restart")
    depends = {**texts, "install__meta__main": "dependencies: [restart]\n"}
    assert missing(Files(tmp_path, **depends).role()) is None


def test_handlers_of_the_role_serve_the_other_hooks(tmp_path: Path) -> None:
    texts = {"install__tasks__main": NOTIFIES, "install__handlers__main": "- {name: Restart, service: {}}\n"}
    files = Files(tmp_path, **texts, smoke="- {name: Smoke, command: x, notify: 'install : Restart'}\n")
    assert missing(files.role(), files.tasks("smoke")) is None
    assert missing(files.tasks("smoke")) == ("Smoke", "install : Restart")
    assert missing(opaque("deploy_role", "acme.web.install"), files.tasks("smoke")) is None


# --- variables -----------------------------------------------------------------------------------------------


def test_variables_that_tasks_set(tmp_path: Path) -> None:
    text = """
- {command: x, register: done, vars: {a: 1}}
- set_fact: {b: 2}
- {command: x, loop: [1], loop_control: {loop_var: c, index_var: d}}
- {block: [{debug: {}, vars: {e: 1}}], vars: {f: 1}}
- {include_tasks: more.yml, vars: {g: 1}}
"""
    found = Files(tmp_path, deploy=text, more="- {command: x, register: h}\n").tasks()
    assert variables_set([found]) == {"done", *"abcdefgh"}


@pytest.mark.parametrize(
    "text",
    [
        "- include_vars: x.yml\n",
        "- set_fact: {'{{ name }}': 1}\n",
        "- set_fact: a=1\n",
        "- acme.web.facts:\n",
        "- setup:\n",
        "- include_role: {name: x}\n",
        "- include_tasks: '{{ which }}'\n",
    ],
)
def test_variables_that_cannot_be_told(tmp_path: Path, text: str) -> None:
    assert variables_set([Files(tmp_path, deploy=text).tasks()]) is None


def test_variables_of_a_role(tmp_path: Path) -> None:
    files = Files(
        tmp_path, install__tasks__main=NOTIFIES, install__defaults__main="a: 1\n", install__vars__main="b: 1\n"
    )
    assert variables_set([files.role()]) == {"a", "b"}


def texts(found: HookTasks) -> list[str]:
    return [text for task in found.tasks for text in task.texts]


def test_texts_that_are_resolved_for_certain(tmp_path: Path) -> None:
    text = """
- {command: first}
- {copy: {src: [second], dest: {x: third}}, environment: {X: fourth}}
- {block: [{shell: fifth}], always: [{shell: maybe}]}
- {command: maybe, when: x}
- {command: maybe, loop: [1]}
- {command: maybe, with_items: [1]}
- {command: mended, ignore_errors: true}
- {block: [{command: maybe}], when: x}
- {block: [{command: mended}, {command: maybe, when: x}, {import_tasks: mended.yml}], rescue: [{command: maybe}]}
- {block: [{command: maybe}], rescue: [{command: maybe}], when: x}
- {import_tasks: maybe.yml, when: x}
- {import_tasks: sixth.yml}
"""
    others = {name: f"- {{command: {name}}}\n" for name in ("maybe", "sixth", "mended")}
    found = Files(tmp_path, deploy=text, **others).tasks()
    assert texts(found) == ["first", "second", "third", "fourth", "fifth", "sixth"]
    assert {text for task in found.tasks for text in task.uncertain} == {"maybe"}
    assert [text for task in found.tasks for text in task.handled] == ["mended"] * 3


# --- the first tasks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("- {name: A, command: x}\n- {name: B, command: y}\n", ["A"]),
        (
            "- {name: A, assert: {}}\n- {name: B, set_fact: {}}\n- {name: C, command: y}\n- {name: D, command: z}\n",
            ["A", "B", "C"],
        ),
        ("- {block: [{name: A, command: x}]}\n", ["A"]),
        ("- {import_tasks: more.yml}\n- {name: B, command: x}\n", ["Install"]),
        # The one of the same name may be meant.
        ("- {name: A, command: x}\n- {name: A, command: y}\n", []),
        ("- {include_role: {name: x}}\n- {name: A, command: y}\n", []),
        ("- {name: A, assert: {}}\n- {include_tasks: '{{ x }}'}\n- {name: B, command: y}\n", ["A"]),
    ],
)
def test_tasks_before_which_nothing_has_touched_the_host(tmp_path: Path, text: str, names: list[str]) -> None:
    found = Files(tmp_path, deploy=text, more=NOTIFIES).tasks().before_anything()
    assert [task["name"] for task in found] == names
