# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the steps of a rollout."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  in_rollout:
    description:
      - Take each option that is not given here from the rollout whose step this is, as the role
        C(hitless.consul.rollout) does. Only its own plays have such a rollout.
    type: bool
    default: false
  service:
    description: Service by name. Required unless O(in_rollout=true).
    type: str
  deployment:
    description: Id of the deployment. Required unless O(in_rollout=true).
    type: str
"""
