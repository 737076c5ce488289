# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, and how deployments went."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_info
short_description: Tell what runs where, what is being deployed, and how the last deployments ended
version_added: 0.1.0
description:
  - Shows a service on one screen; its nodes with version and health, the deployment that runs now, who holds the lock,
    and the last deployments.
  - With O(id) it tells the whole story of one deployment; the plan, each host's steps with their times, and the log.
  - A deployment whose record says that it runs, and whose lock no living run holds, is shown as interrupted.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: The service. Default is each service that was ever deployed.
    type: str
  id:
    description: Id of one deployment of O(service), or V(last).
    type: str
  limit:
    description: How many of the last deployments of each service.
    type: int
    default: 5
  format:
    description: What is shown, V(text) for a person or V(json) for a program.
    type: str
    choices: [text, json]
    default: text
  path:
    description:
      - A file to write it to, in O(format), on the controller. A new one is readable by its owner alone, since a log
        can hold what a deployment printed. With O(format=json) the screen then only says so.
      - A playbook's output also holds Ansible's own lines, so that this is how a program gets JSON and nothing else.
    type: path
  log:
    description:
      - With O(id), also what was logged; by the machines' own deploy agents in agent mode, and by the callback
        P(hitless.consul.deployment_log#callback) where that is enabled.
    type: bool
    default: true
  follow:
    description:
      - With O(id), show each step and each line of the log as they come, for as long as the deployment runs. Only with
        O(format=text) and not with O(quiet).
    type: bool
    default: false
  quiet:
    description: Show nothing, only return it.
    type: bool
    default: false
extends_documentation_fragment:
  - hitless.consul._cluster
  - hitless.consul._keys
  - hitless.consul._attributes
  - hitless.consul._attributes.info
seealso:
  - module: hitless.consul.rollout_request
  - module: hitless.consul.version_info
"""

EXAMPLES = r"""
- name: Show all services on one screen each
  hitless.consul.deployment_info:

- name: Tell the story of the last deployment
  hitless.consul.deployment_info:
    service: web
    id: last
    follow: true

- name: Write what runs where to a file, for a program
  hitless.consul.deployment_info:
    format: json
    path: status.json

- name: Refuse to go on while a deployment is running
  hitless.consul.deployment_info:
    service: web
    quiet: true
  register: web_status
  failed_when: web_status.services.web.running is not none
"""

RETURN = r"""
services:
  description:
    - Service to its nodes, the deployment running now, the lock, and the last deployments.
    - C(paused) says what a deployment waits for (C(kind), C(why)), whether its run is still there (C(in_place)), and
      the commands that go on (C(goes_on)); C(frozen) holds the freezes that hold now.
    - C(version) is what is recorded. Where a deployment began on the node and did not record its end,
      C(version_is_trusted) is false, and C(version_told) says what is known.
    - C(reason) is that of the maintenance, or the failing checks; C(why) the same for a person, with what to do.
  returned: without O(id)
  type: dict
  sample:
    web:
      service: web
      nodes:
        web-1:
          version: 1.4.2
          previous: 1.4.1
          version_is_trusted: true
          version_told: 1.4.2
          meta_version: null
          status: null
          health: in rotation
          reason: ""
          why: ""
          instances: 1
      running: null
      paused: null
      frozen: []
      lock: null
      deployments:
        - {id: 20261123T142233Z-1.4.2-7f3a, version: 1.4.2, direction: deploy, state: successful, seconds: 72}
deployment:
  description:
    - The deployment, its plan and each host's outcome with times, error and the end of its output; in C(steps) the
      steps of each host whose turn has begun, in C(log) what was logged of it, in C(control) what operators said.
  returned: with O(id)
  type: dict
  sample:
    id: 20261123T142233Z-1.4.2-7f3a
    state: successful
    hosts: {web-1: {outcome: ok, seconds: 11.2}}
    steps: {web-1: [{state: draining, at: "2026-11-23T14:22:40Z"}, {state: ok, at: "2026-11-23T14:22:51Z"}]}
    log: {web-1: "== 2026-11-23T14:22:40Z out of rotation, seen in the catalog\n"}
report:
  description: The same as text.
  returned: always
  type: str
  sample: "web\n  node   version  previous  health       why"
"""
