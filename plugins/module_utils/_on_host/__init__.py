# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on managed hosts (private programs of this collection): the standard library only, Python 3.6 or newer.

Each file is sent as text, so it imports nothing of the collection and defines ``main(request) -> answer``, both plain
JSON data.
"""
