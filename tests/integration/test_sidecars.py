"""Sidecars of a service on a real Consul, the oldest and the newest: which of them leave the mesh with it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.action import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._rollout.fleet import sidecar_notes
from lab import wait_until
from tests.integration.services import Services

pytestmark = pytest.mark.oldest


def sidecar(web: Services, *checks: dict[str, Any]) -> str:
    """A service with a sidecar that has these checks, or those that Consul gives it; the sidecar's name."""
    web.register(Connect={"SidecarService": {"Port": 21000, **({"Checks": checks} if checks else {})}})
    return f"{web.name}-sidecar-proxy"


def notes(web: Services, scope: str | list[str] = "service") -> list[str]:
    return sidecar_notes(web.client(), web.name, [web.node], scope)


def in_mesh(web: Services) -> bool:
    return bool(web.server.get(f"health/connect/{web.name}?passing"))


def listens(web: Services) -> dict[str, Any]:
    return {"Name": "listens", "TCP": web.server.url.partition("//")[2], "Interval": "1s", "Status": "passing"}


def test_a_sidecar_with_an_alias_check_leaves_with_its_service(web: Services) -> None:
    sidecar(web, listens(web), {"Name": "follows", "AliasService": web.name})
    wait_until("it is in the mesh", lambda: in_mesh(web))
    assert notes(web) == []
    web.run(maintenance, service=web.name)
    wait_until("it is out of the mesh", lambda: not in_mesh(web))


def test_a_sidecar_without_one_stays_and_is_named(web: Services) -> None:
    name = sidecar(web, listens(web))
    wait_until("it is in the mesh", lambda: in_mesh(web))
    (note,) = notes(web)
    assert note == (
        f"The sidecar {name} has no alias check of {web.name} on 1 node: {web.node}: it goes on to get the mesh's "
        f"requests while {web.name} is in maintenance. Give it one (alias_service), or set rollout_maintenance: "
        f"[{web.name}, {name}]."
    )
    web.run(maintenance, service=web.name)
    assert in_mesh(web)
    # What goes into maintenance itself needs no check for that.
    assert notes(web, [web.name, name]) == notes(web, "node") == []
    web.run(maintenance, service=name)
    assert not in_mesh(web)


def test_the_checks_that_consul_gives_a_sidecar_are_enough(web: Services) -> None:
    sidecar(web)
    wait_until("it is there", lambda: bool(web.server.get(f"health/connect/{web.name}")))
    assert notes(web) == []


def test_no_sidecar_and_one_of_another_service(web: Services) -> None:
    web.register()
    assert notes(web) == []
    other = Services(web.server)
    sidecar(other, listens(web))
    wait_until("it is in the mesh", lambda: in_mesh(other))
    assert sidecar_notes(web.client(), other.name, ["elsewhere"], "service") == []
    assert sidecar_notes(web.client(), other.name.upper(), [web.node], "service") == []
