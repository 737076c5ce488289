"""One address of Consul for a whole run: the hosts' or the inventory source's; else what was found is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab import Lab
from lab.testkit.ansible_run import Ansible, Result, flat
from tests.rollout.drive import VARIABLES, Drive

pytestmark = [pytest.mark.slow, pytest.mark.oldest]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def drive(ansible: Ansible, lab: Lab) -> Drive:
    """Nothing in the environment says where Consul is."""
    lab.write_inventory(VARIABLES)
    return replace(Drive(ansible, lab), more={"CONSUL_HTTP_ADDR": ""})


def plan(drive: Drive, *inventories: Path, name: str = "rollout", **variables: str) -> Result:
    options = {"rollout_service": "web", "rollout_version": "2.0.0", "rollout_hosts": "web", **variables}
    sources = [part for inventory in inventories for part in ("-i", str(inventory))]
    extra = [part for option in options.items() for part in ("-e", "=".join(option))]
    return drive.ansible.playbook(*sources, f"hitless.consul.{name}", *extra, "--check", env=drive.environment)


def static(drive: Drive, text: str) -> tuple[Path, Path]:
    """A plain inventory, and one that adds variables to its hosts."""
    more = drive.ansible.home / "more.ini"
    more.write_text(text, encoding="utf-8")
    return drive.lab.directory / "inventory" / "static-local.yml", more


def test_of_the_inventory_source(drive: Drive) -> None:
    source = drive.lab.directory / "inventory" / "local" / "web.consul.yml"
    result = plan(drive, source, rollout_hosts="service_web")
    assert result.rc == 0, result.output
    status = plan(drive, source, name="status")
    assert status.rc == 0, status.output


def test_of_the_hosts_variables(drive: Drive) -> None:
    result = plan(drive, *static(drive, f"[web:vars]\nhitless_consul_url={drive.lab.url}\n"))
    assert result.rc == 0, result.output
    assert "on 5 hosts" in flat(result.output)


def test_hosts_that_differ(drive: Drive) -> None:
    text = f"web1 hitless_consul_url={drive.lab.url}\nweb2 hitless_consul_url={NOWHERE}\n"
    result = plan(drive, *static(drive, text))
    assert result.rc != 0
    assert "No answer from Consul at http://127.0.0.1:8500" in flat(result.output)
    assert "That address is the default" in flat(result.output)
    assert f"hitless_consul_url is '{drive.lab.url}' for web1 and '{NOWHERE}' for web2." in flat(result.output)


def test_consul_is_asked_before_the_hosts(drive: Drive) -> None:
    result = plan(drive, *static(drive, f"[web:vars]\nhitless_consul_url={NOWHERE}\n"))
    assert result.rc != 0
    assert "That address is hitless_consul_url as the hosts have it." in flat(result.output)
    assert "Reach the hosts" not in result.stdout
    assert result.recap.keys() == {"localhost"}


def test_an_inventory_that_cannot_be_read_is_the_last_that_is_said(drive: Drive) -> None:
    source = drive.ansible.home / "web.consul.yml"
    source.write_text(f"plugin: hitless.consul.catalog\nurl: {NOWHERE}\nservices: [web]\n", encoding="utf-8")
    result = plan(drive, source, rollout_hosts="service_web")
    assert result.rc != 0
    last = flat(result.output).rpartition("fatal: ")[2]
    assert f"the inventory could not be read: {source}: No answer from Consul at {NOWHERE}" in last, result.output
    assert "use an inventory of the plugin" not in last
