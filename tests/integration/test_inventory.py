"""The inventory as people use it: ansible-inventory and playbooks against a real Consul."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.agents import Authority
from lab.testkit import link_tree
from lab.testkit.ansible_run import flat
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server

pytestmark = pytest.mark.commands

BIN = Path(sys.executable).parent
EVIL = "{{ lookup('pipe','touch MARK') }}"


def register(server: Server, number: int, **changes: Any) -> None:
    """A node with one instance of web, as an agent registers it; no agent is needed for that."""
    name = f"web-{number}"
    body: dict[str, Any] = {
        "Node": name,
        "Address": f"10.0.0.{number}",
        "TaggedAddresses": {"lan": f"10.0.0.{number}", "wan": f"192.0.2.{number}"},
        "NodeMeta": {"rack": "ab"[number % 2], "fqdn": f"{name}.example.com"},
        "Service": {"ID": "web-one", "Service": "web", "Port": 8080, "Tags": ["prod"], "Meta": {"version": "1.0"}},
        "Check": {"Node": name, "CheckID": "service:web", "Name": "http", "ServiceID": "web-one", "Status": "passing"},
    }
    server.put("catalog/register", {**body, **changes})


def set_check(server: Server, node: str, check: str, status: str, service: str = "") -> None:
    server.put(
        "catalog/register",
        {
            "Node": node,
            "Address": "10.0.0.9",
            "SkipNodeUpdate": True,
            "Check": {"Node": node, "CheckID": check, "Name": check, "ServiceID": service, "Status": status},
        },
    )


@dataclass
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything, on one line and without Ansible's line breaks."""
        return flat(self.out + self.err)

    def json(self) -> Any:
        """What was listed; with -v other lines come before it."""
        assert self.code == 0, self.err
        return plain(json.loads(self.out[re.search(r"^\{", self.out, re.MULTILINE).start() :]))


