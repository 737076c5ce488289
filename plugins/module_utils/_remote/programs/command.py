# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's deployment command, one at a time on this host (a private program of this collection, see ``_host.py``).

It goes on where the connection is lost, since whoever asked may be gone: the lock file says so to the next one, who
waits for it. The lock is the kernel's (flock): it ends with the command, however that ends.

request: command (a shell's command line), environment, timeout (seconds), lock (name), owner, wait (seconds), keep
(bytes of output kept)
answer: rc (None where it never ran), output (stdout and stderr in order), timed_out, waited (seconds), waited_for,
seconds, error

Neither subprocess nor tempfile: a fleet's controller would feel it, since to load them takes longer than all else here.
"""

import os
import signal
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
    try:
        # A file, not a pipe: a service that the command starts may keep it open and must not die of writing to it.
        output = unnamed_file()
        command = Command(request["command"], environment, output.fileno())
    except OSError as error:
        answer["error"] = "the command could not be started: %s" % error
        return answer
    if not command.ends_within(request["timeout"]):
        answer["timed_out"] = True
        end_group(command.pid, command.poll)
    answer["rc"] = command.poll()
    with output:
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - request["keep"]))
        answer["output"] = output.read().decode("utf-8", "replace")
    answer["seconds"] = time.time() - started
    return answer


def unnamed_file():
    """A file, open for reading and writing, that is gone with its last holder."""
    problem = None
    for folder in filter(None, (os.environ.get("TMPDIR"), "/tmp", "/var/tmp")):
        path = "%s/hitless-%s" % (folder, os.urandom(12).hex())
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            problem = error
            continue
        os.unlink(path)
        return os.fdopen(handle, "w+b")
    raise problem


class Command:
    """A shell's command line that runs in a process group of its own.

    output: the descriptor of a file for what it prints
    """

    def __init__(self, line, environment, output):
        self.rc = None
        # The end of a child is a signal; one that is blocked waits until it is looked for.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python itself, and what is ignored is inherited
                signal.signal(ignored, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.execve("/bin/sh", ["/bin/sh", "-c", line], environment)
        except (OSError, ValueError) as error:
            os.write(output, ("the command could not be started: %s\n" % error).encode("utf-8", "replace"))
        finally:
            os._exit(126)  # as a shell does where it cannot run what it has found

    def poll(self):
        """Its exit code; that of a signal is negative. None while it runs."""
        if self.rc is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.rc = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return self.rc

    def ends_within(self, seconds):
        until = time.monotonic() + seconds
        while self.poll() is None:
            left = until - time.monotonic()
            if left <= 0:
                return False
            signal.sigtimedwait([signal.SIGCHLD], left)
        return True


def end_group(group, poll=lambda: None):
    """End all of a process group: it is asked first, then killed.

    poll: reaps its first one where that is a child of this program
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, number)
        except OSError:
            return
        if _is_gone(group, poll, 5):
            return


def _is_gone(group, poll, seconds):
    """Whether nothing of the group is left; the shell in it often ends before what it waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        poll()
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        time.sleep(0.05)
    return False
