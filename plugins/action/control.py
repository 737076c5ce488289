# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A word to a rollout that runs or is paused, and freezes."""

from __future__ import annotations

from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import orders
from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import FREEZE, UNFREEZE, Order
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import freeze_of_all
from ansible_collections.hitless.consul.plugins.module_utils._rollout.operator import operator_of, origin_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp
from ansible_collections.hitless.consul.plugins.module_utils._views.status import services_deployed
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str"},
    "all_services": {"type": "bool", "default": False},
    "action": {"type": "str", "choices": list(orders.ACTIONS), "required": True},
    "reason": {"type": "str", "default": ""},
    "until": {"type": "str"},
}


def perform(task: Task) -> dict[str, Any]:
    params = task.params
    service, action = params["service"], params["action"]
    if bool(service) == params["all_services"]:
        raise HitlessError("Either a service is named, or all_services is true.")
    if params["until"] and action != FREEZE:
        raise HitlessError(f"until is the end of a freeze, and means nothing with {action}.")
    order = Order(
        action,
        by=operator_of(task.variables),
        why=params["reason"],
        at=timestamp(),
        origin=origin_of(task.variables),
        until=orders.until_of(params["until"]) if params["until"] else "",
    )
    if action in (FREEZE, UNFREEZE):
        given = [_freeze(task, order)]
    elif service:
        given = [orders.give(task.consul, task.keys(service), order, check_mode=task.check_mode)]
    else:
        given = _to_all(task, order)
    text = "\n".join(one.text for one in given)
    task.show(text)
    deployments = [one.deployment for one in given if one.deployment]
    return {"changed": any(one.changed for one in given), "text": text, "deployments": deployments}


def _freeze(task: Task, order: Order) -> orders.Given:
    service = task.params["service"]
    key = task.keys(service).freeze if service else freeze_of_all(task.deploy_prefix)
    what = str(service or "Every service")
    if order.word == FREEZE:
        return orders.freeze(task.consul, key, what, order, check_mode=task.check_mode)
    return orders.unfreeze(task.consul, key, what, check_mode=task.check_mode)


def _to_all(task: Task, order: Order) -> list[orders.Given]:
    """To each service to which the word means something; raises where there is none."""
    given, refused = [], []
    for name in services_deployed(task.consul, task.deploy_prefix):
        try:
            given.append(orders.give(task.consul, task.keys(name), order, check_mode=task.check_mode))
        except HitlessError as error:
            refused.append(str(error))
    if not given:
        raise HitlessError(f"There is no service to {order.word}. {' '.join(refused)}".rstrip())
    return given


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC

    def perform(self, task: Task) -> dict[str, Any]:
        return perform(task)
