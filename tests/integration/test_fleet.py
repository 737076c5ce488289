"""The reset between tests: what one test leaves behind must not reach the next."""

from __future__ import annotations

import pytest

from lab import ConsulError, Lab
from tests.fleet import reset


@pytest.mark.oldest
def test_reset_puts_everything_back(fleet: Lab) -> None:
    one, two, three = fleet.vms[:3]
    one.start_app("2.0.0")
    two.operator_maintenance("by hand")
    two.agent.call("PUT", "agent/maintenance?enable=true")
    three.stop_sshd()
    three.kill_agent()
    session = fleet.consul_put("session/create", {"NodeChecks": []})["ID"]
    assert fleet.consul_put(f"kv/deploy/web/lock?acquire={session}", b"x") is True

    reset(fleet)

    assert [vm.running_version() for vm in fleet.vms] == ["1.0.0"] * 5
    assert all(vm.maintenance_reason() is None for vm in fleet.vms)
    assert len(fleet.services(passing=True)) == 5
    with pytest.raises(ConsulError, match="404"):
        fleet.consul_get("kv/?recurse")
    # Free at once: no delay is left on the lock.
    session = fleet.consul_put("session/create", {"NodeChecks": []})["ID"]
    assert fleet.consul_put(f"kv/deploy/web/lock?acquire={session}", b"x") is True
