#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded version of a service on a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: version
short_description: Record which version of a service runs on a node
version_added: 0.1.0
description:
  - Sets, in Consul's KV store, the version that runs on a node and the previous one, where a rollback goes.
  - Both are set in one transaction. The version that was recorded before becomes the previous one, and the previous one
    is kept where the version does not change.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: The service.
    type: str
    required: true
  node:
    description:
      - Name of the node in Consul. Default is the variable C(consul_node), as the inventory sets it, else what the
        host's agent says.
    type: str
  version:
    description:
      - What runs there, as a string; quote it, since YAML reads 1.10 as the number 1.1.
      - Required with O(state=present).
    type: raw
  previous:
    description:
      - Where a rollback goes, as a string. An empty one deletes what is recorded, so that a rollback has to ask.
      - Default is the version that is recorded now, where it differs from O(version).
    type: raw
  expect:
    description:
      - Compare and set. The version that must be recorded now, empty for none; where another is, or where it changes at
        the same time, the task fails, changes nothing and says what is there.
    type: raw
  session:
    description:
      - Session that must hold the lock of the service's deployments, as M(hitless.consul.lock) returns it. Where it
        does not, nothing is changed and the task fails.
    type: str
  state:
    description: Whether a version is recorded. V(absent) deletes both, for a node that no longer runs the service.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - hitless.consul.cluster
  - hitless.consul.keys
  - hitless.consul.attributes
  - hitless.consul.attributes.diff
seealso:
  - module: hitless.consul.version_info
"""

EXAMPLES = r"""
- name: Tell what runs here already, before the first deployment
  hitless.consul.version:
    service: web
    version: "1.4.1"

- name: Record a version only where the one known to run is still recorded
  hitless.consul.version:
    service: web
    version: "1.4.2"
    expect: "1.4.1"
    session: "{{ web_lock.session }}"

- name: Forget a host that no longer runs the service
  hitless.consul.version:
    service: web
    node: web-9
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
node:
  description: The node in Consul.
  returned: always
  type: str
  sample: web-1
version:
  description: What is recorded to run there now.
  returned: always
  type: str
  sample: 1.4.2
previous:
  description: Where a rollback goes.
  returned: always
  type: str
  sample: 1.4.1
"""

from dataclasses import replace

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import kv_delete
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout import versions
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_version

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "node": {"type": "str"},
    "version": {"type": "raw"},
    "previous": {"type": "raw"},
    "expect": {"type": "raw"},
    "session": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
CONSTRAINTS = {"required_if": [("state", "present", ["version"])]}


def perform(task: Task) -> dict:
    params = task.params
    keys = task.keys(params["service"])
    wanted = _wanted(params)
    before = versions.read_version(task.consul, keys, task.node)
    expect = None
    if params["expect"] is not None:
        expected = checked_version(params["expect"], "expect") if params["expect"] != "" else None
        if before.version != expected:
            raise versions.changed_meanwhile(keys, before, expected)
        expect = before
    if wanted is None:
        after = replace(before, version=None, previous=None)
    else:
        version, previous = wanted
        if previous is None:
            previous = versions.previous_after(before, version)
        kept = before.previous if previous in (None, version) else previous
        after = replace(before, version=version, previous=kept or None)
    # Told by hand it is sure, whatever a deployment left.
    after = replace(after, status=before.status if before.is_sure else None)
    changed = after != before
    if changed and not task.check_mode:
        if wanted is None:
            versions.forget_version(task.consul, keys, task.node, session=params["session"], expect=expect)
        else:
            versions.record_version(
                task.consul,
                keys,
                task.node,
                version,
                previous=previous,
                session=params["session"],
                expect=expect,
                extra_ops=() if before.is_sure else [kv_delete(keys.status(task.node))],
            )
    return {
        "changed": changed,
        "node": task.node,
        "version": after.version,
        "previous": after.previous,
        "diff": {"before": _shown(before), "after": _shown(after)},
    }


def _wanted(params: dict) -> tuple[str, str | None] | None:
    """Version and previous as asked for; None for absent."""
    if params["state"] == "absent":
        if params["version"] is not None or params["previous"] is not None:
            raise HitlessError("With state: absent there is no version and no previous to give.")
        return None
    previous = params["previous"]
    if previous not in (None, versions.FORGET):
        checked_version(previous, "previous")
    return checked_version(params["version"]), previous


def _shown(there: versions.NodeVersion) -> dict:
    return {"version": there.version, "previous": there.previous}


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
