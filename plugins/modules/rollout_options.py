#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a rollout, checked."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_options
short_description: Read and check the options of a rollout
version_added: 0.1.0
description:
  - Reads every variable C(rollout_*), checks and converts it, and returns all of them, before anything is changed.
  - An option that holds for the whole rollout is taken from the extra vars, else from the variables of the play (those
    of C(import_playbook) are), else from the variables of the hosts, which must agree, else from those of localhost.
  - Fails on unknown names, on values that are not allowed, on what would make Ansible run only a part of the rollout
    (C(--limit), C(--tags)), and on files or roles that are not there.
  - The collection's own playbooks start with it. C(docs/options.md) has the table of options.
author:
  - Hitless contributors (@hitless)
options:
  purpose:
    description:
      - What the options are for. A V(recovery) deploys nothing, so that it needs neither a version nor a way to deploy
        one.
    type: str
    choices: [rollout, recovery]
    default: rollout
  ask_consul:
    description:
      - Ask Consul too, before any host is logged in to. In check mode a rollout that is under way is said, since the
        plan would be made from the middle of it.
    type: bool
    default: false
extends_documentation_fragment:
  - hitless.consul.attributes
  - hitless.consul.attributes.info
attributes:
  async:
    description: It reads what only the controller knows.
    support: none
seealso:
  - module: hitless.consul.plan
"""

EXAMPLES = r"""
- name: Read the options of a rollout
  hitless.consul.rollout_options:
  register: rollout_options
"""

RETURN = r"""
id:
  description: An id for the deployment; it sorts by time.
  returned: success
  type: str
  sample: 20261123T142233Z-1.4.2-7f3a
options:
  description: Each option that holds for the whole rollout, without C(rollout_); files as absolute paths.
  returned: success
  type: dict
  sample: {service: web, version: 2.0.0, batch_size: 1, min_healthy: 50%}
deploy_task_timeout:
  description: Seconds after which a task that runs the deployment command is given up.
  returned: success
  type: int
  sample: 3660
hosts:
  description: The hosts of the rollout in the inventory's order.
  returned: success
  type: list
  elements: str
  sample: [web1, web2]
hooks:
  description: The user's files and roles.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: prepare, kind: tasks, path: /srv/deploy/prepare.yml}
    - {name: deploy, kind: role, role: acme.web.install}
steps:
  description: The steps of each host, in order.
  returned: success
  type: list
  elements: str
  sample: [prepare, take_out, deploy_command, bring_back]
rollback_steps:
  description: The steps of a host's rollback.
  returned: success
  type: list
  elements: str
  sample: [take_out, deploy_command, bring_back]
address:
  description: The host whose variables localhost takes over for how Consul is asked, and their names.
  returned: success
  type: dict
  sample: {host: web1, variables: [hitless_consul_url], differ: ""}
first_tasks:
  description: Name and action of the tasks of the deployment before which none has touched the host.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: Deploy, action: hitless.consul.deploy}
"""

from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulUnavailable, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._keys import new_deployment_id
from ansible_collections.hitless.consul.plugins.module_utils._lock import read_lock, under_way
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout_options import RolloutOptions, read_options
from ansible_collections.hitless.consul.plugins.module_utils._task import Task

ARGUMENT_SPEC = {
    "purpose": {"type": "str", "choices": ["rollout", "recovery"], "default": "rollout"},
    "ask_consul": {"type": "bool", "default": False},
}


def perform(task: Task) -> dict:
    sources = task.variables.get("sources")
    if sources is None:
        raise HitlessError("rollout_options reads Ansible's own variables and runs as an action only.")
    read = read_options(sources, deploys=task.params["purpose"] == "rollout")
    if task.params["ask_consul"]:
        ask_consul(task, read)
    name = new_deployment_id(read.options["version"] or read.options["direction"])
    # Twice, since a command waits for an earlier one that still runs on its host.
    longest = int(float(read.options["deploy_timeout"]) * 2 + 60)
    return {"changed": False, "id": name, "deploy_task_timeout": longest, **read.as_dict()}


def ask_consul(task: Task, read: RolloutOptions) -> None:
    """Before any host is logged in to: whether Consul answers, and whether a rollout is under way."""
    asking, origin = task.variables["connect"](read.address)
    keys = asking.keys(read.options["service"])
    try:
        held = read_lock(asking.consul, keys)
    except ConsulUnavailable as error:
        raise HitlessError(str(error), hint=origin) from None
    if held is not None and held.alive and task.check_mode:
        task.warn(under_way(keys, held))


def main() -> None:
    run_module(ARGUMENT_SPEC, perform)


if __name__ == "__main__":
    main()
