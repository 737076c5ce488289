"""Consul's own limits, which refuse with 429 what a moment later is fine."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import keeper
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.keeper_config import config

LIMITS = {"request_limits": {"mode": "enforcing", "read_rate": 5, "write_rate": 5}}


def test_what_a_limit_refuses_is_asked_again_until_it_is_answered() -> None:
    server = Server(CONSUL, 23, limits=LIMITS)
    try:
        server.start()
        client = Client(Connection(server.url))
        assert client.set_key("k", "0", cas=0)
        asked = 1
        while client.requests < asked + 5:
            pair = client.key("k")
            assert pair is not None
            assert client.set_key("k", str(asked), cas=pair.index)
            asked += 2
            assert asked < 1000, "no limit was reached"

        consul = keeper.Consul(config(url=server.url, timeout=5, lock="k"))

        def look_often() -> None:
            for _ in range(1000):
                consul.holds_lock()

        with pytest.raises(keeper.NoAnswer, match="429|503"):
            look_often()
    finally:
        server.close()
