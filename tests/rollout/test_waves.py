"""A fleet in three zones, changed zone by zone, under load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Lab, wait_until
from lab.testkit.ansible_run import Result, flat
from tests.fleet import CONSUL
from tests.rollout.drive import VARIABLES, Drive, Load, RotationWatch
from tests.rollout.test_killed import kill

OLD, NEW = "1.0.0", "2.0.0"
BAD = "3.0.0-badafter5-only-zone2"
"""It is well for longer than a host's turn takes, and then answers 500, in one zone."""
BY_ZONE = {"waves_by": "consul_node_meta.zone"}
ZONES = {"zone1": ["web1", "web4"], "zone2": ["web2", "web5"], "zone3": ["web3", "web6"]}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=6, zones=3, consul=CONSUL, inventory_variables=VARIABLES) as running:
        yield running


def had_it(drive: Drive, version: str) -> list[str]:
    """The VMs that the version was ever deployed to."""
    return [vm.name for vm in drive.lab.vms if any(run.version == version for run in vm.deploys())]


def began(drive: Drive, version: str) -> list[str]:
    """The VMs in the order in which it was deployed to them."""
    runs = [(run.start, vm.name) for vm in drive.lab.vms for run in vm.deploys() if run.version == version]
    return [name for _start, name in sorted(runs)]


def check_kept_out(drive: Drive, result: Result, load: Load) -> None:
    """What is bad in the second zone never reached the third, and all of it has gone back."""
    assert result.rc not in (0, 4), result.output
    assert not set(had_it(drive, BAD)) & set(ZONES["zone3"])
    assert set(had_it(drive, BAD)) & set(ZONES["zone2"])
    assert drive.running() == [OLD] * 6, result.output
    assert drive.record("deploy")["state"] == "failed"
    assert "Not reached: wave zone3." in drive.record("deploy")["description"]
    assert "Not reached: wave zone3." in flat(result.output)
    assert {row.instance for row in load.report.lost} <= set(ZONES["zone2"]), str(load.report)
    assert drive.is_settled()


def test_what_is_bad_in_the_second_zone_never_reaches_the_third(drive: Drive) -> None:
    with Load(drive.lab) as load, RotationWatch(drive.lab) as watch:
        result = drive.run(BAD, batch_size=2, wave_bake_time=8, **BY_ZONE)
    check_kept_out(drive, result, load)
    assert began(drive, BAD)[:3] == ["web1", "web4", "web2"]
    assert watch.out == set(had_it(drive, BAD))
    told = [line.partition(" web ")[2] for line in result.output.splitlines() if re.search(r"\d web wave ", line)]
    assert told == [
        "wave zone1, 1 of 3: 2 hosts",
        "wave zone1, 1 of 3 is done, baking for 8 s: what was changed is watched",
        "wave zone2, 2 of 3: 2 hosts",
        *told[3:],
    ]
    assert not any("zone3" in one for one in told), "it is not said of a wave that it begins where it does not"
    assert f"; takes {6 * 2 + 3 * 8} s or more" in result.output
    record = drive.record("deploy")
    assert [(one["name"], one["stages"], one["minimum"]) for one in record["plan"]["waves"]] == [
        ("zone1", 1, 1),
        ("zone2", 1, 1),
        ("zone3", 1, 1),
    ]
    story = drive.run(None, "-e", f"status_id={record['id']}", name="status")
    assert "wave zone2, 2 of 3" in story.output, story.output


def paused_and_resumed(drive: Drive, **options: Any) -> None:
    """A wave, a promotion, a controller that is killed in the second, and the same command again."""
    options = {"wave_bake_time": 1, "pause_after": "each_wave", **BY_ZONE, **options}
    first = drive.run(NEW, **options)
    assert first.rc == 0, first.output
    assert drive.record()["state"] == "paused"
    assert "(wave zone1, 1 of 3) has ended, and has to be promoted" in flat(first.output)
    assert set(began(drive, NEW)) == set(ZONES["zone1"])
    shown = drive.run(None, name="status")
    assert "wave zone1, 1 of 3" in shown.output

    said = drive.run(None, "-e", "control_action=promote", name="control")
    assert said.rc == 0, said.output
    run = drive.start(NEW, **options)
    wait_until("the second wave has begun", lambda: set(began(drive, NEW)) & set(ZONES["zone2"]), 60)
    kill(drive, run, "SIGKILL")
    wait_until("its keeper has tidied up", lambda: not drive.holds_lock(), 60)

    last = drive.run(NEW, **{**options, "pause_after": []})
    assert last.rc == 0, last.output
    assert drive.running() == [NEW] * 6
    assert "in 3 waves: zone1 (nothing to do), zone2 (" in flat(last.output)
    order = list(dict.fromkeys(began(drive, NEW)))
    assert [set(order[:2]), set(order[2:4]), set(order[4:])] == [set(names) for names in ZONES.values()]
    assert drive.is_settled()


@pytest.mark.slow
def test_the_same_waves_after_a_pause_and_a_crash(drive: Drive) -> None:
    with Load(drive.lab) as load:
        paused_and_resumed(drive)
    load.check_nothing_lost()


@pytest.mark.slow
def test_batches_in_waves(drive: Drive, tmp_path: Any) -> None:
    tasks = tmp_path / "smoke.yml"
    tasks.write_text("- ansible.builtin.debug: {msg: fine}\n", encoding="utf-8")
    with Load(drive.lab) as load:
        result = drive.run(BAD, batch_size=2, wave_bake_time=8, smoke_tasks=str(tasks), **BY_ZONE)
    check_kept_out(drive, result, load)


@pytest.mark.slow
def test_what_is_refused(drive: Drive) -> None:
    for options, told in (
        ({"waves_by": "consul_node_meta.rack"}, "6 hosts: web1, web2, web3, web4, web5, web6 have no name of a wave"),
        (
            {**BY_ZONE, "waves": ["zone1", "zone2", "zone3", "zone4"]},
            "names zone4, which consul_node_meta.zone is on none",
        ),
        (
            {**BY_ZONE, "waves": "zone2,zone1"},
            "in no wave that rollout_waves names (zone2, zone1): 2 hosts: web3 (zone3)",
        ),
        ({"waves": ["zone1"]}, "rollout_waves is set, and rollout_waves_by is not"),
    ):
        result = drive.run(NEW, **options)
        assert result.rc not in (0, 4), result.output
        assert told in flat(result.output), result.output
    assert drive.all_keys() == []
    assert not drive.deployed()
