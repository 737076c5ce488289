# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the machine in maintenance while a turn drains, deploys and verifies it.

An application that registers itself drops its maintenance, and a person may end it: then it is put back within
milliseconds, and whatever waits for the drain learns that it has to begin anew.
"""

import threading
import time

from hitless_deploy.consul import Consul, kv_check
from hitless_deploy.errors import Again, Conflict, Problem, Unavailable

LOOK_EVERY = 10.0  # seconds: an instance without any check shows no change of its node's checks
RESEND_AFTER = 0.5  # seconds between two tries to put it back


class MaintenanceWatch:
    """A thread beside the turn; ``with`` bounds it. A read that is under way at the end then does nothing more."""

    def __init__(self, turn):
        self.turn = turn
        self.consul = Consul(turn.config, retry_for=0)
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.since = None

    def __enter__(self):
        self.ended = threading.Event()
        self.since = None
        threading.Thread(target=self.run, args=(self.ended,), daemon=True).start()
        return self

    def __exit__(self, *_error):
        with self.lock:
            self.ended.set()

    def out_since(self):
        """Since when the catalog has shown all in maintenance without a break, on the monotonic clock; looks anew."""
        while True:
            try:
                if self.look(self.consul.ask("GET", self.turn.checks_path)[1], self.ended):
                    return self.since
            except Unavailable:
                pass
            time.sleep(0.1)

    def run(self, ended):
        while not ended.is_set():
            try:
                self.consul.watch(self.turn.checks_path, lambda checks: self.decide(checks, ended), float("inf"))
            except (Unavailable, Problem):  # the turn finds out itself; the maintenance stands meanwhile
                ended.wait(RESEND_AFTER)

    def decide(self, checks, ended):
        if ended.is_set():
            return True
        return Again(LOOK_EVERY if self.look(checks, ended) else RESEND_AFTER)

    def look(self, checks, ended):
        """Put back what was dropped -> whether nothing had to be."""
        services = self.turn.services(self.consul)
        dropped = [name for name, reason in self.turn.maintenance(checks, services).items() if reason is None]
        with self.lock:
            if not dropped:
                self.since = self.since or time.monotonic()
                return True
            self.since = None
            if ended.is_set():
                return False
            try:
                # Only while nobody has taken over: another run may have brought this machine back.
                self.consul.txn([kv_check(self.turn.agent.status_key, self.turn.index)])
            except Conflict:
                return False
            for name in dropped:
                self.turn.send_maintenance(name, self.turn.reason, self.consul)
        self.turn.say("something else ended its maintenance, which is put back")
        return False
