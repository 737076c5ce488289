"""The files of examples/inventory as they stand, with Ansible's programs, against a real Consul."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.testkit import link_tree
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.test_inventory import plain

BIN = Path(sys.executable).parent
TOOLS = link_tree.CHECKOUT / ".venv-tools" / "bin"

pytestmark = [pytest.mark.oldest, pytest.mark.commands]


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    """Three machines of web: web-1 and web-3 in zone a, web-3 on the old version and in maintenance."""
    server = Server(CONSUL, 131)
    try:
        server.start()
        made = {"web-1": "canary,eu", "web-2": "eu"}
        for number, zone, version in ((1, "a", "1.4.2"), (2, "b", "1.4.2"), (3, "a", "1.4.1")):
            node = f"web-{number}"
            check = {"Node": node, "CheckID": "service:web", "Name": "http", "ServiceID": "web", "Status": "passing"}
            maintenance = {
                **check, "CheckID": "_service_maintenance:web", "Name": "Service Maintenance Mode", "Status": "critical"
            }  # fmt: skip
            server.put(
                "catalog/register",
                {
                    "Node": node,
                    "Address": f"10.0.0.{number}",
                    "NodeMeta": {"zone": zone, **({"groups": made[node]} if node in made else {})},
                    "Service": {"ID": "web", "Service": "web", "Tags": ["prod"], "Meta": {"version": version}},
                    "Checks": [check, maintenance] if number == 3 else [check],
                },
            )
            server.put(f"kv/nodes/{node}/deployment/web/version", version.encode())
        ssh = {"ID": "ssh", "Service": "ssh", "Port": 2222}
        server.put("catalog/register", {"Node": "web-1", "Address": "10.0.0.1", "Service": ssh, "SkipNodeUpdate": True})
        yield server
    finally:
        server.close()


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    return Path(shutil.copytree(link_tree.CHECKOUT / "examples" / "inventory", tmp_path / "inventory"))


def run(consul: Server, examples: Path, *command: str, tools: Path = BIN) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(examples),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(link_tree.COLLECTIONS),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "CONSUL_HTTP_ADDR": consul.url,
    }
    program = tools / command[0]
    done = subprocess.run(
        [program, *command[1:]], env=environment, cwd=examples, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def groups(listed: dict[str, Any]) -> dict[str, list[str]]:
    return {name: sorted(group["hosts"]) for name, group in listed.items() if group.get("hosts")}


IN_GROUPS = {
    "service_web": ["web-1", "web-2", "web-3"],
    "meta_zone_a": ["web-1", "web-3"],
    "meta_zone_b": ["web-2"],
    "status_passing": ["web-1", "web-2"],
    "status_maintenance": ["web-3"],
    "tag_prod": ["web-1", "web-2", "web-3"],
    "version_1_4_2": ["web-1", "web-2"],
    "version_1_4_1": ["web-3"],
}


def test_by_zone_version_health_and_tag(consul: Server, examples: Path) -> None:
    asked = plain(json.loads(run(consul, examples, "ansible-inventory", "-i", "web.consul.yml", "--list").stdout))
    found = groups(asked)
    assert {name: found.get(name) for name in IN_GROUPS} == IN_GROUPS
    assert list((examples / ".cache" / "ansible-inventory").iterdir()), "nothing was cached"
    hosts = run(
        consul, examples, "ansible", "-i", "web.consul.yml", "meta_zone_a:!status_maintenance", "--list-hosts"
    ).stdout
    assert hosts.split() == ["hosts", "(1):", "web-1"]


def test_groups_names_and_variables_that_consul_io_py_made(consul: Server, examples: Path) -> None:
    """As the script printed them for these machines; but web-3 was available to it, by the last of its checks."""
    source = "like-consul-io.consul.yml"
    asked = plain(json.loads(run(consul, examples, "ansible-inventory", "-i", source, "--list").stdout))
    found = groups(asked)
    everybody = ["web-1", "web-2", "web-3"]
    expected = {"web": everybody, "web_prod": everybody, "ssh": ["web-1"]}
    expected |= {"web_available": ["web-1", "web-2"], "web_unavailable": ["web-3"]}
    assert {name: found.get(name) for name in expected} == expected
    assert set(everybody) < set(found["dc1"])
    of_web_1 = asked["_meta"]["hostvars"]["web-1"]
    said = {
        name: of_web_1[name] for name in ("consul_datacenter", "consul_nodename", "consul_web_tags", "ansible_port")
    }
    assert {**said, "ansible_port": int(said["ansible_port"])} == {
        "consul_datacenter": "dc1", "consul_nodename": "web-1", "consul_web_tags": ["prod"], "ansible_port": 2222
    }  # fmt: skip
    assert sorted(of_web_1["consul_services"]) == ["ssh", "web"]
    assert "ansible_host" not in of_web_1


def test_what_consul_io_py_had_in_kv_and_in_names(consul: Server, examples: Path) -> None:
    """The expressions of docs/moving-from-consul-io.md."""
    (examples / "moved.consul.yml").write_text(
        """plugin: hitless.consul.catalog
