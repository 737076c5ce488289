#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exact batches of a deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Plan a rolling deployment in exact batches
version_added: 0.1.0
description:
  - Reads the health, maintenance and versions of a service from Consul and says which hosts a deployment would change,
    in which order and batches, from which version to which, and where each would be rolled back to.
  - Hosts that are not healthy go first, since they take nothing away; hosts that are already healthy on the version are
    left out; no batch takes away more than the minimum of healthy instances allows.
  - Fails where that cannot work, and says why and what to set. It changes nothing.
author:
  - Hitless contributors (@hitless)
options:
  service:
    description: Service by name.
    type: str
    required: true
  version:
    description:
      - The version to go to, a string. Without it each host needs its own O(hosts[].target).
      - With O(direction=rollback) the default is each host's previous version.
    type: raw
  direction:
    description: Whether the hosts go to a new version, or back.
    type: str
    choices: [deploy, rollback]
    default: deploy
  hosts:
    description: The hosts in the order to change them in. Default is each node that has the service, by name.
    type: list
    elements: dict
    suboptions:
      host:
        description: Name in the inventory.
        type: str
        required: true
      node:
        description: Name in Consul. Default is O(hosts[].host).
        type: str
      target:
        description: A version of its own to go to, a string.
        type: raw
      reachable:
        description: Whether it can be worked on.
        type: bool
        default: true
      why:
        description: Why it cannot be reached.
        type: str
      datacenter:
        description: Its Consul datacenter. Default is the one that Consul tells.
        type: str
  tags:
    description: Only instances with all of these service tags.
    type: list
    elements: str
    default: []
  batch_size:
    description:
      - Hosts at a time, as a number or as a percentage of the hosts to change (rounded down, at least 1).
      - A list gives the sizes of the first batches; its last element repeats.
    type: raw
    default: 1
  min_healthy:
    description:
      - Instances that must stay healthy, as a number or as a percentage of the registered ones (rounded up).
    type: raw
    default: 50%
  skip_current:
    description: Leave hosts alone that are healthy on the version already.
    type: bool
    default: true
  accept_warning:
    description: Whether a check in state warning counts as healthy.
    type: bool
    default: false
  unreachable:
    description: Fail where a host cannot be reached, or leave it out.
    type: str
    choices: [fail, skip]
    default: fail
  rollback:
    description: Whether a host whose deployment fails is rolled back; decides only about warnings here.
    type: str
    choices: [host, none]
    default: host
  previous_version:
    description: The version that runs where none is recorded, a string.
    type: raw
  maintenance:
    description:
      - What goes into maintenance with a host, V(service), V(node) or a list of services. Somebody else's maintenance
        of any service of the list leaves the host out too.
    type: raw
    default: service
  deploy_timeout:
    description: Seconds a host's deployment may take.
    type: float
    default: 1800
  drain_time:
    description: Seconds between maintenance and deployment.
    type: float
    default: 10
  drain_observe:
    description:
      - Statistics of HAProxy by which drains will be observed, see M(hitless.consul.take_out). Each is asked once; one
        that does not answer is noted, and one that answers with something else makes the plan fail.
    type: list
    elements: str
    default: []
  healthy_deadline:
    description: Seconds a host has to become healthy.
    type: float
    default: 300
  forks:
    description: Hosts that Ansible works on at once. Default is Ansible's own setting.
    type: int
extends_documentation_fragment:
  - hitless.consul.cluster
  - hitless.consul.keys
  - hitless.consul.attributes
  - hitless.consul.attributes.info
seealso:
  - module: hitless.consul.rollout_options
  - module: hitless.consul.version_info
"""

EXAMPLES = r"""
- name: What would a rollout of web 2.0.0 do, two hosts at a time?
  hitless.consul.plan:
    service: web
    version: 2.0.0
    batch_size: 2
  register: plan

- name: Show it
  ansible.builtin.debug:
    msg: "{{ plan.description }}"

- name: Plan for some hosts only, the first alone, then a quarter at a time
  hitless.consul.plan:
    service: web
    version: 2.0.0
    hosts:
      - host: web1.example.com
        node: web1
      - host: web2.example.com
        node: web2
    batch_size: [1, "25%"]
    min_healthy: 3
"""

RETURN = r"""
description:
  description: The plan in one sentence.
  returned: success
  type: str
  sample: web 1.0.0 -> 2.0.0 on 5 hosts in 3 batches of 1, 2, 2; at least 3 of 6 stay healthy; 1 already current
nothing_to_do:
  description: Whether no host is to be changed.
  returned: success
  type: bool
  sample: false
batches:
  description: The hosts of each batch.
  returned: success
  type: list
  elements: list
  sample: [[web1], [web2, web3]]
coordinators:
  description: A name for each batch, for a host that leads it.
  returned: success
  type: list
  elements: str
  sample: [web-batch-1-of-2, web-batch-2-of-2]
order:
  description: Each coordinator followed by the hosts of its batch.
  returned: success
  type: list
  elements: str
  sample: [web-batch-1-of-2, web1, web-batch-2-of-2, web2, web3]
serial:
  description: The sizes of the batches with their coordinators, as a play's C(serial) takes them; V([1]) for no batch.
  returned: success
  type: list
  elements: int
  sample: [2, 3]
hosts:
  description:
    - For each host its node, its state (V(to_change), V(current), V(foreign) or V(unreachable)) and why, its batch and
      coordinator, the versions it goes from and to, where it would be rolled back to, and whether it is healthy now.
  returned: success
  type: dict
  sample:
    web1:
      node: web1
      state: to_change
      batch: 1
      coordinator: web-batch-1-of-2
      from: 1.0.0
      to: 2.0.0
      rollback_to: 1.0.0
      healthy: true
      why:
