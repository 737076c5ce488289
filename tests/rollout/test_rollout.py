"""A new version on five VMs under load: no request is lost, and what is drained gets none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import Lab, wait_until
from lab.request_log import RequestLog
from tests.rollout.drive import DRAIN, Drive, Load, RotationWatch

OLD, NEW = "1.0.0", "2.0.0"


@pytest.mark.parametrize(
    ("kind", "batch"),
    [
        ("local", 1),
        pytest.param("ssh", 2, marks=pytest.mark.oldest),
        pytest.param("local", 2, marks=pytest.mark.slow),
        pytest.param("ssh", 1, marks=pytest.mark.slow),
    ],
)
def test_new_version(drive: Drive, kind: str, batch: int) -> None:
    lab = drive.lab
    with Load(lab) as load, RotationWatch(lab) as watch:
        result = drive.run(NEW, kind=kind, batch_size=batch)

    assert result.rc == 0, result.output
    assert not result.red
    load.check_nothing_lost()
    assert drive.running() == [NEW] * 5
    assert drive.recorded() == [NEW] * 5
    assert drive.recorded("previous") == [OLD] * 5
    assert drive.record()["state"] == "successful"
    assert drive.outcomes() == dict.fromkeys(("web1", "web2", "web3", "web4", "web5"), "ok")
    assert drive.is_settled()
    assert drive.record()["plan"]["windows"] == [batch]
    assert 1 <= watch.most <= batch

    report = load.report
    for vm in lab.vms:
        first, last = watch.seen[vm.name]
        own = report.of(vm.name)
        assert last - first > DRAIN, "the watch saw too little to judge by"
        assert not own.between(first + DRAIN, last).total, f"{vm.name} got requests while it was out of rotation"
        assert own.by_version.keys() == {OLD, NEW}, "it served before and after"


def test_without_draining_requests_are_lost(fleet: Lab) -> None:
    """The control: the load would show a loss."""
    with Load(fleet) as load:
        vm = fleet.vms[0]
        vm.stop_app()
        vm.start_app("2.0.0-slow1")
        wait_until("a loss shows, while it does not listen yet", lambda: bool(load.report.lost), 10)
    assert load.report.lost


def test_the_requests_of_a_host_are_few_and_do_not_depend_on_the_others(drive: Drive) -> None:
    """At most 12, its gate included, and 3 that wait for a maintenance that ends too early.

    Beside them only the lock is renewed every few seconds.
    """
    lab = drive.lab
    hosts = [vm.name for vm in lab.vms[:3]]
    quick = {"drain_time": 0.1, "min_healthy_time": 0.1, "health_match": ""}
    with RequestLog([lab.controller, *lab.vms]) as log:
        result = drive.run(NEW, hosts=",".join(hosts), deploy_command="true", **quick)
    assert result.rc == 0, result.output
    asked = [one for one in log.requests if one.node == "controller" and "/session/renew/" not in one.url]
    # Each turn begins with a read of the host's instances, and each but the last ends with the gate of the next.
    begins = [next(at for at, one in enumerate(asked) if f"%22{host}%22" in one.url) for host in hosts]
    for host, begin, end in zip(hosts, begins, begins[1:], strict=False):
        # Who it is was asked before the first turn.
        own = [one for one in log.requests if one.node == host and one.url != "/v1/agent/self"]
        turn = asked[begin:end] + own
        waiting = [one for one in turn if "/v1/health/node/" in one.url and "wait=10000ms" in one.url]
        assert len(waiting) <= 3, turn
        assert 8 < len(turn) - len(waiting) <= 12, "\n".join(f"{one.method} {one.node} {one.url}" for one in turn)


@pytest.mark.oldest
def test_a_key_starts_it(drive: Drive, tmp_path: Path) -> None:
    """The playbook request, as ansible-rulebook starts it: with an empty --limit. Its text is nobody's template."""
    injected = tmp_path / "injected"
    message = f"{{{{ lookup('pipe', 'touch {injected}') }}}}"
    drive.ask(json.dumps({"version": "2.0.0", "batch_size": 5, "message": message}))
    done = drive.run(None, "--limit", "", name="request", min_healthy=0)
    assert done.rc == 0, done.output
    assert drive.running() == ["2.0.0"] * 5
    record = drive.record()
    assert record["message"] == message
    assert not injected.exists()
    assert [len(batch) for batch in record["plan"]["batches"]] == [5]
    told = drive.answer()
    assert told.items() >= {"state": "successful", "deployment": record["id"], "version": "2.0.0"}.items()
    assert told["reason"] == record["description"]


@contextmanager
def following_slowly(lab: Lab) -> Iterator[None]:
    """The load balancer asks Consul each half minute: a deployment is never slower than that, on whatever machine."""
    config = lab.balancer.config
    quick = config.read_text(encoding="utf-8")
    slow = quick.replace("timeout resolve 200ms", "timeout resolve 30s")
    assert slow != quick
    try:
        config.write_text(slow, encoding="utf-8")
        lab.balancer.reload()
        lab.wait_passing()
        yield
    finally:
        config.write_text(quick, encoding="utf-8")
        lab.balancer.reload()


@pytest.mark.slow
def test_a_rollout_without_a_drain_loses_requests(drive: Drive) -> None:
    """The control of the drain itself: the load balancer needs a moment to follow the catalog."""
    with following_slowly(drive.lab), Load(drive.lab) as load:
        result = drive.run("2.0.0-slow1", drain_time=0)
    assert result.rc == 0, result.output
    assert load.report.lost
