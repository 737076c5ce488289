# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe of a run: asked beside it all the time, and what came of it (rollout_probe_url; a private helper).

``prober.py`` is the program that asks. It is started before the first host, and ended after the watch: the way back
that follows a failure is no concern of it.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import (
    KEEPER,
    Controller,
    consul_config,
    start_program,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import json_object
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._consul.process_file import end_process
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.probed import Probed
from ansible_collections.hitless.consul.plugins.module_utils._rollout.prober import REPORT_AT, REPORT_SIZE, ask
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run

PROBER = Path(__file__).with_name("prober.py")
WATCHER = "probe"
"""Its name among the watchers of a deployment, see findings.py."""
ENDS_WITHIN = 10.0
"""Seconds that it may take to end; after that it is killed."""


def is_wanted(run: Run) -> bool:
    """A rollback is in a hurry, and goes on whatever clients see."""
    return bool(run.options["probe_url"]) and run.options["direction"] != "rollback"


def require_answer(run: Run) -> None:
    """Before anything is changed: what fails already could not tell whether the deployment is to blame.

    :raises HitlessError: the address does not answer well.
    """
    problem = ask(str(run.options["probe_url"])) if is_wanted(run) else ""
    if problem:
        raise HitlessError(
            f"The probe fails before anything has begun (rollout_probe_url): {problem}; nothing was changed.",
            hint="Set it to an address that answers as clients are to see it, with a status below 400, from here.",
        )


def start(task: Task, run: Run, controller: Controller) -> Run:
    """The run with its probe, which ends with it; as it was where none is wanted.

    :raises HitlessError: it did not start.
    """
    if not is_wanted(run):
        return run
    report, file = tempfile.mkstemp(prefix="hitless-probe-")
    keys = run.keys(task)
    config = {
        "keeper": str(KEEPER),
        "consul": consul_config(task.consul.connection, keys, run.session, controller.pipe),
        "finding": keys.findings(run.id, WATCHER),
        "address": run.options["probe_url"],
        "interval": run.options["probe_interval"],
        "failures": run.options["probe_failures"],
        "pipe": controller.pipe,
        "report": report,
        "file": file,
    }
    try:
        start_program(PROBER, (run.service, run.id), config, (controller.pipe, report), f"The probe of {run.service}")
    except BaseException:
        Path(file).unlink(missing_ok=True)
        raise
    finally:
        os.close(report)
    return replace(run, probing=file)


def end(run: Run) -> Run:
    """The run once its probe has ended, with what that has counted (``probed``); what it found is told by then."""
    if not run.probing:
        return run
    probed = Probed()
    with suppress(OSError):  # it is gone, and its account with it
        file = os.open(run.probing, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            end_process(file, ENDS_WITHIN)
            probed = Probed.of(json_object(os.pread(file, REPORT_SIZE, REPORT_AT).decode("utf-8", "replace")))
        finally:
            Path(run.probing).unlink(missing_ok=True)
            os.close(file)
    return replace(run, probing="", probed=probed.as_dict())
