"""examples/awx as it stands, by ansible-playbook with the modules of awx.awx.

There is no AWX here: each module ends where it would ask one, its arguments checked by its own argument spec. What AWX
itself would refuse of them is checked by AWX's rules; the tests name where AWX has them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import OPTIONS
from lab.testkit import awx_collection, link_tree
from lab.testkit.ansible_run import BIN, environment, flat
from tests.awx_credential import inject

EXAMPLE = link_tree.CHECKOUT / "examples" / "awx"
PROJECT = link_tree.CHECKOUT / "examples" / "project"
CONTROLLER_API = Path("ansible_collections/awx/awx/plugins/module_utils/controller_api.py")
# Appended to what all modules of awx.awx are made of. In place of reading their settings, which comes once the
# arguments are checked, they note these, and end.
ENDS = """

def _note(self):
    given = {name: value for name, value in self.params.items() if value is not None}
    with open(environ["NOTES"], "a") as notes:
        notes.write(dumps([self._name, given]) + chr(10))
    self.exit_json(changed=False)


ControllerModule.load_config_files = _note
"""
CONSUL = {"CONSUL_HTTP_ADDR": "https://consul.example.com:8501", "CONSUL_HTTP_TOKEN": "of the test"}
FILES = ("CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY")

pytestmark = pytest.mark.skipif(not awx_collection.cached().exists(), reason="scripts/setup could not fetch awx.awx")


@dataclass(frozen=True)
class Applied:
    """How apply.yml ended, and what each module was given: (its name, its arguments), in order."""

    rc: int
    output: str
    modules: list[tuple[str, dict[str, Any]]]

    def all(self, module: str) -> list[dict[str, Any]]:
        return [given for name, given in self.modules if name == module]

    def one(self, module: str) -> dict[str, Any]:
        (given,) = self.all(module)
        return given


@dataclass(frozen=True)
class Runner:
    collections: Path
    home: Path

    def __call__(self, example: Path, *more: str, consul: Mapping[str, str] = CONSUL) -> Applied:
        notes = self.home / "notes"
        notes.write_text("")
        files = {name: self.home / name for name in FILES}
        for name, file in files.items():
            file.write_text(f"what {name} says\n", encoding="utf-8")
        told = {**consul, **{name: str(file) for name, file in files.items()}, "NOTES": str(notes)}
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", "localhost,", "apply.yml", *more],
            cwd=example,
            env=environment(self.collections, self.home, told),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        modules = [tuple(json.loads(line)) for line in notes.read_text(encoding="utf-8").splitlines()]
        return Applied(done.returncode, done.stdout + done.stderr, modules)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("awx")
    shutil.copytree(awx_collection.cached(), folder / "collections")
    with (folder / "collections" / CONTROLLER_API).open("a", encoding="utf-8") as file:
        file.write(ENDS)
    return Runner(folder / "collections", folder)


@pytest.fixture(scope="module")
def applied(run: Runner) -> Applied:
    done = run(EXAMPLE)
    assert done.rc == 0, done.output
    return done


@pytest.mark.slow
def test_each_task_is_what_awx_awx_takes(applied: Applied) -> None:
    assert [name.rpartition(".")[2] for name, _given in applied.modules] == [
        *("execution_environment", "credential_type", "credential", "project", "inventory", "inventory_source"),
        *(["job_template"] * 10 + ["workflow_job_template"] * 2 + ["workflow_job_template_node"] * 8),
    ]


def test_what_awx_awx_does_not_take_is_noticed(run: Runner, tmp_path: Path) -> None:
    example = Path(shutil.copytree(EXAMPLE, tmp_path / "awx"))
    playbook = example / "apply.yml"
    text = playbook.read_text(encoding="utf-8")
    playbook.write_text(text.replace("allow_simultaneous: false", "concurrent: false"), encoding="utf-8")
    done = run(example, "--start-at-task", "Create the workflows")
    assert done.rc != 0
    assert "Unsupported parameters for (awx.awx.workflow_job_template) module: concurrent" in flat(done.output)


def test_without_an_address_of_consul_nothing_is_set_up(run: Runner) -> None:
    done = run(EXAMPLE, consul={})
    assert (done.rc != 0, done.modules) == (True, [])
    assert "Set CONSUL_HTTP_ADDR to an address that AWX's jobs reach" in flat(done.output)


def test_the_credential_type_is_one(applied: Applied) -> None:
    """By CredentialTypeInputField and CredentialTypeInjectorField in AWX's main/fields.py."""
    given = applied.one("awx.awx.credential_type")
    fields = given["inputs"]["fields"]
    assert given["kind"] in {"cloud", "net"}
    assert given["inputs"].keys() == {"required", "fields"}
    known = {
        "type",
        "format",
        "choices",
        "id",
        "label",
        "help_text",
        "multiline",
        "secret",
        "ask_at_runtime",
        "default",
    }
    for field in fields:
        assert {"id", "label"} <= field.keys() <= known
        assert field["type"] == "string"
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names)
    assert set(given["inputs"]["required"]) <= set(names) - {"tower"}
    assert [field["id"] for field in fields if field.get("secret")] == ["token", "client_key"]

    injectors = given["injectors"]
    assert injectors.keys() <= {"file", "env", "extra_vars"}
    assert all(re.fullmatch(r"template(\.[a-zA-Z_]+[a-zA-Z0-9_]*)?", name) for name in injectors["file"])
    files = SimpleNamespace(**{name.removeprefix("template."): "EXAMPLE_FILENAME" for name in injectors["file"]})
    namespace = {**dict.fromkeys(names, "EXAMPLE"), "tower": SimpleNamespace(filename=files)}
    for template in (*injectors["file"].values(), *injectors["env"].values()):
        ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(template).render(namespace)


