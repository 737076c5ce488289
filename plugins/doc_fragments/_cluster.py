# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every task: where Consul is and how to talk to it."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  url:
    description:
      - Address of Consul's HTTP API as the controller reaches it, C(http://host:port) or C(https://host:port).
      - Default is the variable C(hitless_consul_url), else the environment variable E(CONSUL_HTTP_ADDR), else
        the address of the inventory source P(hitless.consul.catalog#inventory), else C(http://127.0.0.1:8500).
        E(CONSUL_HTTP_SSL) makes an address without a scheme an https one.
    type: str
  token:
    description:
      - ACL token; white space around it is no part of it. Default is the variable C(hitless_consul_token), else the
        environment variable E(CONSUL_HTTP_TOKEN).
      - A user and password for a proxy before Consul are read from the environment variable E(CONSUL_HTTP_AUTH) alone.
    type: str
  token_file:
    description:
      - File on the controller that holds the ACL token, used where no O(token) is given.
      - Default is the variable C(hitless_consul_token_file), else the environment variable E(CONSUL_HTTP_TOKEN_FILE).
    type: path
  ca_path:
    description:
      - File of CA certificates on the controller, or a directory in which each file holds some.
      - Default is the variable C(hitless_consul_ca_path), else the environment variable E(CONSUL_CACERT) or
        E(CONSUL_CAPATH), else what the system trusts.
    type: path
  client_cert:
    description:
      - Client certificate on the controller.
      - Default is the variable C(hitless_consul_client_cert), else the environment variable E(CONSUL_CLIENT_CERT).
    type: path
  client_key:
    description:
      - Key of O(client_cert).
      - Default is the variable C(hitless_consul_client_key), else the environment variable E(CONSUL_CLIENT_KEY).
    type: path
  tls_server_name:
    description:
      - Name that Consul's certificate is for, where O(url) has another one; C(server.dc1.consul) for instance.
      - Default is the variable C(hitless_consul_tls_server_name), else the environment variable
        E(CONSUL_TLS_SERVER_NAME).
    type: str
  validate_certs:
    description:
      - Whether certificates are verified.
      - Default is the variable C(hitless_consul_validate_certs), else the environment variable
        E(CONSUL_HTTP_SSL_VERIFY), else V(true).
    type: bool
  datacenter:
    description:
      - Consul datacenter. Default is the variable C(hitless_consul_datacenter), else the one of the agent asked.
      - Consul answers for all its datacenters, but makes the session of a lock only in the agent's own, so that O(url)
        has to be in the datacenter of the rollout.
    type: str
  timeout:
    description:
      - Seconds to wait for one answer. Default is the variable C(hitless_consul_timeout), else 10.
    type: float
requirements:
  - py-consul >= 1.8.0 or python-consul2 >= 0.1.5, in the Python that runs Ansible
"""
