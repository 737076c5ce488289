"""A closed Consul: ACLs that deny by default, the README's least policy, TLS with client certificates on all sides."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab import Lab
from lab.nodes import wait_until
from tests.fleet import CONSUL
from tests.rollout.drive import Drive, Load, flat
from tests.rollout.secrets import ProcessWatch, files_with, shows
from tests.rollout.support import CHECKOUT, Result
from tests.rollout.test_leader import can_lose_one, kill_leader

OLD, NEW = "1.0.0", "2.0.0-deployslow2"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(vms=3, servers=3, acl=True, tls=True, consul=CONSUL) as running:
        yield running


def readme_policy() -> list[str]:
    """The rules of the README's policy."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^## What the token may do$.*?^```hcl\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    rules = [line.partition("#")[0].strip() for line in found[1].splitlines()]
    assert all(rule.endswith("}") for rule in rules), rules
    return rules


def with_policy(drive: Drive, rules: list[str]) -> Drive:
    """The same lab, seen with a token of these rules."""
    return replace(drive, more={"CONSUL_HTTP_TOKEN": drive.lab.create_token("\n".join(rules), "rollout")})


@pytest.fixture
def least(drive: Drive) -> Drive:
    """The lab with the token that the README says is enough."""
    return with_policy(drive, readme_policy())


def check_secret(drive: Drive, token: str, output: str) -> None:
    """The token is nowhere but where it was put, and where Consul itself keeps its tokens."""
    assert not shows(token, output), "it is in the output"
    consuls_own = [server.directory / "data" for server in drive.lab.servers]
    assert files_with(token, drive.lab.directory, drive.ansible.home, but=consuls_own) == []
    assert not shows(token, json.dumps(drive.lab.consul_get("kv/?recurse"))), "it is in a key"
    values = [drive.lab.kv(key) or "" for key in drive.all_keys()]
    assert values
    assert not any(shows(token, value) for value in values), "it is in a key's value"


def test_least_policy_and_tls_and_the_leader_dies(least: Drive) -> None:
    lab, token = least.lab, least.environment["CONSUL_HTTP_TOKEN"]
    wait_until("a server can be lost", lambda: can_lose_one(lab))
    log = least.ansible.home / "ansible.log"
    drive = replace(least, more={**least.more, "ANSIBLE_LOG_PATH": str(log)})
    with Load(lab) as load, ProcessWatch(token) as watch:
        with drive.start(NEW, "-vvvv", kind="ssh", hosts="web1:web2", batch_size=2, min_healthy=1) as run:
            wait_until("the deployment runs", lambda: bool(lab.vm("web1").deploys()), 60)
            kill_leader(lab)
            result = run.wait()
        assert result.rc == 0, result.output
    load.check_nothing_lost()
    assert drive.running() == [NEW, NEW, OLD]
    assert drive.recorded()[:2] == [NEW] * 2
    assert drive.is_settled()
    # It was given by the environment, which all that runs on the controller inherits.
    assert watch.arguments == set()
    assert any("keeper.py web" in name for name in watch.seen)
    assert not any("keeper.py" in name for name in watch.environments)
    assert "ansible-playbook" in " ".join(watch.environments), "the watch sees nothing"
    assert log.exists()
    check_secret(drive, token, result.output)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_token_from_a_variable(least: Drive, kind: str) -> None:
    """Then it is in no process's environment either; and the inventory is a plain file."""
    lab, token = least.lab, least.environment["CONSUL_HTTP_TOKEN"]
    secret = least.ansible.logs / "secret.json"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text(json.dumps({"hitless_consul_token": token}), encoding="utf-8")
    environment = lab.environment
    del environment["CONSUL_HTTP_TOKEN"]
    inventory = lab.directory / "inventory" / f"static-{kind}.yml"
    options = ["-e", "rollout_service=web", "-e", "rollout_hosts=web", "-e", f"rollout_version={NEW}"]
    with ProcessWatch(token) as watch:
        result = least.ansible.playbook(
            "-i", inventory, "hitless.consul.rollout", *options, "-e", f"@{secret}", "-vvvv", env=environment
        )
    assert result.rc == 0, result.output
    assert least.running() == [NEW] * 3
    assert least.is_settled()
    assert watch.arguments == set()
    assert watch.environments == set()
    check_secret(least, token, result.output)


