"""An operator in control of a rollout: pause, promote, stop, abort, freeze."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from lab import wait_until
from lab.testkit.ansible_run import Result, flat
from tests.rollout.drive import Drive, Load

OLD, NEW = "1.0.0", "2.0.0"
SLOW = "2.0.0-deployslow4"
QUICK = {"bake_time": 1}
CANARY = {"batch_size": [1, "100%"], "pause_after": [1], **QUICK}


def say(drive: Drive, action: str, service: str = "web", **more: Any) -> Result:
    """The playbook control."""
    about = {"rollout_service": service} if service else {}
    values = {**about, "control_action": action, **{f"control_{name}": one for name, one in more.items()}}
    return drive.ansible.playbook("hitless.consul.control", "-e", json.dumps(values), env=drive.environment)


def put(drive: Drive, word: str, key: str = "web/control") -> None:
    """As ``consul kv put`` does."""
    drive.lab.consul.call("PUT", f"kv/deploy/{key}", word.encode())


def noted(drive: Drive) -> dict[str, Any]:
    """What the last deployment has made of control."""
    key = f"deploy/web/deployments/{drive.record().get('id')}/control"
    data: dict[str, Any] = json.loads(drive.lab.kv(key) or "{}")
    return data


def uses(drive: Drive) -> list[tuple[str, str, str]]:
    """What the last deployment has heard of operators: word, why, whether it tells who, when and from where."""
    return [
        (one["word"], one.get("why", ""), "known" if one.get("by") and one["at"] and one.get("origin") else "by hand")
        for one in noted(drive).get("uses", [])
    ]


def deployments(drive: Drive) -> list[str]:
    return [key for key in drive.all_keys() if key.endswith("/record")]


def holds_nothing(drive: Drive) -> bool:
    """No maintenance, no lock, no session."""
    return drive.is_settled() and not drive.lab.consul_get("session/list")


def wait_for_state(drive: Drive, node: str, state: str) -> None:
    wait_until(f"{node} is {state}", lambda: drive.status(node) == state, 60)


@pytest.mark.oldest
def test_a_stage_is_promoted_and_another_machine_goes_on(drive: Drive, tmp_path: Path) -> None:
    with Load(drive.lab) as load:
        paused = drive.run(NEW, **CANARY)
        assert (paused.rc, paused.red) == (0, set()), paused.output
        first = drive.record()
        assert first["state"] == "paused"
        assert drive.running() == [NEW, *[OLD] * 4]
        assert holds_nothing(drive)
        assert "stage 1 of 2 has ended, and has to be promoted" in flat(paused.output)
        assert "control_action=promote" in flat(paused.output)

        again = drive.run(NEW, **CANARY)
        assert again.rc == 0, again.output
        assert f"{first['id']} is paused, since stage 1 of 2" in flat(again.output)
        other = drive.run("3.0.0", **CANARY)
        assert other.rc != 0
        assert "rollout_supersede=true" in flat(other.output)
        shown = drive.run(None, name="status")
        assert f"paused {first['id']}, since stage 1 of 2 has ended" in flat(shown.output), shown.output
        assert "It waits for promote (ansible-playbook hitless.consul.control" in flat(shown.output)
        assert drive.record() == first
        assert drive.running() == [NEW, *[OLD] * 4]

        promoted = say(drive, "promote", reason="errors as before")
        assert promoted.rc == 0, promoted.output
        there = replace(drive.ansible, home=tmp_path)
        done = replace(drive, ansible=there, more={"LOGNAME": "ben"}).run(NEW, **CANARY)
        assert done.rc == 0, done.output
        assert f"goes on with {first['id']}" in flat(done.output)
    load.check_nothing_lost()
    record = drive.record()
    assert (record["id"], record["state"]) == (first["id"], "successful")
    assert record["holder"].startswith("ben@")
    assert record["origin"].endswith(f":{tmp_path}")
    assert drive.running() == [NEW] * 5
    assert set(drive.outcomes().values()) == {"ok"}
    assert uses(drive) == [("promote", "errors as before", "known")]
    assert len(deployments(drive)) == 1
    story = drive.ansible.playbook(
        *drive.arguments(None, "-e", "status_id=last", name="status", kind="local"), env=drive.environment
    )
    assert re.search(r"promote +\S+ \S+ UTC by \S+@\S+ from .*: errors as before", story.output), story.output
    refused = say(drive, "promote")
    assert refused.rc != 0
    assert "there is nothing to promote" in flat(refused.output)


@pytest.mark.slow
def test_paused_by_hand_in_the_middle(drive: Drive) -> None:
    with Load(drive.lab) as load, drive.start(SLOW, **QUICK) as run:
        wait_for_state(drive, "web2", "deploying")
        put(drive, "pause")
        done = run.wait()
    load.check_nothing_lost()
    assert done.rc == 0, done.output
    assert "somebody (by hand) paused it" in flat(done.output)
    assert drive.record()["state"] == "paused"
    assert drive.running() == [SLOW, SLOW, *[OLD] * 3], "those in flight ended their turn"
    assert holds_nothing(drive)
    again = drive.run(SLOW, **QUICK)
    assert again.rc == 0
    assert "control_action=resume" in flat(again.output)
    assert drive.running() == [SLOW, SLOW, *[OLD] * 3]
    put(drive, json.dumps({"word": "resume", "by": "anna"}))
    done = drive.run(SLOW, **QUICK)
    assert done.rc == 0, done.output
    assert drive.running() == [SLOW] * 5
    assert [word for word, _why, _who in uses(drive)] == ["pause", "resume"]
    assert len(deployments(drive)) == 1


def test_aborted_in_a_drain(drive: Drive) -> None:
    with Load(drive.lab) as load, drive.start(NEW, drain_time=60) as run:
        wait_for_state(drive, "web1", "draining")
        aborted = say(drive, "abort", reason="wrong version")
        assert aborted.rc == 0, aborted.output
        done = run.wait()
    load.check_nothing_lost()
    assert done.rc != 0
    assert done.seconds < 60, "it did not drain to its end"
    assert drive.running() == [OLD] * 5
    assert drive.outcomes() == {"web1": "untouched", **dict.fromkeys(("web2", "web3", "web4", "web5"), "pending")}
    assert drive.record()["state"] == "failed"
    assert uses(drive) == [("abort", "wrong version", "known")]
    assert drive.is_settled()


@pytest.mark.slow
def test_aborted_during_its_command(drive: Drive) -> None:
    """The command ends, and the host goes back."""
    with Load(drive.lab) as load, drive.start(SLOW, **QUICK) as run:
        wait_for_state(drive, "web1", "deploying")
        put(drive, "abort")
        done = run.wait()
    load.check_nothing_lost()
    assert done.rc != 0
    assert drive.running() == [OLD] * 5
    assert drive.outcomes()["web1"] == "rolled_back"
    assert "aborted it" in drive.results()["web1"]["error"]
    assert drive.is_settled()


@pytest.mark.slow  # tests/integration/test_control.py and the simulation hold it, without a playbook
@pytest.mark.parametrize("batches", [False, True], ids=["window", "batches"])
def test_stopped(drive: Drive, tmp_path: Path, *, batches: bool) -> None:
    hook = tmp_path / "after.yml"
    hook.write_text("- ansible.builtin.debug:\n    msg: after\n", encoding="utf-8")
    more = {"after_batch_tasks": str(hook)} if batches else {}
    with Load(drive.lab) as load, drive.start(SLOW, **more, **QUICK) as run:
        wait_for_state(drive, "web1", "deploying")
        put(drive, "stop")
        done = run.wait()
    load.check_nothing_lost()
    assert done.rc != 0
    assert drive.record()["state"] == "failed"
    assert drive.running() == [SLOW, *[OLD] * 4], "nothing was put back"
    assert drive.is_settled()


@pytest.mark.slow
def test_batches_pause_and_go_on(drive: Drive, tmp_path: Path) -> None:
    hook = tmp_path / "after.yml"
    hook.write_text("- ansible.builtin.debug:\n    msg: after {{ deploy_hosts }}\n", encoding="utf-8")
    options = {"after_batch_tasks": str(hook), "batch_size": [1, 2], "pause_after": "each", **QUICK}
    with Load(drive.lab) as load:
        for running in (1, 3, 5):
            done = drive.run(NEW, **options)
            assert done.rc == 0, done.output
            assert drive.running() == [NEW] * running + [OLD] * (5 - running)
            assert drive.record()["state"] == ("paused" if running < 5 else "successful")
            if running < 5:
                put(drive, "promote")
    load.check_nothing_lost()
    assert set(drive.outcomes().values()) == {"ok"}
    assert len(deployments(drive)) == 1


@pytest.mark.slow  # tests/integration/test_control.py and the simulation hold each of these, without a playbook
@pytest.mark.parametrize("service", ["web", ""], ids=["one", "all"])
def test_frozen(drive: Drive, service: str) -> None:
    more = {} if service else {"all": True}
    with drive.start(SLOW, **QUICK) as run:
        wait_for_state(drive, "web1", "deploying")
        put(drive, "", f"{service}/freeze".strip("/"))
        done = run.wait()
    assert done.rc == 0, done.output
    assert drive.record()["state"] == "paused"
    assert drive.running() == [SLOW, *[OLD] * 4]
    frozen = say(drive, "freeze", service, reason="holidays", until="72h", **more)
    assert frozen.rc == 0, frozen.output
    refused = drive.run("3.0.0", supersede=True, **QUICK)
    assert refused.rc != 0
    assert "holidays" in flat(refused.output)
    again = drive.run(SLOW, **QUICK)
    assert again.rc == 0
    assert "rollouts are frozen until" in flat(again.output)
    assert say(drive, "unfreeze", service, **more).rc == 0
    done = drive.run(SLOW, **QUICK)
    assert done.rc == 0, done.output
    assert drive.running() == [SLOW] * 5
    put(drive, json.dumps({"why": "over", "until": "2020-01-01T00:00:00Z"}), "freeze")
    assert drive.run(NEW, **QUICK).rc == 0
    put(drive, "again", "freeze")
    back = drive.run(SLOW, name="rollback")
    assert back.rc == 0, back.output
    assert drive.running() == [SLOW] * 5
    assert say(drive, "unfreeze", "", all=True).rc == 0


@pytest.mark.slow
def test_outside_of_its_windows_it_does_not_begin(drive: Drive) -> None:
    days = [datetime.now(timezone.utc) + timedelta(days=offset) for offset in range(-3, -1)]
    closed = [f"{day:%a} 00:00-24:00 UTC" for day in days]
    before = drive.all_keys()
    refused = drive.run(NEW, windows=closed)
    assert refused.rc != 0
    assert "it is outside of rollout_windows" in flat(refused.output)
    assert "the next one opens at" in flat(refused.output)
    assert drive.all_keys() == before
    never = drive.run(NEW, windows=["Mon 09:00-09:00 UTC"])
    assert "never opens" in flat(never.output)
    done = drive.run(NEW, windows="Mon-Sun 00:00-24:00 UTC", batch_size=5, min_healthy=0, **QUICK)
    assert done.rc == 0, done.output
    assert drive.running() == [NEW] * 5


@pytest.mark.slow
def test_another_version_takes_over(drive: Drive) -> None:
    assert drive.run(NEW, **CANARY).rc == 0
    first = drive.record()
    done = drive.run("2.1.0", supersede=True, **QUICK)
    assert done.rc == 0, done.output
    assert drive.running() == ["2.1.0"] * 5
    old = json.loads(drive.lab.kv(f"deploy/web/deployments/{first['id']}/record") or "{}")
    assert old["state"] == "cancelled"
    assert drive.record()["id"] in old["description"]


@pytest.mark.slow
def test_it_waits_in_place(drive: Drive) -> None:
    with Load(drive.lab) as load, drive.start(NEW, **CANARY, pause_wait=600) as run:
        wait_until("it waits", lambda: noted(drive).get("kind") == "stage", 60)
        shown = drive.run(None, name="status")
        assert "It waits for promote" in flat(shown.output), shown.output
        assert say(drive, "promote").rc == 0
        done = run.wait()
    load.check_nothing_lost()
    assert done.rc == 0, done.output
    assert drive.running() == [NEW] * 5


@pytest.mark.slow
def test_killed_while_it_waits(drive: Drive) -> None:
    """The same start begins anew: what has the version is left alone, and a stage of one comes first again."""
    with Load(drive.lab) as load:
        with drive.start(NEW, **CANARY, pause_wait=600) as run:
            wait_until("it waits", lambda: noted(drive).get("kind") == "stage", 60)
            run.send(signal.SIGKILL)
            run.wait()
        again = drive.run(NEW, **CANARY, lock_wait=60)
        assert again.rc == 0, again.output
        assert drive.record()["state"] == "paused"
        assert drive.running() == [NEW, NEW, *[OLD] * 3]
        put(drive, "promote")
        done = drive.run(NEW, **CANARY)
        assert done.rc == 0, done.output
    load.check_nothing_lost()
    assert drive.running() == [NEW] * 5
    states = [json.loads(drive.lab.kv(key) or "{}")["state"] for key in sorted(deployments(drive))]
    assert states == ["interrupted", "successful"]
    assert drive.is_settled()


@pytest.mark.slow
@pytest.mark.parametrize("batches", [False, True], ids=["window", "batches"])
def test_killed_between_stages(drive: Drive, tmp_path: Path, *, batches: bool) -> None:
    """While what the first has changed is watched: the same command again ends it, and nobody is left out."""
    hook = tmp_path / "after.yml"
    hook.write_text("- ansible.builtin.debug:\n    msg: after {{ deploy_hosts }}\n", encoding="utf-8")
    more = {"after_batch_tasks": str(hook)} if batches else {}
    options = {"batch_size": [1, 2], "bake_time": 5, **more}
    with Load(drive.lab) as load:
        with drive.start(NEW, **options) as run:
            run.wait_for("baking for", 60)
            assert drive.outcomes()["web1"] == "ok"
            run.send(signal.SIGKILL)
            run.wait()
        done = drive.run(NEW, **options, lock_wait=60)
    load.check_nothing_lost()
    assert done.rc == 0, done.output
    assert drive.running() == [NEW] * 5
    assert len(drive.lab.vm("web1").deploys()) == 1, "it has the version already"
    states = [json.loads(drive.lab.kv(key) or "{}")["state"] for key in sorted(deployments(drive))]
    assert states == ["interrupted", "successful"]
    assert holds_nothing(drive)


@pytest.mark.slow
def test_a_stage_promotes_itself(drive: Drive) -> None:
    done = drive.run(NEW, **CANARY, auto_promote=2)
    assert done.rc == 0, done.output
    assert drive.running() == [NEW] * 5
    assert [word for word, _why, _who in uses(drive)] == ["promote"]
