# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A word to a rollout that runs or is paused, and freezes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: control
short_description: Pause, promote, stop or abort a rollout, and freeze services
version_added: 0.1.0
description:
  - Says a word to the rollout of a service that runs or is paused, by the key C(deploy/<service>/control). The run
    hears it before its next host, within a second, and during a drain.
  - A freeze keeps rollouts of a service, or of all, from beginning (C(deploy/<service>/freeze), C(deploy/freeze)).
  - The keys may as well be written by C(consul kv put). This module refuses what means nothing now, such as V(promote)
    where nothing is paused, and notes who says it, why, when and from where.
  - Each key is written by compare-and-set, so that of two operators at once one wins, and the other is told by what.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: The service. Either this or O(all_services) is needed.
    type: str
  all_services:
    description:
      - Every service. With V(freeze) and V(unfreeze) that is one key for all of them, those of later too; any other
        word is said to each rollout to which it means something.
    type: bool
    default: false
  action:
    description:
      - V(pause) lets no further host begin; those in flight end their turn. After C(rollout_pause_wait) the run ends as
        paused, and holds nothing.
      - V(resume) and V(promote) let a paused rollout go on; V(promote) is the word after a stage
        (C(rollout_pause_after)).
      - V(stop) lets no further host begin, and puts nothing back; the deployment has failed.
      - V(abort) stops it, and rolls back as C(rollout_rollback) says; a host that drains returns at once.
      - V(freeze) lets no rollout begin, and pauses a running one before its next host; rollbacks are not frozen.
      - V(unfreeze) ends that; that of one service and that of all are two.
    type: str
    choices: [pause, resume, promote, stop, abort, freeze, unfreeze]
    required: true
  reason:
    description: Why; it is shown to whoever meets it, and kept with the deployment.
    type: str
    default: ''
  until:
    description: The end of a freeze, as C(2026-12-27T06:00:00Z), or from now on as C(90m) or C(72h). Default is none.
    type: str
extends_documentation_fragment:
  - hitless.consul._cluster
  - hitless.consul._keys
  - hitless.consul._attributes
attributes:
  diff_mode:
    description: One word; there is no difference to show.
    support: none
  idempotent:
    description: What is said already stays as it is.
    support: full
seealso:
  - module: hitless.consul.deployment_info
"""

EXAMPLES = r"""
- name: Let the next stage begin
  hitless.consul.control:
    service: web
    action: promote
    reason: error rate as before
  delegate_to: localhost
  run_once: true

- name: No rollout of any service over the holidays
  hitless.consul.control:
    all_services: true
    action: freeze
    until: "2026-12-27T06:00:00Z"
    reason: holidays
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
deployments:
  description: The deployments that it is said to; empty for a freeze.
  returned: success
  type: list
  elements: str
  sample: [20261123T142233Z-1.4.2-7f3a]
text:
  description: What follows from it, for a person.
  returned: success
  type: str
  sample: "web: pause is said to 20261123T142233Z-1.4.2-7f3a. No further host begins; those in flight end their turn."
"""