def test_a_credential_is_what_the_consul_command_is_told(applied: Applied, tmp_path: Path) -> None:
    injectors = applied.one("awx.awx.credential_type")["injectors"]
    inputs = applied.one("awx.awx.credential")["inputs"]
    told = inject(injectors, inputs, tmp_path)
    assert {name: told.pop(name) for name in CONSUL} == CONSUL
    # Ansible's lookup takes the last line's end off, as AWX's form would.
    assert {name: Path(file).read_text() for name, file in told.items()} == {
        name: f"what {name} says" for name in FILES
    }

    only = inject(injectors, {"address": "http://127.0.0.1:8500", "token": ""}, tmp_path)
    assert {name for name, value in only.items() if value} == {"CONSUL_HTTP_ADDR"}


def test_the_templates_run_the_project_s_playbooks_one_at_a_time(applied: Applied) -> None:
    templates = applied.all("awx.awx.job_template")
    credential = applied.one("awx.awx.credential")["name"]
    for template in templates:
        assert (PROJECT / template["playbook"]).is_file(), template["playbook"]
        assert template["project"] == applied.one("awx.awx.project")["name"]
        assert template["inventory"] == applied.one("awx.awx.inventory")["name"]
        assert credential in template["credentials"]
        assert (template["allow_simultaneous"], template["job_slice_count"]) == (False, 1)
        assert template["ask_limit_on_launch"] is False
    started = {"rollout", "rollback", "restart", "reboot", "control", "status", "recover", "request", "verdict"}
    assert {template["playbook"] for template in templates} == {f"{name}.yml" for name in started}
    source = applied.one("awx.awx.inventory_source")
    assert (PROJECT / source["source_path"]).is_file()
    assert (source["credential"], source["update_on_launch"], source["overwrite"]) == (credential, True, True)


