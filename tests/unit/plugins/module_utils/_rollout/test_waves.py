"""Waves as a plan and a record have them."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.waves import Wave, Waves

THREE = Waves((Wave("eu-1", 2, 3, 1), Wave("eu-2", 0, 3, 1), Wave("eu-3", 1, 3, 1)))


def test_which_wave_a_stage_is_of() -> None:
    assert [one.name if (one := THREE.at(stage)) else "" for stage in range(5)] == ["", "eu-1", "eu-1", "eu-3", ""]
    assert [THREE.begins_with(stage) for stage in range(1, 5)] == [True, False, True, False]
    assert [THREE.ends_with(stage) for stage in range(1, 5)] == [False, True, True, False]


def test_how_it_is_told() -> None:
    assert [THREE.told(stage) for stage in (2, 3, 9)] == ["wave eu-1, 1 of 3", "wave eu-3, 3 of 3", ""]
    assert Waves().told(1) == ""


def test_which_have_not_begun() -> None:
    assert THREE.not_begun([0, 1]) == ["eu-3"]
    assert THREE.not_begun([]) == ["eu-1", "eu-3"]
    assert THREE.not_begun([2, 3]) == []


def test_they_are_read_as_they_were_written() -> None:
    assert Waves.of(THREE.as_list()) == THREE
    assert Waves.of(None) == Waves()
    with pytest.raises((KeyError, TypeError)):
        Waves.of([{"stages": 1}])


def test_one_of_them_is_found_by_its_name() -> None:
    assert THREE.named("eu-2") == Wave("eu-2", 0, 3, 1)
    assert THREE.named("eu-4") is None
    assert THREE.named(None) is None


def test_what_goes_on_keeps_its_stages_and_sees_the_instances_of_now() -> None:
    now = Waves((Wave("eu-3", 7, 4, 2), Wave("eu-1", 7, 2, 1), Wave("eu-4", 7, 1, 0)))
    assert THREE.going_on(now).each == (
        Wave("eu-1", 2, 2, 1),
        Wave("eu-2", 0, 3, 1),
        Wave("eu-3", 1, 4, 2),
        Wave("eu-4", 0, 1, 0),
    )
