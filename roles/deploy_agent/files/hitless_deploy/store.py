# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine knows of itself: files, and the locks that keep two deployments apart."""

import ctypes
import errno
import fcntl
import json
import os
import stat
import tempfile

from hitless_deploy.errors import Problem

OUTPUT_TAIL = 4 * 1024 * 1024  # bytes kept of the end of an output, at least
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # of fallocate(2)


def bound_output(file, head):
    """Take the middle out of a file that others append to: what is left is its first bytes, and its end.

    Its space is given back and its length stays, so that nothing which is being written gets lost. Where the file
    system knows no holes, all after the first bytes is lost.
    """
    size = os.fstat(file.fileno()).st_size
    if size <= head + 2 * OUTPUT_TAIL:
        return
    start, length = ctypes.c_long(head), ctypes.c_long(size - OUTPUT_TAIL - head)
    libc = ctypes.CDLL(None)
    if libc.fallocate(file.fileno(), _PUNCH_HOLE | _KEEP_SIZE, start, length) != 0:
        os.ftruncate(file.fileno(), head)


class Store:
    """The files of one service: the request in hand, the result of its command, its output."""

    def __init__(self, config):
        self.shared = config["state_directory"]
        self.log_limit = config["log_limit"]
        self.folder = os.path.join(self.shared, "%s.%s" % (config["service"], config["node"]))
        os.makedirs(self.folder, mode=0o700, exist_ok=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def bound_output(self):
        """Of the last command, see the function of that name."""
        try:
            with open(self.path("output"), "r+b") as file:
                bound_output(file, self.log_limit)
        except FileNotFoundError:
            pass

    def load(self, name="state"):
        try:
            with open(self.path(name + ".json"), encoding="utf-8") as file:
                data = json.load(file)
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None

    def save(self, data, name="state"):
        """Whole or not at all, also when the power fails."""
        temporary = self.path(name + ".new")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path(name + ".json"))

    def clear(self, *names):
        for name in names or ("state",):
            try:
                os.unlink(self.path(name + ".json"))
            except FileNotFoundError:
                pass


def lock_file(name):
    """A file for all users that deploy here; what somebody else laid in its place is refused, never written to.

    That of a service is the one that a command run over SSH takes too (see _remote/programs): the two never meet.
    """
    folder = "/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir()
    path = os.path.join(folder, "hitless-%s.lock" % name)
    plain = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | plain, 0o666)
        os.fchmod(handle, 0o666)
    except FileExistsError:
        # Without O_CREAT, which the kernel may refuse for another user's file in a sticky folder.
        try:
            handle = os.open(path, os.O_RDWR | plain)
        except PermissionError:
            handle = os.open(path, os.O_RDONLY | plain)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(handle)
        raise Problem("The lock file %s is no plain file." % path)
    return handle


def try_lock(handle):
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True
