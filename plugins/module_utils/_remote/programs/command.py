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
import os
import signal
import stat
import subprocess
import tempfile
import time


def lock_file(name):
    """One file for all users that deploy here; what somebody else laid in its place is refused, never written to."""
    folder = "/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir()
    path = os.path.join(folder, "hitless-%s.lock" % name)
    plain = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | plain, 0o666)
        os.fchmod(handle, 0o666)  # whatever the umask: the next user must find it locked
    except FileExistsError:
        # Without O_CREAT, which the kernel may refuse for another user's file in a sticky folder.
        try:
            handle = os.open(path, os.O_RDWR | plain)
        except PermissionError:
            handle = os.open(path, os.O_RDONLY | plain)  # enough to lock it
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(handle)
        raise OSError(errno.EINVAL, "no plain file", path)
    return handle


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
        tell(handle, request["owner"])
        return run(request, answer)
    finally:
        os.close(handle)


def tell(handle, owner):
    """Who holds the lock, for the messages of those who wait."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, owner.encode(), 0)
    except OSError:  # another user's file, opened for reading only
        pass


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
        except OSError:
            return
        if is_gone(process, 5):
            return


def is_gone(process, seconds):
    """Whether nothing of the group is left; the shell in it often ends before what it waited for."""
    until = time.time() + seconds
    while time.time() < until:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        time.sleep(0.05)
    return False
