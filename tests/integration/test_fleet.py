"""The reset between tests: what one test leaves behind must not reach the next."""

from __future__ import annotations

import pytest

from lab import ConsulError, Lab
from tests.fleet import Shared, reset


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

    with three.app_log.open("a", encoding="utf-8") as log:
        log.write("of the last test\n")

    reset(fleet)

    assert "of the last test" not in three.app_log.read_text(encoding="utf-8")
    assert [vm.running_version() for vm in fleet.vms] == ["1.0.0"] * 5
    assert all(vm.maintenance_reason() is None for vm in fleet.vms)
    assert len(fleet.services(passing=True)) == 5
    with pytest.raises(ConsulError, match="404"):
        fleet.consul_get("kv/?recurse")
    # Free at once: no delay is left on the lock.
    session = fleet.consul_put("session/create", {"NodeChecks": []})["ID"]
    assert fleet.consul_put(f"kv/deploy/web/lock?acquire={session}", b"x") is True


@pytest.mark.slow
def test_the_lab_of_the_next_file_is_as_it_began_and_another_where_it_cannot_be() -> None:
    shared = Shared(vms=2)
    try:
        first = shared.get()
        first.write_inventory({"rollout_drain_time": 7})
        first.controller.kill_agent()
        first.vms[0].stop_app()
        assert shared.get() is first
        assert first.settings.inventory_variables == {}
        assert len(first.services(passing=True)) == 2
        first.remove_vm("web1")
        second = shared.get()
        assert second is not first
        assert [vm.name for vm in second.vms] == ["web1", "web2"]
        assert not first.directory.exists()
        second.stop()
        assert len(shared.get().services(passing=True)) == 2
    finally:
        shared.close()