def plain(value: Any) -> Any:
    """Without the mark that ansible-inventory puts on text that is no template."""
    if isinstance(value, dict):
        return value.get("__ansible_unsafe") or {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs one of Ansible's programs on an inventory file with these options."""

    def runs(
        *arguments: str,
        _program: str = "ansible-inventory",
        _env: dict[str, str] | None = None,
        _file: str = "fleet.consul.yml",
        **options: Any,
    ) -> Ran:
        file = tmp_path / _file
        file.write_text(yaml.safe_dump({"plugin": "hitless.consul.catalog", **options}), encoding="utf-8")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_COLLECTIONS_PATH": str(link_tree.COLLECTIONS),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            **(_env or {}),
        }
        done = subprocess.run(
            [BIN / _program, "-i", file, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return runs


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    """Three nodes with an instance of web, and the server itself."""
    server = Server(CONSUL, 31)
    try:
        server.start()
        for number in (1, 2, 3):
            register(server, number)
        yield server
    finally:
        server.close()


@pytest.fixture
def extra(consul: Server) -> Iterator[list[str]]:
    """Names of nodes that a test adds; removed after it."""
    names: list[str] = []
    yield names
    for name in names:
        consul.put("catalog/deregister", {"Node": name})


def members(listed: dict[str, Any], group: str) -> list[str]:
    return sorted(listed.get(group, {}).get("hosts", []))


# -- what it gives --------------------------------------------------------------------------------------------


@pytest.mark.oldest
def test_hosts_variables_and_groups(consul: Server, run: Run) -> None:
    listed = run("--list", "--export", url=consul.url, services=["web"]).json()
    assert listed["_meta"]["hostvars"]["web-1"] == {
        "ansible_host": "10.0.0.1",
        "consul_node": "web-1",
        "consul_datacenter": "dc1",
        "consul_address": "10.0.0.1",
        "consul_node_meta": {"rack": "b", "fqdn": "web-1.example.com"},
        "consul_services": {
            "web": [
                {
                    "id": "web-one",
                    "address": "10.0.0.1",
                    "port": 8080,
                    "tags": ["prod"],
                    "meta": {"version": "1.0"},
                    "status": "passing",
                }
            ]
        },
        "consul_status": "passing",
    }
    groups = {name: members(listed, name) for name in listed if name not in {"_meta", "all"}}
    web = ["web-1", "web-2", "web-3"]
    assert groups == {"service_web": web, "dc_dc1": web}


def test_host_and_graph(consul: Server, run: Run) -> None:
    assert run("--host", "web-2", url=consul.url).json()["consul_node_meta"]["rack"] == "a"
    graph = run("--graph", url=consul.url, group_by_meta=["rack"]).out
    assert re.search(r"@service_web:\n(.*web-\d\n){3}", graph)
    assert re.search(r"@meta_rack_a:\n.*web-2\n", graph)
    assert "server31" in graph


def test_each_status(consul: Server, run: Run, extra: list[str]) -> None:
    for number, (check, status) in enumerate(
        [("service:web", "warning"), ("service:web", "critical"), ("_service_maintenance:web-one", "critical")], 11
    ):
        register(consul, number)
        set_check(consul, f"web-{number}", check, status, "web-one")
        extra.append(f"web-{number}")
    register(consul, 14)
    set_check(consul, "web-14", "_node_maintenance", "critical")
    consul.put("catalog/register", {"Node": "bare", "Address": "10.0.0.8"})
    set_check(consul, "bare", "disk", "warning")
    extra += ["web-14", "bare"]
    listed = run("--list", url=consul.url, group_by_status=True).json()
    assert members(listed, "status_warning") == ["bare", "web-11"]
    assert members(listed, "status_critical") == ["web-12"]
    assert members(listed, "status_maintenance") == ["web-13", "web-14"]
    assert members(listed, "status_passing") == ["server31", "web-1", "web-2", "web-3"]
    assert listed["_meta"]["hostvars"]["web-13"]["consul_services"]["web"][0]["status"] == "maintenance"
    chosen = run("--list", url=consul.url, services=["web"], statuses=["warning", "critical"]).json()
    assert members(chosen, "service_web") == ["web-11", "web-12"]


def test_a_dead_machine_stays_critical_unless_left_out(consul: Server, run: Run, extra: list[str]) -> None:
    """Each minute the leader removes machines that no agent gossips for; then the test looks again."""
    extra.append("web-21")
    for _attempt in range(3):
        register(consul, 21)
        set_check(consul, "web-21", "serfHealth", "critical")
        kept = run("--list", url=consul.url, services=["web"]).json()
        left_out = run("--list", url=consul.url, services=["web"], dead_nodes=False).json()
        if consul.get("catalog/node/web-21"):
            break
    assert kept["_meta"]["hostvars"]["web-21"]["consul_status"] == "critical"
    assert members(left_out, "service_web") == ["web-1", "web-2", "web-3"]


@pytest.mark.oldest
@pytest.mark.parametrize(
    ("options", "hosts"),
    [
        ({"filter": 'Node.Meta.rack == "b" and Service.Meta.version == "1.0"'}, ["web-1", "web-3"]),
        ({"filter": "Service.Tags contains \"{{ ['pr', 'od'] | join }}\""}, ["web-1", "web-2", "web-3"]),
        ({"node_meta": {"rack": "a"}}, ["web-2"]),
        ({"node_meta": {"rack": "a", "fqdn": "web-2.example.com"}, "services": ["web"]}, ["web-2"]),
        ({"tags": ["prod"], "filter": 'Node.Node matches "3$"'}, ["web-3"]),
        ({"tags": ["PROD"], "allow_empty": True}, []),
        ({"services": ["web", "none"], "allow_empty": True}, ["web-1", "web-2", "web-3"]),
    ],
)
def test_selection(consul: Server, run: Run, options: dict[str, Any], hosts: list[str]) -> None:
    listed = run("--list", url=consul.url, **options).json()
    assert sorted(listed["_meta"]["hostvars"]) == hosts


def test_names_and_addresses(consul: Server, run: Run) -> None:
    named = run(
        "--list", url=consul.url, services=["web"], hostnames=["meta:fqdn", "node"], connect_with=["tagged:wan"]
    ).json()["_meta"]["hostvars"]
    assert {name: host["ansible_host"] for name, host in named.items()} == {
        f"web-{number}.example.com": f"192.0.2.{number}" for number in (1, 2, 3)
    }
    by_name = run("--host", "web-1", url=consul.url, connect_with=[]).json()
    assert "ansible_host" not in by_name
    assert by_name["consul_address"] == "10.0.0.1"


@pytest.mark.oldest
def test_expressions(consul: Server, run: Run) -> None:
    listed = run(
        "--list",
        url=consul.url,
        services=["web"],
        strict=True,
        compose={"port": "consul_services.web[0].port", "version": "consul_services.web[0].meta.version"},
        groups={"odd": "consul_node_meta.rack == 'b'"},
        keyed_groups=[{"key": "consul_node_meta.rack", "prefix": "rack"}],
    ).json()
    assert members(listed, "odd") == members(listed, "rack_b") == ["web-1", "web-3"]
    host = listed["_meta"]["hostvars"]["web-1"]
    assert (int(host["port"]), host["version"]) == (8080, "1.0")


def test_the_number_of_requests_does_not_depend_on_the_number_of_nodes(
    consul: Server, run: Run, extra: list[str]
) -> None:
    def requests() -> str:
        found = re.search(r"(\d+) nodes, (\d+) requests", run("--list", "-vv", url=consul.url).said)
        assert found is not None
        return found[2]

    few = requests()
    for number in range(100, 200):
        register(consul, number, Address="10.0.1.1", Check=None)
        extra.append(f"web-{number}")
    assert requests() == few


# -- nothing remote is a template -----------------------------------------------------------------------------

PLAY = """
- hosts: evil
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        all_of_it: "{{ consul_services | dict2items }}"
        one: "{{ consul_node_meta.x }}"
        name_of_service: "{{ consul_services.keys() | first }}"
    - ansible.builtin.debug:
        msg: "{{ all_of_it }} {{ one }} {{ name_of_service }} {{ composed }} {{ copied }} {{ hostvars['evil'] }}"
    - ansible.builtin.debug:
        msg: "{{ groups }}"
    - ansible.builtin.debug:
        msg: never
      when: condition
      ignore_errors: true
    - ansible.builtin.assert:
        that: "{{ consul_node_meta.condition }}"
      ignore_errors: true
"""


@pytest.mark.oldest
@pytest.mark.parametrize("cached", [False, True])
def test_remote_text_is_inert(consul: Server, run: Run, extra: list[str], tmp_path: Path, cached: bool) -> None:
    mark = tmp_path / "made"
    evil = EVIL.replace("MARK", str(mark))
    consul.put(
        "catalog/register",
        {
            "Node": "evil",
            "Address": "10.0.0.66",
            "NodeMeta": {"x": evil, "condition": f"lookup('pipe','touch {mark}')"},
            "Service": {"ID": evil, "Service": "evil {{ lookup('pipe','id') }}", "Tags": [evil], "Meta": {"m": evil}},
        },
    )
    extra.append("evil")
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    options: dict[str, Any] = {
        "url": consul.url,
        "group_by_tags": True,
        "group_by_meta": ["x"],
        "compose": {
            "composed": "consul_node_meta.x ~ '!'",
            "copied": "consul_node_meta.x",
            "condition": "consul_node_meta.condition",
        },
        "keyed_groups": [{"key": "consul_node_meta"}],
    }
    if cached:
        options |= {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "c")}
        assert run("--list", **options).code == 0
    played = run(str(tmp_path / "play.yml"), "-c", "local", _program="ansible-playbook", **options)
    assert played.code == 0, played.said
    assert evil in played.out.replace("\\'", "'").replace('\\"', '"')
    assert not mark.exists()
    assert "uid=" not in played.said


def test_a_node_whose_name_is_a_template_is_refused_by_name_or_skipped(
    consul: Server, run: Run, extra: list[str]
) -> None:
    evil = "{{ lookup('pipe','id') }}"
    consul.put("catalog/register", {"Node": evil, "Address": "10.0.0.66"})
    extra.append(evil)
    refused = run("--list", url=consul.url)
    assert refused.code != 0
    assert evil in refused.said.replace("\\'", "'")
    assert "no name that is safe" in refused.said
    skipped = run("--list", url=consul.url, unusable_nodes="skip")
    assert len(skipped.json()["_meta"]["hostvars"]) == 4
    assert "no name that is safe" in skipped.said
    assert "uid=" not in refused.said + skipped.said


# -- what it refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"services": ["wbe"]}, "knows no node with service wbe, or a request without an ACL token may not read it"),
        ({"services": ["web", "wbe"]}, "knows no instance of wbe"),
        ({"tags": ["none"]}, "knows no node with tags none"),
        ({"service": "web"}, "service is no option of hitless.consul.catalog; did you mean services?"),
        ({"filter": "Service.Nonsense == 1"}, "refused GET /v1/health/service/"),
        ({"hostnames": ["fqdn"]}, "hostnames holds 'fqdn', which is none of node, node_address"),
        ({"statuses": ["critical"]}, "None of the 4 nodes"),
        # Consul says so too while a datacenter cannot be reached, so it is asked for 20 seconds.
        pytest.param({"datacenter": "dc9"}, "No path to datacenter", marks=pytest.mark.slow),
        ({"services": ["web"], "service_prefix": "", "datacenter_prefix": "", "compose": {"a b": "1"}}, "'a b'"),
    ],
)
def test_refusals(consul: Server, run: Run, options: dict[str, Any], sentence: str) -> None:
    done = run("--list", url=consul.url, **options)
    assert done.code != 0
    assert sentence in done.said


