"""Notes when each task of a run began and when its results came in: what `bench/waiting.py` measures by.

Each line of the file named by BENCH_MOMENTS: "began" or "ended", the task's name, the time (epoch seconds).
"""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: moments
type: aggregate
short_description: Notes when tasks begin and end
description: [Notes when tasks begin and end.]
"""


class CallbackModule(CallbackBase):  # type: ignore[misc] # Ansible ships no types
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "moments"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        self._note("began", task.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note("ended", result.task_name)

    def _note(self, what: str, name: str) -> None:
        with open(os.environ["BENCH_MOMENTS"], "a", encoding="utf-8") as file:
            file.write(f"{what}\t{name}\t{time.time():.6f}\n")
