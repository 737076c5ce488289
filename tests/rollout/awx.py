"""Jobs as AWX runs them: ansible-runner in an execution environment, over a private data directory.

What AWX does, and is done here: an inventory source is read by ``ansible-inventory --export`` with what the credential
type of examples/awx injects, and nothing else (:meth:`Awx.sync`), kept, and given to each job as a script; the answers
of a survey, what an earlier node of a workflow handed on, and the job's own variables are extra variables, text marked
unsafe; the SSH key of the machine credential is handed to an agent; the working folder is the project. And the user is
not root, the project cannot be written, there is no home folder.

An execution environment is a container. What matters of one is that it dies as a whole: a process namespace does so.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab import Lab
from lab.testkit.ansible_run import BIN, Ansible, Run, environment
from tests.awx_credential import inject

EXAMPLES = Path("ansible_collections/hitless/consul/examples")
ADDRESS = "https://awx.example.com"
IS_ROOT = os.geteuid() == 0
# It may read everything, since the interpreter can lie in the home of the user who runs the tests, and write nothing.
# As in a container that forbids new privileges; they would otherwise be lost at ssh-agent, which is setgid.
AS_NOBODY = [
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
]
CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc"]
NO_HOME = Path("/nonexistent")


class _Unsafe(str):
    """Text that AWX did not write itself: no template of it is ever evaluated."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Unsafe, lambda dumper, data: dumper.represent_scalar("!unsafe", str(data)))


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


@dataclass(frozen=True)
class JobResult:
    """What AWX knows of a job afterwards."""

    status: str
    rc: int
    stdout: str
    events: list[dict[str, Any]]

    @property
    def artifacts(self) -> dict[str, Any]:
        """What set_stats has left for the next node of a workflow."""
        ends = [event["event_data"] for event in self.events if event["event"] == "playbook_on_stats"]
        return dict(ends[-1].get("artifact_data", {})) if ends else {}

    @property
    def failed_hosts(self) -> set[str]:
        """The hosts that the job's view shows red."""
        return {event["event_data"]["host"] for event in self.events if event["event"] == "runner_on_failed"}


class Job:
    """One job under way."""

    def __init__(self, run: Run, folder: Path, in_container: bool) -> None:
        self._run = run
        self._folder = folder
        self._in_container = in_container

    def cancel(self) -> None:
        """As ansible-runner does it: it kills the process group of ansible-playbook, and ends."""
        self._run.send(signal.SIGTERM)

    def destroy(self) -> None:
        """As AWX does it: the container is gone, and everything in it."""
        assert self._in_container
        unshare = self._run.process.pid
        (first,) = Path(f"/proc/{unshare}/task/{unshare}/children").read_text(encoding="utf-8").split()
        os.kill(int(first), signal.SIGKILL)

    def wait(self) -> JobResult:
        """Its end, however that came."""
        ended = self._run.wait()
        events = [
            json.loads(file.read_text(encoding="utf-8"))
            for file in sorted((self._folder / "job_events").glob("[0-9]*.json"), key=_number)
        ]
        status = self._folder / "status"
        return JobResult(
            status.read_text(encoding="utf-8") if status.exists() else "gone",
            ended.rc,
            "\n".join(event["stdout"] for event in events),
            events,
        )

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_error: object) -> None:
        self._run.close()


