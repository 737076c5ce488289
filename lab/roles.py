# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles write on the machines of a lab, rendered by Ansible in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .balancer import Balancer
from .errors import LabError
from .testkit.link_tree import CHECKOUT
from .vm import VM


def render(directory: Path, vms: Sequence[VM], balancer: Balancer | None = None) -> None:
    """Write the services of the VMs, and what the load balancer needs; `directory` is the lab's."""
    requests: list[dict[str, Any]] = [{"role": "consul_service", "variables": vm.role_variables()} for vm in vms]
    if balancer is not None:
        variables, files = balancer.role_variables(), balancer.files()
        requests.append({"role": "consul_load_balancer", "variables": variables, "files": files})
    # What the user keeps in an ansible.cfg is not the lab's.
    config = directory / "ansible.cfg"
    config.write_text("[defaults]\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "lab.render"],
        env={**os.environ, "ANSIBLE_CONFIG": str(config), "ANSIBLE_HOME": str(directory / "ansible")},
        cwd=CHECKOUT,
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"the roles' templates could not be rendered:\n{done.stderr}")
