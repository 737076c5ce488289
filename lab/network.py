# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which loopback addresses a lab has: 127.0.N.0/24 with a number N of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from .agents import DNS_PORT, HTTP_PORT, HTTPS_PORT, LabError
from .balancer import FRONTEND_PORT, STATS_PORT
from .nodes import APP_PORT, SSH_PORT

NETWORKS = range(20, 200)


def take_network(tls: bool, vms: Iterable[int]) -> tuple[socket.socket, int]:
    """A number N whose 127.0.N.0/24 is nobody else's, and the lock on it.

    The lock is a name in the abstract socket namespace: as wide as the loopback addresses themselves (one network
    namespace, all users), gone with its last holder, and no file to leave behind.
    """
    taken = ""
    for number in NETWORKS:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(f"\0hitless-lab-{number}")
        except OSError:
            lock.close()
            continue
        taken = _used(number, tls, vms)
        if not taken:
            return lock, number
        lock.close()
    raise LabError(f"no free range of loopback addresses{f' (the last one: {taken} is in use)' if taken else ''}")


def _used(number: int, tls: bool, vms: Iterable[int]) -> str:
    """The first address that something without the lock uses in that range, "" when all are free."""
    agent_port = HTTPS_PORT if tls else HTTP_PORT
    places = [(5, FRONTEND_PORT), (5, STATS_PORT), (1, agent_port), (4, DNS_PORT), (5, agent_port)]
    for vm in vms:
        places += [(10 + vm, agent_port), (10 + vm, APP_PORT), (10 + vm, SSH_PORT)]
    for host, port in places:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((f"127.0.{number}.{host}", port))
            except OSError:
                return f"127.0.{number}.{host}:{port}"
    return ""
