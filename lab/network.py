# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The addresses and ports of a lab: 127.0.N.0/24 with a number N of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from .errors import LabError

HTTP_PORT = 8500
HTTPS_PORT = 8501
DNS_PORT = 8600
APP_PORT = 8080
SSH_PORT = 2222
FRONTEND_PORT = 8000
STATS_PORT = 8404
NETWORKS = range(20, 200)
LOAD_BALANCER = 4
CONTROLLER = 5
_BEFORE_VMS = 10


def address(network: int, host: int) -> str:
    """Of one machine: servers are the hosts 1 to 3, the VMs begin at 11."""
    return f"127.0.{network}.{host}"


def vm_address(network: int, number: int) -> str:
    """Of the VM with that number, from 1 on."""
    return address(network, _BEFORE_VMS + number)


def take_network(tls: bool, vms: Iterable[int]) -> tuple[socket.socket, int]:
    """A number N whose 127.0.N.0/24 is nobody else's, and the lock on it."""
    taken = ""
    for number in NETWORKS:
        lock = claim(f"hitless-lab-{number}")
        if lock is None:
            continue
        taken = _used(number, tls, vms)
        if not taken:
            return lock, number
        lock.close()
    raise LabError(f"no free range of loopback addresses{f' (the last one: {taken} is in use)' if taken else ''}")


def claim(name: str) -> socket.socket | None:
    """The lock of that name, which ends when it is closed; None where somebody has it.

    It is a name in the abstract socket namespace: as wide as the loopback addresses themselves (one network namespace,
    all users), gone with its last holder, and no file to leave behind.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(f"\0{name}")
    except OSError:
        lock.close()
        return None
    return lock


def _used(number: int, tls: bool, vms: Iterable[int]) -> str:
    """The first address that something without the lock uses in that range, "" when all are free."""
    agent_port = HTTPS_PORT if tls else HTTP_PORT
    controller, load_balancer = address(number, CONTROLLER), address(number, LOAD_BALANCER)
    places = [(controller, FRONTEND_PORT), (controller, STATS_PORT), (controller, agent_port)]
    places += [(address(number, 1), agent_port), (load_balancer, DNS_PORT)]
    for vm in vms:
        places += [(vm_address(number, vm), port) for port in (agent_port, APP_PORT, SSH_PORT)]
    for place in places:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError:
                return f"{place[0]}:{place[1]}"
    return ""
