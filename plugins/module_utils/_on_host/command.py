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

import errno
import fcntl
import getpass
import os
import signal
import subprocess
import tempfile
import time


def lock_file(name):
    """Shared by all users that deploy here where possible; never follows a link somebody else laid."""
    folder = "/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir()
    path = os.path.join(folder, "hitless-%s.lock" % name)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        return os.open(os.path.join(folder, "hitless-%s-%s.lock" % (name, getpass.getuser())), flags, 0o600)


def acquire(handle, wait):
    """-> (got it, seconds waited, who held it)."""
    started, holder = time.time(), ""
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True, time.time() - started, holder
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        holder = os.pread(handle, 4096, 0).decode("utf-8", "replace") or "another command"
        if time.time() - started >= wait:
            return False, time.time() - started, holder
        time.sleep(0.2)


def main(request):
    answer = {"rc": None, "output": "", "timed_out": False, "waited_for": "", "seconds": 0.0, "error": ""}
    try:
        os.setsid()  # an interrupt on the controller's terminal must not leave half a deployment
    except OSError:
        pass
    handle = lock_file(request["lock"])
    try:
        got, answer["waited"], answer["waited_for"] = acquire(handle, request["wait"])
        if not got:
            answer["error"] = "another deployment command still runs on this host: %s" % answer["waited_for"]
            return answer
        os.ftruncate(handle, 0)
        os.pwrite(handle, request["owner"].encode(), 0)
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
            end(process)
        answer["rc"] = process.returncode
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - request["keep"]))
        answer["output"] = output.read().decode("utf-8", "replace")
    answer["seconds"] = time.time() - started
    return answer


def end(process):
    """The command and all it started in its group: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=5)
            return
        except subprocess.TimeoutExpired:
            continue
        except OSError:
            return
