"""One service on one screen."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._views.screen import service_screen
from tests.unit.plugins.module_utils._views.test_report import STARTED

NOW = datetime(2026, 11, 23, 14, 30, tzinfo=timezone.utc)


def service(**more: Any) -> dict[str, Any]:
    node = {"version": "1.4.2", "previous": "1.4.1", "health": "in rotation", "reason": ""}
    return {"service": "web", "nodes": {"web1": node}, "running": None, "lock": None, "deployments": [], **more}


def test_the_screen_of_a_quiet_service() -> None:
    assert service_screen(service(), NOW).splitlines() == [
        "web",
        "  node  version  previous  health       why",
        "  web1  1.4.2    1.4.1     in rotation  -",
        "",
        "  running  nothing",
        "  lock     free",
        "",
        "  no deployments yet",
    ]


def test_the_screen_of_a_service_that_is_being_deployed() -> None:
    running = {
        "id": "20261123T142233Z-1.4.2-7f3a",
        "direction": "deploy",
        "started": STARTED,
        "holder": "anna@ci",
        "batch": 2,
        "batches": 5,
        "results": {"web1": "ok", "web2": "pending"},
    }
    lock = {"holder": "anna@ci", "since": STARTED, "message": "web 1.4.2"}
    done = {"id": "x", "state": "interrupted", "started": STARTED, "seconds": 72, "holder": "ben", "description": "d"}
    before = {**done, "id": "w", "state": "failed", "direction": "rollback", "summary": {"ok": 3, "lost": 1}}
    lines = service_screen(service(running=running, lock=lock, deployments=[done, before], nodes={}), NOW).splitlines()
    assert lines == [
        "web",
        "  no instances",
        "",
        (
            "  running  20261123T142233Z-1.4.2-7f3a (deploy), started 7 m 27 s ago by anna@ci, batch 2 of 5: "
            "1 changed, 1 to come"
        ),
        "  lock     taken 7 m 27 s ago by anna@ci (web 1.4.2)",
        "",
        "  last deployments",
        "  id  state        started       took      by   how",
        "  x   interrupted  7 m 27 s ago  1 m 12 s  ben  d",
        "  w   failed       7 m 27 s ago  1 m 12 s  ben  rollback: 3 went back, 1 lost",
    ]


def test_a_service_of_many_nodes_shows_first_those_out_of_rotation() -> None:
    good = {"version": "2", "previous": "1", "health": "in rotation", "reason": ""}
    bad = {**good, "health": "maintenance", "reason": "disk"}
    nodes = {f"web{number:03}": bad if number == 150 else good for number in range(200)}
    lines = service_screen(service(nodes=nodes), NOW).splitlines()
    assert lines[2].split() == ["web150", "2", "1", "maintenance", "disk"]
    assert "  ... and 140 more in rotation" in lines
