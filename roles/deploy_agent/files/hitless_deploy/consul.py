# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the machine's own Consul agent."""

import base64
import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

from hitless_deploy.errors import Again, Conflict, Problem, Unavailable
from hitless_deploy.programs.probe import NoRedirect

RETRY_FOR = 60.0  # seconds: a new leader takes up to 17 s


class Consul:
    """Requests to the machine's own agent; never through a proxy of the environment."""

    def __init__(self, config, retry_for=RETRY_FOR):
        self.base = config["url"].rstrip("/")
        self.token_file = config["token_file"]
        self.retry_for = retry_for
        # Following a redirect would hand the token to wherever it points.
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
        else:
            # Where there is none, Python since 3.12 makes one that reads all of the system's certificates: 20 ms.
            handlers.append(urllib.request.HTTPSHandler(context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))
        self.opener = urllib.request.build_opener(*handlers)

    @property
    def token(self):
        """Read each time: it may have been renewed."""
        if not self.token_file:
            return ""
        try:
            with open(self.token_file, encoding="utf-8", errors="replace") as file:
                token = file.read().strip()
        except OSError as error:
            raise Unavailable("the token file %s cannot be read: %s" % (self.token_file, error)) from None
        if any(not " " <= character <= "~" for character in token):
            # Here: an HTTP library shows the header that it refuses.
            raise Unavailable("the token file %s holds more than a token, or none that can be sent" % self.token_file)
        return token

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
            raise Unavailable("%s %s: %s" % (method, path, getattr(error, "reason", None) or error)) from None
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
        except (ValueError, RecursionError):
            raise Unavailable("%s %s: the answer is not Consul's" % (method, path)) from None
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


def kv_check(key, index):
    """Holds while a key is as it was read at index."""
    return {"Verb": "check-index", "Key": key, "Index": index}


def kv_set(key, text):
    return {"Verb": "set", "Key": key, "Value": base64.b64encode(text.encode()).decode()}


def parsed(found):
    """A key's JSON object and its index; an empty one where there is none, or none that can be read."""
    if found is None:
        return {}, 0
    try:
        data = json.loads(found[0])
    except (ValueError, RecursionError):  # anybody may have written it
        data = None
    return (data if isinstance(data, dict) else {}), found[1]
