"""What a real Consul, the oldest and the newest, answers to each request is taken for Consul's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.registration import register
from tests.integration.services import ENDS, Services, started

pytestmark = pytest.mark.oldest

PATHS = (
    *("health/service/{service}", "health/service/absent", "health/connect/{service}", "health/connect/absent"),
    *("health/node/{node}", "health/node/absent", "health/state/critical", "health/state/passing"),
    *("catalog/services", "catalog/nodes", "catalog/service/consul", "catalog/node/{node}", "catalog/node/absent"),
    *("agent/self", "agent/checks", "agent/services", "session/info/{session}"),
    *("session/info/00000000-0000-0000-0000-000000000000", "kv/deploy/{service}/lock", "kv/absent"),
)


@pytest.fixture(scope="module", params=ENDS, ids=["oldest", "newest"])
def web(request: pytest.FixtureRequest) -> Iterator[Services]:
    for server in started(request.param):
        web = Services(server)
        web.register(Connect={"SidecarService": {"Port": 21000}})
        yield web


@pytest.fixture(scope="module")
def session(web: Services) -> str:
    return web.session(f"deploy/{web.name}/lock")


@pytest.mark.parametrize("path", PATHS)
def test_the_answer_to(web: Services, session: str, path: str) -> None:
    asked = path.format(service=web.name, node=web.node, session=session)
    data = web.client().get(f"/v1/{asked}").data
    assert bool(data) is ("absent" not in path and "0000" not in path)


def test_what_a_node_has(web: Services) -> None:
    assert not register(web.client(), web.node, [], within=1.0).changed
