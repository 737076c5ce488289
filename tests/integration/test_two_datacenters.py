"""Two datacenters whose nodes and services have the same names: nothing of the one is taken for the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import (
    host_states,
    read_fleet,
    wanted_hosts,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.reach import reach
from lab.testkit import link_tree
from tests.integration.consul_agent import Server
from tests.integration.services import Services

NODE = "vm1"


@pytest.fixture(scope="module")
def centers() -> Iterator[dict[str, Server]]:
    servers = {
        name: Server(None, 132 + number, datacenter=name, node=NODE) for number, name in enumerate(("dc1", "dc2"))
    }
    try:
        for server in servers.values():
            server.start()
            web = Services(server)
            web.name = "web"
            web.register()
        yield servers
    finally:
        for server in servers.values():
            server.close()


def reached(server: Server, datacenter: str | None = None) -> dict[str, str]:
    """The host vm1, whose agent is that of the server; its rollout is of the datacenter."""
    options = {"agent_url": server.url, "node": NODE, "datacenter": datacenter}
    return reach(Task({}, options, Host(None, name="vm1")))


def test_an_agent_of_another_datacenter_is_told_before_anything(centers: dict[str, Server]) -> None:
    there = reached(centers["dc2"], "dc1")
    assert there["problem"].startswith(
        "The Consul agent asked on vm1 belongs to the datacenter dc2, and the rollout is of dc1; nothing was changed."
    )
    here = reached(centers["dc1"], "DC1")
    assert here == {"node": NODE, "datacenter": "dc1", "problem": "", "why": ""}


def test_also_where_the_rollouts_datacenter_is_the_clusters_own(centers: dict[str, Server]) -> None:
    fleet = read_fleet(Client(Connection(centers["dc1"].url)), Keys("web"))
    hosts = {name: wanted_hosts({NODE: reached(server)}, "2") for name, server in centers.items()}
    assert host_states(fleet, hosts["dc1"], accept_warning=False)[0].datacenter == "dc1"
    with pytest.raises(HitlessError, match="asked on vm1 belongs to the datacenter dc2, and the rollout is of dc1"):
        host_states(fleet, hosts["dc2"], accept_warning=False)


@pytest.mark.parametrize("second", ["dc2", "dc1"])
def test_a_host_is_never_made_of_two_datacenters(centers: dict[str, Server], tmp_path: Path, second: str) -> None:
    for name, server in (("aa", centers["dc1"]), ("zz", centers[second])):
        source = f"plugin: hitless.consul.catalog\nurl: {server.url}\nservices: [web]\nservice_prefix: {name}_\n"
        (tmp_path / f"{name}.consul.yml").write_text(source, encoding="utf-8")
    program = Path(sys.executable).with_name("ansible-inventory")
    done = subprocess.run(
        [program, "-i", tmp_path, "--list"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "9999", "ANSIBLE_COLLECTIONS_PATH": str(link_tree.COLLECTIONS)},
    )
    listed = json.loads(done.stdout)
    assert "dc2" not in done.stdout
    assert listed["aa_web"]["hosts"] == [NODE]
    said = " ".join(done.stderr.split())
    mixed = "The host vm1 is a node of the datacenter dc2 in zz.consul.yml, and of dc1 in another inventory source"
    assert (mixed in said) is (second == "dc2")
    assert ("zz_web" in listed) is (second == "dc1")
