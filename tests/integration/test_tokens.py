"""Tokens as people keep them in files of variables; whole playbooks on a real Consul."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import kv_delete
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import paused
from ansible_collections.hitless.consul.plugins.module_utils._rollout.history import read_history
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run
from lab.testkit import link_tree
from lab.testkit.ansible_run import Ansible
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server

TOKEN = "7f3c1d9e-1111-2222-3333-5e5e5e5e5e5e"
PLAY = """\
- hosts: web1
  gather_facts: false
  tasks:
    - hitless.consul.maintenance:
        service: web
        state: "{{ item }}"
      loop: [enabled, disabled]
"""


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    server = Server(CONSUL, 24, token=TOKEN)
    try:
        server.start()
        # A newer agent ends a maintenance in the catalog with its own token.
        server.put("agent/token/agent", {"Token": TOKEN})
        server.put("agent/service/register", {"Name": "web"})
        yield server
    finally:
        server.close()


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Ansible(link_tree.COLLECTIONS, home, tmp_path / "logs")


def vaulted(text: str) -> str:
    secret = VaultSecret(b"secret")
    encrypted = VaultLib([("default", secret)]).encrypt(text, secret).decode()
    return "!vault |\n" + textwrap.indent(encrypted, "  ")


def run(ansible: Ansible, consul: Server, folder: Path, via: str, tokens: dict[str, str]) -> tuple[int, str]:
    (folder / "group_vars").mkdir()
    (folder / "password").write_text("secret")
    (folder / "site.yml").write_text(PLAY)
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": '"{{ ansible_playbook_python }}"',
        "consul_node": consul.node,
        "hitless_consul_url": consul.url,
        "hitless_consul_agent_url": consul.url,
        "hitless_consul_via": via,
        **tokens,
    }
    lines = [f"{name}: {value}" for name, value in variables.items()]
    (folder / "group_vars" / "all.yml").write_text("\n".join(lines) + "\n")
    result = ansible.playbook(
        "-i", "web1,", "--vault-password-file", folder / "password", folder / "site.yml", cwd=folder
    )
    return result.rc, result.output


@pytest.mark.oldest
@pytest.mark.parametrize(
    ("kept", "via"),
    [
        ("with a line's end", "host"),
        ("vaulted", "controller"),
        ("vaulted with a line's end", "host"),
        pytest.param("with a line's end", "controller", marks=pytest.mark.slow),
        pytest.param("vaulted", "host", marks=pytest.mark.slow),
        pytest.param("vaulted with a line's end", "controller", marks=pytest.mark.slow),
    ],
)
def test_a_token_as_it_is_kept(ansible: Ansible, consul: Server, tmp_path: Path, kept: str, via: str) -> None:
    text = f"{TOKEN}\n" if "end" in kept else TOKEN
    value = vaulted(text) if "vaulted" in kept else f"|\n  {TOKEN}"
    tokens = {"hitless_consul_token": value, "hitless_consul_agent_token": value}
    rc, output = run(ansible, consul, tmp_path, via, tokens)
    assert rc == 0, output
    assert TOKEN not in output


@pytest.mark.oldest
@pytest.mark.parametrize("via", ["controller", "host"])
@pytest.mark.parametrize("option", ["hitless_consul_token", "hitless_consul_agent_token"])
def test_one_that_cannot_be_sent_is_not_shown(
    ansible: Ansible, consul: Server, tmp_path: Path, via: str, option: str
) -> None:
    tokens = {"hitless_consul_token": TOKEN, option: f"|\n  {TOKEN}\n  another-line"}
    rc, output = run(ansible, consul, tmp_path, via, tokens)
    assert rc == 2, output
    assert "The ACL token cannot be sent" in output
    assert TOKEN not in output
    assert "another-line" not in output


@pytest.mark.oldest
def test_a_freeze_of_all_that_may_not_be_read_is_no_silence(consul: Server) -> None:
    """Consul leaves it out of a transaction's answer without a word; a rollback is not bound to it."""
    keys = Keys("web")
    rules = 'key_prefix "deploy/web/" { policy = "write" } session_prefix "" { policy = "write" }'
    policy = consul.put("acl/policy", {"Name": "poor", "Rules": rules})["ID"]
    token = consul.put("acl/token", {"Policies": [{"ID": policy}]})["SecretID"]
    task = Task({}, {"url": consul.url, "token": token}, Host(None))
    run = Run("id", {**DEFAULTS, "service": "web", "version": "2"})
    back = replace(run, options={**run.options, "direction": "rollback"})
    consul.put(f"kv/{keys.freeze_all}", "holidays")
    with pytest.raises(HitlessError, match="The token may not read deploy/freeze.*nothing was changed"):
        paused.look(task, run, read_history(task.consul, keys))
    assert paused.look(task, back, read_history(task.consul, keys)).does == paused.BEGIN
    readable = f'{rules} key "{keys.freeze_all}" {{ policy = "read" }}'
    policy = consul.put("acl/policy", {"Name": "as-the-README-has-it", "Rules": readable})["ID"]
    reads = consul.put("acl/token", {"Policies": [{"ID": policy}]})["SecretID"]
    for enough in (reads, TOKEN):
        allowed = replace(task, options={"url": consul.url, "token": enough})
        with pytest.raises(HitlessError, match="rollouts are frozen"):
            paused.look(allowed, run, read_history(allowed.consul, keys))
    Task({}, {"url": consul.url, "token": TOKEN}, Host(None)).consul.txn([kv_delete(keys.freeze_all)])
    with pytest.raises(HitlessError, match="The token may not read deploy/freeze.*nothing was changed"):
        paused.look(task, run, read_history(task.consul, keys))
    for enough in (reads, TOKEN):
        allowed = replace(task, options={"url": consul.url, "token": enough})
        assert paused.look(allowed, run, read_history(allowed.consul, keys)).does == paused.BEGIN
