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
  - hitless.consul._cluster
  - hitless.consul._keys
  - hitless.consul._attributes
  - hitless.consul._attributes.info
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
      description: What ran there before, null where nothing is recorded.
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