def test_groups_that_would_become_one_are_refused(consul: Server, run: Run, extra: list[str]) -> None:
    for number, name in enumerate(("api-v1", "api_v1"), 31):
        register(consul, number, Service={"Service": name}, Check=None)
        extra.append(f"web-{number}")
    done = run("--list", url=consul.url)
    assert done.code != 0
    assert "'service_api_v1' would stand for service 'api_v1' as well as for service 'api-v1'" in done.said
    assert run("--list", url=consul.url, services=["api-v1"]).code == 0


def test_enterprise_namespaces_are_refused(consul: Server, run: Run) -> None:
    done = run("--list", url=consul.url, _env={"CONSUL_NAMESPACE": "team"})
    assert done.code != 0
    assert "CONSUL_NAMESPACE is set" in done.said


def test_no_consul_there(run: Run) -> None:
    done = run("--list", url="http://127.0.31.250:1")
    assert done.code != 0
    assert "No answer from Consul at http://127.0.31.250:1" in done.said


@pytest.mark.oldest
def test_the_library_missing(consul: Server, run: Run, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "consul.py").write_text("raise ImportError('No module named consul')\n", encoding="utf-8")
    done = run("--list", url=consul.url, _env={"PYTHONPATH": str(tmp_path / "shadow")})
    assert done.code != 0
    assert "has no Consul client library" in done.said
    assert "pip install py-consul" in done.said


