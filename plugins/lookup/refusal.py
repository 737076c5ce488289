# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup ``hitless.consul.refusal``, for the ``hosts`` of the collection's own playbooks."""

from __future__ import annotations

DOCUMENTATION = r"""
name: refusal
short_description: Why a playbook may not run with this command line
version_added: 0.1.0
author:
  - Hitless contributors (@hitless)
description:
  - Says what of Ansible's command line would leave out parts of a playbook that has to run whole, or nothing. These are
    C(--limit), C(--tags), C(--skip-tags), C(--start-at-task) and C(--step).
  - It is made for the C(hosts) of a play. No task can refuse, since with these options Ansible may leave out that task
    too, and still succeed.
notes:
  - No option. Terms are ignored.
"""

EXAMPLES = r"""
- name: Runs whole or not at all
  hosts: "{{ 'localhost' if not refused else undef(hint=refused) }}"
  gather_facts: false
  vars:
    refused: "{{ lookup('hitless.consul.refusal') }}"
  tasks:
    - name: Say so
      ansible.builtin.debug:
        msg: Nothing is left out
"""

RETURN = r"""
_raw:
  description: One message, empty where nothing is left out.
  type: list
  elements: str
  sample: ["--start-at-task (Plan) cannot be used with this playbook"]
"""

from typing import Any

from ansible import context
from ansible.plugins.lookup import LookupBase

from ansible_collections.hitless.consul.plugins.module_utils._rollout.command_line import CommandLine, refusal


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:  # noqa: ARG002 - Ansible's signature
        given = context.CLIARGS
        return [
            refusal(
                CommandLine(
                    limit=given.get("subset") or (variables or {}).get("ansible_limit"),
                    tags=sorted(set(given.get("tags") or ()) - {"all"}),
                    skip_tags=sorted(given.get("skip_tags") or ()),
                    start_at_task=given.get("start_at_task"),
                    step=bool(given.get("step")),
                )
            )
        ]
