"""A machine that registers itself while a rollout runs: named at its end, or rolled too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lab import Lab
from lab.testkit.ansible_run import Result, flat
from tests.fleet import CONSUL
from tests.rollout.drive import VARIABLES, Drive, Load, RotationWatch, once

OLD = "1.0.0"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=2, consul=CONSUL, inventory_variables=VARIABLES) as running:
        yield running


@pytest.fixture
def fleet(lab: Lab) -> Lab:
    """As it is: each test adds machines, and the next goes on from there."""
    return lab


def run_while_one_joins(drive: Drive, version: str, *, kind: str = "local", **options: Any) -> Result:
    """A rollout, and a further machine on the first version as soon as it deploys, and before it has."""
    joined = drive.lab.directory / f"joined-{version}"

    def join() -> None:
        drive.lab.add_vm()
        joined.touch()

    def is_deploying() -> bool:
        return any(drive.status(vm.name) == "deploying" for vm in drive.lab.vms)

    options["deploy_command"] = f'until [ -e {joined} ]; do sleep 0.1; done; "{{{{ lab_vm_dir }}}}/deploy"'
    with once("a host is deployed", is_deploying, join), Load(drive.lab) as load:
        result = drive.run(version, kind=kind, deploy_timeout=60, **options)
    load.check_nothing_lost()
    return result


def test_it_is_named_and_the_next_one_is_rolled(drive: Drive) -> None:
    """Named, and rolled by the same command again; and rolled at once, by its connection as the inventory has it."""
    new = "2.0.0"
    named = run_while_one_joins(drive, new)
    assert named.rc == 0, named.output
    assert drive.running() == [new, new, OLD]
    assert "Joined meanwhile, and not changed: web3 on 1.0.0." in flat(named.output)
    assert "Next: run the same command again; it rolls what has joined" in flat(named.output)
    assert (drive.record()["state"], drive.record()["joined"]) == ("successful", {"web3": OLD})
    assert "out to what has joined" not in named.output

    new = "3.0.0"
    with RotationWatch(drive.lab) as watch:
        rolled = run_while_one_joins(drive, new, kind="ssh", joiners="roll")
    assert rolled.rc == 0, rolled.output
    assert drive.running() == [new] * 4, rolled.output
    assert watch.most == 1
    assert "1 host: web4 joined meanwhile (rollout_joiners: roll)." in flat(rolled.output)
    assert "PLAY [Roll out to what has joined]" in rolled.output
    assert "web: 4 of 4 in rotation, all on 3.0.0." in rolled.output
    last = drive.record()
    assert (last["state"], last["joined"]) == ("successful", {})
    assert last["resumes"] < last["id"]
    assert drive.outcomes() == {"web4": "ok"}
    assert drive.recorded() == [new] * 4
    assert drive.is_settled()


@pytest.mark.slow
def test_one_that_fails_goes_back_alone(drive: Drive) -> None:
    """In batches, by tasks of the user's."""
    number = len(drive.lab.vms) + 1
    new = f"4.0.0-broken-only-web{number}"
    result = run_while_one_joins(drive, new, joiners="roll", after_batch_tasks=hook(drive))
    assert result.rc not in (0, 4), result.output
    assert drive.running() == [new] * (number - 1) + [OLD], result.output
    assert drive.outcomes() == {f"web{number}": "rolled_back"}
    assert result.red == {f"web{number}"}, result.output
    assert drive.is_settled()


def hook(drive: Drive) -> str:
    file = drive.lab.directory / "after.yml"
    file.write_text("- ansible.builtin.debug: {msg: the batch has ended}\n", encoding="utf-8")
    return str(file)
