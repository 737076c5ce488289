#!/usr/bin/env python3
# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy agent of a machine: deploys because it saw a key change, without anybody logging in.

    hitless-deploy run CONFIG      settle what is asked of this machine, then end (what `consul watch` calls)
    hitless-deploy watch CONFIG    the same, and go on watching the key in the foreground
    hitless-deploy check CONFIG    say what is wrong with the configuration, and change nothing

A request in nodes/<node>/deployment/<service>/new is taken once: by compare-and-set on the key `status` beside it, and
only while the run that wrote it still holds its lock. Each later step is a compare-and-set on `status` as well: who
overwrites it (a newer request, a controller that gave this machine up) stops this program at its next step, with the
machine in maintenance. What it is doing also stands in a file, so that after a kill -9 or a reboot it goes on where that
is safe, and says "interrupted" where it is not: a command that may have run half is never run again unasked.

Python 3.6 or newer, standard library only. docs/agent-mode.md describes it.
"""

import base64
import errno
import fcntl
import http.client
import json
import os
import re
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

REQUESTED, WAITING, CLAIMED, DRAINING, DEPLOYING, PROVING, RETURNING, DONE, FAILED = (
    "requested",
    "waiting",
    "claimed",
    "draining",
    "deploying",
    "proving",
    "returning",
    "done",
    "failed",
)
UNDER_WAY = (CLAIMED, DRAINING, DEPLOYING, PROVING, RETURNING)
REASONS = ("deploy", "rollback", "recover")

NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
VERSION = re.compile(r"[A-Za-z0-9._+~:@-]{1,128}\Z")
OURS = re.compile(r"deploy:(\S+) (\S+)\Z")
CONTROL = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[@-Z\\\\-_])|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

RETRY_FOR = 60.0  # seconds: a new leader takes up to 17 s
SHOWN_WITHIN = 60.0  # seconds the catalog has to show a change
RESEND_AFTER = 1.0  # seconds: Consul can lose a change of an agent until it is sent again
CHUNK = 48 * 1024  # bytes of output in one key; Consul takes 512 KiB, and a bad byte becomes three
LOG_TAIL = 64 * 1024  # bytes of the end that are kept where the output is cut: the end says why it failed
LOG_LAG = 15.0  # seconds the log may lag behind the end of a turn

DEFAULTS = {
    "service": None,
    "node": None,
    "command": None,
    "directory": None,
    "environment": {},
    "success_codes": [0],
    "deploy_timeout": 3600,
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
    "log_limit": 1024 * 1024,
}


class Problem(Exception):
    """The turn fails, for this reason.

    foreign: somebody else's maintenance is in the way.
    """

    def __init__(self, message, foreign=False):
        super().__init__(message)
        self.foreign = foreign


class Superseded(Exception):
    """The status is not ours any more: a newer request, or a controller that gave this machine up."""


class Unavailable(Exception):
    """Consul gives no usable answer; what was asked for is tried again later."""


class Conflict(Exception):
    """A transaction was rolled back; failed: the numbers of the operations that did it."""

    def __init__(self, failed, what):
        super().__init__(what)
        self.failed = failed


class Again:
    """Not yet; ask again after so many seconds at the latest."""

    def __init__(self, within):
        self.within = max(within, 0.01)


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def tell(text):
    """For the journal of the unit, or whoever watches."""
    sys.stderr.write("hitless-deploy: %s\n" % text)
    sys.stderr.flush()


# -- configuration and request ------------------------------------------------------------------------------------


def read_config(path):
    """The configuration, checked; raises Problem with one sentence."""
    try:
        with open(path, encoding="utf-8") as file:
            given = json.load(file)
    except (OSError, ValueError) as error:
        raise Problem("%s cannot be read: %s." % (path, error))
    if not isinstance(given, dict):
        raise Problem("%s is not a JSON object." % path)
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise Problem("%s: unknown settings %s." % (path, ", ".join(unknown)))
    config = dict(DEFAULTS, **given)
    for name in ("service", "node"):
        if not is_name(config[name]):
            raise Problem("%s: %s must be a name of letters, digits, '_', '.' and '-'." % (path, name))
    command = config["command"]
    is_list = isinstance(command, list) and command and all(isinstance(part, str) for part in command)
    if not is_list and not (isinstance(command, str) and command.strip()):
        raise Problem("%s: command must be a list of arguments, or a command line for /bin/sh." % path)
    if config["exclusive"] not in ("service", "machine"):
        raise Problem("%s: exclusive must be service or machine." % path)
    codes = config["success_codes"]
    if not isinstance(codes, list) or not all(type(code) is int for code in codes):
        raise Problem("%s: success_codes must be a list of numbers." % path)
    for name in ("deploy_timeout", "log_limit"):
        if not is_number(config[name]) or config[name] <= 0:
            raise Problem("%s: %s must be a number above 0." % (path, name))
    environment = config["environment"]
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise Problem("%s: environment must be an object of texts." % path)
    return config


def is_name(value):
    return isinstance(value, str) and bool(NAME.match(value)) and ".." not in value and value != "."


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def checked_request(data, config):
    """The request with defaults; raises Problem for one that is not clean.

    It comes from whoever may write the key: it says which version, and never what is run.
    """
    if not is_name(data.get("deployment")):
        raise Problem("The request names no deployment.")
    if data.get("service", config["service"]) != config["service"]:
        raise Problem("The request is for %r, and this is the agent of %s." % (data.get("service"), config["service"]))
    request = {
        "reason": "deploy",
        "previous": "",
        "remember": None,
        "scope": ["service"],
        "tags": [],
        "drain_time": 10,
        "deploy_timeout": config["deploy_timeout"],
        "healthy_deadline": 300,
        "min_healthy_time": 10,
        "check_interval": 30,
        "accept_warning": False,
        "health_url": "",
        "health_match": "",
        "session": "",
    }
    request.update((name, value) for name, value in data.items() if value is not None)
    if request["reason"] not in REASONS:
        raise Problem("The request's reason %r is none of %s." % (request["reason"], ", ".join(REASONS)))
    if request["reason"] != "recover" and not is_version(request.get("version")):
        raise Problem("The request's version %r is not a version." % (request.get("version"),))
    for name in ("previous", "remember"):
        if request[name] and not is_version(request[name]):
            raise Problem("The request's %s %r is not a version." % (name, request[name]))
    for name in ("drain_time", "deploy_timeout", "healthy_deadline", "min_healthy_time", "check_interval"):
        if not is_number(request[name]) or not 0 <= request[name] <= 86400:
            raise Problem("The request's %s must be a number of seconds up to a day." % name)
    for name in ("scope", "tags"):
        if not isinstance(request[name], list) or not all(isinstance(part, str) for part in request[name]):
            raise Problem("The request's %s must be a list of names." % name)
    if not all(is_name(part) for part in request["scope"]) or not request["scope"]:
        raise Problem("The request's scope must be a list of names.")
    for name in ("health_url", "health_match", "session"):
        if not isinstance(request[name], str):
            raise Problem("The request's %s must be a text." % name)
    try:
        re.compile(request["health_match"])
    except re.error as error:
        raise Problem("The request's health_match is no regular expression: %s." % error)
    request["deploy_timeout"] = min(request["deploy_timeout"], config["deploy_timeout"])
    return request


def is_version(value):
    return isinstance(value, str) and bool(VERSION.match(value))


# -- Consul -------------------------------------------------------------------------------------------------------


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: following it would hand the token to wherever it points."""

    def redirect_request(self, *_args, **_kwargs):
        return None


