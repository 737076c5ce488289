# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs a rollout, and from where (a private helper of this collection)."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from typing import Any

_PRODUCTS = ("awx", "tower")
"""AWX (and Automation Platform, whose variables begin with ``tower`` as well) gives each job the extra variables
``awx_job_id``, ``awx_user_name`` and so on, and its own address in the environment as ``AWX_HOST``."""


def operator_of(variables: Mapping[str, Any] | None = None) -> str:
    """``user@host``; in a job of AWX, by the variables it sets, who started which job."""
    job, about = _job(variables or {})
    if job:
        return f"{about.get('user_name') or about.get('schedule_name') or 'AWX'} (AWX job {job})"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without an entry in passwd
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def origin_of(variables: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> str:
    """``host:folder``; in a job of AWX the job's address, made as AWX makes it for its own notifications.

    ansible-rulebook runs playbooks in a temporary folder; there it is the name of the ruleset.
    """
    job, about = _job(variables or {})
    rules = (variables or {}).get("ansible_eda")
    if not job and isinstance(rules, Mapping) and rules.get("ruleset"):
        return f"{socket.gethostname()}, ruleset {rules['ruleset']!s}"
    if not job:
        return f"{socket.gethostname()}:{os.getcwd()}"
    address = (os.environ if environment is None else environment).get("AWX_HOST")
    if address:
        return f"{address.rstrip('/')}/#/jobs/playbook/{job}"
    return f"AWX job template {about['job_template_name']}" if about.get("job_template_name") else "AWX"


def _job(variables: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The number of the job, empty outside of AWX, and what else is known of it."""
    for product in _PRODUCTS:
        if variables.get(f"{product}_job_id"):
            prefix = f"{product}_"
            about = {name.removeprefix(prefix): value for name, value in variables.items() if name.startswith(prefix)}
            return str(about["job_id"]), about
    return "", {}
