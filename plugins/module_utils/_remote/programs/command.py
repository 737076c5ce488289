# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's deployment command, one at a time on this host (a private program of this collection, see ``_host.py``).

It goes on where the connection is lost, since whoever asked may be gone: the lock file says so to the next one, who
waits for it. The lock is the kernel's (flock): it ends with the command, however that ends.

request: command (a shell's command line), environment, chdir, timeout (seconds), lock (name), owner, wait (seconds),
keep (bytes of output kept)
answer: rc (None where it never ran), output (stdout and stderr in order), timed_out, waited (seconds), waited_for,
seconds, error
"""

import os
import signal
import subprocess
import tempfile
import time

from .lockfile import lock_file, owner_of, set_owner, try_lock


def acquire(handle, wait):
    """-> (got it, seconds waited, who held it)."""
    started, holder = time.time(), ""
    while not try_lock(handle):
        holder = owner_of(handle) or "another command"
        if time.time() - started >= wait:
            return False, time.time() - started, holder
        time.sleep(0.2)
    return True, time.time() - started, holder


def main(request):
    answer = {
        "rc": None,
        "output": "",
        "timed_out": False,
        "waited": 0.0,
        "waited_for": "",
        "seconds": 0.0,
        "error": "",
    }
    try:
        os.setsid()  # an interrupt on the controller's terminal must not leave half a deployment
    except OSError:
        pass
    try:
        handle = lock_file(request["lock"])
    except OSError as error:
        answer["error"] = "its lock file cannot be used: %s" % error
        return answer
    try:
        got, answer["waited"], answer["waited_for"] = acquire(handle, request["wait"])
        if not got:
            answer["error"] = "another deployment command still runs on this host: %s" % answer["waited_for"]
            return answer
        set_owner(handle, request["owner"])
        return run(request, answer)
    finally:
        os.close(handle)


def run(request, answer):
    started = time.time()
    environment = dict(os.environ)
    environment.update(request["environment"])
    # A file, not a pipe: a service that the command starts may keep it open and must not die of writing to it.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                ["/bin/sh", "-c", request["command"]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=request.get("chdir") or None,
                start_new_session=True,
            )
        except OSError as error:
            answer["error"] = "the command could not be started: %s" % error
            return answer
        try:
            process.wait(timeout=request["timeout"])
        except subprocess.TimeoutExpired:
            answer["timed_out"] = True
            end_group(process.pid, process)
        answer["rc"] = process.returncode
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - request["keep"]))
        answer["output"] = output.read().decode("utf-8", "replace")
    answer["seconds"] = time.time() - started
    return answer


def end_group(group, process=None):
    """End all of a process group: it is asked first, then killed.

    process: its first one where that is a child of this program, which has to be reaped.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, number)
        except OSError:
            return
        if _is_gone(group, process, 5):
            return


def _is_gone(group, process, seconds):
    """Whether nothing of the group is left; the shell in it often ends before what it waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process is not None:
            process.poll()
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        time.sleep(0.05)
    return False
