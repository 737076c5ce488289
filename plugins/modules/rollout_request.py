# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that is asked for by writing a key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_request
short_description: Ask for a rollout by a key in Consul, and read what became of it
version_added: 0.1.0
description:
  - The key C(deploy/<service>/request) asks for a rollout; it may as well be written by C(consul kv put). A run of the
    playbook C(hitless.consul.request) follows it, and writes into the same key what becomes of it.
  - Each change is a compare-and-set, so that of several runs one gets the request, and that the answer to an old
    request never overwrites a new one.
  - Who writes the key is trusted less than who runs the rollout. Which options a request may set, beside the version,
    is decided there.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: The service.
    type: str
    required: true
  state:
    description:
      - V(posted) asks for a rollout. Where the same is asked for already it does nothing, and it fails while a run
        follows a request.
      - V(read) returns the request as it stands.
    type: str
    choices: [posted, read]
    required: true
  version:
    description: The version to roll out, a string. Required with O(state=posted).
    type: raw
  options:
    description:
      - Options of the rollout, without C(rollout_), such as C(message) (O(state=posted)).
      - C(batch_size), C(drain_time), C(failure_budget), C(healthy_deadline), C(message), C(min_healthy),
        C(min_healthy_time), C(skip_current), C(strict), C(tags) and C(unreachable) can be set, where the run allows
        them; C(batch_size) and C(message) it allows unless told otherwise.
    type: dict
    default: {}
extends_documentation_fragment:
  - hitless.consul._cluster
  - hitless.consul._keys
  - hitless.consul._attributes
attributes:
  diff_mode:
    description: The request is returned whole; there is no difference to show.
    support: none
  idempotent:
    description: What is asked for already stays as it is.
    support: full
seealso:
  - module: hitless.consul.deployment_info
"""

EXAMPLES = r"""
- name: Ask for a rollout
  hitless.consul.rollout_request:
    service: web
    state: posted
    version: "1.4.2"
    options:
      message: ticket 17
  delegate_to: localhost
  run_once: true

- name: Wait for its end
  hitless.consul.rollout_request:
    service: web
    state: read
  register: web_request
  until: web_request.state not in ['requested', 'claimed', 'running']
  retries: 60
  delay: 10
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
state:
  description:
    - The state of the request - V(requested), V(claimed), V(running), V(refused), V(paused), V(successful),
      V(failed), V(cancelled) or V(interrupted); empty where there is none.
  returned: success
  type: str
  sample: requested
request:
  description: The request, and what became of it, as it stands in its key; empty where there is none.
  returned: success
  type: dict
  sample: {version: 1.4.2, message: ticket 17}
"""
