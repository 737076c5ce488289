# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a watcher has found of a deployment that runs (a private helper of this collection).

A watcher looks at more than the health of the hosts: the load balancers' counters, a probe, a check of the user's. What
it finds stands in a key of the deployment, which each gate and each bake reads with the progress, so that it does not
matter which process has found it. See ``control.Control.halt`` for what follows: a failure stops the deployment, and
what it changed goes back; a doubt pauses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import (
    json_object,
    kv_check_session,
    kv_delete,
    kv_set,
    kv_text,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.timestamps import timestamp

WHY_LIMIT = 1000
"""Characters kept of what was found: it becomes why the deployment stops."""


@dataclass(frozen=True)
class Finding:
    """What one watcher says; the next one of the same watcher replaces it.

    :param watcher: a word, such as ``analysis``.
    :param is_failure: the new version is bad; else the watcher cannot tell, which is a doubt.
    :param why: for a person, as the end of a sentence.
    """

    watcher: str
    is_failure: bool
    why: str

    @classmethod
    def parse(cls, text: str, watcher: str) -> Finding:
        """What a key holds; text that is no JSON is a doubt, since somebody meant to say something."""
        data = json_object(text) or {"why": text.strip()}
        return cls(watcher, bool(data.get("failure")), str(data.get("why") or "no reason given"))

    def tell(self, client: Client, keys: Keys, deployment: str, session: str) -> None:
        """Write it; raises :class:`LockLost` where the session does not hold the service's lock."""
        data = {"failure": self.is_failure, "why": self.why[:WHY_LIMIT], "at": timestamp()}
        write = kv_set(keys.findings(deployment, self.watcher), json.dumps(data, separators=(",", ":")))
        client.txn([kv_check_session(keys.lock, session), write])


def withdraw(client: Client, keys: Keys, deployment: str, session: str, watcher: str) -> None:
    """Take back a doubt that is over; raises as :meth:`Finding.tell`."""
    client.txn([kv_check_session(keys.lock, session), kv_delete(keys.findings(deployment, watcher))])


def findings_of(keys: Keys, deployment: str, values: Mapping[str, Mapping[str, Any]]) -> tuple[Finding, ...]:
    """What watchers have found, of keys that were read together: failures first.

    :param values: key -> item of the answer.
    """
    prefix = keys.findings(deployment)
    mine = [key for key in sorted(values) if key.startswith(prefix)]
    found = [Finding.parse(kv_text(values[key]), key.removeprefix(prefix)) for key in mine]
    return tuple(sorted(found, key=lambda one: not one.is_failure))