class Consul:
    """Requests to the machine's own agent; never through a proxy of the environment."""

    def __init__(self, config, retry_for=RETRY_FOR):
        self.base = config["url"].rstrip("/")
        self.token_file = config["token_file"]
        self.retry_for = retry_for
        handlers = [urllib.request.ProxyHandler({}), NoRedirect()]
        if self.base.startswith("https:"):
            path = config["ca_path"]
            folder = path if path and os.path.isdir(path) else None
            context = ssl.create_default_context(cafile=None if folder else path, capath=folder)
            if not config["validate_certs"]:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if config["client_cert"]:
                context.load_cert_chain(config["client_cert"], config["client_key"])
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self.opener = urllib.request.build_opener(*handlers)

    @property
    def token(self):
        """Read each time: it may have been renewed."""
        if not self.token_file:
            return ""
        try:
            with open(self.token_file, encoding="utf-8") as file:
                return file.read().strip()
        except OSError as error:
            raise Unavailable("the token file %s cannot be read: %s" % (self.token_file, error))

    def once(self, method, path, params=(), body=None, timeout=10.0):
        """One request -> (status, data, index); raises Unavailable where there is no usable answer."""
        url = self.base + urllib.parse.quote(path, safe="/:") + ("?" + urllib.parse.urlencode(params) if params else "")
        token = self.token
        headers = {"X-Consul-Token": token} if token else {}
        call = urllib.request.Request(url, data=body, headers=headers, method=method)
        try:
            try:
                answer = self.opener.open(call, timeout=timeout)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                text, code, told = answer.read(), answer.code, answer.headers
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unavailable("%s %s: %s" % (method, path, getattr(error, "reason", None) or error))
        said = text.decode("utf-8", "replace").strip()[:200]
        if code == 403 or (code >= 400 and "Permission denied" in said):
            raise Problem(
                "Consul refused %s %s: %s. What the token of a deploy agent needs is in docs/agent-mode.md."
                % (method, path, said)
            )
        if code not in (200, 404, 409):
            raise Unavailable("%s %s: %d %s" % (method, path, code, said))
        try:
            data = json.loads(text.decode("utf-8")) if text.strip() and code != 404 else None
        except ValueError:
            raise Unavailable("%s %s: the answer is not Consul's" % (method, path))
        try:
            index = int(told.get("X-Consul-Index") or 0)
        except ValueError:
            index = 0
        return code, data, index

    def ask(self, method, path, params=(), body=None, timeout=10.0):
        """:meth:`once`, again and again for a while: all that is asked here may be asked twice."""
        until, pause = time.monotonic() + self.retry_for, 0.25
        while True:
            try:
                return self.once(method, path, params, body, timeout)
            except Unavailable:
                if time.monotonic() >= until:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

    def txn(self, operations):
        """All KV operations or none -> key -> (text, index); raises Conflict."""
        body = json.dumps([{"KV": one} for one in operations]).encode()
        code, data, _index = self.ask("PUT", "/v1/txn", body=body)
        if code == 409:
            errors = (data or {}).get("Errors") or []
            raise Conflict(
                [error.get("OpIndex", 0) for error in errors], "; ".join(str(error.get("What")) for error in errors)
            )
        found = [result["KV"] for result in (data or {}).get("Results") or () if "KV" in result]
        return {one["Key"]: (kv_text(one), one["ModifyIndex"]) for one in found}

    def watch(self, path, decide, deadline):
        """Blocking reads until decide(data) is no :class:`Again`; None at the deadline (monotonic)."""
        index = 0
        _code, data, new_index = self.ask("GET", path)
        while True:
            decided = decide(data)
            if not isinstance(decided, Again):
                return decided
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            index = max(new_index if new_index >= index else 0, 1)
            wait = max(0.01, min(decided.within, left, 60.0))
            params = [("index", index), ("wait", "%dms" % max(1, int(wait * 1000)))]
            _code, data, new_index = self.ask("GET", path, params, timeout=10.0 + wait * 17 / 16)


