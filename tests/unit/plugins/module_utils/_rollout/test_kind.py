"""The kinds of deployments, and the words for them."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import KINDS, kind_of, restart_command
from lab.testkit.link_tree import CHECKOUT


def test_a_restart_and_a_reboot_change_no_version() -> None:
    assert [one.direction for one in KINDS.values() if one.keeps_version] == ["restart", "reboot"]
    assert {name: one.direction for name, one in KINDS.items()} == {name: name for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_each_has_its_playbook(name: str) -> None:
    text = (CHECKOUT / "playbooks" / f"{KINDS[name].playbook}.yml").read_text(encoding="utf-8")
    assert f"rollout_direction: {name}\n" in text or name == "deploy"


def test_one_that_nobody_knows_is_a_rollout() -> None:
    assert kind_of(None) == kind_of("forwards") == KINDS["deploy"]


def test_a_service_is_restarted_by_its_unit() -> None:
    assert restart_command("web") == "systemctl restart web"
