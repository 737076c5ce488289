"""The role deploy_agent on a machine: what it installs deploys, and what cannot work is refused."""

from __future__ import annotations

import getpass
import json
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_protocol import DONE, Request
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from lab.testkit.ansible_run import Ansible, Result, flat
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import Services, assignment, started

PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  roles:
    - hitless.consul.deploy_agent
"""
TOKEN = "5ecrec7e-7aa5-4b6f-9c1d-7aa5ecrec7e1"


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    yield from started(CONSUL)


def install(ansible: Ansible, folder: Path, service: str, command: object, **more: object) -> Result:
    """Into a folder instead of the whole machine."""
    places = ("program", "config", "state", "unit", "consul_config")
    for place in places:
        (folder / place).mkdir(parents=True, exist_ok=True)
    variables = {
        "deploy_agent_services": [{"service": service, "command": command}],
        "deploy_agent_user": getpass.getuser(),
        "deploy_agent_python": sys.executable,
        "deploy_agent_start": False,
        **{f"deploy_agent_{place}_directory": str(folder / place) for place in places},
        **more,
    }
    (folder / "site.yml").write_text(PLAYBOOK, encoding="utf-8")
    # How modules get there is no matter of the role.
    return ansible.playbook(folder / "site.yml", "-e", json.dumps(variables), env={"ANSIBLE_PIPELINING": "1"})


def of_unit(folder: Path, name: str, setting: str) -> list[str]:
    lines = (folder / "unit" / f"hitless-deploy-{name}.service").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(f"{setting}=") for line in lines if line.startswith(f"{setting}=")]


@pytest.mark.slow
@pytest.mark.oldest
def test_what_it_installs_deploys(ansible: Ansible, consul: Server, tmp_path: Path) -> None:
    web = Services(consul)
    web.register()
    node = {"deploy_agent_node": web.node, "deploy_agent_consul_url": consul.url, "deploy_agent_token": TOKEN}
    done = install(ansible, tmp_path, web.name, f'echo "$DEPLOY_VERSION" > {tmp_path}/deployed', **node)
    assert done.rc == 0, done.output
    assert TOKEN not in done.output
    secrets = [tmp_path / "config" / f"{web.name}.{kind}" for kind in ("token", "json")]
    assert [stat.S_IMODE(file.stat().st_mode) for file in secrets] == [0o400, 0o400]
    secrets[0].chmod(0o600)
    secrets[0].write_text("", encoding="utf-8")  # this Consul knows no tokens
    keys = Keys(web.name)
    asked = assignment("2.0.0", drain_time=0, min_healthy_time=0, check_interval=0)
    request = Request(web.client(), keys, web.node, asked, web.session(keys.lock))
    request.submit()
    (start,) = of_unit(tmp_path, web.name, "ExecStart")
    with subprocess.Popen(shlex.split(start)) as agent:
        try:
            assert request.follow(30).state == DONE
        finally:
            agent.kill()
    assert (tmp_path / "deployed").read_text(encoding="utf-8") == "2.0.0\n"
    again = install(ansible, tmp_path, web.name, f'echo "$DEPLOY_VERSION" > {tmp_path}/deployed', **node)
    assert again.recap["localhost"]["changed"] == 1, f"the token was changed by hand, and nothing else: {again.output}"


@pytest.mark.slow
def test_the_watches_of_a_consul_agent_are_valid_and_units_run_consul(
    ansible: Ansible, consul: Server, tmp_path: Path
) -> None:
    done = install(ansible, tmp_path, "web", ["true"], deploy_agent_watch="agent", deploy_agent_event=True)
    assert done.rc == 0, done.output
    (tmp_path / "consul_config" / "agent.json").write_text('{"data_dir": "/tmp"}', encoding="utf-8")
    checked = subprocess.run(
        [consul.binary, "validate", tmp_path / "consul_config"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = install(ansible, tmp_path, "web", ["true"], deploy_agent_watch="consul", deploy_agent_token=TOKEN)
    assert done.rc == 0, done.output
    (start,) = of_unit(tmp_path, "web", "ExecStart")
    assert "watch -shell=false -type=key -key=nodes/localhost/deployment/web/new" in start
    assert f"CONSUL_HTTP_TOKEN_FILE={tmp_path}/config/web.token" in of_unit(tmp_path, "web", "Environment")
    assert TOKEN not in (tmp_path / "unit" / "hitless-deploy-web.service").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's own check of units")
@pytest.mark.parametrize("watch", ["unit", "consul"])
def test_systemd_understands_its_units(ansible: Ansible, consul: Server, tmp_path: Path, watch: str) -> None:
    more = {"deploy_agent_watch": watch, "deploy_agent_consul_command": str(consul.binary)}
    assert install(ansible, tmp_path, "web", ["true"], deploy_agent_event=True, **more).rc == 0
    units = sorted((tmp_path / "unit").iterdir())
    assert [unit.name for unit in units] == ["hitless-deploy-web-event.service", "hitless-deploy-web.service"]
    verified = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert verified.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service", "command", "said"),
    [
        ("we b", "true", "must be a name"),
        ("web", [], "command must be a list"),
    ],
)
def test_what_cannot_work_is_refused(
    ansible: Ansible, tmp_path: Path, service: str, command: object, said: str
) -> None:
    done = install(ansible, tmp_path, service, command)
    assert done.rc != 0
    assert said in flat(done.output)
    assert not list((tmp_path / "unit").iterdir())
