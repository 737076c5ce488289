# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`python -m lab.render`: the templates of the collection's roles, as the roles render them but without their tasks.

A lab starts in seconds; the roles would take ten (each file is some module runs). So a lab's files are what the
roles' own templates and defaults make of the lab's variables; tests/rollout/test_machines.py runs the roles on
a lab, and they find nothing to change. Reads a list of requests as JSON: {"role", "variables"}, and for the load
balancer "files", template -> [path, mode].
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar

from .testkit.link_tree import CHECKOUT

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19 everything is a template, and what looks like data becomes it
    LOOKUP = "{{ lookup('ansible.builtin.template', path, convert_data=False) }}"

    def trust_as_template(value: str) -> str:
        return value

else:
    LOOKUP = "{{ lookup('ansible.builtin.template', path) }}"


def trusted(value: Any) -> Any:
    """Data whose strings are templates."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    return [trusted(item) for item in value] if isinstance(value, list) else value


def role_variables(role: str, given: dict[str, Any]) -> dict[str, Any]:
    """The role's defaults, what is given, and the role's own variables, in Ansible's order."""
    found: dict[str, Any] = {}
    for kind in ("defaults", "given", "vars"):
        file = CHECKOUT / "roles" / role / kind / "main.yml"
        found |= given if kind == "given" else yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def render(role: str, template: str, variables: dict[str, Any]) -> str:
    """The text of one template of a role."""
    path = CHECKOUT / "roles" / role / "templates" / template
    templar = Templar(loader=DataLoader(), variables=trusted(variables))
    templar.available_variables = {**templar.available_variables, "path": str(path)}
    return str(templar.template(trusted(LOOKUP)))


def services(request: dict[str, Any]) -> None:
    """What the role consul_service does offline, with services that are Consul's own definitions already."""
    variables = role_variables("consul_service", request["variables"])
    for service in variables["consul_service_services"]:
        chosen = {"_consul_service_one": {"definition": service}}
        text = render("consul_service", "service.json.j2", {**variables, **chosen})
        write(Path(variables["consul_service_config_dir"]) / f"service-{service['id']}.json", text, 0o640)


def balancer(request: dict[str, Any]) -> None:
    """What the role consul_load_balancer does offline, in the foreground."""
    role = "consul_load_balancer"
    variables = role_variables(role, request["variables"])
    for template, (path, mode) in request["files"].items():
        write(Path(path), render(role, template, variables), int(mode, 8))
    folder = Path(variables["consul_load_balancer_directory"])
    folder.chmod(0o750)
    for script in (CHECKOUT / "roles" / role / "files").glob("*.py"):
        shutil.copyfile(script, folder / script.name)
        (folder / script.name).chmod(0o755 if script.name == "balancer.py" else 0o644)


def main() -> None:
    init_plugin_loader()
    for request in json.load(sys.stdin):
        {"consul_service": services, "consul_load_balancer": balancer}[request["role"]](request)


if __name__ == "__main__":
    main()
