# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible inventories of a lab: static ones, and the sources of the collection's inventory plugin.

static-local.yml, static-ssh.yml, static-agent.yml: hosts web1… in the group `web` (the service's name).
local/web.consul.yml, ssh/…, agent/…: sources of hitless.consul.catalog with the connection in a group_vars/all.yml.
machines.yml: for the roles that set machines up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .balancer import Balancer
from .network import CONTROLLER, SSH_PORT
from .nodes import Node
from .site import Site
from .ssh import user
from .vm import VM

COMMANDS = {
    "rollout_deploy_command": "{{ lab_vm_dir }}/deploy",
    "rollout_restart_command": "{{ lab_vm_dir }}/restart",
    "rollout_reboot_command": "{{ lab_vm_dir }}/reboot",
    "rollout_boot_id_command": "cat {{ lab_vm_dir }}/boot_id",
}
"""What the lab's VMs have for it."""


def to_yaml(value: Any, indent: int = 0) -> str:
    """Dicts as YAML blocks, everything else as JSON (which is YAML)."""
    lines = []
    for key, item in value.items():
        name = key if key.replace("_", "").replace("-", "").replace(".", "").isalnum() else json.dumps(key)
        if isinstance(item, Mapping) and item:
            lines.append(f"{'  ' * indent}{name}:\n{to_yaml(item, indent + 1)}")
        else:
            lines.append(f"{'  ' * indent}{name}: {json.dumps(item)}\n")
    return "".join(lines)


def write(path: Path, data: Mapping[str, Any], comment: str) -> None:
    """One YAML file with a comment line on top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# {comment}\n---\n{to_yaml(data)}", encoding="utf-8")


def write_all(site: Site, vms: Sequence[VM], load_balancer: Node, balancer: Balancer) -> Path:
    """Write all inventories and return their folder."""
    folder = site.directory / "inventory"
    settings = site.settings
    kinds = {"local": True, "ssh": settings.ssh, "agent": bool(settings.agent)}
    for kind in (kind for kind, wanted in kinds.items() if wanted):
        mode = {"rollout_mode": "agent"} if kind == "agent" else COMMANDS
        common = {**mode, **settings.inventory_variables}
        hosts = {vm.name: _static_host(site, vm, kind) for vm in vms}
        static = {"all": {"children": {settings.service: {"hosts": hosts, "vars": common}}}}
        write(folder / f"static-{kind}.yml", static, f"The lab's VMs, {kind} connections.")
        url = site.agent_url(site.address(CONTROLLER))
        source = {"plugin": "hitless.consul.catalog", "url": url, "services": [settings.service]}
        write(folder / kind / "web.consul.yml", source, "Who is there, Consul knows.")
        host = _host(site, "{{ consul_node }}", "{{ consul_address }}", kind)
        write(folder / kind / "group_vars" / "all.yml", {**host, **common}, f"Reached by {kind} connections.")
    roles = {vm: vm.role_variables() for vm in vms} | {load_balancer: balancer.role_variables()}
    machines = {
        node.name: {**_local_connection(), "hitless_consul_agent_url": node.agent_url, **variables}
        for node, variables in roles.items()
    }
    write(folder / "machines.yml", {"all": {"hosts": machines}}, "For the roles that set machines up.")
    return folder


def _static_host(site: Site, vm: VM, kind: str) -> dict[str, Any]:
    """Variables of a host, with those that the inventory plugin would give it."""
    return {"consul_node": vm.name, "consul_address": vm.address, **_host(site, vm.name, vm.address, kind)}


def _host(site: Site, name: str, address: str, kind: str) -> dict[str, Any]:
    """Variables of the host whose node has that name and address; both may be templates."""
    variables = {
        **(_local_connection() if kind == "local" else _ssh_connection(site, address, kind)),
        "hitless_consul_agent_url": site.agent_url(address),
        "lab_vm_dir": f"{site.directory}/{name}",
    }
    if site.settings.tls:
        variables |= {
            "hitless_consul_agent_ca_path": f"{site.directory}/tls/ca.pem",
            "hitless_consul_agent_client_cert": f"{site.directory}/tls/{name}.pem",
            "hitless_consul_agent_client_key": f"{site.directory}/tls/{name}.key",
        }
    return variables


def _local_connection() -> dict[str, Any]:
    """Variables of a host that Ansible reaches without SSH: every VM of a lab is this machine."""
    return {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}


def _ssh_connection(site: Site, address: str, kind: str) -> dict[str, Any]:
    """Variables of a host that Ansible reaches by the lab's own sshd, key and known hosts.

    In agent mode nobody has to; whoever tries to log in all the same is refused.
    """
    ssh = site.directory / "ssh"
    return {
        "ansible_connection": "ssh",
        "ansible_host": address,
        "ansible_port": 1 if kind == "agent" else SSH_PORT,
        "ansible_user": user(),
        "ansible_ssh_private_key_file": str(ssh / "key"),
        "ansible_ssh_common_args": f"-F {ssh / 'config'}",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
