"""The project to copy, in jobs as AWX runs them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, wait_until
from lab.testkit.ansible_run import Ansible, flat
from tests.fleet import CONSUL
from tests.rollout.awx import ADDRESS, IS_ROOT, Awx, JobResult
from tests.rollout.drive import Drive, Load

SLOW = "2.0.0-deployslow4"
SURVEY = {"rollout_service": "web", "rollout_batch_size": "2", "rollout_message": ""}
"""Answers come as text, and those left out as empty text."""


@pytest.fixture
def awx(ansible: Ansible, fleet: Lab) -> Iterator[Awx]:
    # Not below pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory(prefix="awx") as folder:
        yield start(ansible, fleet, Path(folder))


def start(ansible: Ansible, lab: Lab, folder: Path, **variables: Any) -> Awx:
    awx = Awx(ansible, lab, folder)
    awx.variables |= {"rollout_min_healthy": "50%", **variables}
    awx.sync()
    return awx


def check_readable(result: JobResult) -> None:
    """Nothing but text and colours in what the job's view shows."""
    for event in result.events:
        text = event["stdout"].replace("\x1b[", "")
        assert not {character for character in text if ord(character) < 32} - set("\r\n\t"), event["stdout"]


@pytest.mark.oldest
def test_jobs(awx: Awx, drive: Drive) -> None:
    awx.variables["rollout_hosts"] = "web1:web2:web3"
    with Load(drive.lab) as load:
        done = awx.job("rollout", {**SURVEY, "rollout_version": "2.0.0", "rollout_message": "see {{ ticket }} 17"})
        assert done.status == "successful", done.stdout
        record = drive.record()
        failed = awx.job("rollout", {**SURVEY, "rollout_version": "3.0.0-broken"}, user="ben")
    load.check_nothing_lost()
    assert drive.running() == ["2.0.0"] * 3 + ["1.0.0"] * 2
    assert (record["holder"], record["origin"]) == ("anna (AWX job 41)", f"{ADDRESS}/#/jobs/playbook/41")
    assert record["message"] == "see {{ ticket }} 17"
    assert [len(batch) for batch in record["plan"]["batches"]] == [2, 1]
    handed_on = done.artifacts["hitless_deployment"]
    assert handed_on["id"] == record["id"]
    assert handed_on["result"] == "successful"
    assert handed_on["hosts"] == {f"web{number}": "ok" for number in range(1, 4)}
    assert handed_on["verdict"] in flat(done.stdout)
    assert handed_on["verdict"] == record["description"]
    check_readable(done)

    assert (failed.status, failed.failed_hosts >= {"web1"}) == ("failed", True)
    assert failed.artifacts["hitless_deployment"]["result"] == "failed"
    assert failed.artifacts["hitless_deployment"]["hosts"]["web1"] == "rolled_back"
    check_readable(failed)
    told = awx.job("verdict", {**SURVEY, **failed.artifacts})
    assert (told.status, told.failed_hosts) == ("failed", {"localhost"})
    assert failed.artifacts["hitless_deployment"]["verdict"] in flat(told.stdout), told.stdout
    before = drive.record()
    again = awx.job("rollout", {**SURVEY, "rollout_version": "3.0.0-broken"}, limit="web1,web2")
    assert again.status == "failed"
    assert "relaunch on all hosts, not on the failed ones" in flat(again.stdout), again.stdout
    assert drive.record() == before
    assert drive.is_settled()


@pytest.mark.slow
def test_the_workflow_of_a_canary(awx: Awx, drive: Drive) -> None:
    """Its nodes in their order, as the links of examples/awx say; the approval is a person's."""
    nodes = awx.nodes("Hitless: canary, approval, rollout")
    survey = {"rollout_service": "web", "rollout_version": "2.0.0", "rollout_message": "ticket 17"}

    def node(name: str) -> JobResult:
        template, given = awx.named(nodes[name]["template"]), nodes[name].get("extra_data", {})
        variables = {**template.get("extra_vars", {}), "rollout_bake_time": 1}
        return awx.job(template["playbook"].removesuffix(".yml"), {**survey, **given}, variables=variables)

    with Load(drive.lab) as load:
        canary = node("canary")
        assert canary.status == "successful", canary.stdout
        assert canary.artifacts["hitless_deployment"]["result"] == "paused"
        assert drive.running() == ["2.0.0", *["1.0.0"] * 4]
        assert drive.is_settled()
        assert nodes["canary"]["success"] == ["approval"]
        assert nodes["approval"]["success"] == ["promote"]
        promoted = node("promote")
        assert promoted.status == "successful", promoted.stdout
        assert nodes["promote"]["success"] == ["others"]
        done = node("others")
        assert done.status == "successful", done.stdout
    load.check_nothing_lost()
    assert drive.running() == ["2.0.0"] * 5
    record = drive.record()
    assert (record["state"], record["holder"]) == ("successful", "anna (AWX job 43)")
    noted = json.loads(drive.lab.kv(f"deploy/web/deployments/{record['id']}/control") or "{}")
    assert [(one["word"], one["by"], one["origin"]) for one in noted["uses"]] == [
        ("promote", "anna (AWX job 42)", f"{ADDRESS}/#/jobs/playbook/42")
    ]