services: [web]
connect_with: []
compose:
  ansible_host: consul_node ~ '.node.' ~ consul_datacenter ~ '.consul'
groups:
  web_servers: "'web' in consul_services"
keyed_groups:
  - key: consul_node_meta.groups | default('') | split(',') | select
    prefix: ""
    separator: ""
""",
        encoding="utf-8",
    )
    asked = plain(json.loads(run(consul, examples, "ansible-inventory", "-i", "moved.consul.yml", "--list").stdout))
    found = groups(asked)
    assert (found["canary"], found["eu"]) == (["web-1"], ["web-1", "web-2"])
    assert found["web_servers"] == ["web-1", "web-2", "web-3"]
    assert asked["_meta"]["hostvars"]["web-1"]["ansible_host"] == "web-1.node.dc1.consul"


def test_merged_with_a_static_list_and_groups_of_both(consul: Server, examples: Path) -> None:
    listed = run(consul, examples, "ansible-inventory", "-i", "merged", "--list", "--export")
    found = plain(json.loads(listed.stdout))
    assert groups(found)["rack_12_serving"] == ["web-1", "web-2"]
    assert "not_in_consul" not in groups(found)
    of_web_1 = found["_meta"]["hostvars"]["web-1"]
    assert (of_web_1["power_unit"], of_web_1["consul_node_meta"]["zone"]) == ("pdu-7", "a")
    assert "web-3" not in groups(found)["rack_12"]


def test_work_on_those_behind_and_on_those_that_serve_nobody(consul: Server, examples: Path) -> None:
    # No discovery: it may find the shim of a version manager, which does not run here.
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    play = ("ansible-playbook", "-i", "web.consul.yml", "-e", json.dumps(local))
    behind = run(consul, examples, *play, "by-version.yml", "-e", "wanted=1.4.2").stdout
    assert "web-3 in zone a runs 1.4.1" in behind
    assert "web-1 in zone" not in behind
    mark = examples / "patched"
    command = json.dumps({"patch_command": f"touch {mark}-{{{{ consul_node }}}}"})
    run(consul, examples, *play, "patch-out-of-rotation.yml", "--flush-cache", "-e", command)
    assert [path.name for path in examples.glob("patched-*")] == ["patched-web-3"]


@pytest.mark.slow
@pytest.mark.skipif(not (TOOLS / "ansible-navigator").exists(), reason="make setup-tools")
def test_the_navigator_s_command_lines(consul: Server, examples: Path) -> None:
    def navigator(*arguments: str) -> str:
        outside = ("--mode", "stdout", "--ee", "false", "--lf", str(examples / "navigator.log"))
        return run(consul, examples, "ansible-navigator", *arguments, *outside, tools=TOOLS).stdout

    asked = plain(json.loads(navigator("inventory", "-i", "web.consul.yml", "--list")))
    assert {name: groups(asked).get(name) for name in IN_GROUPS} == IN_GROUPS
    local = ("-e", "ansible_connection=local", "-e", "wanted=1.4.2")
    assert "web-3 in zone a runs 1.4.1" in navigator("run", "by-version.yml", "-i", "web.consul.yml", *local)
