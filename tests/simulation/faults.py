"""Faults of the product, each of which breaks a promise: the simulation has to find every one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock, maintenance
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import (
    alike,
    bake,
    control,
    drain,
    ending,
    finishing,
    fleet_rollback,
    gate,
    halting,
    history,
    host,
    joiners,
    looking,
    planning,
    progress,
    record,
    recorded_host,
    regression,
    run,
    states,
    undo,
    window,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.waves import Waves

Patch = Callable[[], tuple[object, str, object]]
"""What is replaced: where, its name, and by what."""


def _gate_off_by_one() -> tuple[object, str, object]:
    right = gate.may_begin
    return window, "may_begin", lambda head, minimum: right(head, minimum - 1)


def _blind_for_what_fails() -> tuple[object, str, object]:
    return looking, "out_of_rotation", lambda *_given: []


def _no_waves_in_the_plan() -> tuple[object, str, object]:
    return planning, "_waves", lambda *_given: Waves()


def _no_minimum_in_a_wave() -> tuple[object, str, object]:
    right = window.bounds_for
    return window, "bounds_for", lambda *given, **more: right(*given, **more)[:1]


def _what_joins_is_not_looked_for() -> tuple[object, str, object]:
    return joiners, "nodes_joined", lambda *_given: []


def _no_compare_and_set() -> tuple[object, str, object]:
    return progress.Progress, "op_if_unchanged", progress.Progress.op


def _no_drain() -> tuple[object, str, object]:
    return drain, "wait_as_set", lambda *_given: []


def _window_off_by_one() -> tuple[object, str, object]:
    right = gate.open_stage

    def opened(*given: Any) -> dict[str, Any]:
        found = right(*given)
        return {**found, "window": found["window"] + 1}

    return gate, "open_stage", opened


def _deaf_to_a_stop() -> tuple[object, str, object]:
    right = progress.read_progress
    return window, "read_progress", lambda *given: replace(right(*given), stop="")


def _budget_not_counted() -> tuple[object, str, object]:
    right = progress.ended_ops
    return recorded_host, "ended_ops", lambda *given: right(*given)[:2]


def _no_fence() -> tuple[object, str, object]:
    return host.HostDeployment, "fence", lambda self: {"Verb": "get-tree", "Key": "nothing"}


def _no_verification() -> tuple[object, str, object]:
    return host, "verify_node", lambda *_given: ({}, None)


def _all_maintenance_is_ours() -> tuple[object, str, object]:
    return maintenance, "set_by_deployment_of", lambda _service: lambda _reason: True


def _fails_after_its_end() -> tuple[object, str, object]:
    right = host.HostDeployment.return_to_rotation

    def returned(self: host.HostDeployment, *given: Any) -> dict[str, Any]:
        right(self, *given)
        raise HitlessError("something that comes too late")

    return host.HostDeployment, "return_to_rotation", returned


def _any_transition() -> tuple[object, str, object]:
    return states, "require_transition", lambda *_given: None


def _a_rollback_is_told_as_ok() -> tuple[object, str, object]:
    def ended(self: host.HostDeployment, **_more: object) -> dict[str, Any]:
        self.end(states.OK)
        return {}

    return host.HostDeployment, "end_well", ended


def _always_successful() -> tuple[object, str, object]:
    return ending, "verdict", lambda *_given: "successful"


def _only_what_regressed_goes_back() -> tuple[object, str, object]:
    return undo, "is_changed", lambda outcome: outcome == states.REGRESSED


def _what_did_not_go_back_is_not_named() -> tuple[object, str, object]:
    return finishing, "not_well", lambda *_given: []


def _no_watch_at_the_gate() -> tuple[object, str, object]:
    return window, "look_back", lambda *_given, **_more: None


def _no_watch_in_the_bake() -> tuple[object, str, object]:
    return bake, "look_back", lambda *_given, **_more: None


def _what_was_changed_before_a_pause_is_forgotten() -> tuple[object, str, object]:
    def planned(self: run.Run) -> list[record.PlannedHost]:
        hosts = record.planned_hosts(self.plan.get("hosts") or {})
        return [one for one in hosts.values() if one.batch is not None]

    return run.Run, "planned", property(planned)


def _what_an_interrupted_run_has_changed_is_forgotten() -> tuple[object, str, object]:
    return history.History, "chain", lambda *_given: []


def _no_grace() -> tuple[object, str, object]:
    def confirmed(_task: object, _run: object, _ask: object, suspects: Mapping[str, object]) -> dict[str, Any]:
        return {node: regression.Symptom("it failed once") for node in suspects}

    return regression, "_confirm", confirmed


def _the_lock_stays() -> tuple[object, str, object]:
    return lock, "release", lambda *_given: True


def _in_flight_for_ever() -> tuple[object, str, object]:
    right = progress.ended_ops
    return recorded_host, "ended_ops", lambda *given: right(*given)[1:]


def _the_maintenance_stays() -> tuple[object, str, object]:
    return host.HostDeployment, "end_maintenance", lambda self, *_given: True


def _deaf_to_the_operator() -> tuple[object, str, object]:
    return window, "outlast", lambda _task, _run, _before, found, **_more: (found, found.stop)


def _open_all_week() -> tuple[object, str, object]:
    return halting, "closed", lambda *_given, **_more: ""


def _deaf_to_the_analysis() -> tuple[object, str, object]:
    return control, "findings_of", lambda *_given: ()


def _what_is_found_bad_stays() -> tuple[object, str, object]:
    return fleet_rollback, "UNDONE", ("abort",)


def _no_trouble_is_shared() -> tuple[object, str, object]:
    return alike, "trouble_of_all", lambda *_given, **_more: ""


FAULTS: Mapping[str, tuple[str, Sequence[Patch]]] = {
    "the gate's minimum is off by one": ("minimum", [_gate_off_by_one]),
    "the gate does not see what fails": ("minimum", [_blind_for_what_fails]),
    "the plan forgets the waves": ("waves", [_no_waves_in_the_plan]),
    "the gate forgets the waves": ("minimum of a wave", [_no_minimum_in_a_wave]),
    "what joins is not looked for": ("joiners", [_what_joins_is_not_looked_for]),
    "turns begin without compare-and-set": ("minimum", [_no_compare_and_set]),
    "nothing is drained": ("drain", [_no_drain]),
    "one host too many is in flight": ("window", [_window_off_by_one]),
    "hosts begin after a stop": ("stop", [_deaf_to_a_stop]),
    "the budget is not counted": ("budget", [_budget_not_counted]),
    "what is written is not fenced": ("lock", [_no_fence]),
    "nothing is verified": ("verified", [_no_verification]),
    "any maintenance counts as ours": ("other owner", [_all_maintenance_is_ours]),
    "a host ends twice": ("one outcome", [_fails_after_its_end, _any_transition]),
    "a rollback is told as ok": ("outcome agrees", [_a_rollback_is_told_as_ok, _any_transition]),
    "every verdict is successful": ("record agrees", [_always_successful]),
    "only what regressed goes back": ("fleet rollback", [_only_what_regressed_goes_back]),
    "what did not go back is not named": ("fleet rollback", [_what_did_not_go_back_is_not_named]),
    "nothing is watched": ("regression", [_no_watch_at_the_gate, _no_watch_in_the_bake]),
    "the gate does not watch": ("regression", [_no_watch_at_the_gate]),
    "the bake does not watch": ("regression", [_no_watch_in_the_bake]),
    "a pause makes it forget what was changed": ("regression", [_what_was_changed_before_a_pause_is_forgotten]),
    "what an interrupted run has changed is forgotten": (
        "regression",
        [_what_an_interrupted_run_has_changed_is_forgotten],
    ),
    "hosts begin while one that fails is looked at": ("watch", [_no_watch_at_the_gate]),
    "windows are not looked at while it runs": ("windows", [_open_all_week]),
    "a trouble that all have is one of the host": ("alike", [_no_trouble_is_shared]),
    "the first bad result counts": ("flap", [_no_grace]),
    "the lock is kept": ("clean", [_the_lock_stays]),
    "hosts stay in flight": ("clean", [_in_flight_for_ever]),
    "maintenance is not ended": ("clean", [_the_maintenance_stays]),
    "the gate does not hear the analysis": ("analysis", [_deaf_to_the_analysis]),
    "what is found bad stays": ("analysis", [_what_is_found_bad_stays]),
    "the gate does not hear the operator": ("control", [_deaf_to_the_operator]),
}
"""Fault -> the promise that it breaks, and what makes it."""
FOUND_BY = {
    "a host ends twice": 4,
    "a pause makes it forget what was changed": 214,
    "a rollback is told as ok": 29,
    "a trouble that all have is one of the host": 424,
    "any maintenance counts as ours": 445,
    "every verdict is successful": 35,
    "hosts begin after a stop": 8,
    "hosts begin while one that fails is looked at": 241,
    "hosts stay in flight": 4,
    "maintenance is not ended": 4,
    "nothing is drained": 17,
    "nothing is verified": 4,
    "nothing is watched": 56,
    "one host too many is in flight": 74,
    "only what regressed goes back": 241,
    "the bake does not watch": 686,
    "the budget is not counted": 95,
    "the first bad result counts": 56,
    "the gate does not hear the analysis": 4,
    "the gate does not hear the operator": 17,
    "the gate does not see what fails": 8,
    "the gate does not watch": 1117,
    "the gate forgets the waves": 191,
    "the gate's minimum is off by one": 4,
    "the lock is kept": 4,
    "the plan forgets the waves": 81,
    "turns begin without compare-and-set": 23,
    "what an interrupted run has changed is forgotten": 214,
    "what did not go back is not named": 191,
    "what is found bad stays": 4,
    "what is written is not fenced": 34,
    "what joins is not looked for": 333,
    "windows are not looked at while it runs": 74,
}
"""Fault -> a seed by which it was found, tried first. A change to the product moves it: then the others find it."""


@contextmanager
def broken_by(fault: str) -> Iterator[None]:
    """The product with a fault."""
    with ExitStack() as stack:
        for patch in FAULTS[fault][1]:
            where, name, stand_in = patch()
            stack.enter_context(mock.patch.object(where, name, stand_in))
        yield
