# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source for ansible-rulebook: a key of Consul's KV store, or all keys below a prefix."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

DOCUMENTATION = r"""
short_description: An event for each change of keys in Consul's KV store
description:
  - Watches a key, or all keys below a prefix, by blocking reads, and gives an event for each change.
  - It outlives a Consul that is away, and then tells what has changed meanwhile. Writing the same value again is no
    change for Consul.
  - After a restart or reload it repeats nothing. With O(remember_key) or O(remember_file) it also tells what changed
    while it was not running. What was told is remembered right after the rulebook has taken it.
  - "An event holds C(key), C(change) (V(created), V(updated), V(deleted) or V(existing)), and unless it is deleted
    C(value) as text, C(data) where that is a JSON object, C(index) (Consul's ModifyIndex), C(flags), and C(session)
    where the key is locked. A value that is not UTF-8 is in C(value_base64) instead."
options:
  key:
    description: The key; it need not exist yet. One of O(key) and O(prefix) is required.
    type: str
  prefix:
    description:
      - Watch all keys that begin with it. Each change reads all of them, so that a prefix of many large keys is costly.
    type: str
  existing:
    description: Also give an event for what is there at the first start, when nothing is remembered.
    type: bool
    default: false
  remember_key:
    description: Key in which to remember what has been told. It must not be one that is watched.
    type: str
  remember_file:
    description: File in which to remember what has been told.
    type: str
  url:
    description: Address of Consul's HTTP API; default is the environment's C(CONSUL_HTTP_ADDR).
    type: str
  token:
    description: ACL token, which may read the keys and write O(remember_key); default is C(CONSUL_HTTP_TOKEN).
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
- name: Versions that are asked for
  hosts: ""
  sources:
    - hitless.consul.kv:
        key: deploy/web/request
        existing: true
  rules:
    - name: Show it
      condition: event.value is defined
      action:
        debug:
          msg: "{{ event.key }} is now {{ event.value }}"
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
from ansible_collections.hitless.consul.plugins.module_utils._eda.watches import key_watch


async def main(queue: Queue, args: dict[str, Any]) -> None:
    """Never returns; ends by being cancelled. Raises where an option cannot be used."""
    options = read_options(args, ("key", "prefix"))
    await follow(queue, key_watch(options), options)
