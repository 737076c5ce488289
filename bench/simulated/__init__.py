"""A simulated fleet: one process plays any number of machines on one real Consul server.

Each machine has its entries in the catalog, the HTTP API of a Consul agent (as far as Hitless uses it) and an
application at a loopback address of its own, and a deploy agent. What is real: the server, its catalog, KV and blocking
reads; all of the controller; the deploy agent's own code. What is not: gossip, checks that run, the command and its
process.
"""

from __future__ import annotations

from .fleet import FIRST, Fleet, simulated
from .machine import Behaviour, Machine

__all__ = ["FIRST", "Behaviour", "Fleet", "Machine", "simulated"]
