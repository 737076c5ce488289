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
  - Sets, in Consul's KV store, the version that runs on a node and the one that ran there before.
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
      - What ran there before, as a string. An empty one deletes what is recorded.
      - What a rollback goes back to is in the records of deployments, not here.
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
  - hitless.consul._cluster
  - hitless.consul._keys
  - hitless.consul._attributes
  - hitless.consul._attributes.diff
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
  description: What ran there before.
  returned: always
  type: str
  sample: 1.4.1
"""