def test_the_surveys_are_ones_and_ask_for_options(applied: Applied) -> None:
    """By JobTemplateSurveySpec._validate_spec_data in AWX's api/views."""
    options = {option.variable: option for option in OPTIONS}
    asked = {}
    for template in (*applied.all("awx.awx.job_template"), *applied.all("awx.awx.workflow_job_template")):
        assert template["survey_enabled"] is ("survey_spec" in template)
        if "survey_spec" not in template:
            continue
        survey = template["survey_spec"]
        assert (survey["name"], survey["description"]) == ("", "")
        for question in survey["spec"]:
            assert {"type", "question_name", "variable", "required"} <= question.keys()
            assert type(question["required"]) is bool
            assert question["variable"] in {*options, "control_action", "control_reason", "control_until"}
            assert question["type"] in {"text", "multiplechoice"}, "a version or a batch size of 1.10 is text"
            assert all(isinstance(question[bound], int) for bound in ("min", "max") if bound in question)
            if question["type"] == "multiplechoice":
                assert question["default"] in question["choices"]
        asked[template["name"]] = [question["variable"].removeprefix("rollout_") for question in survey["spec"]]
    rollout = ["service", "version", "batch_size", "message"]
    assert asked == {
        "Hitless: rollout": rollout,
        "Hitless: restart": ["service", "batch_size", "message"],
        "Hitless: reboot": ["service", "batch_size", "message"],
        "Hitless: rollback": ["service", "rollback_deployment", "version", "batch_size", "message"],
        "Hitless: status": ["service"],
        "Hitless: recover": ["service"],
        "Hitless: request": ["service"],
        "Hitless: canary": ["service", "version", "message"],
        "Hitless: control": ["service", "control_action", "control_reason", "control_until"],
        "Hitless: rollout, recovered where it fails": rollout,
        "Hitless: canary, approval, rollout": ["service", "version", "message"],
    }


def test_a_rulebook_may_set_variables_of_what_it_launches(applied: Applied) -> None:
    """AWX drops those that neither a survey nor the template asks for."""
    asked = {
        template["playbook"] for template in applied.all("awx.awx.job_template") if template["ask_variables_on_launch"]
    }
    assert asked == {"request.yml", "recover.yml"}


def nodes_of(applied: Applied, workflow: str) -> dict[str, dict[str, Any]]:
    """The nodes of a workflow by their identifiers; each is linked to nodes that were made before it."""
    made: dict[str, dict[str, Any]] = {}
    for node in applied.all("awx.awx.workflow_job_template_node"):
        if node["workflow_job_template"] == workflow:
            linked = {*node["success_nodes"], *node["failure_nodes"], *node["always_nodes"]}
            assert linked <= made.keys(), "a node is linked to those that are there"
            made[node["identifier"]] = node
    return made


def test_the_workflow_recovers_where_the_rollout_fails(applied: Applied) -> None:
    templates = {template["name"]: template["playbook"] for template in applied.all("awx.awx.job_template")}
    nodes = nodes_of(applied, "Hitless: rollout, recovered where it fails").values()
    links = {templates[node["unified_job_template"]]: (node["failure_nodes"], node["always_nodes"]) for node in nodes}
    assert links == {
        "rollout.yml": (["recover"], []),
        "recover.yml": ([], ["verdict"]),
        "verdict.yml": ([], []),
    }


def test_the_workflow_of_a_canary_waits_for_a_person(applied: Applied) -> None:
    nodes = nodes_of(applied, "Hitless: canary, approval, rollout")
    templates = {template["name"]: template for template in applied.all("awx.awx.job_template")}
    canary = templates["Hitless: canary"]
    assert canary["extra_vars"] == {"rollout_batch_size": [1, "100%"], "rollout_pause_after": [1]}
    assert {name: (node["success_nodes"], node["failure_nodes"]) for name, node in nodes.items()} == {
        "canary": (["approval"], []),
        "approval": (["promote"], ["undo"]),
        "promote": (["others"], []),
        "others": ([], []),
        "undo": ([], []),
    }
    started = {name: node.get("unified_job_template") for name, node in nodes.items()}
    assert started["canary"] == started["others"] == canary["name"], "the same start goes on"
    assert templates[started["undo"]]["playbook"] == "rollback.yml"
    assert templates[started["promote"]]["playbook"] == "control.yml"
    asked = [question["variable"] for question in templates[started["promote"]]["survey_spec"]["spec"]]
    assert nodes["promote"]["extra_data"].keys() <= set(asked), "AWX drops what is not asked for"
    assert nodes["approval"]["approval_node"]["name"] == "Promote the canary"
