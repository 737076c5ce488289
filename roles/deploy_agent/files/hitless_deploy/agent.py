# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One service of a machine: which request is accepted, gone on with, or dropped."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

from hitless_deploy.command import end_leftover
from hitless_deploy.config import checked_request
from hitless_deploy.consul import Consul, kv_cas, kv_text, parsed
from hitless_deploy.errors import Conflict, Problem, Unavailable, now, tell
from hitless_deploy.log import Log
from hitless_deploy.programs.lockfile import lock_file, set_owner, try_lock
from hitless_deploy.store import Store
from hitless_deploy.turn import CLAIMED, DONE, FAILED, REQUESTED, UNDER_WAY, WAITING, Turn


class Agent:
    """One service of this machine."""

    def __init__(self, config, path):
        self.config = config
        self.path = path
        self.consul = Consul(config)
        self.store = Store(config)
        self.own_lock = os.open(self.store.path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        self.locks = []
        self.status_key = self.key("status")

    def key(self, name):
        return "%s/%s/deployment/%s/%s" % (
            self.config["nodes_prefix"],
            self.config["node"],
            self.config["service"],
            name,
        )

    def tell(self, text):
        tell("%s: %s" % (self.config["service"], text))

    def status(self, request, state, message="", steps=(), **fields):
        """The status as it stands in its key."""
        value = {
            "deployment": request["deployment"],
            "request": request["request"],
            "state": state,
            "at": now(),
            "message": message[:500],
            "steps": list(steps)[-20:],
        }
        if request.get("reason") == "restart":
            value["unsure"] = bool(request.get("unsure"))  # it changes no version
        elif request.get("unsure") and state != DONE:
            # An earlier deployment left open which version runs here; it is known again once this one is done.
            value["unsure"] = True
        value.update(fields)
        return json.dumps(value, separators=(",", ":"))

    def addresses(self):
        """The addresses that the catalog knows this machine and its instances of the service by."""
        found = self.consul.ask("GET", "/v1/catalog/node/" + self.config["node"])[1] or {}
        services = (found.get("Services") or {}).values()
        own = [one.get("Address") for one in services if one["Service"] == self.config["service"]]
        return {address for address in [*own, (found.get("Node") or {}).get("Address")] if address}

    # -- settle --

    def settle(self):
        """Do all that is asked of this machine; returns when nothing is left to do. Only one process does so."""
        fcntl.flock(self.own_lock, fcntl.LOCK_EX)
        pause = 1.0
        try:
            while True:
                try:
                    if not self.once():
                        return
                    pause = 1.0
                except (Unavailable, Problem) as error:
                    self.tell("%s Trying again." % error)
                    time.sleep(pause)
                    pause = min(pause * 2, 30.0)
                finally:
                    self.release()
        finally:
            fcntl.flock(self.own_lock, fcntl.LOCK_UN)

    def once(self):
        """One request, or what is left of one -> whether to look again."""
        found = self.consul.txn([{"Verb": "get-tree", "Key": self.key("")}])
        asked, asked_index = parsed(found.get(self.key("new")))
        status, index = parsed(found.get(self.status_key))
        state = self.store.load()
        if state:
            mine = state["request"]["request"]
            if status.get("request") == mine and status.get("state") in UNDER_WAY:
                self.tell("goes on with %s, which it had left at %s" % (mine, state["step"]))
                self.hold()
                self.take(state, index, steps_of(status), resumed=True)
            else:
                self.tell("%s is not asked for any more; left as it is" % mine)
                self.hold()
                self.store.clear("state", "result")
            return True
        if self.key("new") not in found:
            self.create_key()
        mine = asked.get("request")
        if not mine or not isinstance(mine, str) or status.get("request") != mine:
            return False
        if status.get("state") in UNDER_WAY[1:]:
            # Claimed here, and begun: what was done is not known any more.
            self.refuse(asked, index, status, "Interrupted, and what it had been doing is not known any more.", True)
            return False
        if status.get("state") not in (REQUESTED, WAITING, CLAIMED):
            return False
        try:
            request = checked_request(asked, self.config)
        except Problem as problem:
            self.refuse(asked, index, status, str(problem), False)
            return False
        if self.hold():
            return True  # it had to wait, and may not be asked for any more
        steps = [{"state": CLAIMED, "at": now()}]
        claim = [kv_cas(self.status_key, self.status(request, CLAIMED, "", steps), index)]
        if status.get("state") != CLAIMED:
            lock = "%s/%s/lock" % (self.config["deploy_prefix"], self.config["service"])
            claim += [
                {"Verb": "check-index", "Key": self.key("new"), "Index": asked_index},
                {"Verb": "check-session", "Key": lock, "Session": request["session"]},
            ]
        try:
            index = self.consul.txn(claim)[self.status_key][1]
        except Conflict as conflict:
            if 2 in conflict.failed:
                self.tell("%s is not accepted: the run that asked is gone" % mine)
                return False
            return True
        self.tell("%s: %s" % (mine, self.asked_for(request)))
        self.store.clear("result", "process")
        with open(self.store.path("output"), "wb"):
            pass
        self.take({"request": request, "step": CLAIMED}, index, steps)
        return True

    def asked_for(self, request):
        """``deploy 1.4.2``, ``restart``."""
        return request["reason"] + (" %s" % request["version"] if request["reason"] in ("deploy", "rollback") else "")

    def create_key(self):
        """While a key is missing, a watch on it fires at each change of any key: of a thousand machines, all would."""
        try:
            self.consul.txn([kv_cas(self.key("new"), "{}", 0)])
        except Conflict:
            pass

    def take(self, state, index, steps, resumed=False):
        self.store.save(state)
        log = Log(self.config, self.store, state["request"])
        turn = Turn(self, state, index, steps, log)
        turn.resumed = resumed
        if resumed:
            turn.say("the deploy agent was started again at this point: %s" % state["step"])
        log.start()
        try:
            turn.run()
        finally:
            log.finish()

    def refuse(self, asked, index, status, why, touched):
        """A request that cannot be accepted, or gone on with."""
        request = {"deployment": str(asked.get("deployment"))[:200], "request": asked["request"]}
        request.update(unsure=bool(asked.get("unsure")), reason=asked.get("reason"))
        steps = [*steps_of(status), {"state": FAILED, "at": now()}]
        value = self.status(request, FAILED, why, steps, touched=touched, other_owner=False)
        try:
            self.consul.txn([kv_cas(self.status_key, value, index)])
        except Conflict:
            pass
        self.tell("%s: %s" % (asked["request"], why))

    # -- one at a time --

    def hold(self):
        """Take the locks of this machine: no command of the service runs here, nor of others where it is exclusive.

        What runs longer than its keeper is ended. A request that has to wait is told so -> whether there was a wait.
        """
        self.release()
        names = ["%s.%s" % (self.config["service"], self.config["node"])]
        if self.config["exclusive"] == "machine":
            names.append("node-%s" % self.config["node"])
        waited, next_look = False, 0.0
        for name in names:
            try:
                handle = lock_file(name)
            except OSError as error:
                raise Problem("The lock file of %s cannot be used: %s." % (name, error)) from None
            self.locks.append(handle)
            while not try_lock(handle):
                waited = True
                if time.monotonic() >= next_look:
                    self.notice("an earlier deployment still runs on this machine")
                    next_look = time.monotonic() + 3.0
                time.sleep(0.1)
            set_owner(handle, "the deploy agent of %s" % self.config["service"])
        end_leftover(self.store)
        return waited

    def release(self):
        while self.locks:
            os.close(self.locks.pop())

    def notice(self, message):
        """A request that nobody has accepted yet is told that it has to wait: its controller waits longer."""
        try:
            found = self.consul.once("GET", "/v1/kv/" + self.status_key)[1]
            if found:
                status, index = parsed((kv_text(found[0]), found[0]["ModifyIndex"]))
                if status.get("state") == REQUESTED:
                    asked = {name: str(status.get(name))[:200] for name in ("deployment", "request")}
                    asked["unsure"] = bool(status.get("unsure"))
                    self.consul.txn([kv_cas(self.status_key, self.status(asked, WAITING, message), index)])
        except (Unavailable, Problem, Conflict):
            pass

    # -- the command --

    def start_command(self):
        """A process of its own: a kill -9 of this one, or an agent that restarts, does not cut a deployment in half."""
        subprocess.Popen(
            [sys.executable, "-I", os.path.dirname(os.path.abspath(__file__)), "command", self.path],
            stdin=subprocess.DEVNULL,
            pass_fds=self.locks,
            start_new_session=True,
        )
        # It alone holds them now: they can be taken again when it has ended.
        self.release()

    # -- watch --

    def watch(self):
        """Settle now, and whenever the key changes, for ever."""
        index = 0
        while True:
            self.settle()
            self.store.bound_output()  # what the last command has started may write to it for ever
            params = [("index", max(index, 1)), ("wait", "300s")] if index else []
            try:
                _code, _data, new_index = self.consul.ask("GET", "/v1/kv/" + self.key("new"), params, timeout=330.0)
            except (Unavailable, Problem) as error:
                self.tell("%s Trying again." % error)
                time.sleep(1.0)
                continue
            index = new_index if new_index >= index else 0


def steps_of(status):
    """The steps so far; whoever may write the key may have written anything there."""
    steps = status.get("steps")
    return steps if isinstance(steps, list) else []


def settle_again(agent):
    """Settle in a child, and again where that was killed: a watch starts nobody until the key changes."""
    while True:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            agent.settle()
            os._exit(0)
        _pid, how = os.waitpid(child, 0)
        if not os.WIFSIGNALED(how) or os.WTERMSIG(how) == signal.SIGTERM:
            return 0 if how == 0 else 1
