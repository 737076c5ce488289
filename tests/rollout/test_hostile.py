"""What comes from machines and from Consul is text: a template in it is shown as it is, and never runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, wait_until
from lab.agents import quote
from lab.testkit.ansible_run import flat
from tests.fleet import OLDEST
from tests.http_server import HttpServer, Reply
from tests.rollout.drive import Drive

OLD, NEW = "1.0.0", "2.0.0"


@pytest.fixture
def traces(drive: Drive) -> Path:
    """Where a template that was run leaves its trace."""
    folder = drive.ansible.home / "traces"
    folder.mkdir()
    return folder


def template(traces: Path, name: str) -> str:
    return f"{{{{ lookup('pipe', 'touch {traces}/{name}') }}}}"


def check_inert(traces: Path) -> None:
    assert [path.name for path in traces.iterdir()] == []


@pytest.mark.oldest
def test_a_template_that_is_run_leaves_a_trace(drive: Drive, traces: Path) -> None:
    """The control."""
    said = f"msg={template(traces, 'control')}"
    assert drive.ansible.command("ansible", "localhost", "-m", "ansible.builtin.debug", "-a", said).rc == 0
    assert [path.name for path in traces.iterdir()] == ["control"]


@pytest.fixture
def says(traces: Path) -> Iterator[str]:
    """The URL of an application that is not healthy and says a template."""
    with HttpServer(Reply(503, template(traces, "health-answer"))) as server:
        yield f"{server.url}/"


def _marks(source: str) -> list[pytest.MarkDecorator]:
    """Each run has one, with the ansible-core that takes text for a template where nobody says otherwise."""
    return [] if OLDEST and source == "deployment" else [pytest.mark.slow]


@contextmanager
def failing_check(lab: Lab, name: str, output: str) -> Iterator[None]:
    """A critical check of the service on one VM."""
    # An agent is slow to tell a new output alone: the check has to change its state as well.
    check = {"ID": "says", "Name": "says", "TTL": "1h", "ServiceID": "web", "Status": "passing"}
    agent = lab.vm(name).agent
    agent.call("PUT", "agent/check/register", check)
    agent.call("PUT", f"agent/check/fail/says?note={quote(output)}")

    def shown() -> bool:
        return any(check["Output"] == output for entry in lab.services() for check in entry["Checks"])

    try:
        wait_until("the catalog shows it", shown)
        yield
    finally:
        agent.call("PUT", "agent/check/deregister/says")


@pytest.mark.oldest
@pytest.mark.parametrize(
    "source", [pytest.param(name, marks=_marks(name)) for name in ("deployment", "health", "check")]
)
def test_what_a_failure_tells(drive: Drive, traces: Path, says: str, source: str) -> None:
    """The output of a deployment, the answer of the application, the output of a check: told, recorded, told again."""
    lab = drive.lab
    text = traces.parent / "text"
    text.write_text(template(traces, "deployment"), encoding="utf-8")
    # It has to run out, but for the deployment that is rolled back.
    options: dict[str, Any] = {"healthy_deadline": 60 if source == "deployment" else 2}
    if source == "deployment":
        options["deploy_command"] = f"cat {text}; test $DEPLOY_REASON = rollback && {{{{ lab_vm_dir }}}}/deploy"
    elif source == "health":
        options |= {"health_url": says, "health_match": ""}
    check = failing_check(lab, "web1", template(traces, "check")) if source == "check" else nullcontext()
    with check:
        result = drive.run(NEW, "-v", kind="ssh", hosts="web1", **options)
    assert result.rc != 0
    assert f"touch {traces}/" in flat(result.output), result.output
    assert drive.outcomes()["web1"] == ("rolled_back" if source == "deployment" else "failed")
    status = drive.run(None, name="status")
    assert status.rc == 0, status.output
    check_inert(traces)


def name_everything(lab: Lab, traces: Path) -> None:
    """Templates wherever Consul takes a text: services, tags, metadata, nodes, reasons, keys."""
    evil = {kind: template(traces, kind) for kind in ("service", "tag", "meta", "node", "reason", "version", "holder")}
    first, second, third, fourth = lab.vms[:4]
    registration = json.loads((first.directory / "vm.json").read_text(encoding="utf-8"))["service"]
    own = {**registration, "Tags": [evil["tag"]], "Meta": {"version": OLD, "note": evil["meta"]}}
    first.agent.call("PUT", "agent/service/register", own)
    other = {"Name": evil["service"], "ID": "other", "Port": 1, "Tags": [evil["tag"]], "Meta": {"x": evil["meta"]}}
    second.agent.call("PUT", "agent/service/register", other)
    third.operator_maintenance(evil["reason"])
    unversioned = {**registration, "Meta": {"version": evil["version"]}}
    fourth.agent.call("PUT", "agent/service/register", unversioned)
    for node in ("stranger", evil["node"]):
        check = {"Name": "x", "Status": "critical", "ServiceID": "web", "Output": evil["meta"]}
        lab.consul_put(
            "catalog/register",
            {
                "Node": node,
                "Address": lab.controller.address,
                "NodeMeta": {"rack": evil["meta"]},
                "Service": {"Service": "web", "Port": 1, "Tags": [evil["tag"]], "Meta": {"version": evil["version"]}},
                "Check": check,
            },
        )
    message = {
        "deployment": evil["holder"],
        "holder": evil["holder"],
        "since": evil["holder"],
        "message": evil["holder"],
    }
    lab.consul_put("kv/deploy/other/lock", message)
    lab.consul_put("kv/nodes/web2/deployment/web/previous", evil["version"].encode())
    wait_until("the others are passing", lambda: len(lab.services(passing=True)) == 4)


@pytest.fixture
def named(drive: Drive, traces: Path) -> Iterator[Drive]:
    lab = drive.lab
    name_everything(lab, traces)
    source = lab.directory / "inventory" / "ssh" / "web.consul.yml"
    # Every service, every group there can be, and what a user may make of it.
    source.write_text(
        "plugin: hitless.consul.catalog\n"
        "unusable_nodes: skip\ngroup_by_tags: true\ngroup_by_meta: [rack]\ngroup_by_status: true\n"
        "compose:\n  copied: consul_services\n  rack: consul_node_meta.rack | default('none')\n"
        "keyed_groups: [{prefix: rack, key: consul_node_meta}]\n",
        encoding="utf-8",
    )
    yield drive
    for node in ("stranger", template(traces, "node")):
        lab.consul_put("catalog/deregister", {"Node": node})
    lab.vms[1].agent.call("PUT", "agent/service/deregister/other")


@pytest.mark.slow
@pytest.mark.oldest
def test_whole_rollouts_over_what_is_named_so(named: Drive, traces: Path) -> None:
    lab = named.lab
    # The strangers count as instances that are not healthy.
    hosts = "web1:web2:web3:web4"
    done = named.run(NEW, "-vvv", kind="ssh", hosts=hosts, batch_size=2, min_healthy=2, previous_version=OLD)
    assert done.rc == 0, done.output
    assert named.running() == [NEW, NEW, OLD, NEW, OLD]
    assert f"touch {traces}/reason" in flat(done.output)
    failed = named.run("3.0.0-broken", "-vvv", kind="ssh", hosts=hosts, min_healthy=2)
    assert failed.rc != 0
    assert named.outcomes()["web1"] == "rolled_back", failed.output
    for name in ("status", "recover", "rollback"):
        result = named.run(None, "-vvv", name=name, kind="ssh", hosts=hosts, min_healthy=2)
        assert "Traceback" not in result.output, result.output
    assert named.maintenance()["web3"] == template(traces, "reason")
    inventory = lab.directory / "inventory" / "ssh" / "web.consul.yml"
    for arguments in (["--list"], ["--graph", "--vars"], ["--list", "--export", "--yaml"]):
        listed = named.ansible.command("ansible-inventory", "-i", inventory, *arguments, env=named.environment)
        assert listed.rc == 0, listed.output
        assert f"touch {traces}/meta" in listed.stdout
    debug = [
        "-m",
        "ansible.builtin.debug",
        "-a",
        "msg={{ copied }}{{ rack }}{{ consul_services }}{{ consul_node_meta }}",
    ]
    shown = named.ansible.command("ansible", "all", "-i", inventory, *debug, env=named.environment)
    assert shown.rc == 0, shown.output
    assert f"touch {traces}/meta" in shown.stdout
    check_inert(traces)


@pytest.mark.slow
@pytest.mark.oldest
def test_a_lock_held_by_somebody_so_called(drive: Drive, traces: Path) -> None:
    lab = drive.lab
    session = lab.consul_put("session/create", {"Name": "x", "LockDelay": "0s"})["ID"]
    text = template(traces, "holder")
    value = {"deployment": text, "holder": text, "since": text, "message": text}
    assert lab.consul_put(f"kv/deploy/web/lock?acquire={session}", value) is True
    result = drive.run(NEW, "-vvv")
    assert result.rc != 0
    assert f"touch {traces}/holder" in flat(result.output), result.output
    assert drive.deployed() == []
    status = drive.run(None, "-vvv", name="status")
    assert status.rc == 0, status.output
    check_inert(traces)