@pytest.mark.parametrize("name", ["consul.yml", "consul.yaml", "a.consul.yaml"])
def test_file_names_that_are_ours(consul: Server, run: Run, name: str) -> None:
    assert run("--list", url=consul.url, _file=name).code == 0


def test_a_file_of_another_name_is_not_ours(consul: Server, run: Run) -> None:
    done = run("--list", url=consul.url, _file="hosts.yml")
    assert done.code != 0
    assert "could not be verified" in done.said


# -- the way to Consul ----------------------------------------------------------------------------------------


@pytest.mark.oldest
def test_environment_extra_variable_and_template(consul: Server, run: Run) -> None:
    address = consul.url.removeprefix("http://")
    hosts = ["server31", "web-1", "web-2", "web-3"]
    for environment, arguments, options in (
        ({"CONSUL_HTTP_ADDR": address}, [], {}),
        ({"CONSUL_HTTP_ADDR": "127.0.0.1:1"}, ["-e", f"hitless_consul_url={address}"], {}),
        ({"CONSUL_HTTP_ADDR": "127.0.0.1:1", "WHERE": address}, [], {"url": "{{ lookup('env', 'WHERE') }}"}),
    ):
        listed = run("--list", *arguments, _env=environment, **options).json()
        assert sorted(listed["_meta"]["hostvars"]) == hosts


