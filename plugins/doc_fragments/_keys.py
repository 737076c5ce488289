# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of tasks that read or write this collection's keys."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  deploy_prefix:
    description:
      - Prefix of the keys of deployments and their locks, in Consul's KV store.
      - Default is the variable C(hitless_consul_deploy_prefix), else V(deploy).
    type: str
  nodes_prefix:
    description:
      - Prefix of the keys that say what runs on a machine.
      - Default is the variable C(hitless_consul_nodes_prefix), else V(nodes).
    type: str
"""