@pytest.mark.slow
def test_all_playbooks(least: Drive) -> None:
    failed = least.run("3.0.0-broken", "-vvvv")
    assert failed.rc != 0
    assert least.outcomes()["web1"] == "rolled_back", failed.output
    assert least.running() == [OLD] * 3
    for name, version in (("rollout", "2.0.0"), ("rollback", None), ("status", None), ("recover", None)):
        result = least.run(version, "-vvvv", name=name)
        assert result.rc == 0, result.output
        check_secret(least, least.environment["CONSUL_HTTP_TOKEN"], result.output)
    assert least.running() == [OLD] * 3
    assert least.recorded() == [OLD] * 3
    assert least.is_settled()


@pytest.mark.slow
def test_the_whole_node(least: Drive) -> None:
    """It needs the one rule more that the README names, and says so without it."""
    refused = least.run("2.0.0", hosts="web1", maintenance="node")
    assert refused.rc != 0
    assert "403" in refused.output, refused.output
    assert least.deployed() == []
    assert least.is_settled()

    more = [rule for rule in readme_policy() if not rule.startswith("node_prefix")]
    drive = with_policy(least, [*more, 'node_prefix "" { policy = "write" }'])
    result = drive.run("2.0.0", hosts="web1", maintenance="node")
    assert result.rc == 0, result.output
    assert drive.running() == ["2.0.0", OLD, OLD]


def check_untouched(drive: Drive, but_record: bool = False) -> None:
    """Nothing was deployed or taken out, and no key is left but that of a lock (and the failed run's record)."""
    wait_until("the lock is free", lambda: not drive.holds_lock(), 30)
    assert but_record or [key for key in drive.all_keys() if not key.endswith("/lock")] == []
    assert drive.recorded() == [None] * 3
    assert drive.maintenance() == {}
    assert drive.deployed() == []


def plain(drive: Drive, *more: str) -> Result:
    """A rollout over the hosts of a plain inventory."""
    file = drive.lab.directory / "inventory" / "static-ssh.yml"
    options = ["-e", "rollout_service=web", "-e", "rollout_hosts=web", "-e", "rollout_version=2.0.0", *more]
    return drive.ansible.playbook("-i", file, "hitless.consul.rollout", *options, env=drive.environment)


@pytest.mark.slow
@pytest.mark.parametrize("missing", readme_policy())
def test_each_rule_is_needed(drive: Drive, missing: str) -> None:
    """Without one of them no host is touched, and the run tells what it may not do."""
    poor = with_policy(drive, [rule for rule in readme_policy() if rule != missing])
    # The agent is asked for its name only where the inventory does not tell it.
    result = plain(poor, "-e", "consul_node=") if missing.startswith("agent") else poor.run("2.0.0", kind="ssh")
    assert result.rc != 0, result.output
    assert "Traceback" not in result.output
    assert "token" in result.output or "403" in result.output, result.output
    check_untouched(drive, but_record=missing.startswith('key_prefix "nodes/"'))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "wrong token": ({"CONSUL_HTTP_TOKEN": "00000000-1111-2222-3333-444444444444"}, "CONSUL_HTTP_TOKEN"),
    "no token": ({"CONSUL_HTTP_TOKEN": ""}, "token"),
    "no client certificate": ({"CONSUL_CLIENT_CERT": "", "CONSUL_CLIENT_KEY": ""}, "CONSUL_CLIENT_CERT"),
    "no authority": ({"CONSUL_CACERT": ""}, "CONSUL_CACERT"),
    "missing certificate file": ({"CONSUL_CLIENT_CERT": "/nonexistent.pem"}, "/nonexistent.pem"),
    "no TLS": ({"CONSUL_HTTP_SSL": "", "CONSUL_HTTP_ADDR": "http://{address}:8501"}, "https://"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("inventory", ["Consul's", "a plain file"])
def test_wrong_credentials(least: Drive, name: str, inventory: str) -> None:
    more, sentence = WRONG[name]
    environment = {key: value.format(address=least.lab.controller.address) for key, value in more.items()}
    drive = replace(least, more={**least.more, **environment})
    if inventory == "Consul's":
        result = drive.run("2.0.0", kind="ssh")
    else:
        result = plain(drive)
    assert result.rc != 0, result.output
    assert sentence in flat(result.output), result.output
    assert "Traceback" not in result.output
    check_untouched(least)