def kv_text(item):
    return base64.b64decode(item.get("Value") or "").decode("utf-8", "replace")


def kv_cas(key, text, index):
    """Sets a key while it is as it was read at index (0: while there is none)."""
    return {"Verb": "cas", "Key": key, "Value": base64.b64encode(text.encode()).decode(), "Index": index}


def kv_set(key, text):
    return {"Verb": "set", "Key": key, "Value": base64.b64encode(text.encode()).decode()}


# -- what the machine knows of itself -----------------------------------------------------------------------------


class Store:
    """The files of one service: the request in hand, the result of its command, its output."""

    def __init__(self, config):
        self.shared = config["state_directory"]
        self.folder = os.path.join(self.shared, "%s.%s" % (config["service"], config["node"]))
        os.makedirs(self.folder, mode=0o700, exist_ok=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def load(self, name="state"):
        try:
            with open(self.path(name + ".json"), encoding="utf-8") as file:
                data = json.load(file)
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None

    def save(self, data, name="state"):
        """Whole or not at all, also when the power fails."""
        temporary = self.path(name + ".new")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path(name + ".json"))

    def clear(self, *names):
        for name in names or ("state",):
            try:
                os.unlink(self.path(name + ".json"))
            except FileNotFoundError:
                pass


def lock_file(name):
    """A file for all users that deploy here; what somebody else laid in its place is refused, never written to.

    That of a service is the one that a command run over SSH takes too (see _on_host/command.py): the two never meet.
    """
    folder = "/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir()
    path = os.path.join(folder, "hitless-%s.lock" % name)
    plain = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | plain, 0o666)
        os.fchmod(handle, 0o666)
    except FileExistsError:
        # Without O_CREAT, which the kernel may refuse for another user's file in a sticky folder.
        try:
            handle = os.open(path, os.O_RDWR | plain)
        except PermissionError:
            handle = os.open(path, os.O_RDONLY | plain)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(handle)
        raise Problem("The lock file %s is no plain file." % path)
    return handle


