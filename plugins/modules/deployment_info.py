#!/usr/bin/python
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
  - hitless.consul.cluster
  - hitless.consul.keys
  - hitless.consul.attributes
  - hitless.consul.attributes.info
seealso:
  - module: hitless.consul.deployment
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

- name: Refuse to go on while a deployment is running
  hitless.consul.deployment_info:
    service: web
    quiet: true
  register: web_status
  failed_when: web_status.services.web.running is not none
"""

RETURN = r"""
services:
  description: Service to its nodes, the deployment running now, the lock, and the last deployments.
  returned: without O(id)
  type: dict
  sample:
    web:
      service: web
      nodes:
        web-1:
          version: 1.4.2
          previous: 1.4.1
          meta_version: null
          status: null
          health: in rotation
          reason: ""
          instances: 1
      running: null
      lock: null
      deployments:
        - {id: 20261123T142233Z-1.4.2-7f3a, version: 1.4.2, direction: deploy, state: successful, seconds: 72}
deployment:
  description:
    - The deployment, its plan and each host's outcome with times, error and the end of its output; in C(steps) the
      steps of each host whose turn has begun, in C(log) what was logged of it.
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

import json

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store as deployments
from ansible_collections.hitless.consul.plugins.module_utils._views import report
from ansible_collections.hitless.consul.plugins.module_utils._views.follow import Follower
from ansible_collections.hitless.consul.plugins.module_utils._views.log import read_logs
from ansible_collections.hitless.consul.plugins.module_utils._views.status import overview, services_deployed

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str"},
    "id": {"type": "str"},
    "limit": {"type": "int", "default": 5},
    "format": {"type": "str", "choices": ["text", "json"], "default": "text"},
    "log": {"type": "bool", "default": True},
    "follow": {"type": "bool", "default": False},
    "quiet": {"type": "bool", "default": False},
}
CONSTRAINTS = {"required_by": {"id": ["service"]}}


def perform(task: Task) -> dict:
    params = task.params
    if params["limit"] < 0:
        raise HitlessError(f"limit must be 0 or more, not {params['limit']}.")
    if params["id"]:
        return one_deployment(task)
    found, text = all_services(task)
    show(task, found, text)
    return {"changed": False, "report": text, **found}


def show(task: Task, found: dict, text: str) -> None:
    """What was found, in the format that is wanted."""
    if not task.params["quiet"]:
        task.show(json.dumps(found, indent=2) if task.params["format"] == "json" else text)


def one_deployment(task: Task) -> dict:
    params = task.params
    keys = task.keys(task.params["service"])
    wanted = params["id"]
    if wanted == "last":
        ids = deployments.list_ids(task.consul, keys)
        if not ids:
            raise HitlessError(f"Consul knows no deployment of {keys.service}, or the token may not read them.")
        wanted = ids[0]
    found = deployments.require(task.consul, keys, wanted)
    follows = found.is_alive and params["follow"] and params["format"] == "text" and not params["quiet"]
    if follows:
        task.show(report.beginning(found.state, found.record) + "\n\n")
        found = Follower(task.consul, keys, wanted, task.show, with_log=params["log"]).follow()
    steps = deployments.read_steps(task.consul, keys, found)
    hosts = {
        name: host.node if found.record.by_agents and host.batch is not None else None
        for name, host in found.record.hosts.items()
    }
    log = read_logs(task.consul, keys, wanted, hosts) if params["log"] else {}
    text = report.story(found.state, found.record, found.outcomes, steps, log)
    told = {"deployment": {**found.as_dict(), "steps": steps, "log": log}}
    if follows:
        task.show("\n" + report.ended(found.record, found.outcomes))
    else:
        show(task, told, text)
    return {"changed": False, "report": text, **told}


def all_services(task: Task) -> tuple[dict, str]:
    params = task.params
    names = [params["service"]] if params["service"] else services_deployed(task.consul, task.deploy_prefix)
    services = {name: overview(task.consul, task.keys(name), params["limit"]) for name in names}
    text = "\n\n".join(report.status(one) for one in services.values()) or "Nothing was deployed yet."
    return {"services": services}, text


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
