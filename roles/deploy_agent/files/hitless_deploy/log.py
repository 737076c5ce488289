# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output of a command, streamed into keys."""

import os
import threading
import time

from hitless_deploy.consul import Consul
from hitless_deploy.errors import Problem, Unavailable
from hitless_deploy.programs.terminal import plain_text

CHUNK = 48 * 1024  # bytes of output in one key; Consul takes 512 KiB, and a bad byte becomes three
LOG_TAIL = 64 * 1024  # bytes of the end that are kept where the output is cut: the end says why it failed
LOG_LAG = 15.0  # seconds the log may lag behind the end of a turn


def clean(raw, secrets):
    """Output as it may stand in a key: no secret, no control character but line ends and tabs."""
    for secret in secrets:
        raw = raw.replace(secret, b"***")
    return plain_text(raw.decode("utf-8", "replace"))


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
            except (Unavailable, Problem, OSError):
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
            note = "\n[... %d bytes left out ...]\n" % (start - self.offset)
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