def try_lock(handle):
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


# -- the log ------------------------------------------------------------------------------------------------------


def clean(raw, secrets):
    """Output as it may stand in a key: no secret, no control character but line ends and tabs."""
    for secret in secrets:
        raw = raw.replace(secret, b"***")
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return CONTROL.sub("", text)


def cut_at(raw, secrets, final):
    """How many bytes of raw may be sent now: whole lines where there are any, and never a part of a secret."""
    at = raw.rfind(b"\n") + 1 or len(raw)
    if final and len(raw) < CHUNK:
        return len(raw)
    for secret in secrets:
        for length in range(len(secret) - 1, 3, -1):
            if raw[:at].endswith(secret[:length]):
                return at - length
    return at


class Log(threading.Thread):
    """Streams the output file into keys. The file is its buffer: a Consul that is away delays it, and nothing else."""

    def __init__(self, config, store, request):
        super().__init__(daemon=True)
        self.consul = Consul(config, retry_for=0)
        self.store = store
        self.prefix = "/v1/kv/%s/%s/log/%s/%s/" % (
            config["nodes_prefix"],
            config["node"],
            config["service"],
            request["deployment"],
        )
        self.limit = config["log_limit"]
        self.request = request["request"]
        self.path = store.path("output")
        saved = store.load("log") or {}
        same = saved.get("request") == self.request
        self.number = saved.get("number", 0) if saved.get("deployment") == request["deployment"] else 0
        self.offset = saved.get("offset", 0) if same else 0
        self.deployment = request["deployment"]
        self.ended = threading.Event()
        self.secrets = [self.consul.token.encode()] if config["token_file"] else []

    def finish(self):
        """Send the rest, for a bounded time."""
        self.ended.set()
        self.join(LOG_LAG)

    def run(self):
        quiet = 0
        give_up = None
        while True:
            final = self.ended.is_set()
            if final and give_up is None:
                give_up = time.monotonic() + LOG_LAG
            if give_up is not None and time.monotonic() > give_up:
                return
            try:
                sent = self.step(final, partial=quiet >= 2)
            except (Unavailable, OSError):
                sent = 0
                time.sleep(0.5)
            quiet = 0 if sent else quiet + 1
            if sent:
                continue
            if final and self.offset >= self.size():
                return
            self.ended.wait(1.0)

    def size(self):
        try:
            return os.path.getsize(self.path)
        except OSError:
            return 0

    def step(self, final, partial):
        """Send one chunk if there is one -> bytes of the file that are done with."""
        size = self.size()
        note = ""
        if self.offset >= self.limit - LOG_TAIL and size - self.offset > LOG_TAIL:
            # The rest is cut, and the end kept.
            if not final:
                return 0
            start = size - LOG_TAIL
            note = "\n[... %d bytes left out; all of it is in %s on this machine ...]\n" % (
                start - self.offset,
                self.path,
            )
        else:
            start = self.offset
        room = max(0, self.limit - LOG_TAIL - start) if not final and not note else CHUNK
        with open(self.path, "rb") as file:
            file.seek(start)
            raw = file.read(min(CHUNK, room))
        if not raw or (b"\n" not in raw and not final and not partial and len(raw) < CHUNK):
            return 0
        took = cut_at(raw, self.secrets, final) or len(raw)
        self.put(note + clean(raw[:took], self.secrets))
        done = start + took - self.offset
        self.offset = start + took
        self.save()
        return done

    def put(self, text):
        self.consul.once("PUT", "%s%06d" % (self.prefix, self.number + 1), body=text.encode())
        self.number += 1

    def save(self):
        saved = {"deployment": self.deployment, "request": self.request, "number": self.number, "offset": self.offset}
        self.store.save(saved, "log")


