# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a program that lives beside a run, above all the keeper of its lock (a private helper of this collection)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Holder
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.programs import http
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys

TTL = 15
"""Seconds a session lives without renewal, at least; Consul takes up to twice as long."""
KEEPER = Path(__file__).with_name("keeper.py")
_KEEPER_STARTS = 30
_PATHS = ("ca_path", "client_cert", "client_key")
_KEEPER_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class Controller:
    """The run of Ansible that takes the lock.

    :param name: a word no other run has.
    :param pipe: read end of the pipe that ends with the run: all its processes hold the other end, and nobody else.
    :param process: id of its main process.
    :param results: read end of the pipe into which its workers write their results.
    """

    name: str
    pipe: int
    process: int
    results: int | None = None


def start_keeper(
    connection: Connection,
    keys: Keys,
    holder: Holder,
    session: str,
    *,
    pipe: int,
    controller: int,
    progress_deadline: float,
    results: int | None = None,
    ttl: int = TTL,
) -> None:
    """Start the program that renews the session for as long as the run lives; returns when it has detached itself.

    :param pipe: read end of a pipe whose write end all processes of the run hold, and nobody else: its end is theirs.
    :param controller: process id of the run's main process; while that is stopped, nothing is renewed.
    :param results: read end of the pipe of the workers' results, which is emptied once the main process has ended.
    :param progress_deadline: seconds without a new outcome of a host after which it gives up; 0 for never.
    :raises HitlessError: it did not start.
    """
    config = {
        **consul_config(connection, keys, session, pipe),
        "deployments": keys.deployments if holder.deployment else "",
        "ttl": ttl,
        "progress_deadline": progress_deadline,
        "controller": controller,
        "results": results,
    }
    descriptors = (pipe,) if results is None else (pipe, results)
    what = f"The program that keeps the lock of {keys.service}"
    start_program(KEEPER, (keys.service, holder.deployment), config, descriptors, what)


def consul_config(connection: Connection, keys: Keys, session: str, pipe: int) -> dict[str, Any]:
    """``keeper.Config`` as a program of a run needs it to ask Consul, behind the lock that the session holds."""
    return {
        "http": http.__file__,
        "url": connection.base,
        "headers": connection.headers,
        "tls": {name: _absolute(value) if name in _PATHS else value for name, value in connection.tls.items()},
        "datacenter": connection.datacenter or "",
        "timeout": connection.timeout,
        "lock": keys.lock,
        "deployments": "",
        **_below_a_deployment(keys),
        "session": session,
        "ttl": TTL,
        "progress_deadline": 0,
        "controller": 0,
        "pipe": pipe,
    }


def start_program(
    program: Path, names: Sequence[str], config: dict[str, Any], descriptors: Sequence[int], what: str
) -> None:
    """Start a program that lives beside the run; returns when it has detached itself.

    :param names: for those who look at a process list. Everything else, the token above all, goes by standard input;
        what it may keep of the environment is little, and no token.
    :param descriptors: that it inherits.
    :param what: it is, for the message.
    :raises HitlessError: it did not start.
    """
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            [sys.executable, "-I", str(program), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            close_fds=True,
            pass_fds=tuple(descriptors),
            cwd="/",
            env={name: os.environ[name] for name in _KEEPER_ENVIRONMENT if name in os.environ},
            start_new_session=True,
        )
        errors = process.communicate(json.dumps(config).encode(), timeout=_KEEPER_STARTS)[1]
        problem = (errors.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        failed = process.returncode != 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        failed, problem = True, f"not within {_KEEPER_STARTS} s"
    except OSError as error:
        failed, problem = True, str(error)
    if failed:
        raise HitlessError(f"{what} did not start ({sys.executable} {program}): {problem}.")


def _below_a_deployment(keys: Keys) -> dict[str, str]:
    """What follows a deployment's own prefix, in the keys that the keeper needs."""
    prefix = keys.deployment("any")
    return {"record": keys.record("any").removeprefix(prefix), "outcomes": keys.outcomes("any").removeprefix(prefix)}


def _absolute(path: str | None) -> str:
    """The keeper runs in another folder."""
    return os.path.abspath(path) if path else ""
