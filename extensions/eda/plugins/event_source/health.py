# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source for ansible-rulebook: instances of services that come, go, or change their state in Consul."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

DOCUMENTATION = r"""
short_description: An event for each instance of a service that changes its state
description:
  - Watches the instances of services by blocking reads. An instance is a node and a service ID.
  - Its state is the worst of its own and its node's checks - V(passing), V(warning), V(critical), or V(maintenance)
    while it is in one; V(gone) once it is not registered any more.
  - It outlives a Consul that is away, and then tells what has changed meanwhile. After a restart or reload it repeats
    nothing. With O(remember_key) or O(remember_file) it also tells what changed while it was not running.
  - "An event holds C(service), C(node), C(id), C(change) (V(created), V(updated), V(deleted) or V(existing)),
    C(status), C(previous) where there was one, and unless it is gone C(address), C(port), C(tags), C(failing) (checks
    that do not pass, in words), and C(maintenance) (its reason)."
options:
  services:
    description: Names of the services, as a list or with commas between them.
    type: list
    elements: str
    required: true
  existing:
    description: Also give an event for what is there at the first start, when nothing is remembered.
    type: bool
    default: false
  remember_key:
    description: Key in which to remember what has been told.
    type: str
  remember_file:
    description: File in which to remember what has been told.
    type: str
  url:
    description: Address of Consul's HTTP API; default is the environment's C(CONSUL_HTTP_ADDR).
    type: str
  token:
    description: ACL token, which may read the services and their nodes; default is C(CONSUL_HTTP_TOKEN).
    type: str
  token_file:
    description: File that holds the token; default is C(CONSUL_HTTP_TOKEN_FILE).
    type: str
  ca_path:
    description: File or folder of CA certificates; default is C(CONSUL_CACERT).
    type: str
  client_cert:
    description: Client certificate; default is C(CONSUL_CLIENT_CERT).
    type: str
  client_key:
    description: Key of the client certificate; default is C(CONSUL_CLIENT_KEY).
    type: str
  validate_certs:
    description: Check Consul's certificate; default is C(CONSUL_HTTP_SSL_VERIFY).
    type: bool
  datacenter:
    description: Datacenter; default is that of the agent that is asked.
    type: str
  timeout:
    description: Seconds to wait for an answer, beyond the wait for a change.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Machines in trouble
  hosts: ""
  sources:
    - hitless.consul.health:
        services: [web, api]
  rules:
    - name: Tell of it
      condition: event.status == "critical"
      action:
        debug:
          msg: "{{ event.service }} on {{ event.node }}: {{ event.failing }}"
"""

# ansible-rulebook runs this file by its path, in a Python that knows nothing of collections.
_HELPER = Path(__file__).absolute().parents[4] / "plugins" / "module_utils" / "_eda" / "importable.py"
_spec = importlib.util.spec_from_file_location("hitless_consul_importable", _HELPER)
_helper = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_helper)
_helper.make_importable()

from ansible_collections.hitless.consul.plugins.module_utils._eda.source import (
    Queue,
    follow,
    read_options,
)
from ansible_collections.hitless.consul.plugins.module_utils._eda.watches import health_watches


async def main(queue: Queue, args: dict[str, Any]) -> None:
    """Never returns; ends by being cancelled. Raises where an option cannot be used."""
    options = read_options(args, ("services",))
    await asyncio.gather(*(follow(queue, watch, options) for watch in health_watches(options)))