@pytest.mark.slow
@pytest.mark.skipif(not IS_ROOT, reason="needs root, for a process namespace that stands for a container")
def test_cancelled_with_its_container(awx: Awx, drive: Drive) -> None:
    """The keeper of the lock is killed, too; so the lock ends with its TTL, and the next job finishes the work."""
    awx.variables["rollout_hosts"] = "web1:web2:web3"
    with Load(drive.lab) as load:
        with awx.launch("rollout", {**SURVEY, "rollout_version": SLOW}, container=True) as job:
            wait_until("the deployment runs on web1", lambda: bool(drive.lab.vm("web1").deploys()), 90)
            job.destroy()
            assert job.wait().status == "gone"
        assert drive.holds_lock(), "nobody is left to release it"
        refused = awx.job("rollout", {**SURVEY, "rollout_version": SLOW})
        assert refused.status == "failed"
        assert "anna (AWX job 41) since" in flat(refused.stdout)
        assert f"{ADDRESS}/#/jobs/playbook/41" in flat(refused.stdout), refused.stdout
        done = awx.job("rollout", {**SURVEY, "rollout_version": SLOW, "rollout_lock_wait": "60"})
    assert done.status == "successful", done.stdout
    load.check_nothing_lost()
    assert drive.running() == [SLOW] * 3 + ["1.0.0"] * 2
    assert drive.is_settled()


@pytest.mark.slow
def test_cancelled_by_the_runner(awx: Awx, drive: Drive) -> None:
    """The keeper outlives the process group that is killed: it frees the lock at once, and recover tidies up."""
    with Load(drive.lab) as load:
        with awx.launch("rollout", {**SURVEY, "rollout_version": SLOW}, container=False) as job:
            wait_until("the deployment runs on web1", lambda: bool(drive.lab.vm("web1").deploys()), 90)
            job.cancel()
            assert job.wait().status == "canceled"
        wait_until("the lock is free", lambda: not drive.holds_lock(), 10)
        assert drive.record()["state"] == "interrupted"
        assert drive.maintenance().keys() == {"web1", "web2"}
        variables = {"rollout_check_interval": 2}
        recovered = awx.job("recover", {"rollout_service": "web"}, variables=variables)
        assert recovered.status == "successful", recovered.stdout
        assert not drive.maintenance()
        done = awx.job("rollout", {**SURVEY, "rollout_version": SLOW})
    assert done.status == "successful", done.stdout
    load.check_nothing_lost()
    assert drive.running() == [SLOW] * 5
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.skipif(not IS_ROOT, reason="needs root, for a process namespace that stands for a container")
def test_the_workflow_after_a_rollout_is_lost(awx: Awx, drive: Drive) -> None:
    """Its nodes in their order: recover waits for the interrupted job's lock; the last finds no verdict."""
    survey = {**SURVEY, "rollout_version": SLOW}
    with Load(drive.lab) as load:
        with awx.launch("rollout", survey, container=True) as job:
            wait_until("the deployment runs on web1", lambda: bool(drive.lab.vm("web1").deploys()), 90)
            job.destroy()
            lost = job.wait()
        assert lost.artifacts == {}
        variables = {**awx.template("recover.yml").get("extra_vars", {}), "rollout_check_interval": 2}
        assert variables["rollout_lock_wait"] > 30
        recovered = awx.job("recover", survey, variables=variables)
        assert recovered.status == "successful", recovered.stdout
        assert drive.is_settled()
        verdict = awx.job("verdict", {**survey, **lost.artifacts, **recovered.artifacts})
        assert verdict.status == "failed"
        assert "refused, cancelled or lost before it came to a verdict" in flat(verdict.stdout)
    load.check_nothing_lost()


@pytest.mark.slow
def test_a_token_and_certificates_come_by_the_credential_alone(ansible: Ansible, tmp_path: Path) -> None:
    with (
        Lab(vms=3, acl=True, tls=True, consul=CONSUL) as closed,
        tempfile.TemporaryDirectory(prefix="awx") as folder,
    ):
        closed.wait_passing()
        of_agents = {
            "hitless_consul_agent_url": "https://{{ consul_address }}:8501",
            "hitless_consul_agent_ca_path": f"{closed.directory}/tls/ca.pem",
            "hitless_consul_agent_client_cert": f"{closed.directory}/tls/{{{{ consul_node }}}}.pem",
            "hitless_consul_agent_client_key": f"{closed.directory}/tls/{{{{ consul_node }}}}.key",
        }
        for vm in closed.vms:
            closed.node_certificate(vm)
        awx = start(ansible, closed, Path(folder), **of_agents)
        done = awx.job("rollout", {**SURVEY, "rollout_version": "2.0.0"})
        assert done.status == "successful", done.stdout
        assert [vm.running_version() for vm in closed.vms] == ["2.0.0"] * 3
        said = "".join(file.read_text(encoding="utf-8") for file in Path(folder).rglob("*.json"))
        assert closed.management_token not in said
