#!/usr/bin/python
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the deployment command of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy
short_description: Run a deployment command on a host, one at a time
version_added: 0.1.0
description:
  - Runs the user's command line with the C(DEPLOY_*) environment, a time limit, and its output kept.
  - One at a time per host and service, by a lock file there. A command whose controller was killed goes on; the next
    one waits for it and says so.
  - It runs as the user that the task's C(become) settings say.
author:
  - Hitless contributors (@hitless)
options:
  command:
    description: A command line for C(/bin/sh) on the host.
    type: str
    required: true
  chdir:
    description: Folder to run it in.
    type: str
  version:
    description: The version to deploy, C(DEPLOY_VERSION) for the command. Required unless O(in_rollout=true).
    type: str
  previous_version:
    description: The version that ran before, C(DEPLOY_PREVIOUS_VERSION), empty where none is known.
    type: str
    default: ""
  reason:
    description: C(DEPLOY_REASON).
    type: str
    choices: [deploy, rollback]
    default: deploy
  environment:
    description: More environment variables for the command.
    type: dict
    default: {}
  success_codes:
    description: Exit codes that mean success, for puppet with detailed exit codes V([0, 2]).
    type: list
    elements: int
    default: [0]
  deadline:
    description: Seconds the command may take; then it and all it started in its process group is ended.
    type: float
    default: 1800
  wait:
    description: Seconds to wait for an earlier command that still runs there; O(deadline) where not given.
    type: float
extends_documentation_fragment:
  - hitless.consul.in_rollout
  - hitless.consul.cluster
  - hitless.consul.agent
  - hitless.consul.attributes
attributes:
  check_mode:
    description: Says that it would run, and runs nothing.
    support: full
  diff_mode:
    description: What a command changes is not known.
    support: none
  idempotent:
    description: As idempotent as the command.
    support: partial
    details: The command decides.
seealso:
  - module: hitless.consul.take_out
"""

EXAMPLES = r"""
- name: Deploy with puppet
  hitless.consul.deploy:
    service: web
    command: puppet agent --test
    version: 1.4.2
    deployment: 20261123T142233Z-1.4.2-7f3a
    success_codes: [0, 2]
  become: true
"""

RETURN = r"""
rc:
  description: Exit code of the command.
  returned: when it ran
  type: int
  sample: 0
stdout:
  description: The end of what it printed, both streams in order.
  returned: when it ran
  type: str
  sample: 1.4.2 installed
waited_for:
  description: The earlier command that was waited for.
  returned: where there was one
  type: str
  sample: deployment 20261123T142233Z-1.4.2-7f3a
"""

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import AGENT_SPEC, CLUSTER_SPEC, Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._module import run_module
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_name, checked_version
from ansible_collections.hitless.consul.plugins.module_utils._rollout.step import IN_ROLLOUT_SPEC, unless_in_rollout

KEEP_OUTPUT = 16384
"""Bytes of a command's output that come back; its end says why it failed.

A result larger than a pipe holds (64 KiB) would keep the worker of a killed controller from ending, and keep
its lock with it.
"""

ARGUMENT_SPEC = {
    **CLUSTER_SPEC,
    **AGENT_SPEC,
    **IN_ROLLOUT_SPEC,
    "command": {"type": "str", "required": True},
    "chdir": {"type": "str"},
    "version": {"type": "str"},
    "previous_version": {"type": "str", "default": ""},
    "reason": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
    "environment": {"type": "dict", "default": {}},
    "success_codes": {"type": "list", "elements": "int", "default": [0]},
    "deadline": {"type": "float", "default": 1800},
    "wait": {"type": "float"},
}
CONSTRAINTS = unless_in_rollout("version")


def perform(task: Task) -> dict:
    params = task.params
    environment = {
        **{name: str(value) for name, value in params["environment"].items()},
        "DEPLOY_SERVICE": params["service"],
        "DEPLOY_VERSION": checked_version(params["version"]),
        "DEPLOY_PREVIOUS_VERSION": params["previous_version"] or "",
        "DEPLOY_ID": params["deployment"],
        "DEPLOY_REASON": params["reason"],
    }
    if task.check_mode:
        return {"changed": True, "msg": f"would run: {params['command']}"}
    answer = task.host.call(
        "command",
        {
            "command": params["command"],
            "chdir": params["chdir"],
            "environment": environment,
            "timeout": params["deadline"],
            # By node, too: several of them may share a machine, as they do in a lab.
            "lock": f"{checked_name(params['service'], 'service')}.{checked_name(task.node, 'node')}",
            "owner": f"deployment {params['deployment']}",
            "wait": params["deadline"] if params["wait"] is None else params["wait"],
            "keep": KEEP_OUTPUT,
        },
        as_user=True,
    )
    if answer["waited_for"]:
        task.warn(
            f"{task.host.name}: waited {answer['waited']:.0f} s for an earlier command to end ({answer['waited_for']})."
        )
    return judged(params, answer)


def judged(params: dict, answer: dict) -> dict:
    """The result of a command that succeeded; raises :class:`HitlessError` with its output for one that did not."""
    output = answer["output"]
    result = {
        "changed": True,
        "rc": answer["rc"],
        "stdout": output,
        "stdout_lines": output.splitlines(),
        "seconds": round(answer["seconds"], 3),
        "waited_for": answer["waited_for"],
    }
    if answer["error"]:
        what = f"The deployment command did not run: {answer['error']}."
    elif answer["timed_out"]:
        what = f"The deployment command was ended after {params['deadline']:g} s (rollout_deploy_timeout)."
    elif answer["rc"] not in params["success_codes"]:
        what = f"The deployment command exited with {answer['rc']}."
    else:
        return result
    raise HitlessError(what, details=result)


def main() -> None:
    run_module(ARGUMENT_SPEC, perform, **CONSTRAINTS)


if __name__ == "__main__":
    main()
