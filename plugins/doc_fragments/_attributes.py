# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every task of this collection supports."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  action:
    description: Runs in the controller process; managed hosts need no Python package.
    support: full
  async:
    description: Refused with C(async), which would take the token of Consul to the host.
    support: none
  check_mode:
    description: Reads in check mode, and changes nothing.
    support: full
"""

    DIFF = r"""
attributes:
  diff_mode:
    description: Returns what changed, or would have in check mode.
    support: full
  idempotent:
    description: Running it again changes nothing further.
    support: full
"""

    INFO = r"""
attributes:
  diff_mode:
    description: Changes nothing, so that there is no difference to return.
    support: none
  idempotent:
    description: Running it again changes nothing further.
    support: full
"""
