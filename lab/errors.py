# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong in a lab."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot do what was asked; the text says what is wrong and what to do."""


class ConsulError(Exception):
    """Consul answered with an error: `status` (0: no answer at all) and its words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
