# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running HAProxy: its sockets, the state of its servers, and what brings that to what is wanted.

Needs Python 3.6 or newer and nothing else.
"""

import socket

# srv_admin_state: maintenance set by the runtime API; that, or by the configuration, or because DNS has no address.
ADMIN_MAINTENANCE, ANY_MAINTENANCE = 0x01, 0x01 | 0x04 | 0x20


def ask(path, command):
    """The answer of one of its sockets."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def state_lines(path):
    """Two lines of heading, then each server's line with what it says; of the process that takes new connections."""
    lines = ask(path, "show servers state").splitlines()
    names = lines[1].lstrip("# ").split()
    return lines[:2], [(line, dict(zip(names, line.split()))) for line in lines[2:] if " " in line]


def states(path):
    """Backend -> {server: its state}."""
    found = {}
    for _line, state in state_lines(path)[1]:
        found.setdefault(state["be_name"], {})[state["srv_name"]] = state
    return found


def pid(path):
    """A line with the id of the process that takes new connections; None where none runs."""
    try:
        return next(line for line in ask(path, "show info").splitlines() if line.startswith("Pid:"))
    except (OSError, StopIteration):
        return None


def address_of(state):
    return "{srv_addr}:{srv_port}".format(**state)


def takes_requests(state):
    return not int(state["srv_admin_state"]) & ANY_MAINTENANCE and state["srv_addr"] != "-"


def changes(wanted, before, running):
    """The commands that bring it to what is wanted; None where that takes a reload.

    wanted and before: backend -> {server: the rest of its line in the configuration}; running: see states.
    """
    commands = []
    for backend, its in wanted.items():
        there = running.get(backend, {})
        for name, line in its.items():
            address, _unused, options = line.partition(" ")
            if name not in there or before.get(backend, {}).get(name, line).partition(" ")[2] != options:
                return None
            commands += returning("{}/{}".format(backend, name), address, options.split(), there[name])
        for name, state in there.items():
            if name not in its and not int(state["srv_admin_state"]) & ADMIN_MAINTENANCE:
                commands.append("set server {}/{} state maint".format(backend, name))
    return commands


def returning(server, address, options, state):
    """The commands that make a known server serve at this address."""
    commands = []
    host, _unused, port = address.rpartition(":")
    if (state["srv_addr"], state["srv_port"]) != (host.strip("[]"), port):
        commands.append("set server {} addr {} port {}".format(server, host.strip("[]"), port))
    if int(state["srv_admin_state"]) & ADMIN_MAINTENANCE:
        # Its weight may have changed while it was away, and nothing else that is its own.
        if "weight" in options:
            commands.append("set server {} weight {}".format(server, options[options.index("weight") + 1]))
        commands.append("set server {} state ready".format(server))
    return commands
