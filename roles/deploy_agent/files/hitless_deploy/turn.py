# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of one request."""

import re
import time
import urllib.parse

from hitless_deploy.checks import described, is_maintenance, reason_of, seconds_of
from hitless_deploy.consul import kv_cas, kv_set
from hitless_deploy.control import rest
from hitless_deploy.errors import Again, Conflict, Problem, Superseded, now
from hitless_deploy.maintenance_watch import MaintenanceWatch
from hitless_deploy.programs import probe

REQUESTED, WAITING, CLAIMED, DRAINING, DEPLOYING, VERIFYING, RETURNING, DONE, FAILED = (
    "requested",
    "waiting",
    "claimed",
    "draining",
    "deploying",
    "verifying",
    "returning",
    "done",
    "failed",
)
UNDER_WAY = (CLAIMED, DRAINING, DEPLOYING, VERIFYING, RETURNING)
OURS = re.compile(r"deploy:(\S+) (\S+)\Z")
SHOWN_WITHIN = 60.0  # seconds the catalog has to show a change
ANSWER = 200  # characters of what matched in the application's answer
RESEND_AFTER = 1.0  # seconds: Consul can lose a change of an agent until it is sent again


class Turn:
    """A request in hand. Each step is written to Consul by compare-and-set, then to the file, then taken."""

    def __init__(self, agent, state, index, steps, log):
        self.agent = agent
        self.config = agent.config
        self.consul = agent.consul
        self.state = state
        self.request = state["request"]
        self.index = index
        self.steps = steps
        self.log = log
        self.resumed = False
        self.drained = False
        self.watch = MaintenanceWatch(self)

    def say(self, text):
        with open(self.agent.store.path("output"), "ab") as output:
            output.write(("== %s %s\n" % (now(), text)).encode())

    # -- status --

    def begin(self, step, message="", **remember):
        """Take a step: nobody has overwritten our status, and both Consul and the file know what comes."""
        if not (self.resumed and self.state["step"] == step):
            self.steps.append({"state": step, "at": now()})
        self.write(step, message)
        self.state.update(step=step, **remember)
        self.agent.store.save(self.state)

    def write(self, state, message="", more=(), **fields):
        value = self.agent.status(self.request, state, message, self.steps, **fields)
        try:
            found = self.consul.txn([kv_cas(self.agent.status_key, value, self.index), *more])
            self.index = found[self.agent.status_key][1]
        except Conflict:
            there, index = self.consul.txn([{"Verb": "get-tree", "Key": self.agent.status_key}]).get(
                self.agent.status_key, ("", 0)
            )
            if there != value:  # else the first answer was lost
                raise Superseded("another request or run has taken over") from None
            self.index = index

    # -- the steps --

    def run(self):
        """From wherever it stands to its end."""
        try:
            try:
                if self.state["step"] in (CLAIMED, DRAINING):
                    self.enter_maintenance()
                if self.state["step"] != RETURNING:
                    with self.watch:
                        self.in_maintenance()
                self.return_to_rotation()
            except Problem as problem:
                self.fail(problem)
        except Superseded as why:
            # The machine stays as it is: in maintenance, unless it has just come out of it.
            self.agent.tell("%s: %s; left as it is" % (self.request["request"], why))
        self.log.finish()
        self.agent.store.clear("state", "result")

    def in_maintenance(self):
        """All that happens while the machine is in maintenance, which the watch looks after meanwhile."""
        if self.state["step"] == DRAINING:
            self.drain()
        if self.request["reason"] != "recover" and self.state["step"] in (DRAINING, DEPLOYING):
            self.deploy()
        self.verify()

    def enter_maintenance(self):
        """Maintenance on, seen in the catalog."""
        self.begin(DRAINING)
        services = self.services()
        if not self.own_instances(services):
            raise Problem(
                "No instance of %s is registered with the agent of this machine, or its token may not read it."
                % self.config["service"]
            )
        checks = self.checks()
        before = self.maintenance(checks, services)
        # The whole machine's counts as well: it would stay out of rotation whatever is done here.
        found = [*before.values(), reason_of(checks, "")]
        others = [reason for reason in found if reason is not None and not self.is_ours(reason)]
        if others:
            raise Problem(
                "%s is in maintenance set by someone else (reason: %s); leaving it unchanged."
                % (self.config["node"], others[0] or "none given"),
                other_owner=True,
            )
        if any(reason is None for reason in before.values()):
            self.state["entered_maintenance"] = True
            self.agent.store.save(self.state)
        self.set_maintenance(True)
        self.drained = set(before.values()) == {self.reason} and not self.resumed

    def drain(self):
        """The drain time, from when the catalog shows the maintenance; anew where it was dropped meanwhile."""
        self.say("out of rotation, seen in the catalog" + ("" if self.drained else "; draining"))
        if self.drained:
            return
        while True:
            left = self.watch.out_since() + self.request["drain_time"] - time.monotonic()
            if left <= 0:
                return
            if self.request["reason"] in ("deploy", "restart"):
                rest(self.consul, "%(deploy_prefix)s/%(service)s/control" % self.config, left)
            else:  # nobody aborts a rollback by what was said to the rollout
                time.sleep(left)

    def deploy(self):
        """The command; where it has run already, what became of it."""
        if self.state["step"] != DEPLOYING:
            self.agent.store.clear("result")
            self.begin(DEPLOYING, touched=True)
            self.say("%s: the command runs" % self.agent.asked_for(self.request))
            self.agent.start_command()
            self.agent.hold()
        restarts = self.request["reason"] == "restart"
        noun, codes = ("restart", [0]) if restarts else ("deployment", self.config["success_codes"])
        result = self.agent.store.load("result")
        if not result or result.get("request") != self.request["request"]:
            raise Problem(
                "Interrupted: this machine or its deploy agent ended while the command ran, which may have done its "
                "work half."
            )
        if result["error"]:
            raise Problem("The %s command could not be started: %s." % (noun, result["error"]))
        if result["timed_out"]:
            raise Problem("The %s command was ended after %g s." % (noun, self.request["deploy_timeout"]))
        if result["rc"] not in codes:
            raise Problem("The %s command exited with %s." % (noun, result["rc"]))

    def verify(self):
        """The new process answers, and its own checks pass and stay so, while it gets no traffic."""
        request = self.request
        self.begin(VERIFYING, touched=True)
        started = time.monotonic()
        deadline = started + request["healthy_deadline"]
        stable_for = request["min_healthy_time"]
        if request["health_url"]:
            self.ask_application(deadline)
        else:
            # A passing check may still be that of the old process, until it must have run anew.
            stable_for = max(stable_for, self.freshness())
        since = [None]

        def decide(checks):
            moment = time.monotonic()
            services = self.services()
            bad = self.failing(checks, services, but_maintenance=True)
            # The watch puts it back; what passed in traffic has to pass out of it again.
            dropped = [name for name, reason in self.maintenance(checks, services).items() if reason is None]
            if bad or dropped:
                since[0] = None
                if moment >= deadline:
                    return bad or ["its maintenance was dropped"]
                return Again(min(deadline - moment, RESEND_AFTER if dropped else 60.0))
            since[0] = moment if since[0] is None else since[0]
            left = since[0] + stable_for - moment
            return [] if left <= 0 else Again(left)

        bad = self.consul.watch(self.checks_path, decide, deadline + stable_for + 1)
        if bad or bad is None:
            raise Problem(
                "%s was not healthy within %g s: %s."
                % (self.config["service"], request["healthy_deadline"], "; ".join(bad or ["it was never stable"]))
            )
        self.say("verified: its own checks pass")

    def ask_application(self, deadline):
        url = self.request["health_url"]
        self.require_own_address(url)
        answer = probe.main(
            {
                "url": url,
                "match": self.request["health_match"],
                "deadline": max(0.0, deadline - time.monotonic()),
                "interval": 1.0,
                "timeout": 5,
                "stable_for": 0,
            }
        )
        if not answer["ok"]:
            raise Problem(
                "The new process did not answer at %s within %g s: %s."
                % (url, self.request["healthy_deadline"], answer["error"])
            )
        # Told to the controller, which may not know which of two versions runs here.
        self.state["answer"] = answer["found"][:ANSWER]

    def require_own_address(self, url):
        """Only this machine's own addresses: the URL comes from a key, and must not make it ask anybody else."""
        parts = urllib.parse.urlsplit(url)
        own = {"localhost", "127.0.0.1", "::1"} | self.agent.addresses()
        if parts.scheme not in ("http", "https") or (parts.hostname or "") not in own:
            raise Problem(
                "The health URL %s is not at an address of this machine (%s)." % (url, ", ".join(sorted(own)))
            )

    def return_to_rotation(self):
        """Maintenance off, seen; passing in rotation; version, previous version and status in one transaction."""
        self.begin(RETURNING)
        self.set_maintenance(False)
        deadline = time.monotonic() + self.request["healthy_deadline"]

        def decide(checks):
            bad = self.failing(checks, self.services())
            if bad and time.monotonic() < deadline:
                return Again(deadline - time.monotonic())
            return bad

        bad = self.consul.watch(self.checks_path, decide, deadline + 1)
        if bad or bad is None:
            raise Problem("Back in rotation it was not passing: %s." % "; ".join(bad or ["no check told"]))
        self.say("back in rotation")
        self.log.finish()
        more = []
        if self.request["reason"] in ("deploy", "rollback"):
            more.append(kv_set(self.agent.key("version"), self.request["version"]))
            if self.request["remember"] == "":
                more.append({"Verb": "delete", "Key": self.agent.key("previous")})
            elif self.request["remember"]:
                more.append(kv_set(self.agent.key("previous"), self.request["remember"]))
        self.steps.append({"state": DONE, "at": now()})
        self.write(DONE, "", more, answer=self.state.get("answer", ""))

    def fail(self, problem):
        """A broken instance gets no traffic; one that nothing was done to goes back."""
        text = str(problem)
        touched = bool(self.state.get("touched"))
        try:
            if touched:
                self.set_maintenance(True)
            elif self.state.get("entered_maintenance"):
                self.set_maintenance(False, only=self.reason)
        except Problem as worse:
            text = "%s And: %s" % (text, worse)
        self.say("failed: %s" % text)
        self.log.finish()
        self.steps.append({"state": FAILED, "at": now()})
        self.write(FAILED, text, touched=touched, other_owner=problem.other_owner)

    # -- maintenance and checks --

    @property
    def reason(self):
        return "deploy:%s %s" % (self.request["deployment"], self.config["service"])

    def is_ours(self, reason):
        """Of this service's deployments: one that the status has been taken from is over."""
        found = OURS.match(reason)
        return bool(found) and found.group(2) == self.config["service"]

    @property
    def checks_path(self):
        return "/v1/health/node/%s" % self.config["node"]

    def checks(self):
        return self.consul.ask("GET", self.checks_path)[1] or []

    def instances(self, services):
        """The IDs that go into maintenance; the empty one stands for the node."""
        if self.request["scope"] == ["node"]:
            return [""]
        return sorted(set(self.own_instances(services)) | set(self.other_instances(services)))

    def own_instances(self, services):
        tags = set(self.request["tags"])
        return [
            name
            for name, one in services.items()
            if one["Service"] == self.config["service"] and tags <= set(one.get("Tags") or ())
        ]

    def other_instances(self, services):
        wanted = set(self.request["scope"]) - {"service", self.config["service"]}
        return [name for name, one in services.items() if one["Service"] in wanted]

    def services(self, consul=None):
        return (consul or self.consul).ask("GET", "/v1/agent/services")[1] or {}

    def maintenance(self, checks, services):
        """ID -> the reason of its maintenance as the catalog shows it, None where it is in none."""
        return {name: reason_of(checks, name) for name in self.instances(services)}

    def set_maintenance(self, wanted, only=None):
        """Returns when the catalog shows it so for each instance, sent again while it does not.

        One set by someone else is never ended, also one that is set meanwhile.
        """
        sent = [0.0]
        if not wanted:
            self.lift(only)

        def decide(checks):
            found = self.maintenance(checks, self.services())
            if wanted:
                left = [name for name, reason in found.items() if reason is None]
            else:
                left = [name for name, reason in found.items() if self.may_end(reason, only)]
            if not left:
                return True
            if time.monotonic() - sent[0] >= RESEND_AFTER:
                for name in left:
                    self.send_maintenance(name, self.reason if wanted else None)
                sent[0] = time.monotonic()
            return Again(RESEND_AFTER)

        if self.consul.watch(self.checks_path, decide, time.monotonic() + SHOWN_WITHIN) is None:
            raise Problem("The catalog did not show its maintenance %s." % ("begin" if wanted else "end"))

    def may_end(self, reason, only=None):
        return reason is not None and (reason == only if only else self.is_ours(reason))

    def lift(self, only):
        """End what this machine's agent has: the catalog may never have shown it."""
        there = (self.consul.ask("GET", "/v1/agent/checks")[1] or {}).values()
        for name in self.instances(self.services()):
            if self.may_end(reason_of(there, name), only):
                self.send_maintenance(name, None)

    def send_maintenance(self, name, reason, consul=None):
        params = [("enable", "false")] if reason is None else [("enable", "true"), ("reason", reason)]
        path = "/v1/agent/service/maintenance/" + name if name else "/v1/agent/maintenance"
        (consul or self.consul).ask("PUT", path, params, b"")

    def failing(self, checks, services, but_maintenance=False):
        """What keeps the service's own instances here out of rotation, each with the end of its output."""
        mine = set(self.own_instances(services))
        if not mine:
            return ["no instance of %s is registered" % self.config["service"]]
        good = ("passing", "warning") if self.request["accept_warning"] else ("passing",)
        return [
            described(one)
            for one in checks or ()
            if one.get("ServiceID", "") in mine | {""}
            and one["Status"] not in good
            and not (but_maintenance and is_maintenance(one))
        ]

    def freshness(self):
        """Seconds after which each check that covers it, the node's too, has a new result; told from Consul 1.20 on."""
        mine = set(self.own_instances(self.services()))
        if not mine:
            return self.request["check_interval"]
        delays = [0.0]
        for one in self.checks():
            if one.get("ServiceID", "") in mine | {""} and one["CheckID"] != "serfHealth" and not is_maintenance(one):
                definition = one.get("Definition") or {}
                interval = seconds_of(definition.get("Interval") or one.get("Interval"))
                timeout = seconds_of(definition.get("Timeout") or one.get("Timeout")) or 10.0
                delays.append(interval + timeout if interval else self.request["check_interval"])
        return max(delays)
