"""One address of Consul for a run: what is taken from inventory sources, and what an error says of its origin."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import address
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import connection_options

pytestmark = pytest.mark.oldest

A: dict[str, Any] = {"url": "http://a:8500", "ca_path": "/ca.pem"}
B: dict[str, Any] = {"url": "http://b:8500"}
SECRET: dict[str, Any] = {"token": "secret", "token_file": "/token", "validate_certs": False, "timeout": 3}


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "_sources", {})


def test_sources_that_agree() -> None:
    assert address.of_inventory() == {}
    address.note_source("one", {**A, **SECRET})
    assert address.of_inventory() == A
    address.note_source("two", A)
    address.note_source("of the environment", {})
    assert address.of_inventory() == A
    address.note_source("three", B)
    assert address.of_inventory() == {}


def test_a_source_that_could_not_be_read() -> None:
    address.note_source("one", A, "Permission denied")
    assert address.sources_unread() == ["one: Permission denied"]
    assert address.of_inventory() == A
    address.note_source("one", A)
    assert address.sources_unread() == []
    # No host of it is there to be asked for.
    address.note_source("two", {**A, "datacenter": "dc2"}, "its nodes are called as those of one")
    assert address.of_inventory() == A
    assert address.origin({}, {}, {}, "") == "That address is url of the inventory source one."


@pytest.mark.parametrize(
    ("params", "variables", "environment", "expected"),
    [
        ({}, {}, {}, A),
        ({}, {"hitless_consul_token": "t"}, {}, {**A, "token": "t"}),
        ({}, {"hitless_consul_ca_path": "/own.pem"}, {}, {**A, "ca_path": "/own.pem"}),
        # Nothing of it where an address is set: a certificate belongs to its address.
        ({"url": "http://x"}, {}, {}, {"url": "http://x"}),
        ({}, {"hitless_consul_url": "http://x"}, {}, {"url": "http://x"}),
        ({}, {}, {"CONSUL_HTTP_ADDR": "http://x"}, {"url": "http://x"}),
    ],
)
def test_where_no_address_is_set(
    params: dict[str, Any], variables: dict[str, Any], environment: dict[str, str], expected: dict[str, Any]
) -> None:
    assert connection_options(params, variables, environment, A) == expected


URL, ENVIRONMENT = {"hitless_consul_url": "http://x"}, {"CONSUL_HTTP_ADDR": "http://x"}


@pytest.mark.parametrize(
    ("given", "of_hosts", "environment", "told"),
    [
        (URL, URL, ENVIRONMENT, "That address is hitless_consul_url as localhost has it."),
        ({}, URL, ENVIRONMENT, "That address is hitless_consul_url as the hosts have it."),
        ({}, {}, ENVIRONMENT, "That address is CONSUL_HTTP_ADDR."),
        ({}, {}, {}, "That address is url of the inventory source one."),
    ],
)
def test_where_an_address_comes_from(
    given: dict[str, str], of_hosts: dict[str, str], environment: dict[str, str], told: str
) -> None:
    address.note_source("one", A)
    assert address.origin(given, of_hosts, environment, "") == told


def test_what_was_found_where_it_is_the_default() -> None:
    address.note_source("one", A)
    address.note_source("two", B)
    assert address.origin({}, {}, {}, "The hosts differ.") == (
        "That address is the default: neither hitless_consul_url nor CONSUL_HTTP_ADDR is set for localhost. "
        "The hosts differ. The inventory sources differ: http://a:8500 (one), http://b:8500 (two)."
    )


def test_sources_that_differ_in_the_datacenter_alone() -> None:
    address.note_source("one", A)
    address.note_source("two", {**A, "datacenter": "dc2"})
    assert address.of_inventory() == {}
    assert "sources differ: http://a:8500 (one), http://a:8500, datacenter dc2 (two)." in address.origin({}, {}, {}, "")
