# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a deployment command on this host (a part of the programs of this collection, see ``_host.py``).

The command over a connection and the machine's own deploy agent take the same file, so that the two never run at once.
The lock is the kernel's (flock): it ends with its last holder, however that ends.
"""

import errno
import fcntl
import os
import stat

LOCK_FOLDERS = ("/run/lock", "/tmp")
"""Debian lets all users write to the first, Red Hat root alone; nobody but root would then find root's lock there."""


def lock_folder():
    """The first folder that every user may write to, so that all users take the same file.

    Its mode decides, and never who asks or a TMPDIR: root could write to each of them.
    """
    for folder in LOCK_FOLDERS:
        try:
            mode = os.stat(folder).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode) and mode & stat.S_IWOTH and mode & stat.S_IXOTH:
            return folder
    raise OSError(errno.EACCES, "no folder that all users may write to", ", ".join(LOCK_FOLDERS))


def lock_file(name):
    """One file for all users that deploy here, opened; what somebody else laid in its place is refused with OSError."""
    path = os.path.join(lock_folder(), "hitless-%s.lock" % name)
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


def try_lock(handle):
    """Take the lock, if nobody has it -> whether it is ours."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def set_owner(handle, owner):
    """Who holds the lock, for the messages of those who wait."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, owner.encode(), 0)
    except OSError:  # another user's file, opened for reading only
        pass


def owner_of(handle):
    """Who said that they hold the lock; empty where nobody did."""
    return os.pread(handle, 4096, 0).decode("utf-8", "replace")
