# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalog's checks tell."""

import re

from hitless_deploy.config import is_number
from hitless_deploy.programs.terminal import plain_text

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|\u00b5s|ms|s|m|h)")
UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def reason_of(checks, name):
    """The reason of an instance's maintenance, of the node's where the name is empty; None where it is in none."""
    wanted = "_service_maintenance:" + name if name else "_node_maintenance"
    return next((one.get("Notes", "") for one in checks or () if one["CheckID"] == wanted), None)


def is_maintenance(check):
    return check["CheckID"] == "_node_maintenance" or check["CheckID"].startswith("_service_maintenance:")


def described(check):
    output = re.sub(r"\s+", " ", plain_text(check.get("Output") or "")).strip()[:300]
    return "%s is %s%s" % (check.get("Name") or check["CheckID"], check["Status"], " (%s)" % output if output else "")


def seconds_of(duration):
    if is_number(duration):
        return duration / 1e9
    return sum(float(number) * UNITS[unit] for number, unit in DURATION.findall(str(duration or "")))
