# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, and how it is told."""

import sys
import time


class Problem(Exception):
    """The turn fails, for this reason.

    other_owner: a maintenance set by someone else is in the way.
    """

    def __init__(self, message, other_owner=False):
        super().__init__(message)
        self.other_owner = other_owner


class Superseded(Exception):
    """The status is not ours any more: a newer request, or a controller that gave this machine up."""


class Unavailable(Exception):
    """Consul gives no usable answer; what was asked for is tried again later."""


class Conflict(Exception):
    """A transaction was rolled back; failed: the numbers of the operations that did it."""

    def __init__(self, failed, what):
        super().__init__(what)
        self.failed = failed


class Again:
    """Not yet; ask again after so many seconds at the latest."""

    def __init__(self, within):
        self.within = max(within, 0.01)


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def tell(text):
    """For the journal of the unit, or whoever watches."""
    sys.stderr.write("hitless-deploy: %s\n" % text)
    sys.stderr.flush()
