# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, and how deployments went."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import CLUSTER_SPEC, KEYS_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import store as deployments
from ansible_collections.hitless.consul.plugins.module_utils._rollout.ending import settled
from ansible_collections.hitless.consul.plugins.module_utils._views import report
from ansible_collections.hitless.consul.plugins.module_utils._views.follow import Follower
from ansible_collections.hitless.consul.plugins.module_utils._views.log import read_logs
from ansible_collections.hitless.consul.plugins.module_utils._views.screen import service_screen
from ansible_collections.hitless.consul.plugins.module_utils._views.status import overview, services_deployed
from ansible_collections.hitless.consul.plugins.module_utils._views.story import beginning, story
from ansible_collections.hitless.consul.plugins.plugin_utils._action import HitlessAction

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **KEYS_SPEC,
    "service": {"type": "str"},
    "id": {"type": "str"},
    "limit": {"type": "int", "default": 5},
    "format": {"type": "str", "choices": ["text", "json"], "default": "text"},
    "path": {"type": "path"},
    "log": {"type": "bool", "default": True},
    "follow": {"type": "bool", "default": False},
    "quiet": {"type": "bool", "default": False},
}
CONSTRAINTS = {"required_by": {"id": ["service"]}}


def perform(task: Task) -> dict[str, Any]:
    params = task.params
    if params["limit"] < 0:
        raise HitlessError(f"limit must be 0 or more, not {params['limit']}.")
    if params["id"]:
        return one_deployment(task)
    found, text = all_services(task)
    show(task, found, text)
    return {"changed": False, "report": text, **found}


def show(task: Task, found: dict[str, Any], text: str, *, shown: bool = False) -> None:
    """What was found, in the format and to the place that are wanted.

    :param shown: it has been shown already.
    """
    path, as_json = task.params["path"], task.params["format"] == "json"
    content = json.dumps(found, indent=2) if as_json else text
    if path:
        write(path, content)
    if not task.params["quiet"] and not shown:
        task.show(f"Written to {path}." if path and as_json else content)


def write(path: str, content: str) -> None:
    """:raises HitlessError: the file cannot be written."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(content + "\n")
    except OSError as error:
        raise HitlessError(f"{path} cannot be written: {error.strerror}.", hint="Its folder has to exist.") from None


def one_deployment(task: Task) -> dict[str, Any]:
    params = task.params
    keys = task.keys(task.params["service"])
    wanted = params["id"]
    if wanted == "last":
        newest = deployments.list_recent(task.consul, keys, 1)
        if not newest:
            raise HitlessError(f"Consul knows no deployment of {keys.service}, or the token may not read them.")
        wanted = newest[0].record.id
    found = deployments.require(task.consul, keys, wanted)
    follows = found.is_alive and params["follow"] and params["format"] == "text" and not params["quiet"]
    if follows:
        task.show(beginning(found.state, found.record) + "\n\n")
        found = Follower(task.consul, keys, wanted, task.show, with_log=params["log"]).follow()
    found = settled(task.consul, keys, found)
    steps = deployments.read_steps(task.consul, keys, found)
    hosts = {
        name: host.node if found.record.by_agents and host.batch is not None else None
        for name, host in found.record.hosts.items()
    }
    log = read_logs(task.consul, keys, wanted, hosts) if params["log"] else {}
    text = story(found.state, found.record, found.outcomes, steps, log, found.control.noted.uses, found.analysis)
    data = {"deployment": {**found.as_dict(), "steps": steps, "log": log}}
    if follows:
        task.show("\n" + report.ended(found.record, found.outcomes))
    show(task, data, text, shown=follows)
    return {"changed": False, "report": text, **data}


def all_services(task: Task) -> tuple[dict[str, Any], str]:
    params = task.params
    names = [params["service"]] if params["service"] else services_deployed(task.consul, task.deploy_prefix)
    services = {name: overview(task.consul, task.keys(name), params["limit"]) for name in names}
    text = "\n\n".join(service_screen(one) for one in services.values()) or "Nothing was deployed yet."
    return {"services": services}, text


class ActionModule(HitlessAction):
    argument_spec = ARGUMENT_SPEC
    constraints = CONSTRAINTS

    def perform(self, task: Task) -> dict[str, Any]:
        return perform(task)
