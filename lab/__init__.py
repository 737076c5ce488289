# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real fleet on one machine, for the demo, the tests and for playing. See docs/lab.md."""

from __future__ import annotations

from .balancer import Balancer
from .binaries import BinaryError, find_consul
from .errors import ConsulError, LabError
from .fleet import Lab
from .load import LoadGenerator, Report, Row
from .nodes import Node, Server
from .vm import VM, Deploy
from .waiting import wait_until

__all__ = [
    "VM",
    "Balancer",
    "BinaryError",
    "ConsulError",
    "Deploy",
    "Lab",
    "LabError",
    "LoadGenerator",
    "Node",
    "Report",
    "Row",
    "Server",
    "find_consul",
    "wait_until",
]
