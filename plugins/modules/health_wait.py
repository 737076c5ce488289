# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for the health of a service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_wait
short_description: Wait until instances of a service are healthy, or out of rotation
version_added: 0.1.0
description:
  - Waits with Consul's blocking queries, so that it returns within milliseconds of the change and asks nothing else.
  - With a node, all instances of the service there are waited for; without one, O(count) instances anywhere.
  - On failure it names the failing checks with their output.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: Service by name.
    type: str
    required: true
  service_id:
    description: Only the instance with this ID.
    type: str
  tags:
    description: Only instances with all these tags.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(passing) is in rotation, each check of the instance and its node passes.
      - V(checks_passing) is the same but for maintenance, so that a host can be judged before it gets traffic.
      - V(out_of_rotation) is what no load balancer that follows the catalog sends traffic to; what warns may get it.
    type: str
    choices: [passing, checks_passing, out_of_rotation]
    default: passing
  count:
    description:
      - So many instances at least, anywhere; the host's own node then plays no part.
      - Without it the instances on the host's node are waited for.
    type: int
  stable_for:
    description: Seconds the state must hold without a break.
    type: float
    default: 0
  fresh:
    description:
      - Whether a passing check may still tell of a process that has been replaced. With V(true) the state must hold for
        at least the interval and timeout of each check of the service and its node, so that it has run anew;
        O(check_interval) where Consul does not tell them (before 1.20, and of a TTL).
    type: bool
    default: false
  check_interval:
    description: Seconds within which each check runs anew, for O(fresh) where Consul does not tell.
    type: float
    default: 30
  accept_warning:
    description: Whether warning counts as healthy.
    type: bool
    default: false
  deadline:
    description: Seconds to reach the state; the stable time comes on top.
    type: float
    default: 300
extends_documentation_fragment:
  - hitless.consul._cluster
  - hitless.consul._agent
  - hitless.consul._attributes
  - hitless.consul._attributes.info
seealso:
  - module: hitless.consul.maintenance
"""

EXAMPLES = r"""
- name: Wait until this host's web server is back in rotation
  hitless.consul.health_wait:
    service: web
    deadline: 60

- name: Its own checks pass on the new process, while it still gets no traffic
  hitless.consul.health_wait:
    service: web
    state: checks_passing
    fresh: true

- name: At least three instances are healthy, wherever they are
  hitless.consul.health_wait:
    service: web
    count: 3
"""

RETURN = r"""
instances:
  description: The instances when the wait ended.
  returned: success
  type: list
  elements: dict
  sample: [{node: web1, id: web, status: passing}]
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 3.2
failing_checks:
  description: What kept it from the state.
  returned: failure
  type: list
  elements: dict
  sample: [{node: web1, check: "service:web", name: HTTP, status: critical, output: connection refused}]
"""
