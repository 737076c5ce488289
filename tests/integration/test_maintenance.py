"""Maintenance of services and nodes on a real Consul, the oldest and the newest."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.action import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, HitlessError
from lab import wait_until
from tests.integration.services import Services, Swallowing

pytestmark = pytest.mark.oldest


def test_on_and_off_are_seen_in_the_catalog_when_it_returns(web: Services) -> None:
    web.register()
    on = web.run(maintenance, service=web.name, reason="kernel update")
    assert web.reasons() == {web.name: "ansible kernel update"}
    assert on == {
        "changed": True,
        "node": web.node,
        "reason": "ansible kernel update",
        "instances": [web.name],
        "diff": {
            "before": {"maintenance": {web.name: None}},
            "after": {"maintenance": {web.name: "ansible kernel update"}},
        },
    }
    off = web.run(maintenance, service=web.name, state="disabled")
    assert web.reasons() == {web.name: None}
    assert (off["changed"], off["reason"]) == (True, "ansible kernel update")
    assert off["diff"]["after"] == {"maintenance": {web.name: None}}


def test_twice_is_once_and_the_first_reason_stays(web: Services) -> None:
    web.register()
    web.run(maintenance, service=web.name, reason="first")
    again = web.run(maintenance, service=web.name, reason="second")
    assert (again["changed"], again["reason"]) == (False, "ansible first")
    assert web.reasons() == {web.name: "ansible first"}
    web.run(maintenance, service=web.name, state="disabled")
    again = web.run(maintenance, service=web.name, state="disabled")
    assert (again["changed"], again["reason"]) == (False, "")


@pytest.mark.parametrize("state", ["enabled", "disabled"])
@pytest.mark.parametrize("reason", ["disk replacement", "", "oncall ansible", "ansible2 x"])
def test_anothers_is_neither_cleared_nor_taken_over(web: Services, state: str, reason: str) -> None:
    web.register()
    web.operator(reason)
    before = web.reasons()
    with pytest.raises(HitlessError, match="is in maintenance set by someone else") as error:
        web.run(maintenance, service=web.name, state=state)
    assert error.value.details["other_owner"] is True
    assert web.reasons() == before


def test_owners_keep_to_their_own(web: Services) -> None:
    web.register()
    web.run(maintenance, service=web.name, owner="oncall", reason="x")
    with pytest.raises(HitlessError, match="oncall x"):
        web.run(maintenance, service=web.name, state="disabled")
    assert web.run(maintenance, service=web.name, owner="oncall", state="disabled")["changed"]


@pytest.mark.parametrize("owner", ["", "two words", " x", "tab\tbed"])
def test_an_owner_is_one_word(web: Services, owner: str) -> None:
    with pytest.raises(HitlessError, match="owner must be one word"):
        web.run(maintenance, service=web.name, owner=owner)


def test_all_instances_on_the_node_or_the_one_that_is_meant(web: Services) -> None:
    one, two = web.register(f"{web.name}/a b"), web.register(f"{web.name}-é")
    assert set(web.run(maintenance, service=web.name)["instances"]) == {one, two}
    assert set(web.reasons().values()) == {"ansible maintenance"}
    assert web.run(maintenance, service=web.name, service_id=one, state="disabled")["instances"] == [one]
    assert web.reasons() == {one: None, two: "ansible maintenance"}
    # One of two left: the rest is done, and it has changed something.
    assert web.run(maintenance, service=web.name)["changed"]
    assert web.run(maintenance, service_id=two, state="disabled")["changed"]
    assert web.reasons() == {one: "ansible maintenance", two: None}


def test_a_name_that_differs_in_case_alone_is_another_service(web: Services) -> None:
    web.register()
    web.server.put("agent/service/register", {"Name": web.name.capitalize(), "ID": f"legacy-{web.name}"})
    wait_until("the catalog shows it", lambda: len(web.reasons()) == 2)
    assert web.run(maintenance, service=web.name)["instances"] == [web.name]
    assert web.reasons() == {web.name: "ansible maintenance", f"legacy-{web.name}": None}
    with pytest.raises(HitlessError, match=f"No instance of {web.name.upper()} is registered"):
        web.run(maintenance, service=web.name.upper())


def test_anothers_on_one_instance_leaves_the_others_alone(web: Services) -> None:
    one, two = web.register(f"{web.name}-1"), web.register(f"{web.name}-2")
    web.operator("by hand", service_id=two)
    with pytest.raises(HitlessError, match="by hand"):
        web.run(maintenance, service=web.name)
    assert web.reasons() == {one: None, two: "by hand"}


def test_the_whole_node(web: Services) -> None:
    web.register()
    try:
        on = web.run(maintenance, reason="disk")
        assert (on["changed"], on["instances"], on["reason"]) == (True, [], "ansible disk")
        assert web.node_reason() == "ansible disk"
        assert web.reasons() == {web.name: None}
        assert not web.run(maintenance)["changed"]
        # Its services may be taken out by the same owner, and by nobody else.
        assert web.run(maintenance, service=web.name)["changed"]
        with pytest.raises(HitlessError, match="someone else"):
            web.run(maintenance, service=web.name, owner="other")
    finally:
        off = web.run(maintenance, state="disabled")
    assert off["changed"]
    assert web.node_reason() is None


def test_it_is_sent_again_while_the_catalog_does_not_show_it(web: Services) -> None:
    web.register()
    for state, left in (("enabled", "ansible maintenance"), ("disabled", None)):
        task = web.task(maintenance, service=web.name, state=state)
        task.agent = agent = Swallowing(web.server.url, 2)
        assert maintenance.perform(task)["changed"]
        assert agent.swallowed == 2
        assert web.reasons() == {web.name: left}


def test_what_is_never_shown_fails(web: Services) -> None:
    web.register()
    task = web.task(maintenance, service=web.name, deadline=0.5)
    task.agent = Swallowing(web.server.url, 1000)
    with pytest.raises(HitlessError, match=f"did not show {web.name} on {web.node} in maintenance within 0.5 s"):
        maintenance.perform(task)


def test_check_mode_says_so_and_does_nothing(web: Services) -> None:
    web.register()
    told = web.run(maintenance, service=web.name, check_mode=True)
    assert told["changed"]
    assert told["diff"]["after"] == {"maintenance": {web.name: "ansible maintenance"}}
    assert web.reasons() == {web.name: None}
    web.run(maintenance, service=web.name)
    assert web.run(maintenance, service=web.name, state="disabled", check_mode=True)["changed"]
    assert not web.run(maintenance, service=web.name, check_mode=True)["changed"]
    assert web.reasons() == {web.name: "ansible maintenance"}


def test_what_is_not_there(web: Services) -> None:
    with pytest.raises(HitlessError, match=f"No instance of {web.name} is registered on the node {web.node}"):
        web.run(maintenance, service=web.name)
    with pytest.raises(HitlessError, match="Consul knows no node gone"):
        web.run(maintenance, node="gone")
    with pytest.raises(ConsulError, match="does not know the service ID 'gone'"):
        web.run(maintenance, service_id="gone")
    web.register()
    with pytest.raises(HitlessError, match="has the ID gone"):
        web.run(maintenance, service=web.name, service_id="gone")


def test_a_reason_of_any_characters(web: Services) -> None:
    web.register()
    reason = "50% & more? é #1 {{ x }}"
    assert web.run(maintenance, service=web.name, reason=reason)["reason"] == f"ansible {reason}"
    assert web.reasons() == {web.name: f"ansible {reason}"}


def test_it_survives_the_agents_death(web: Services) -> None:
    """What the design leans on: maintenance is the agent's own state on disk."""
    web.register()
    web.run(maintenance, service=web.name, reason="x")
    web.server.kill()
    web.server.start()
    wait_until("the catalog shows the service again", lambda: web.name in web.statuses())
    assert web.reasons() == {web.name: "ansible x"}
    assert web.run(maintenance, service=web.name, state="disabled")["changed"]
