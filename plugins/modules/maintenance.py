# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance of a service or node, seen in the catalog."""

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance
short_description: Put a service or a node into maintenance and see it in the catalog
version_added: 0.1.0
description:
  - Takes all instances of a service on a host, one instance, or the whole node out of rotation, or puts them back.
  - Returns only when the catalog shows the change, and sends it again while it does not.
  - A maintenance that another owner has set is never cleared and never taken over; the task fails and names it.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: Service by name; all its instances on the node. Leave out with O(service_id) for the whole node.
    type: str
  service_id:
    description: One instance by its ID.
    type: str
  state:
    description: Whether it is in maintenance.
    type: str
    choices: [enabled, disabled]
    default: enabled
  reason:
    description: Why, for those who read it in Consul.
    type: str
    default: maintenance
  owner:
    description:
      - Whose maintenance it is, one word; it stands before the reason in Consul.
      - Only a maintenance of the same owner is cleared.
    type: str
    default: ansible
  deadline:
    description: Seconds the catalog has to show the change.
    type: float
    default: 60
extends_documentation_fragment:
  - hitless.consul._cluster
  - hitless.consul._agent
  - hitless.consul._attributes
  - hitless.consul._attributes.diff
seealso:
  - module: hitless.consul.health_wait
"""

EXAMPLES = r"""
- name: Take the web server of this host out of rotation
  hitless.consul.maintenance:
    service: web
    reason: kernel update

- name: Put it back
  hitless.consul.maintenance:
    service: web
    state: disabled

- name: Take the whole node out, for another owner
  hitless.consul.maintenance:
    owner: oncall
    reason: disk replacement
"""

RETURN = r"""
reason:
  description:
    - The reason as it stands in Consul, owner first, which is the first one that was given; as it stood where the
      maintenance has ended, empty where there was none.
  returned: always
  type: str
  sample: ansible kernel update
node:
  description: The node in Consul.
  returned: always
  type: str
  sample: web1
instances:
  description: The IDs of the instances it applies to; empty for a node.
  returned: always
  type: list
  elements: str
  sample: [web]
"""
