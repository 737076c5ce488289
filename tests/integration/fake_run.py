"""What a run of Ansible is to the keeper: a main process, workers forked from it, and the pipe they share.

python fake_run.py JSON, with url, service, deployment, ttl, progress_deadline, worker (whether one is still deploying).
Prints the session and the worker's process id, then goes on until it is killed or its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import time

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Holder
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import start_keeper
from ansible_collections.hitless.consul.plugins.module_utils._consul.lock import acquire
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys

request = json.loads(sys.argv[1])
read_end, write_end = os.pipe()
main = os.getpid()


def take() -> None:
    """The worker that runs the lock task; it is gone when the task is done."""
    keys = Keys(request["service"])
    client = Client(Connection(**request["connection"]))
    holder = Holder.now(request["deployment"], "anna@deploy1", "web 1.4.2")
    session = acquire(client, keys, holder, wait=0, ttl=request["ttl"])
    start_keeper(
        client.connection,
        keys,
        holder,
        session,
        pipe=read_end,
        controller=main,
        ttl=request["ttl"],
        progress_deadline=request["progress_deadline"],
    )
    print(json.dumps({"session": session}), flush=True)


if os.fork() == 0:
    take()
    os._exit(0)
os.wait()
worker = 0
if request["worker"]:
    worker = os.fork()
    if worker == 0:
        time.sleep(120)
        os._exit(0)
print(json.dumps({"worker": worker}), flush=True)
sys.stdin.read()
os._exit(0)
