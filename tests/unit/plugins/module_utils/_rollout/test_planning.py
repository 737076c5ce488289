"""Who is changed, in which batches: by properties, and by example."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.plan import (
    HostState,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.sizes import (
    sizes_of,
)
from tests.unit.plugins.module_utils._rollout.test_plan import OTHERS, OURS, a_host, planned, refused

SIZE = st.one_of(st.integers(1, 8), st.integers(1, 100).map(lambda number: f"{number}%"))


MINIMUM = st.one_of(st.integers(0, 12), st.integers(0, 100).map(lambda number: f"{number}%"))


@st.composite
def fleets(draw: st.DrawFn) -> list[HostState]:
    """Hosts of one to three instances each, healthy or not, on some version, in some maintenance."""
    hosts = []
    for number in range(draw(st.integers(1, 14))):
        registered = draw(st.integers(1, 3))
        maintenance = draw(st.sampled_from([None, None, None, OURS, OTHERS]))
        healthy = 0 if maintenance else draw(st.integers(0, registered))
        version = draw(st.sampled_from([None, "1.0.0", "2.0.0"]))
        reason = draw(st.sampled_from([None, None, None, "no route to host"]))
        blocked = None if healthy else draw(st.sampled_from([None, "disk is critical"]))
        hosts.append(
            a_host(
                number,
                registered=registered,
                serving=healthy,
                maintenance=maintenance,
                version=version,
                unreachable=reason,
                blocked=blocked,
            )
        )
    return hosts


@given(fleets(), st.one_of(SIZE, st.lists(SIZE, min_size=1, max_size=4)), MINIMUM, st.integers(0, 5), st.booleans())
def test_every_plan_keeps_its_promises(
    hosts: list[HostState], batch_size: object, min_healthy: object, elsewhere: int, skip_current: bool
) -> None:
    options = {"batch_size": batch_size, "min_healthy": min_healthy, "skip_current": skip_current}
    try:
        plan = planned(hosts, elsewhere, unreachable="skip", **options)
    except HitlessError as error:
        assert "nothing was changed" in str(error)  # noqa: PT017 - it may refuse, and says so
        return
    by_name = {one.host: one for one in hosts}
    turns = [name for batch in plan.batches for name in batch]

    # Each host to change has exactly one turn, and no other host has any.
    assert sorted(turns) == sorted(name for name, one in plan.hosts.items() if one.state == "to_change")
    assert list(plan.hosts) == [one.host for one in hosts]
    assert all(batch for batch in plan.batches)
    for number, batch in enumerate(plan.batches, 1):
        assert {plan.hosts[name].batch for name in batch} == {number}

    # Broken ones first, and each kind in the order given.
    broken = [name for name in turns if not by_name[name].serving]
    assert turns == broken + [name for name in turns if by_name[name].serving]
    for kind in (broken, turns[len(broken) :]):
        assert kind == sorted(kind, key=list(by_name).index)

    # No batch is larger than asked for, and none takes the service below the minimum.
    sizes = sizes_of(batch_size, len(turns))  # type: ignore[arg-type]
    healthy = plan.healthy
    for number, batch in enumerate(plan.batches):
        assert len(batch) <= sizes[min(number, len(sizes) - 1)]
        taken = sum(by_name[name].serving for name in batch)
        assert not taken or healthy - taken >= plan.minimum
        healthy += sum(by_name[name].registered for name in batch if not by_name[name].blocked) - taken

    # What the play is given is the same batches, each behind its coordinator.
    result = plan.as_dict()
    assert [name for name in result["order"] if name not in result["coordinators"]] == turns
    assert sum(result["serial"]) == (len(result["order"]) or 1)
    start = 0
    for name, size, batch in zip(result["coordinators"], result["serial"], plan.batches, strict=False):
        assert result["order"][start : start + size] == [name, *batch]
        start += size


@given(fleets(), st.one_of(SIZE, st.lists(SIZE, min_size=1, max_size=4)), MINIMUM, st.integers(0, 5))
def test_stages_keep_the_promises_too(
    hosts: list[HostState], batch_size: object, min_healthy: object, elsewhere: int
) -> None:
    try:
        options = {"batch_size": batch_size, "min_healthy": min_healthy, "unreachable": "skip"}
        plan = planned(hosts, elsewhere, in_window=True, **options)
    except HitlessError as error:
        assert "nothing was changed" in str(error)  # noqa: PT017 - it may refuse, and says so
        return
    by_name = {one.host: one for one in hosts}
    turns = [name for stage in plan.batches for name in stage]
    assert sorted(turns) == sorted(name for name, one in plan.hosts.items() if one.state == "to_change")
    sizes = sizes_of(batch_size, len(turns))  # type: ignore[arg-type]
    assert len(plan.batches) <= len(sizes)
    healthy = plan.healthy
    for number, (stage, window) in enumerate(zip(plan.batches, plan.windows, strict=True)):
        assert 1 <= window <= min(sizes[number], len(stage))
        assert number == len(sizes) - 1 or len(stage) <= sizes[number]
        for name in stage:
            one = by_name[name]
            assert not one.serving or healthy - one.serving >= plan.minimum
            healthy += 0 if one.blocked else one.registered - one.serving
    result = plan.as_dict()
    assert (result["order"], result["coordinators"]) == (turns, [])
    assert result["serial"] == ([len(stage) for stage in plan.batches] or [1])


NAMES = ["eu-1", "eu-2", "eu-3"]


@given(
    fleets(),
    st.lists(st.sampled_from(NAMES), min_size=14, max_size=14),
    st.one_of(SIZE, st.lists(SIZE, min_size=1, max_size=4)),
    MINIMUM,
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from(["deploy", "rollback"]),
)
def test_no_stage_spans_two_waves_and_the_minimum_holds_in_each(
    hosts: list[HostState],
    names: list[str],
    batch_size: object,
    min_healthy: object,
    elsewhere: int,
    in_window: bool,
    direction: str,
) -> None:
    hosts = [replace(one, wave=name) for one, name in zip(hosts, names, strict=False)]
    options = {"batch_size": batch_size, "min_healthy": min_healthy, "unreachable": "skip", "direction": direction}
    try:
        plan = planned(hosts, elsewhere, waves=NAMES, in_window=in_window, **options)
    except HitlessError as error:
        assert "nothing was changed" in str(error)  # noqa: PT017 - it may refuse, and says so
        return
    by_name = {one.host: one for one in hosts}
    turns = [by_name[name] for stage in plan.batches for name in stage]
    assert sorted(one.host for one in turns) == sorted(
        name for name, one in plan.hosts.items() if one.state == "to_change"
    )
    if direction == "deploy":
        # Each stage is of one wave, and the waves come one after the other, in their order.
        waves = [{by_name[name].wave for name in stage} for stage in plan.batches]
        assert all(len(one) == 1 for one in waves)
        assert [one.wave for one in turns] == sorted(one.wave for one in turns)
        assert sum(wave.stages for wave in plan.waves.each) == len(plan.batches)
        assert [{plan.waves.at(stage).name} for stage in range(1, len(waves) + 1)] == waves  # type: ignore[union-attr]
    else:
        assert not any(wave.stages for wave in plan.waves.each)
    # What has its turn at once never leaves fewer than the minimum, of all and in each wave.
    serving = Counter(all=plan.healthy)
    serving.update({wave.name: sum(one.serving for one in hosts if one.wave == wave.name) for wave in plan.waves.each})
    minimum = {"all": plan.minimum, **{wave.name: wave.minimum for wave in plan.waves.each}}
    for stage in plan.batches:
        for group in [[name] for name in stage] if in_window else [stage]:
            for place in serving:
                mine = [one for name in group if place in ("all", (one := by_name[name]).wave)]
                taken = sum(one.serving for one in mine)
                assert not taken or serving[place] - taken >= minimum[place]
                serving[place] += sum(one.registered - one.serving for one in mine if not one.blocked)


def test_a_wave_is_never_too_small_to_be_changed() -> None:
    """Half of one instance is none."""
    hosts = of_zones(1, 2, 5)
    for wanted, minima in (("50%", [0, 1, 2]), ("75%", [0, 1, 3]), (7, [0, 1, 4]), (0, [0, 0, 0])):
        plan = planned(hosts, waves=NAMES, min_healthy=wanted, in_window=True)
        assert [wave.minimum for wave in plan.waves.each] == minima


def of_zones(*zones: int) -> list[HostState]:
    """Hosts in eu-1, eu-2, ...; so many in each."""
    names = [f"eu-{number}" for number, size in enumerate(zones, 1) for _one in range(size)]
    return [replace(a_host(number), wave=name) for number, name in enumerate(names, 1)]


@pytest.mark.parametrize(
    ("zones", "batch_size", "in_window", "told", "sizes", "windows"),
    [
        (
            (3, 3, 3),
            1,
            True,
            "on 9 hosts one at a time, in 3 waves: eu-1 (3 hosts), eu-2 (3 hosts), eu-3 (3 hosts); at least 5 of",
            [3, 3, 3],
            (1, 1, 1),
        ),
        # The stages of a list are those of the first wave; each later one begins with the last size. A percentage is
        # of the wave.
        (
            (4, 4, 2),
            [1, "50%", "100%"],
            True,
            "eu-1 (4 hosts in 3 stages of 1, 2, 1), eu-2 (4 hosts 2 at a time), eu-3 (2 hosts one at a time)",
            [1, 2, 1, 4, 2],
            (1, 2, 1, 2, 1),
        ),
        # A wave that is too small for all of them leaves the others to the next.
        ((1, 6), [1, 2, "100%"], True, "eu-1 (1 host one at a time), eu-2 (6 hosts in 2 stages", [1, 2, 4], (1, 2, 3)),
        ((3, 2), 2, False, "in 2 waves: eu-1 (3 hosts in 2 batches of 2, 1), eu-2 (2 hosts in 2", [2, 1, 1, 1], ()),
    ],
)
def test_stages_in_waves(
    zones: tuple[int, ...],
    batch_size: object,
    in_window: bool,
    told: str,
    sizes: list[int],
    windows: tuple[int, ...],
) -> None:
    names = [f"eu-{number}" for number in range(1, len(zones) + 1)]
    plan = planned(of_zones(*zones), batch_size=batch_size, in_window=in_window, waves=names)
    assert told in plan.description
    assert [len(stage) for stage in plan.batches] == sizes
    assert plan.windows == windows


@pytest.mark.parametrize(
    ("zones", "told"),
    [
        ((3, 3), "at least 3 of 6 stay healthy, and 1 of 3 in each wave"),
        ((4, 1), "at least 3 of 5 stay healthy, and 2 of 4 in eu-1, 0 of 1 in eu-2"),
    ],
)
def test_what_stays_healthy_in_each_wave_is_told(zones: tuple[int, ...], told: str) -> None:
    assert told in planned(of_zones(*zones), waves=["eu-1", "eu-2"], in_window=True).description


def test_a_wave_in_which_nothing_is_to_do() -> None:
    hosts = [replace(one, version="2.0.0") if one.wave == "eu-1" else one for one in of_zones(2, 2)]
    plan = planned(hosts, waves=["eu-1", "eu-2"], in_window=True)
    assert "one at a time, in 2 waves: eu-1 (nothing to do), eu-2 (2 hosts);" in plan.description
    assert plan.waves.told(1) == "wave eu-2, 2 of 2"


def test_a_rollback_takes_all_waves_at_once_and_keeps_the_minimum_in_each() -> None:
    hosts = [replace(one, version="2.0.0", target="1.0.0") for one in of_zones(4, 4)]
    plan = planned(hosts, waves=["eu-1", "eu-2"], direction="rollback", batch_size="100%")
    assert plan.batches == [["web1", "web2"], ["web3", "web4", "web5", "web6"], ["web7", "web8"]]
    assert (
        "on 8 hosts in 3 batches of 2, 4, 2; at least 4 of 8 stay healthy, and 2 of 4 in each wave" in plan.description
    )


def test_too_few_are_healthy_in_a_wave() -> None:
    hosts = of_zones(4, 4)
    hosts[1:3] = [replace(one, serving=0, maintenance=OTHERS) for one in hosts[1:3]]
    assert refused(hosts, waves=["eu-1", "eu-2"], min_healthy="50%") == (
        "web cannot be rolled over web1: 2 of its 4 instances in wave eu-1 are healthy, and 2 (50% of 4) must stay so; "
        "nothing was changed. Repair the others of that wave first, or set a lower rollout_min_healthy."
    )


@pytest.mark.parametrize(
    ("batch_size", "told", "windows"),
    [
        (1, "on 8 hosts one at a time;", (1,)),
        (2, "on 8 hosts 2 at a time;", (2,)),
        ([1, "25%", "50%"], "on 8 hosts in 3 stages of 1, 2, 5 (4 at a time);", (1, 2, 4)),
        ("100%", "on 8 hosts 6 at a time;", (6,)),  # no wider than the minimum allows
    ],
)
def test_the_last_size_is_the_window_of_the_rest(batch_size: object, told: str, windows: tuple[int, ...]) -> None:
    plan = planned([a_host(number) for number in range(1, 9)], batch_size=batch_size, min_healthy=2, in_window=True)
    assert told in plan.description
    assert plan.windows == windows


@given(fleets(), SIZE, MINIMUM)
def test_a_plan_depends_on_nothing_but_its_input(hosts: list[HostState], batch_size: object, minimum: object) -> None:
    def outcome() -> object:
        try:
            return planned(hosts, batch_size=batch_size, min_healthy=minimum, unreachable="skip").as_dict()
        except HitlessError as error:
            return str(error)

    assert outcome() == outcome()


def test_broken_hosts_go_first_and_count_once_repaired() -> None:
    hosts = [a_host(1), a_host(2, serving=0), a_host(3, serving=0, maintenance=OURS), a_host(4)]
    plan = planned(hosts, batch_size=2, min_healthy=3)
    assert plan.batches == [["web2", "web3"], ["web1"], ["web4"]]
    assert "not healthy now: web2, web3" in plan.description


def test_hosts_that_are_left_alone() -> None:
    hosts = [
        a_host(1, version="2.0.0"),
        a_host(2, serving=0, maintenance=OTHERS),
        a_host(3, unreachable="no route to host"),
        a_host(4),
        a_host(5),
    ]
    plan = planned(hosts, unreachable="skip", min_healthy=0)
    assert {name: one.state for name, one in plan.hosts.items()} == {
        "web1": "current",
        "web2": "other_owner",
        "web3": "unreachable",
        "web4": "to_change",
        "web5": "to_change",
    }
    assert plan.description == (
        "web 1.0.0 -> 2.0.0 on 2 hosts in 2 batches of 1; at least 0 of 5 stay healthy; 1 already current; "
        "1 in other maintenance; 1 unreachable"
    )
    assert plan.warnings == [
        "web2 is skipped: in maintenance set by someone else: ansible disk replacement.",
        "web3 is skipped: no route to host.",
    ]


def test_a_host_on_the_version_that_is_not_healthy_is_changed() -> None:
    plan = planned([a_host(1), a_host(2, version="2.0.0", serving=0), a_host(3, version="2.0.0")], skip_current=True)
    assert plan.batches == [["web2"], ["web1"]]
    assert plan.hosts["web2"].rollback_to is None
    assert plan.warnings == ["No rollback possible on 1 host: web2: the version is the one that runs there."]


def test_a_host_whose_last_deployment_was_cut_off_is_changed_whatever_is_recorded() -> None:
    plan = planned([a_host(1, version="2.0.0", sure=False), a_host(2, version="2.0.0")])
    assert {name: host.state for name, host in plan.hosts.items()} == {"web1": "to_change", "web2": "current"}


def test_all_hosts_are_changed_where_current_ones_are_not_skipped() -> None:
    plan = planned([a_host(1, version="2.0.0"), a_host(2, version="2.0.0")], skip_current=False)
    assert plan.batches == [["web1"], ["web2"]]


@pytest.mark.parametrize(
    ("host", "given_version", "back"),
    [
        (a_host(1), "0.9.0", "1.0.0"),
        (a_host(1, version_source="meta"), None, "1.0.0"),
        (a_host(1, version_source="meta"), "0.9.0", "0.9.0"),
        (a_host(1, version=None, version_source=None), "0.9.0", "0.9.0"),
        (a_host(1, version=None, version_source=None), None, None),
    ],
)
def test_a_rollback_goes_to_what_is_recorded_else_given_else_told_by_the_service(
    host: HostState, given_version: str | None, back: str | None
) -> None:
    assert planned([host, a_host(2)], previous_version=given_version).hosts["web1"].rollback_to == back


ID = "20261128T142831Z-2.0.0-5fb2"


def going_back(number: int, **changes: object) -> HostState:
    return a_host(number, **{"version": "2.0.0", "target": "1.0.0", **changes})


def test_an_undo_tells_what_it_undoes_and_leaves_the_others_alone() -> None:
    alone = [
        a_host(3, target=None, decided=("current", f"not changed by {ID}"), unreachable="timed out"),
        a_host(4, target=None, version="3.0.0", decided=("changed_since", "3.0.0 was recorded there since")),
    ]
    plan = planned([going_back(2), going_back(1), *alone], direction="rollback", undoes=ID, batch_size="100%")
    assert plan.batches == [["web2", "web1"]]
    assert plan.description == (
        f"undo {ID}: web 2.0.0 -> 1.0.0 on 2 hosts in 1 batch; at least 2 of 4 stay healthy; 1 not changed by it; "
        "1 changed since"
    )
    assert plan.as_dict()["undoes"] == ID
    mixed = (
        "After this rollback the hosts run different versions: 1.0.0 on 3 hosts: web2, web1, web3; 3.0.0 on 1 host: "
        "web4. rollout_version would take all of them to one."
    )
    assert plan.warnings == ["web4 is skipped: 3.0.0 was recorded there since.", mixed]


def test_nothing_to_undo() -> None:
    told = "web: nothing to undo: all 2 hosts run 1.4.2"
    hosts = [a_host(number, target=None, decided=("current", "not changed")) for number in (1, 2)]
    plan = planned(hosts, direction="rollback", nothing=told)
    assert (plan.nothing_to_do, plan.description, plan.warnings) == (True, told, [])


def test_a_mixed_fleet_is_no_matter_of_a_deployment() -> None:
    mixed = a_host(3, decided=("current", "not changed"))
    assert planned([a_host(1), a_host(2), mixed]).warnings == []


def test_where_the_way_back_fails_a_host_that_was_out_of_rotation_stays_out() -> None:
    plan = planned([going_back(1, returns=False, serving=0), going_back(2), going_back(3)], direction="rollback")
    assert [one.rollback_to for one in plan.hosts.values()] == [None, "2.0.0", "2.0.0"]
    assert plan.warnings == []


@pytest.mark.parametrize(
    ("batch_size", "windows"), [("100%", (4,)), ("25%", (2,)), (1, (1,)), (3, (3,)), ([1, "25%"], (1, 2))]
)
def test_a_rollback_goes_as_fast_as_the_minimum_allows_and_a_percentage_is_of_all(
    batch_size: object, windows: tuple[int, ...]
) -> None:
    """Seven of eight have to go back: a quarter of eight is two."""
    hosts = [going_back(number) for number in range(1, 8)]
    options = {"batch_size": batch_size, "direction": "rollback"}
    assert planned(hosts, 1, in_window=True, **options).windows == windows
    sizes = [len(batch) for batch in planned(hosts, 1, **options).batches]
    assert max(sizes) == max(windows)
    one_left = planned(hosts, 1, in_window=True, min_healthy=7, **options)
    assert set(one_left.windows) == {1}


def test_what_serves_nobody_goes_back_first_and_takes_nothing_away() -> None:
    """Seven of eight are out of rotation on the bad version: they would never go back if they counted as healthy."""
    hosts = [going_back(8), *[going_back(number, serving=0) for number in range(1, 8)]]
    plan = planned(hosts, direction="rollback", in_window=True, batch_size="100%")
    assert plan.batches == [["web1", "web2", "web3", "web4", "web5", "web6", "web7", "web8"]]
    assert plan.windows == (4,)


def test_several_versions_are_told() -> None:
    hosts = [a_host(1), a_host(2, version="1.1.0"), a_host(3, version=None, version_source=None)]
    assert planned(hosts).description.startswith(
        "web on 3 hosts (1 from 1.0.0 to 2.0.0, 1 from 1.1.0 to 2.0.0, 1 from unknown to 2.0.0) in 3 batches of 1;"
    )


def test_one_instance_and_half_of_it() -> None:
    assert refused([a_host(1)]) == (
        "web cannot be rolled over web1: 1 of its 1 instance is healthy, and 1 (50% of 1) must stay so; nothing was "
        "changed. Set rollout_min_healthy: 0 to accept the downtime."
    )
    assert planned([a_host(1)], min_healthy=0).batches == [["web1"]]


def test_too_few_are_healthy_already() -> None:
    hosts = [a_host(1), a_host(2), a_host(3, serving=0, maintenance=OTHERS)]
    assert refused(hosts, min_healthy="67%") == (
        "web cannot be rolled over web1: 2 of its 3 instances are healthy, and 3 (67% of 3) must stay so; nothing was "
        "changed. Repair the others first, or set rollout_min_healthy: 1 to accept fewer."
    )
