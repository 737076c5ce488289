# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of tasks that ask a managed host's own Consul agent."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  agent_url:
    description:
      - Address of the host's own Consul agent B(as seen from the host), since an agent usually listens there only.
      - Default is the variable C(hitless_consul_agent_url), else C(http://127.0.0.1:8500).
    type: str
  agent_token:
    description:
      - ACL token for the host's agent. Default is the variable C(hitless_consul_agent_token), else O(token), which then
        travels to every host that is asked (on standard input, never to its disk).
    type: str
  agent_ca_path:
    description:
      - CA certificates for the host's agent; a path on the host where it is asked through the host.
      - Default is the variable C(hitless_consul_agent_ca_path).
    type: str
  agent_client_cert:
    description:
      - Client certificate for the host's agent, likewise. Default is the variable C(hitless_consul_agent_client_cert).
    type: str
  agent_client_key:
    description:
      - Key of O(agent_client_cert), likewise. Default is the variable C(hitless_consul_agent_client_key).
    type: str
  agent_tls_server_name:
    description:
      - Name that the certificate of the host's agent is for, where O(agent_url) has another one.
      - Default is the variable C(hitless_consul_agent_tls_server_name).
    type: str
  via:
    description:
      - How the host's agent is asked. V(host) goes through the host's Ansible connection, V(controller) straight from
        the controller to O(agent_url), V(auto) straight where the connection is local and through the host elsewhere.
      - Default is the variable C(hitless_consul_via), else V(auto).
    type: str
    choices: [auto, controller, host]
  node:
    description:
      - Name of the host in Consul. Default is the variable C(consul_node), as the inventory sets it, else what the
        host's agent says.
    type: str
"""