# -- the command --------------------------------------------------------------------------------------------------


def run_command(config, store):
    """What the handler starts as a process of its own, which outlives it: runs the command, writes its result.

    The locks come as inherited descriptors, and are not handed on: they end with this process.
    """
    state = store.load() or {}
    request = state["request"]
    command = config["command"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONSUL_HTTP_TOKEN")}
    environment.update(config["environment"])
    environment.update(
        DEPLOY_SERVICE=config["service"],
        DEPLOY_VERSION=request["version"],
        DEPLOY_PREVIOUS_VERSION=request["previous"],
        DEPLOY_ID=request["deployment"],
        DEPLOY_REASON=request["reason"],
    )
    result = {"request": request["request"], "rc": None, "timed_out": False, "error": ""}
    started = time.time()
    # A file, not a pipe: a service that the command starts may keep it open and must not die of writing to it.
    with open(store.path("output"), "ab") as output:
        try:
            process = subprocess.Popen(
                command if isinstance(command, list) else ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=config["directory"],
                start_new_session=True,
            )
        except OSError as error:
            result["error"] = str(error)
        else:
            store.save({"pid": process.pid, "began": began(process.pid)}, "process")
            try:
                process.wait(timeout=request["deploy_timeout"])
            except subprocess.TimeoutExpired:
                result["timed_out"] = True
                end_group(process.pid, process)
            result["rc"] = process.returncode
    result["seconds"] = round(time.time() - started, 3)
    store.save(result, "result")
    store.clear("process")


def began(pid):
    """When a process began, in ticks of this boot: tells it from a later one with the same number. None: it is gone."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
            ticks = file.read().rpartition(")")[2].split()[19]
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return "%s %s" % (ticks, file.read().strip())
    except (OSError, IndexError):
        return None


def end_group(pid, process=None):
    """All of a process group: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + 5
        try:
            os.killpg(pid, number)
        except OSError:
            return
        while time.monotonic() < until:
            if process is not None:
                process.poll()
            try:
                os.killpg(pid, 0)
            except ProcessLookupError:
                return
            except OSError:
                pass
            time.sleep(0.05)


def end_leftover(store):
    """A command whose keeper was killed has nobody to bound it any more: it is ended before anything else runs."""
    left = store.load("process")
    if left and began(left["pid"]) == left["began"] is not None:
        end_group(left["pid"])
    store.clear("process")


# -- one request --------------------------------------------------------------------------------------------------


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
                raise Superseded("another request or run has taken over")
            self.index = index

    # -- the steps --

    def run(self):
        """From wherever it stands to its end."""
        try:
            try:
                if self.state["step"] in (CLAIMED, DRAINING):
                    self.take_out()
                if self.request["reason"] != "recover" and self.state["step"] in (DRAINING, DEPLOYING):
                    self.deploy()
                if self.state["step"] != RETURNING:
                    self.prove()
                self.give_back()
            except Problem as problem:
                self.fail(problem)
        except Superseded as why:
            # The machine stays as it is: in maintenance, unless it has just come out of it.
            self.agent.tell("%s: %s; left as it is" % (self.request["request"], why))
        self.log.finish()
        self.agent.store.clear("state", "result")

    def take_out(self):
        """Maintenance on, seen in the catalog, and the drain time from then."""
        self.begin(DRAINING)
        if not self.own_instances():
            raise Problem(
                "No instance of %s is registered with the agent of this machine, or its token may not read it."
                % self.config["service"]
            )
        before = self.maintenance()
        foreign = [reason for reason in before.values() if reason is not None and not self.is_ours(reason)]
        if foreign:
            raise Problem(
                "It is in a maintenance that somebody else has set (reason: %s); it is left as it is."
                % (foreign[0] or "none given"),
                foreign=True,
            )
        if any(reason is None for reason in before.values()):
            self.state["took_out"] = True
            self.agent.store.save(self.state)
        self.set_maintenance(True)
        drained = set(before.values()) == {self.reason} and not self.resumed
        self.say("out of rotation, seen in the catalog" + ("" if drained else "; draining"))
        if not drained:
            time.sleep(self.request["drain_time"])

    def deploy(self):
        """The command; where it has run already, what became of it."""
        if self.state["step"] != DEPLOYING:
            self.agent.store.clear("result")
            self.begin(DEPLOYING, touched=True)
            self.say("%s %s: the command runs" % (self.request["reason"], self.request["version"]))
            self.agent.start_command()
            self.agent.hold()
        result = self.agent.store.load("result")
        if not result or result.get("request") != self.request["request"]:
            raise Problem(
                "Interrupted: this machine or its deploy agent ended while the command ran, which may have done its "
                "work half."
            )
        if result["error"]:
            raise Problem("The deployment command could not be started: %s." % result["error"])
        if result["timed_out"]:
            raise Problem("The deployment command was ended after %g s." % self.request["deploy_timeout"])
        if result["rc"] not in self.config["success_codes"]:
            raise Problem("The deployment command exited with %s." % result["rc"])

    def prove(self):
        """The new process answers, and its own checks pass and stay so, while it gets no traffic."""
        request = self.request
        self.begin(PROVING, touched=True)
        started = time.monotonic()
        deadline = started + request["healthy_deadline"]
        stable_for = request["min_healthy_time"]
        self.set_maintenance(True)  # an application that registers itself drops it
        if request["health_url"]:
            self.ask_application(deadline)
        else:
            # A passing check may still be that of the old process, until it must have run anew.
            stable_for = max(stable_for, self.freshness())
        since = [None]

        def decide(checks):
            moment = time.monotonic()
            dropped = [name for name, reason in self.maintenance(checks).items() if reason is None]
            for name in dropped:
                self.send_maintenance(name, self.reason)
            bad = self.failing(checks, but_maintenance=True)
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
        self.say("proven: its own checks pass")

    def ask_application(self, deadline):
        url, match = self.request["health_url"], self.request["health_match"]
        self.require_own_address(url)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            NoRedirect(),
            # The application may have any certificate: it is asked at its own address, not by its public name.
            urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),
        )
        pause, why = 0.05, ""
        while True:
            try:
                with opener.open(url, timeout=5) as answer:
                    body = answer.read(65536).decode("utf-8", "replace")
                if not match or re.search(match, body):
                    return
                why = "its answer does not match %r" % match
            except urllib.error.HTTPError as error:
                why = "it answered %d" % error.code
                error.close()
            except (OSError, ValueError, http.client.HTTPException) as error:
                why = str(getattr(error, "reason", None) or error)
            if time.monotonic() >= deadline:
                raise Problem(
                    "The new process did not answer at %s within %g s: %s."
                    % (url, self.request["healthy_deadline"], why)
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def require_own_address(self, url):
        """Only this machine's own addresses: the URL comes from a key, and must not make it ask anybody else."""
        parts = urllib.parse.urlsplit(url)
        own = {"localhost", "127.0.0.1", "::1"} | self.agent.addresses()
        if parts.scheme not in ("http", "https") or (parts.hostname or "") not in own:
            raise Problem(
                "The health URL %s is not at an address of this machine (%s)." % (url, ", ".join(sorted(own)))
            )

    def give_back(self):
        """Maintenance off, seen; passing in rotation; version, previous version and status in one transaction."""
        self.begin(RETURNING)
        self.set_maintenance(False)
        deadline = time.monotonic() + self.request["healthy_deadline"]

        def decide(checks):
            bad = self.failing(checks)
            if bad and time.monotonic() < deadline:
                return Again(deadline - time.monotonic())
            return bad

        bad = self.consul.watch(self.checks_path, decide, deadline + 1)
        if bad or bad is None:
            raise Problem("Back in rotation it was not passing: %s." % "; ".join(bad or ["no check told"]))
        self.say("back in rotation")
        self.log.finish()
        more = []
        if self.request["reason"] != "recover":
            more.append(kv_set(self.agent.key("version"), self.request["version"]))
            if self.request["remember"] == "":
                more.append({"Verb": "delete", "Key": self.agent.key("previous")})
            elif self.request["remember"]:
                more.append(kv_set(self.agent.key("previous"), self.request["remember"]))
        self.steps.append({"state": DONE, "at": now()})
        self.write(DONE, "", more)

    def fail(self, problem):
        """A broken instance gets no traffic; one that nothing was done to goes back."""
        text = str(problem)
        touched = bool(self.state.get("touched"))
        try:
            if touched:
                self.set_maintenance(True)
            elif self.state.get("took_out"):
                self.set_maintenance(False, only=self.reason)
        except Problem as worse:
            text = "%s And: %s" % (text, worse)
        self.say("failed: %s" % text)
        self.log.finish()
        self.steps.append({"state": FAILED, "at": now()})
        self.write(FAILED, text, touched=touched, foreign=problem.foreign)

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

    def instances(self):
        """The IDs that go into maintenance; the empty one stands for the node."""
        if self.request["scope"] == ["node"]:
            return [""]
        return sorted(set(self.own_instances()) | set(self.other_instances()))

    def own_instances(self):
        tags = set(self.request["tags"])
        return [
            name
            for name, one in self.services().items()
            if one["Service"] == self.config["service"] and tags <= set(one.get("Tags") or ())
        ]

    def other_instances(self):
        wanted = set(self.request["scope"]) - {"service", self.config["service"]}
        return [name for name, one in self.services().items() if one["Service"] in wanted]

    def services(self):
        return self.consul.ask("GET", "/v1/agent/services")[1] or {}

    def maintenance(self, checks=None):
        """ID -> the reason of its maintenance as the catalog shows it, None where it is in none."""
        there = {one["CheckID"]: one.get("Notes", "") for one in (self.checks() if checks is None else checks or ())}
        return {
            name: there.get("_service_maintenance:" + name if name else "_node_maintenance")
            for name in self.instances()
        }

    def set_maintenance(self, wanted, only=None):
        """Returns when the catalog shows it so for each instance, sent again while it does not."""
        sent = [0.0]

        def decide(checks):
            found = self.maintenance(checks)
            if wanted:
                left = [name for name, reason in found.items() if reason is None]
            else:
                left = [
                    name
                    for name, reason in found.items()
                    if reason is not None and (reason == only if only else self.is_ours(reason))
                ]
            if not left:
                return True
            if time.monotonic() - sent[0] >= RESEND_AFTER:
                for name in left:
                    self.send_maintenance(name, self.reason if wanted else None)
                sent[0] = time.monotonic()
            return Again(RESEND_AFTER)

        if self.consul.watch(self.checks_path, decide, time.monotonic() + SHOWN_WITHIN) is None:
            raise Problem("The catalog did not show its maintenance %s." % ("begin" if wanted else "end"))

    def send_maintenance(self, name, reason):
        params = [("enable", "false")] if reason is None else [("enable", "true"), ("reason", reason)]
        path = "/v1/agent/service/maintenance/" + name if name else "/v1/agent/maintenance"
        self.consul.ask("PUT", path, params, b"")

    def failing(self, checks, but_maintenance=False):
        """What keeps the service's own instances here out of rotation, each with the end of its output."""
        mine = set(self.own_instances())
        if not mine:
            return ["no instance of %s is registered" % self.config["service"]]
        good = ("passing", "warning") if self.request["accept_warning"] else ("passing",)
        return [
            told(one)
            for one in checks or ()
            if one.get("ServiceID", "") in mine | {""}
            and one["Status"] not in good
            and not (but_maintenance and is_maintenance(one))
        ]

    def freshness(self):
        """Seconds within which each of its checks must have run anew; Consul tells from 1.20 on."""
        mine = set(self.own_instances())
        delays = []
        for one in self.checks():
            if one.get("ServiceID") in mine and not is_maintenance(one):
                definition = one.get("Definition") or {}
                interval = seconds_of(definition.get("Interval") or one.get("Interval"))
                timeout = seconds_of(definition.get("Timeout") or one.get("Timeout")) or 10.0
                delays.append(interval + timeout if interval else self.request["check_interval"])
        return max(delays or [self.request["check_interval"]])


def is_maintenance(check):
    return check["CheckID"] == "_node_maintenance" or check["CheckID"].startswith("_service_maintenance:")


def told(check):
    output = re.sub(r"\s+", " ", CONTROL.sub("", check.get("Output") or "")).strip()[:300]
    return "%s is %s%s" % (check.get("Name") or check["CheckID"], check["Status"], " (%s)" % output if output else "")


def seconds_of(duration):
    if is_number(duration):
        return duration / 1e9
    return sum(float(number) * UNITS[unit] for number, unit in DURATION.findall(str(duration or "")))


# -- the agent ----------------------------------------------------------------------------------------------------


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
                self.take(state, index, status.get("steps") or [], resumed=True)
            else:
                self.tell("%s is not asked for any more; left as it is" % mine)
                self.hold()
                self.store.clear("state", "result")
            return True
        mine = asked.get("request")
        if not mine or status.get("request") != mine:
            return False
        if status.get("state") in UNDER_WAY[1:]:
            # Claimed here, and begun: what was done is not known any more.
            self.give_up(asked, index, status, "Interrupted, and what it had been doing is not known any more.", True)
            return False
        if status.get("state") not in (REQUESTED, WAITING, CLAIMED):
            return False
        try:
            request = checked_request(asked, self.config)
        except Problem as problem:
            self.give_up(asked, index, status, str(problem), False)
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
                self.tell("%s is not taken: the run that asked is gone" % mine)
                return False
            return True
        self.tell("%s: %s %s" % (mine, request["reason"], request.get("version", "")))
        self.store.clear("result", "process")
        with open(self.store.path("output"), "wb"):
            pass
        self.take({"request": request, "step": CLAIMED}, index, steps)
        return True

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

    def give_up(self, asked, index, status, why, touched):
        """A request that cannot be taken, or gone on with."""
        request = {"deployment": str(asked.get("deployment"))[:200], "request": asked["request"]}
        steps = [*(status.get("steps") or []), {"state": FAILED, "at": now()}]
        value = self.status(request, FAILED, why, steps, touched=touched, foreign=False)
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
            handle = lock_file(name)
            self.locks.append(handle)
            while not try_lock(handle):
                waited = True
                if time.monotonic() >= next_look:
                    self.notice("an earlier deployment still runs on this machine")
                    next_look = time.monotonic() + 3.0
                time.sleep(0.1)
        end_leftover(self.store)
        return waited

    def release(self):
        while self.locks:
            os.close(self.locks.pop())

    def notice(self, message):
        """A request that nobody has taken yet is told that it is seen and has to wait: its controller waits longer."""
        try:
            found = self.consul.once("GET", "/v1/kv/" + self.status_key)[1]
            if found:
                status, index = parsed((kv_text(found[0]), found[0]["ModifyIndex"]))
                if status.get("state") == REQUESTED:
                    self.consul.txn([kv_cas(self.status_key, self.status(status, WAITING, message), index)])
        except (Unavailable, Problem, Conflict):
            pass

    # -- the command --

    def start_command(self):
        """A process of its own: a kill -9 of this one, or an agent that restarts, does not cut a deployment in half."""
        subprocess.Popen(
            [sys.executable, "-I", os.path.abspath(__file__), "command", self.path],
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
            params = [("index", max(index, 1)), ("wait", "300s")] if index else []
            try:
                _code, _data, new_index = self.consul.ask("GET", "/v1/kv/" + self.key("new"), params, timeout=330.0)
            except (Unavailable, Problem) as error:
                self.tell("%s Trying again." % error)
                time.sleep(1.0)
                continue
            index = new_index if new_index >= index else 0


def parsed(found):
    """A key's JSON object and its index; an empty one where there is none, or none that can be read."""
    if found is None:
        return {}, 0
    try:
        data = json.loads(found[0])
    except ValueError:
        data = None
    return (data if isinstance(data, dict) else {}), found[1]


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


def main(arguments):
    if len(arguments) != 2 or arguments[0] not in ("run", "watch", "check", "command"):
        sys.stderr.write(__doc__)
        return 2
    what, path = arguments
    try:
        config = read_config(path)
        if what == "check":
            return 0
        if what == "command":
            run_command(config, Store(config))
            return 0
        agent = Agent(config, os.path.abspath(path))
        if what == "watch":
            agent.watch()
        return settle_again(agent)
    except Problem as problem:
        tell(problem)
        return 1
    except OSError as error:
        tell(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
