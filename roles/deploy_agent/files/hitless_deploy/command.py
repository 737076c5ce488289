# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deployment command, in a process that outlives who started it."""

import os
import subprocess
import time

from hitless_deploy.programs.command import end_group
from hitless_deploy.store import bound_output


def run_command(config, store):
    """What the handler starts as a process of its own, which outlives it: runs the command, writes its result.

    The locks come as inherited descriptors, and are not handed on: they end with this process.
    """
    state = store.load() or {}
    request = state["request"]
    command = config["restart_command" if request["reason"] == "restart" else "command"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONSUL_HTTP_TOKEN")}
    environment.update(config["environment"])
    environment.update(
        DEPLOY_SERVICE=config["service"],
        DEPLOY_VERSION=request["version"] or "",
        DEPLOY_PREVIOUS_VERSION=request["previous"],
        DEPLOY_ID=request["deployment"],
        DEPLOY_REASON=request["reason"],
    )
    result = {"request": request["request"], "rc": None, "timed_out": False, "error": ""}
    started = time.time()
    # A file, not a pipe: a service that the command starts may keep it open and must not die of writing to it.
    with open(store.path("output"), "ab") as output:
        try:
            process = subprocess.Popen(
                command if isinstance(command, list) else ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=config["directory"],
                start_new_session=True,
            )
        except OSError as error:
            result["error"] = str(error)
        else:
            store.save({"pid": process.pid, "began": began(process.pid)}, "process")
            if not ends_within(process, request["deploy_timeout"], lambda: bound_output(output, config["log_limit"])):
                result["timed_out"] = True
                end_group(process.pid, process.poll)
            result["rc"] = process.returncode
    result["seconds"] = round(time.time() - started, 3)
    store.save(result, "result")
    store.clear("process")


def ends_within(process, seconds, meanwhile):
    """Whether a process ends in time; meanwhile() is called every now and then."""
    until = time.monotonic() + seconds
    while True:
        try:
            process.wait(timeout=max(0, min(0.5, until - time.monotonic())))
            return True
        except subprocess.TimeoutExpired:
            meanwhile()
            if time.monotonic() >= until:
                return False


def began(pid):
    """When a process began, in ticks of this boot: tells it from a later one with the same number. None: it is gone."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
            ticks = file.read().rpartition(")")[2].split()[19]
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return "%s %s" % (ticks, file.read().strip())
    except (OSError, IndexError):
        return None


def end_leftover(store):
    """A command whose keeper was killed has nobody to bound it any more: it is ended before anything else runs."""
    left = store.load("process")
    if left and left["began"] is not None and began(left["pid"]) == left["began"]:
        end_group(left["pid"])
    store.clear("process")