health:
  description: Instances registered and healthy now, and the minimum that must stay healthy.
  returned: success
  type: dict
  sample: {registered: 6, healthy: 6, minimum: 3}
check_delay:
  description: Seconds after which each check of the service has run again; null where Consul does not tell, as 1.8.
  returned: success
  type: float
  sample: 11.0
notes:
  description: What a person should know before it starts; each is shown as a warning too.
  returned: success
  type: list
  elements: str
  sample: ["No rollback possible on 1 host: web1 (no version recorded): set rollout_previous_version."]
"""

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout import drain
from ansible_collections.hitless.consul.plugins.module_utils._rollout import fleet as fleets
from ansible_collections.hitless.consul.plugins.module_utils._rollout import plan as plans
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_version
from ansible_collections.hitless.consul.plugins.module_utils._views import report

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str", "required": True},
    "version": {"type": "raw"},
    "direction": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
    "hosts": {
        "type": "list",
        "elements": "dict",
        "options": {
            "host": {"type": "str", "required": True},
            "node": {"type": "str"},
            "target": {"type": "raw"},
            "reachable": {"type": "bool", "default": True},
            "why": {"type": "str"},
            "datacenter": {"type": "str"},
        },
    },
    "tags": {"type": "list", "elements": "str", "default": []},
    "batch_size": {"type": "raw", "default": 1},
    "min_healthy": {"type": "raw", "default": "50%"},
    "skip_current": {"type": "bool", "default": True},
    "accept_warning": {"type": "bool", "default": False},
    "unreachable": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
    "rollback": {"type": "str", "choices": ["host", "none"], "default": "host"},
    "previous_version": {"type": "raw"},
    "maintenance": {"type": "raw", "default": "service"},
    "deploy_timeout": {"type": "float", "default": 1800},
    "drain_time": {"type": "float", "default": 10},
    "drain_observe": {"type": "list", "elements": "str", "default": []},
    "healthy_deadline": {"type": "float", "default": 300},
    "forks": {"type": "int"},
}


def perform(task: Task) -> dict:
    params = task.params
    version = _version(params["version"], "version")
    previous = _version(params["previous_version"], "previous_version")
    hosts = None if params["hosts"] is None else [_wanted(host, version) for host in params["hosts"]]
    if params["direction"] == "deploy" and not version and not (hosts and all(host.target for host in hosts)):
        raise HitlessError("version is needed: the version to deploy.", hint="Or give each host its own target.")
    others = params["maintenance"] if isinstance(params["maintenance"], list) else []
    fleet = fleets.read_fleet(
        task.consul,
        task.keys(params["service"]),
        params["tags"],
        None if hosts is None else [host.node for host in hosts],
        others,
    )
    if hosts is None:
        hosts = [fleets.WantedHost(node, node, version) for node in fleet.nodes]
    accept_warning = params["accept_warning"]
    states = fleets.host_states(fleet, hosts, accept_warning=accept_warning, previous_version=previous)
    settings = plans.PlanSettings(
        service=params["service"],
        registered_total=len(fleet.instances),
        healthy_total=fleet.healthy(accept_warning=accept_warning),
        batch_size=plans.parse_batch_size(params["batch_size"], "batch_size"),
        min_healthy=plans.parse_min_healthy(params["min_healthy"], "min_healthy"),
        skip_current=params["skip_current"],
        unreachable=params["unreachable"],
        rollback=params["rollback"],
        previous_version=previous,
        direction=params["direction"],
    )
    plan = plans.make_plan(states, settings)
    longest = params["deploy_timeout"] + params["drain_time"] + params["healthy_deadline"]
    changing = [host.node for host in plan.hosts.values() if host.batch]
    notes = [*fleets.deregistrations(fleet, changing, longest), *plan.warnings, *_too_many(plan, params["forks"])]
    fixed = f"Each drain is waited for by the fixed time ({params['drain_time']:g} s) there."
    notes += [f"{problem} {fixed}" for problem in drain.unanswered(params["drain_observe"])]
    for note in notes:
        task.warn(note)
    result = plan.as_dict()
    # In check mode it is what the run is for.
    task.show(f"{report.plan_table(result['hosts'])}\n\n{plan.description}" if task.check_mode else plan.description)
    return {"changed": False, **result, "check_delay": fleet.check_delay, "notes": notes}


def _version(value: object, name: str) -> str | None:
    return None if value is None or value == "" else checked_version(value, name)


def _wanted(host: dict, version: str | None) -> fleets.WantedHost:
    return fleets.WantedHost(
        host=host["host"],
        node=host["node"] or host["host"],
        target=_version(host["target"], "target") or version,
        unreachable=None if host["reachable"] else host["why"] or "it could not be reached",
        datacenter=host["datacenter"],
    )


def _too_many(plan: plans.Plan, forks: int | None) -> list[str]:
    largest = max((len(batch) for batch in plan.batches), default=0)
    if not forks or largest <= forks:
        return []
    sentence = (
        f"The largest batch has {largest} hosts, and Ansible works on {forks} at once: hosts would be out of rotation "
        f"while they wait for their turn. Set forks to {largest} or more (ANSIBLE_FORKS, --forks)."
    )
    return [sentence]


def main() -> None:
    run_module(ARGUMENT_SPEC, perform)


if __name__ == "__main__":
    main()