@pytest.mark.oldest
def test_tls_token_and_cache(run: Run, tmp_path: Path) -> None:
    """With certificates and default-deny ACLs; what one token read is not given to another from the cache."""
    openssl = shutil.which("openssl")
    assert openssl is not None
    certificate = Authority(Path(openssl), tmp_path / "ca").issue("server", "127.0.32.32", True)
    management = "00000000-1111-2222-3333-444444444444"
    server = Server(CONSUL, 32, certificate=certificate, token=management)
    try:
        server.start()
        register(server, 1)
        policy = {
            "Name": "inventory",
            "Rules": 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }',
        }
        server.put("acl/policy", policy)
        token = server.put("acl/token", {"Policies": [{"Name": "inventory"}]})["SecretID"]
        options: dict[str, Any] = {
            "url": server.url,
            "services": ["web"],
            "ca_path": str(certificate.ca),
            "client_cert": str(certificate.certificate),
            "client_key": str(certificate.key),
            "cache": True,
            "cache_plugin": "ansible.builtin.jsonfile",
            "cache_connection": str(tmp_path / "cache"),
        }
        (tmp_path / "token").write_text(token, encoding="utf-8")
        anonymous = run("--list", **options)
        assert anonymous.code != 0
        assert "or a request without an ACL token may not read it" in anonymous.said
        first = run("--list", "-vvvv", token="{{ lookup('file', '" + str(tmp_path / "token") + "') }}", **options)
        assert list(first.json()["_meta"]["hostvars"]) == ["web-1"]
        register(server, 2)
        cached = run("--list", token_file=str(tmp_path / "token"), **options)
        assert list(cached.json()["_meta"]["hostvars"]) == ["web-1"]
        play = tmp_path / "all.yml"
        play.write_text("- hosts: all\n  gather_facts: false\n", encoding="utf-8")
        fresh = run(
            *("--list-hosts", "--flush-cache", str(play)),
            _program="ansible-playbook",
            _env={"CONSUL_HTTP_TOKEN": token},
            **options,
        )
        assert sorted(fresh.out.split()[-2:]) == ["web-1", "web-2"], fresh.said
        other = run("--list", token=management, **{**options, "services": []})
        assert "server32" in other.json()["_meta"]["hostvars"]
        again = run("--list", **options)
        assert again.code != 0, "an anonymous reader got what a token had read"
        wrong = run("--list", token="99999999-1111-2222-3333-444444444444", **options)
        assert wrong.code != 0
        assert "ACL not found" in wrong.said
        assert "CONSUL_HTTP_TOKEN" in wrong.said
        for secret in (token, management, "99999999-1111"):
            for ran in (anonymous, first, cached, fresh, other, again, wrong):
                assert secret not in ran.said
            for file in (tmp_path / "cache").iterdir():
                assert secret not in file.name + file.read_text(encoding="utf-8")
    finally:
        server.close()


def test_the_cache_is_for_what_was_asked(consul: Server, run: Run, tmp_path: Path, extra: list[str]) -> None:
    options: dict[str, Any] = {
        "url": consul.url,
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(tmp_path / "cache"),
    }
    before = run("--list", services=["web"], **options)
    register(consul, 41)
    extra.append("web-41")
    assert run("--list", services=["web"], **options).json() == before.json()
    assert "web-41" in run("--list", services=["web"], node_meta={"rack": "b"}, **options).json()["_meta"]["hostvars"]
    chosen = run("--graph", "-vv", services=["web"], group_by_meta=["rack"], **options)
    assert "3 nodes from the cache" in chosen.said
    assert "@meta_rack_a" in chosen.said
