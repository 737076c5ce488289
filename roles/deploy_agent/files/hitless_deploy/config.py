# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of the machine, and the request that comes by a key."""

import json
import re

from hitless_deploy.errors import Problem
from hitless_deploy.programs.probe import pattern_problem

REASONS = ("deploy", "rollback", "restart", "recover")
NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
VERSION = re.compile(r"[A-Za-z0-9._+~:@-]{1,128}\Z")

DEFAULTS = {
    "service": None,
    "node": None,
    "command": None,
    "restart_command": None,
    "directory": None,
    "environment": {},
    "success_codes": [0],
    "timeout": 3600,
    "exclusive": "service",
    "url": "http://127.0.0.1:8500",
    "token_file": None,
    "ca_path": None,
    "client_cert": None,
    "client_key": None,
    "validate_certs": True,
    "deploy_prefix": "deploy",
    "nodes_prefix": "nodes",
    "state_directory": "/var/lib/hitless",
    "log_limit": 256 * 1024,
}


def read_config(path):
    """The configuration, checked; raises Problem with one sentence."""
    try:
        with open(path, encoding="utf-8") as file:
            given = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise Problem("%s cannot be read: %s." % (path, error)) from None
    if not isinstance(given, dict):
        raise Problem("%s is not a JSON object." % path)
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise Problem("%s: unknown settings %s." % (path, ", ".join(unknown)))
    config = dict(DEFAULTS, **given)
    for name in ("service", "node"):
        if not is_name(config[name]):
            raise Problem("%s: %s must be a name of letters, digits, '_', '.' and '-'." % (path, name))
    config["restart_command"] = config["restart_command"] or ["systemctl", "restart", config["service"]]
    wrong = [name for name in ("command", "restart_command") if not is_command(config[name])]
    if wrong:
        raise Problem("%s: %s must be a list of arguments, or a command line for /bin/sh." % (path, wrong[0]))
    if config["exclusive"] not in ("service", "machine"):
        raise Problem("%s: exclusive must be service or machine." % path)
    codes = config["success_codes"]
    if not isinstance(codes, list) or not all(isinstance(code, int) and not isinstance(code, bool) for code in codes):
        raise Problem("%s: success_codes must be a list of numbers." % path)
    for name in ("timeout", "log_limit"):
        if not is_number(config[name]) or config[name] <= 0:
            raise Problem("%s: %s must be a number above 0." % (path, name))
    environment = config["environment"]
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise Problem("%s: environment must be an object of texts." % path)
    return config


def is_command(value):
    is_list = isinstance(value, list) and value and all(isinstance(part, str) for part in value)
    return bool(is_list or (isinstance(value, str) and value.strip()))


def is_name(value):
    return isinstance(value, str) and bool(NAME.match(value)) and ".." not in value and value != "."


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def checked_request(data, config):
    """The request; raises Problem for one that is not clean, or lacks a value: there are no defaults here.

    It comes from whoever may write the key: it says which version, and never what is run.
    """
    if not is_name(data.get("deployment")):
        raise Problem("The request names no deployment.")
    if data.get("service", config["service"]) != config["service"]:
        raise Problem("The request is for %r, and this is the agent of %s." % (data.get("service"), config["service"]))
    missing = [name for name in RULES if name not in data]
    if missing:
        raise Problem("The request lacks %s. Is the controller's collection as new as this agent?" % missing[0])
    wrong = [name for name, is_right in RULES.items() if not is_right(data[name])]
    if data["reason"] in ("deploy", "rollback") and not is_version(data["version"]):
        wrong.insert(0, "version")
    if wrong:
        raise Problem("The request's %s cannot be used: %r." % (wrong[0], data[wrong[0]]))
    return dict(data, deploy_timeout=min(data["deploy_timeout"], config["timeout"]))


def is_version(value):
    return isinstance(value, str) and bool(VERSION.match(value))


def is_pattern(value):
    return not pattern_problem(value)


def is_seconds(value):
    return is_number(value) and 0 <= value <= 86400


def is_text(value):
    return isinstance(value, str)


RULES = {
    "reason": lambda value: value in REASONS,
    "version": lambda value: value is None or is_version(value),
    "previous": lambda value: value == "" or is_version(value),
    "remember": lambda value: value in (None, "") or is_version(value),
    "scope": lambda value: isinstance(value, list) and value and all(is_name(part) for part in value),
    "tags": lambda value: isinstance(value, list) and all(is_text(part) for part in value),
    "drain_time": is_seconds,
    "deploy_timeout": is_seconds,
    "healthy_deadline": is_seconds,
    "min_healthy_time": is_seconds,
    "check_interval": is_seconds,
    "accept_warning": lambda value: isinstance(value, bool),
    "health_url": is_text,
    "health_match": is_pattern,
    "session": is_text,
    "unsure": lambda value: isinstance(value, bool),
}
