"""Expressions that are evaluated once for each value give what Ansible's own code gives, host by host."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import ansible.template
import pytest
from ansible.errors import AnsibleError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

from ansible_collections.hitless.consul.plugins.plugin_utils._inventory import (
    TRUST_IS_EXPLICIT,
    Constructed,
    dependencies,
    reach,
    without_templates,
)

NAMES = ("consul_node", "consul_node_meta", "consul_services", "consul_status")


def trusted(value: Any) -> Any:
    """As if read from an inventory file."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return ansible.template.trust_as_template(value) if TRUST_IS_EXPLICIT and isinstance(value, str) else value


class Plugin(BaseInventoryPlugin, Constructable):
    NAME = "test"

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = trusted(options)
        self.calls = 0
        BaseInventoryPlugin.parse(self, InventoryData(), DataLoader(), "none")

    def get_option(self, option: str, hostvars: Any = None) -> Any:
        defaults = {"strict": False, "use_extra_vars": False, "leading_separator": True}
        return self.options.get(option, defaults.get(option))

    def _compose(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super()._compose(*args, **kwargs)


FLEET = {
    f"web-{number}": {
        "consul_node": f"web-{number}",
        "consul_node_meta": {"rack": "ab"[number % 2], "n": str(number % 3), **({"os": "deb"} if number % 5 else {})},
        "consul_services": {"web": [{"id": "web", "port": 8080 + number % 2, "tags": ["v1", f"z{number % 3}"]}]},
        "consul_status": ["passing", "warning", "critical"][number % 3],
    }
    for number in range(30)
}
COMPOSE = {
    "rack": "consul_node_meta.rack",
    "upper": "consul_node_meta.rack | upper",
    "os": "consul_node_meta.os",
    "os_or": "consul_node_meta.os | default('none')",
    "got": "consul_node_meta.get('os', 'x')",
    "text": "consul_node_meta['rack'] ~ '-' ~ consul_services.web[0].port",
    "tags": "consul_services.web[0].tags | map('upper') | list",
    "more": "rack ~ '!'",
    "short": "inventory_hostname_short",
    "nothing": "no_such_variable",
    "called": "consul_node.replace('web', 'api')",
    "looked": "lookup('ansible.builtin.vars', 'consul_node')",
}
GROUPS = {
    "rack_a": "consul_node_meta.rack == 'a'",
    "named": "consul_services.web is defined and 'z1' in consul_services.web[0].tags",
    "absent": "consul_node_meta.os is not defined",
    "first": "inventory_hostname == 'web-1'",
    "grouped": "'rack_a' in group_names",
    "bad": "consul_node_meta.nothing == 1",
}
KEYED = [
    {"key": "consul_node_meta.rack", "prefix": "r"},
    {"key": "consul_node_meta", "prefix": "m"},
    {"key": "consul_services.web[0].tags", "separator": ""},
    {"key": "consul_node_meta.os | default('')", "prefix": "os", "default_value": "unknown"},
    {"key": "consul_status", "prefix": "s", "parent_group": "all_status"},
    {"key": "consul_status", "prefix": "p", "parent_group": "{{ consul_node_meta.rack }}_parent"},
    {"key": "rack", "prefix": "composed"},
]


def hosts(plugin: Plugin, fleet: dict[str, Any]) -> None:
    for name, variables in fleet.items():
        plugin.inventory.add_host(name)
        plugin.inventory.hosts[name].vars.update(variables)


def picture(plugin: Plugin) -> dict[str, Any]:
    """All that an inventory says: variables of hosts, members and children of groups."""
    inventory = plugin.inventory
    return {
        "hosts": {
            name: {key: value for key, value in host.vars.items() if not key.startswith("inventory_")}
            for name, host in inventory.hosts.items()
        },
        "groups": {
            name: (sorted(host.name for host in group.hosts), sorted(child.name for child in group.child_groups))
            for name, group in inventory.groups.items()
        },
    }


def ours(fleet: dict[str, Any], **options: Any) -> Plugin:
    plugin = Plugin(**options)
    hosts(plugin, fleet)
    constructed = Constructed(plugin, NAMES)
    for name in fleet:
        constructed.apply(name)
    return plugin


def ansibles(fleet: dict[str, Any], **options: Any) -> Plugin:
    """The loop that every Constructable plugin has."""
    plugin = Plugin(**options)
    hosts(plugin, fleet)
    strict = plugin.get_option("strict")
    for name in fleet:
        host = plugin.inventory.hosts[name]
        # One by one: each may use what the one before made.
        for variable, expression in (plugin.get_option("compose") or {}).items():
            plugin._set_composite_vars({variable: expression}, host.get_vars(), name, strict=strict)
        plugin._add_host_to_composed_groups(plugin.get_option("groups"), {}, name, strict=strict)
        plugin._add_host_to_keyed_groups(plugin.get_option("keyed_groups"), {}, name, strict=strict)
    return plugin


def test_the_result_is_ansibles() -> None:
    options = {"compose": COMPOSE, "groups": GROUPS, "keyed_groups": KEYED}
    assert picture(ours(FLEET, **options)) == picture(ansibles(FLEET, **options))


def test_text_that_looks_like_something_else_is_treated_as_ansible_does() -> None:
    fleet = {
        f"h{number}": {"consul_node_meta": {"v": text}, "consul_node": "h"}
        for number, text in enumerate(["True", "[1, 2]", "{'a': 1}", "1", "", "None", "{not a template"])
    }
    options = {"compose": {"v": "consul_node_meta.v", "all": "consul_node_meta"}}
    assert picture(ours(fleet, **options)) == picture(ansibles(fleet, **options))


def test_ansible_evaluates_each_distinct_value_once() -> None:
    plugin = ours(FLEET, compose={"u": "consul_node_meta.rack | upper"}, keyed_groups=KEYED[:1])
    assert plugin.calls == 4
    assert ours(FLEET, compose={"plain": "consul_node_meta.rack"}).calls == 0
    assert ours(FLEET, compose={"asked": "lookup('ansible.builtin.vars', 'consul_node')"}).calls == len(FLEET)


@pytest.mark.parametrize(
    "options",
    [
        {"compose": {"os": "consul_node_meta.os"}},
        {"groups": {"g": "consul_node_meta.os == 'deb'"}},
        {"keyed_groups": [{"key": "consul_node_meta.os"}]},
    ],
)
def test_strict_refuses_what_is_undefined(options: dict[str, Any]) -> None:
    ours(FLEET, **options)
    with pytest.raises(AnsibleError, match="web-0"):
        ours(FLEET, strict=True, **options)


def test_an_extra_variable_beats_ours_where_asked() -> None:
    plugin = Plugin(compose={"r": "consul_node_meta.rack"}, use_extra_vars=True)
    plugin._vars = {"consul_node_meta": {"rack": "extra"}}
    hosts(plugin, FLEET)
    Constructed(plugin, NAMES).apply("web-1")
    assert plugin.inventory.hosts["web-1"].vars["r"] == "extra"


def test_a_variable_with_an_impossible_name_is_refused() -> None:
    with pytest.raises(AnsibleError, match="'a-b'"):
        ours(FLEET, compose={"a-b": "consul_node"})


@pytest.mark.parametrize(
    "expression",
    [
        "lookup('pipe', 'id')",
        "now()",
        "[1, 2] | random",
        "consul_services.web | map('random') | list",
        "consul_node | my.own.filter",
        "unknown_name",
        "consul_node is file",
        "consul_node |",
        "consul_services.web | selectattr('id', 'my_test')",
    ],
)
def test_what_may_change_by_itself_is_never_remembered(expression: str) -> None:
    assert dependencies(expression, NAMES) is None


@pytest.mark.parametrize(
    ("expression", "paths"),
    [
        ("consul_node_meta.rack", [("consul_node_meta", "rack")]),
        ("consul_node_meta['rack'] ~ consul_node", [("consul_node_meta", "rack"), ("consul_node",)]),
        ("consul_services.web[0].port + 1", [("consul_services", "web", 0, "port")]),
        ("consul_services[consul_node]", [("consul_services",), ("consul_node",)]),
        ("consul_services.web | map(attribute='id') | list", [("consul_services", "web")]),
        ("consul_services.web | selectattr('id', 'search', 'x') | list", [("consul_services", "web")]),
    ],
)
def test_what_an_expression_depends_on(expression: str, paths: list[tuple[Any, ...]]) -> None:
    assert dependencies(expression, NAMES) == paths


def test_a_method_depends_on_all_of_its_object() -> None:
    variables = {"m": {"items": "x", "a": {"b": 1}}}
    assert reach(variables, ("m", "items")) == (1, variables["m"])
    assert reach(variables, ("m", "a", "b")) == (3, 1)
    assert reach(variables, ("m", "none", "b"))[0] == 1


@pytest.mark.parametrize(
    "text",
    ["{{ lookup('pipe','touch FILE') }}", "{% for x in [1] %}{{ x }}{% endfor %}"],
)
def test_remote_text_is_no_template(text: str, tmp_path: Path) -> None:
    """Not by itself, not in a structure, not as a key, not after an expression made something of it."""
    mark = tmp_path / "made"
    text = text.replace("FILE", str(mark))
    remote = without_templates({"consul_node_meta": {"x": text, text: "v"}, "consul_node": "h"})
    plugin = ours({"h": remote}, compose={"y": "consul_node_meta.x ~ ''", "z": "consul_node_meta"})
    variables = plugin.inventory.hosts["h"].vars
    plugin.templar.available_variables = variables
    for used in ("consul_node_meta", "y", "z"):
        assert plugin.templar.template(variables[used]) == variables[used]
        assert plugin.templar.template(trusted(f"{{{{ {used} }}}}")) == variables[used]
    plugin = ours({"h": remote}, compose={"y": "consul_node_meta.x"}, groups={"g": "y", "k": "consul_node_meta.x"})
    assert not mark.exists()


def test_groups_are_made_in_the_order_of_hosts() -> None:
    names = list(itertools.islice(FLEET, 4))
    plugin = ours({name: FLEET[name] for name in names}, keyed_groups=KEYED[:1])
    assert [host.name for host in plugin.inventory.groups["r_b"].hosts] == [names[1], names[3]]
