# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Output as it may stand in a key and on a terminal (a part of the programs of this collection, see ``_host.py``)."""

import re

_CONTROL = re.compile(
    "\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[@-Z\\\\-_])"  # sequences of a terminal
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def plain_text(text):
    """The text without control characters but tabs and ends of lines."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
