# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a machine's service definitions, and has its agent read them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_registration
short_description: Check the service definitions of a machine, and have its agent read them
version_added: 0.1.0
description:
  - With O(phase=check) it refuses what would go wrong later, and returns each definition and the file it belongs in. It
    asks nobody, so that it works while an image is built.
  - With O(phase=register) it reloads the machine's agent where needed, and returns when the catalog shows each instance
    as it is defined, or no longer shows one that was removed.
  - The files themselves are written by the role C(hitless.consul.consul_service), between the two.
author:
  - Hitless contributors (@hitless)
options:
  services:
    description:
      - One entry for each instance on the machine, with the keys of a service in Consul's own configuration files.
      - C(version) goes into its meta; C(state=absent) removes it.
    type: list
    elements: dict
    required: true
  phase:
    description: What to do.
    type: str
    choices: [check, register]
    required: true
  deploy_timeout:
    description:
      - Seconds a deployment may take. A C(deregister_critical_service_after) that is not longer is refused.
    type: float
    default: 1800
  reload:
    description: The files have changed, so that the agent reloads even where the catalog looks right.
    type: bool
    default: false
  deadline:
    description: Seconds the catalog has to show the definitions.
    type: float
    default: 30
extends_documentation_fragment:
  - hitless.consul._cluster
  - hitless.consul._agent
  - hitless.consul._attributes
  - hitless.consul._attributes.diff
seealso:
  - module: hitless.consul.maintenance
  - module: hitless.consul.health_wait
"""

EXAMPLES = r"""
- name: Wait until the catalog shows what the agent's files say
  hitless.consul.service_registration:
    phase: register
    services:
      - name: web
        port: 8080
        version: "1.4.2"
"""

RETURN = r"""
definitions:
  description: Each instance with its ID, its file, whether it shall be there, and the definition.
  returned: with O(phase=check)
  type: list
  elements: dict
  sample: [{id: web, file: service-web.json, present: true, definition: {id: web, name: web, port: 8080}}]
differences:
  description: How the catalog differed before.
  returned: with O(phase=register)
  type: list
  elements: str
  sample: [web is not registered]
seconds:
  description: Until the catalog showed the definitions; 0 where nothing had to be done.
  returned: with O(phase=register)
  type: float
  sample: 0.042
"""
