# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules of this collection share when they run as modules, for ``async`` tasks (a private helper)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import MISSING_LIBRARY, library_missing
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task, connection_options
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host


def run_module(argument_spec: dict[str, Any], perform: Callable[[Task], dict[str, Any]], **constraints: Any) -> None:
    """``main()`` of every module: the same spec and the same ``perform`` as its action, on the machine it runs on."""
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True, **constraints)
    if MISSING_LIBRARY:
        module.fail_json(msg=library_missing())
    try:
        task = Task(
            params=module.params,
            options=connection_options(module.params, {}, os.environ),
            host=Host(None),
            check_mode=module.check_mode,
            warn=module.warn,
        )
        result = perform(task)
    except HitlessError as error:
        module.fail_json(msg=str(error), **error.details)
    failed = result.pop("failed", False)
    if failed:
        module.fail_json(**result)
    # Ansible takes an exit code but 0 for a failure, unless it is told otherwise.
    module.exit_json(failed=False, **result)
