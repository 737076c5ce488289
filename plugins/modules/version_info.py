#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded versions of a service on its nodes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: version_info
short_description: Read which version of a service runs on which node
version_added: 0.1.0
description:
  - Reads the recorded version, the previous one and the last step of a deployment of each node.
  - It takes one request for 64 nodes.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: The service.
    type: str
    required: true
  nodes:
    description: Names of nodes in Consul. Default is each node that has an instance of the service.
    type: list
    elements: str
  meta_key:
    description:
      - Key of the service's meta that tells a version; what the catalog says there is returned as well. Empty for none,
        which saves a request where O(nodes) is given.
    type: str
    default: version
extends_documentation_fragment:
  - hitless.consul.cluster
  - hitless.consul.keys
  - hitless.consul.attributes
  - hitless.consul.attributes.info
seealso:
  - module: hitless.consul.version
  - module: hitless.consul.deployment_info
"""

EXAMPLES = r"""
- name: Ask which version runs where
  hitless.consul.version_info:
    service: web
  register: web_versions
  delegate_to: localhost
  run_once: true

- name: Name the nodes that are behind
  ansible.builtin.debug:
    var: web_versions.nodes | dict2items | rejectattr('value.version', 'equalto', '1.4.2') | map(attribute='key') | list
  run_once: true
"""

RETURN = r"""
nodes:
  description: Node to what is recorded there.
  returned: always
  type: dict
  contains:
    version:
      description: What runs there, null where nothing is recorded.
      type: str
    previous:
      description: Where a rollback goes, null where nothing is recorded.
      type: str
    meta_version:
      description: What the meta of the node's instances says, null where they say nothing or differ.
      type: str
    status:
      description: The last step of a deployment there, null where there is none.
      type: dict
  sample:
    web-1:
      version: 1.4.2
      previous: 1.4.1
      meta_version: null
      status: {deployment: 20261123T142233Z-1.4.2-7f3a, state: ok, at: "2026-11-23T14:22:58Z", message: ""}
"""

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import read_instances
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import meta_version, read_versions

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "nodes": {"type": "list", "elements": "str"},
    "meta_key": {"type": "str", "default": "version", "no_log": False},
}


def perform(task: Task) -> dict:
    params = task.params
    keys = task.keys(params["service"])
    instances: dict = {}
    if params["nodes"] is None or params["meta_key"]:
        for instance in read_instances(task.consul, params["service"])[0]:
            instances.setdefault(instance.node, []).append(instance)
    nodes = sorted(instances) if params["nodes"] is None else params["nodes"]
    found = read_versions(task.consul, keys, nodes)
    return {
        "changed": False,
        "nodes": {
            node: {
                "version": there.version,
                "previous": there.previous,
                "meta_version": meta_version(instances.get(node, ()), params["meta_key"]),
                "status": there.status,
            }
            for node, there in found.items()
        },
    }


def main() -> None:
    run_module(ARGUMENT_SPEC, perform)


if __name__ == "__main__":
    main()
