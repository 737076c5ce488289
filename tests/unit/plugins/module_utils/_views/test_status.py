"""What one node shows of a service: its health, its version, and why it is in maintenance. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import parse_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Held, Holder
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, Record
from ansible_collections.hitless.consul.plugins.module_utils._rollout.store import Deployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import NodeVersion
from ansible_collections.hitless.consul.plugins.module_utils._views.status import (
    node_dict,
    version_told,
    why_in_maintenance,
)
from tests.unit.plugins.module_utils._consul.test_health import check, entry, maintenance

DEAD = check("critical", "serfHealth", service="", Output="Agent not live or unreachable")


@pytest.mark.parametrize(
    ("checks", "health", "reason"),
    [
        ([check()], "in rotation", ""),
        ([check("warning")], "warning", "web answers is warning"),
        ([maintenance("disk"), check("critical")], "maintenance", "disk"),
        ([maintenance("")], "maintenance", "no reason given"),
        # Nothing can be done on a dead machine, in maintenance or not.
        ([DEAD, maintenance("disk")], "critical", "web answers is critical (Agent not live or unreachable)"),
    ],
)
def test_health_and_why(checks: list[dict[str, Any]], health: str, reason: str) -> None:
    found = node_dict("web", parse_instances([entry(*checks)]), None, {})
    assert (found["health"], found["reason"]) == (health, reason)


def running(outcome: str | None = None, *, alive: bool = True, error: str = "") -> dict[str, Deployment]:
    """The deployment d1 of web, with the host a on the node n1."""
    record = Record("d1", "web", "2", hosts={"a": PlannedHost("a", "n1", batch=1, from_version="1", to_version="2")})
    told = {"a": Outcome("a", "n1", outcome, error=error)} if outcome else {}
    lock = Held(Holder("d1", "anna@ci", "2026-11-23T14:22:33Z"), "s", alive)
    return {"d1": Deployment(record, lock, told, batch=1)}


def at(state: str, version: str | None = "1") -> NodeVersion:
    return NodeVersion("n1", version, status={"deployment": "d1", "state": state, "at": "2026-11-23T14:22:33Z"})


@pytest.mark.parametrize(
    ("there", "known", "told"),
    [
        (NodeVersion("n1"), {}, ""),
        (NodeVersion("n1", "1"), {}, "1"),
        (at("ok", "2"), running("ok"), "2"),
        (at("draining"), running(), "1"),
        (at("deploying"), running(), "1 recorded, going to 2 now"),
        (at("deploying", None), running(), "none recorded, going to 2 now"),
        # Its run is interrupted, or ended with the host in maintenance.
        (at("deploying"), running(alive=False), "1 recorded, cut off while going to 2"),
        (at("failed"), running("failed"), "1 recorded, failed while going to 2"),
        (at("lost"), running("lost", alive=False), "1 recorded, lost while going to 2"),
        # Its record is gone.
        (at("deploying"), {}, "1 recorded, cut off while going to another version"),
    ],
)
def test_what_is_told_of_the_version(there: NodeVersion, known: dict[str, Deployment], told: str) -> None:
    assert version_told(there, known) == told


@pytest.mark.parametrize(
    ("notes", "there", "known", "why"),
    [
        ("oncall: disk", at("deploying"), running(), ""),
        ("deploy:d1 api", at("deploying"), running(), ""),
        ("deploy:d1 web", at("deploying"), running(), "being deployed by d1 (deploying)"),
        # Taken over from an interrupted one.
        ("deploy:d0 web", at("draining"), running(), "being deployed by d1 (draining)"),
        ("deploy:d1 web", at("failed"), running("failed", alive=False, error="It exited with 1."), "It exited with 1."),
        ("deploy:d1 web", at("deploying"), running(alive=False), "left by the interrupted deployment d1"),
        ("deploy:d0 web", NodeVersion("n1"), {}, "left by the interrupted deployment d0"),
    ],
)
def test_why_a_node_is_in_maintenance(notes: str, there: NodeVersion, known: dict[str, Deployment], why: str) -> None:
    told = why_in_maintenance("web", there, notes, known)
    assert told.startswith(why)
    assert bool(told) == bool(why)