class Awx:
    """An AWX with the example project and the lab; ``variables`` are those of its job templates."""

    def __init__(self, ansible: Ansible, lab: Lab, folder: Path) -> None:
        self._ansible, self._lab, self._folder = ansible, lab, folder
        self._jobs = 0
        folder.chmod(0o755)
        self.project = folder / "project"
        shutil.copytree(ansible.collections / EXAMPLES / "project", self.project)
        (self.project / "lab.yml").rename(folder / "lab.yml")
        self.variables: dict[str, Any] = yaml.safe_load((folder / "lab.yml").read_text(encoding="utf-8"))
        for path in (self.project, *self.project.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        configuration = (ansible.collections / EXAMPLES / "awx" / "configuration.yml").read_text(encoding="utf-8")
        self._configuration = yaml.load(configuration, _Loader)
        self.inventory: dict[str, Any] = {}

    def template(self, playbook: str) -> dict[str, Any]:
        """The job template of examples/awx that runs it."""
        (found,) = [one for one in self._configuration["job_templates"] if one["playbook"] == playbook]
        return dict(found)

    def named(self, template: str) -> dict[str, Any]:
        """The job template of examples/awx of that name."""
        (found,) = [one for one in self._configuration["job_templates"] if one["name"] == template]
        return dict(found)

    def nodes(self, workflow: str) -> dict[str, dict[str, Any]]:
        """The nodes of a workflow of examples/awx by their identifiers."""
        (found,) = [one for one in self._configuration["workflows"] if one["name"] == workflow]
        return {node["identifier"]: dict(node) for node in found["nodes"]}

    def sync(self) -> None:
        """Read the inventory source, as an inventory update does, into what AWX would keep in its database."""
        command = [BIN / "ansible-inventory", "--list", "--export", "-i", self.project / "inventory" / "web.consul.yml"]
        folder = self._private_folder("inventory")
        env = environment(self._ansible.collections, NO_HOME, self._given(folder))
        self._hand_over(folder)
        done = subprocess.run(
            [*self._as_user(container=True), *map(str, command)],
            env=env,
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        self.inventory = json.loads(done.stdout)

    def launch(
        self,
        playbook: str,
        survey: Mapping[str, Any],
        *,
        container: bool = IS_ROOT,
        limit: str = "",
        user: str = "anna",
        variables: Mapping[str, Any] | None = None,
    ) -> Job:
        """Launch a job template; ``survey`` may hold the artifacts of a workflow's earlier node as well."""
        self._jobs += 1
        number = 40 + self._jobs
        folder = self._private_folder(str(number))
        self._write_inventory(folder)
        said = {
            "job_id": number,
            "job_launch_type": "manual",
            "user_name": user,
            "job_template_name": f"web: {playbook}",
        }
        extra = {
            **self.variables,
            **(variables or {}),
            **{f"{name}_{key}": _unsafe(value) for name in ("awx", "tower") for key, value in said.items()},
            **{name: _unsafe(value) for name, value in survey.items()},
        }
        env = folder / "env"
        env.mkdir()
        (env / "extravars").write_text(yaml.dump(extra, Dumper=_Dumper), encoding="utf-8")
        (env / "envvars").write_text(yaml.safe_dump(self._job_environment(folder, number)), encoding="utf-8")
        (env / "cmdline").write_text(
            "-u " + _lab_user(self._lab) + (f" --limit {limit}" if limit else ""), encoding="utf-8"
        )
        shutil.copy(self._lab.directory / "ssh" / "key", env / "ssh_key")
        self._hand_over(folder)
        command = [
            BIN / "ansible-runner",
            "run",
            folder,
            "--project-dir",
            self.project,
            "-p",
            f"{playbook}.yml",
            "-i",
            number,
        ]
        run = Run(
            [*self._as_user(container), *map(str, command)],
            environment(self._ansible.collections, NO_HOME),
            folder,
            self._ansible.logs,
        )
        return Job(run, folder / "artifacts" / str(number), container)

    def job(self, playbook: str, survey: Mapping[str, Any], **options: Any) -> JobResult:
        """Launch a job template, and wait for the job's end."""
        with self.launch(playbook, survey, **options) as job:
            return job.wait()

    # -- the parts of a job ----------------------------------------------------------------------------------------

    def _private_folder(self, name: str) -> Path:
        folder = self._folder / name
        (folder / "home").mkdir(parents=True)
        return folder

    def _hand_over(self, folder: Path) -> None:
        """To the user of the job."""
        if IS_ROOT:
            subprocess.run(["chown", "-R", "nobody:nogroup", str(folder)], check=True)

    def _as_user(self, container: bool) -> list[str]:
        if not IS_ROOT:
            return []
        return [*CONTAINER, *AS_NOBODY] if container else AS_NOBODY

    def _given(self, folder: Path) -> dict[str, str]:
        """What is the same for all: the credential of Consul, and the folder that Ansible itself has to write to."""
        lab = self._lab.environment
        inputs = {"address": lab["CONSUL_HTTP_ADDR"], "token": lab.get("CONSUL_HTTP_TOKEN", "")}
        if self._lab.certificate is not None:
            inputs["ca_certificate"] = self._lab.certificate.ca.read_text(encoding="utf-8")
            inputs["client_certificate"] = self._lab.certificate.certificate.read_text(encoding="utf-8")
            inputs["client_key"] = self._lab.certificate.key.read_text(encoding="utf-8")
        credential = folder / "credential"
        credential.mkdir()
        told = inject(self._configuration["credential_type"]["injectors"], inputs, credential)
        # The one variable that is the lab's and no credential's: its lab.yml reads it.
        return {**told, "HITLESS_LAB": lab["HITLESS_LAB"], "ANSIBLE_HOME": str(folder / "home")}

    def _job_environment(self, folder: Path, number: int) -> dict[str, str]:
        given = {
            "AWX_HOST": ADDRESS,
            "JOB_ID": str(number),
            "ANSIBLE_FORCE_COLOR": "True",
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
        }
        (folder / "cp").mkdir()
        ours = environment(self._ansible.collections, NO_HOME, self._given(folder))
        del ours["ANSIBLE_NOCOLOR"]
        return {**ours, **given}

    def _write_inventory(self, folder: Path) -> None:
        """The script that prints what AWX has in its database; AWX adds its own variables to each host."""
        data = json.loads(json.dumps(self.inventory))
        for number, host in enumerate(data["_meta"]["hostvars"].values()):
            host.update(remote_tower_enabled="true", remote_tower_id=number)
        script = folder / "inventory" / "hosts"
        script.parent.mkdir()
        script.write_text(
            f"#! /usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint({json.dumps(data)!r})\n", encoding="utf-8"
        )
        script.chmod(0o700)


def _unsafe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _unsafe(each) for name, each in value.items()}
    return _Unsafe(value) if isinstance(value, str) else value


def _lab_user(lab: Lab) -> str:
    return (lab.directory / "ssh" / "config").read_text(encoding="utf-8").partition("User ")[2].split()[0]


def _number(file: Path) -> int:
    return int(file.name.partition("-")[0])
