# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One step of a rollout; internal."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_step
short_description: Take one step of a rollout (internal)
version_added: 0.1.0
description:
  - B(Internal to this collection.) The role C(hitless.consul.rollout) is made of it, and it works in the collection's
    own playbooks only. Its options, its steps and its results change without notice; nothing of it is promised.
  - To roll out, start or import the playbook C(hitless.consul.rollout).
author:
  - Hitless contributors (@hitless)
options:
  step:
    description: Which step, see plugins/action/rollout_step.py.
    type: str
    required: true
    choices:
      [request, prepare, plan, gate, begin_batch, read_batch, stop, stage, turn, leave, drain,
      wait_until_drained, deploy, restart, reboot, verify, begin_restore, return, verify_and_return, deploy_by_agent,
      on_failure, after_undrain, settle, finish, release, prepare_recovery, recover, recover_host, recover_verify,
      recover_return,
      recovered]
  run: {description: "Name of the variable of localhost that holds the run.", type: str}
  turn: {description: "Name of the variable in which the last step of a host has left its turn.", type: str}
  request: {description: "Name of the variable that holds the request which is followed.", type: str}
  error: {description: "Name of the variable that says which hook failed.", type: str}
  service: {description: "Service of a request.", type: str, default: ""}
  allow: {description: "Options that a request may set.", type: list, elements: str}
  why: {description: "Why the rollout stops.", type: str, default: ""}
  command: {description: "The command of a host that deploys, restarts or reboots.", type: str, default: ""}
  boot_id_command: {description: "The command that tells a host's boot.", type: str, default: ""}
  health_url: {description: "The health URL of a host.", type: str, default: ""}
  health_match: {description: "What its answer has to match.", type: str, default: ""}
  failed: {description: "The result of the task that failed.", type: dict, default: {}}
  task: {description: "Its name.", type: str, default: ""}
  action: {description: "Its action, as it is written there.", type: str, default: ""}
extends_documentation_fragment: [hitless.consul._attributes, hitless.consul._attributes.info]
"""

EXAMPLES = r"""
- name: Drain
  hitless.consul.rollout_step: {step: drain, run: hitless_run, turn: hitless_turn}
  register: hitless_turn
"""

RETURN = r"""
step: {description: "The step.", returned: always, type: str, sample: drain}
"""
