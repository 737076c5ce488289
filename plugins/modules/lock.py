# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a service's deployments."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock
short_description: Take or release the deployment lock of a service
version_added: 0.1.0
description:
  - Takes the lock that lets one deployment of a service run at a time, or releases it.
  - A Consul session holds it. A small program beside the run keeps that session alive for as long as the run or one of
    its workers lives, also when the main process is killed; then it marks the deployment's record C(interrupted) and
    releases the lock. Where it is killed as well, the lock is free within twice O(ttl).
  - A lock of somebody else is never released and never taken over.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: The service.
    type: str
    required: true
  state:
    description:
      - V(present) takes the lock, and does nothing where this run has it already for the same O(deployment).
      - V(absent) releases it where it is of O(session), of O(deployment), or of this run.
    type: str
    choices: [present, absent]
    default: present
  deployment:
    description: Id of the deployment, shown to others; the program that keeps the lock watches over its record.
    type: str
    default: ""
  note:
    description: What it is for, shown to others.
    type: str
    default: ""
  holder:
    description:
      - Who has it, shown to others.
      - Default is C(user@host) of the controller, in a job of AWX who started which job.
    type: str
  wait:
    description: Seconds to wait while somebody else has it. With V(0) the task fails at once and names them.
    type: float
    default: 0
  ttl:
    description:
      - Seconds that the lock outlives the program that keeps it, at least; up to twice as long.
      - V(10) to V(86400).
    type: int
    default: 15
  keep:
    description:
      - Whether to start the program that keeps the lock until the run ends.
      - Without it the lock is lost after O(ttl) unless something else renews the session.
    type: bool
    default: true
  progress_deadline:
    description:
      - Seconds without a new outcome of any host of the O(deployment) after which the lock is kept no longer.
      - Without it there is no such deadline.
    type: float
  session:
    description:
      - With O(state=absent), the session that holds the lock.
      - Default is the one of O(deployment), or else of this run.
    type: str
extends_documentation_fragment:
  - hitless.consul._cluster
  - hitless.consul._keys
  - hitless.consul._attributes
  - hitless.consul._attributes.diff
"""

EXAMPLES = r"""
- name: One database migration of web at a time, whoever starts it
  hitless.consul.lock:
    service: web
    note: database migration
    wait: 600
  run_once: true
  delegate_to: localhost

- name: Release it early (the end of the run does so too)
  hitless.consul.lock:
    service: web
    state: absent
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
session:
  description: The session that holds the lock, or held it; empty in check mode, and where there is none.
  returned: success
  type: str
  sample: 6ee2d5bd-5ad1-2f0a-8f7c-8d9ef7b0cb1d
holder:
  description: Who has the lock, or had it. Also returned where it was refused.
  returned: success, or refused
  type: dict
  sample:
    deployment: 20261123T142233Z-1.4.2-7f3a
    holder: anna@deploy1
    since: "2026-11-23T14:22:33Z"
    message: web 1.4.2
    origin: deploy1:/srv/web
waited:
  description: Seconds it took until the lock was free.
  returned: O(state=present)
  type: float
  sample: 0.0
"""
