# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs hitless.consul.rollout_request in the controller process."""

from __future__ import annotations

from ansible_collections.hitless.consul.plugins.modules import rollout_request as module
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction


class ActionModule(HitlessAction):
    module = module
