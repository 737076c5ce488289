"""A rollout that is asked for by writing a key: claimed by the playbook, run, and answered in the same key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab import wait_until
from lab.testkit.ansible_run import Result, flat
from tests.rollout.drive import Drive

pytestmark = pytest.mark.slow
"""The main path is in test_rollout.py, where there is a lab for it already."""


def run(drive: Drive, *more: str, **options: Any) -> Result:
    # As ansible-rulebook starts it: with an empty --limit.
    return drive.run(None, "--limit", "", *more, name="request", **options)


def test_nothing_asked_and_nothing_that_can_be_followed(drive: Drive) -> None:
    nothing = run(drive)
    assert nothing.rc == 0, nothing.output
    assert "web: nothing is asked for in deploy/web/request." in nothing.stdout
    assert drive.all_keys() == []
    drive.ask('{"version": "3.0.0", "deploy_command": "touch /tmp/x"}')
    refused = run(drive)
    assert refused.rc == 2, refused.output
    assert "A request may not set 'deploy_command'" in flat(refused.output)
    assert drive.answer()["state"] == "refused"
    again = run(drive)
    assert (again.rc, "its request is refused already" in again.stdout) == (0, True), again.output
    assert drive.all_keys() == ["deploy/web/request"]


def test_what_never_begins_is_answered_too(drive: Drive) -> None:
    for options, sentence in (
        ({"batch_siz": 3}, "rollout_batch_siz (in extra vars) is not an option of a rollout."),
        ({"hosts": "nobody"}, "There is no host to roll over"),
        ({"min_healthy": 5}, "min_healthy"),
    ):
        drive.ask("2.0.0")
        refused = run(drive, **options)
        assert refused.rc != 0, refused.output
        assert drive.answer()["state"] == "refused", refused.output
        assert sentence in drive.answer()["reason"]
    drive.lab.vm("web3").kill_agent()
    drive.ask("2.0.0")
    refused = run(drive)
    assert refused.rc != 0, refused.output
    assert drive.answer()["state"] == "refused", refused.output
    assert "Nothing was changed." in drive.answer()["reason"]
    drive.lab.vm("web3").start_agent()
    drive.lab.wait_passing()

    session = drive.lab.consul_put("session/create", {"LockDelay": "0s", "TTL": "60s"})["ID"]
    drive.lab.consul.call("PUT", f"kv/deploy/web/lock?acquire={session}", json.dumps({"holder": "ben"}).encode())
    drive.ask("2.0.0")
    refused = run(drive)
    assert refused.rc != 0, refused.output
    assert drive.answer()["state"] == "refused"
    assert "ben" in drive.answer()["reason"]
    assert drive.deployed() == []


def test_a_limit_and_a_version_of_one_s_own_are_refused_unclaimed(drive: Drive) -> None:
    drive.ask("2.0.0")
    limited = drive.run(None, "--limit", "web1", name="request")
    assert limited.rc != 0
    assert "cannot be used with this playbook" in flat(limited.output)
    own = run(drive, "-e", "rollout_version=9")
    assert "would win over the version that is asked for" in flat(own.output), own.output
    assert drive.lab.kv("deploy/web/request") == "2.0.0"
    told = run(drive, "--check")
    assert told.rc == 0, told.output
    assert "web 1.0.0 -> 2.0.0 on 5 hosts" in told.stdout
    assert drive.lab.kv("deploy/web/request") == "2.0.0"


def test_failed_and_recovered(drive: Drive) -> None:
    drive.ask("3.0.0-broken")
    failed = run(drive)
    assert failed.rc != 0, failed.output
    told = drive.answer()
    assert (told["state"], told["deployment"]) == ("failed", drive.record()["id"])
    assert "1 rolled back (web1)" in told["reason"]
    assert drive.run(None, name="recover").rc == 0
    assert drive.answer()["recovered"]["left"] == []

    drive.ask("2.0.0-deployslow4")
    with drive.start(None, name="request") as killed:
        wait_until("the deployment runs on web1", lambda: len(drive.lab.vm("web1").deploys()) > 2, 60)
        killed.close()
    wait_until("the lock is free", lambda: not drive.holds_lock(), 60)
    assert drive.answer()["state"] == "running"
    seen = run(drive)
    assert "has ended as interrupted" in seen.stdout, seen.output
    assert drive.answer()["state"] == "interrupted"
    recovered = drive.run(None, name="recover", check_interval=2)
    assert recovered.rc == 0, recovered.output
    assert drive.answer()["recovered"]["left"] == []
    assert drive.is_settled()
