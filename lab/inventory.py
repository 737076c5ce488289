# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible inventories of a lab: static ones, and the sources of the collection's inventory plugin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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


def local_connection() -> dict[str, Any]:
    """Variables of a host that Ansible reaches without SSH: every VM of a lab is this machine."""
    return {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}


def ssh_connection(host: str, port: int, user: str, key: Path, config: Path) -> dict[str, Any]:
    """Variables of a host that Ansible reaches by the lab's own sshd, key and known hosts."""
    return {
        "ansible_connection": "ssh",
        "ansible_host": host,
        "ansible_port": port,
        "ansible_user": user,
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": f"-F {config}",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
