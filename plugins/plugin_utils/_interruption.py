# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run that is interrupted has left, said as its main process ends (a private helper of this collection).

Ansible loads an action's file in the main process, and forks the workers from it: all of them append to the one file
without a name that is opened here, and the main process reads it as it ends. Where it is killed nothing is said.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import tempfile

from ansible.utils.display import Display

_MAIN = os.getpid()
_NOTES = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - for as long as the process lives
fcntl.fcntl(_NOTES, fcntl.F_SETFL, os.O_APPEND)
_NAMED = 10
"""Hosts that are named."""


def begun(service: str) -> None:
    """A deployment of the service is recorded."""
    _note("begun", service)


def ended() -> None:
    """Its end is known and told."""
    _note("ended", "")


def in_flight(host: str) -> None:
    """The host's turn has begun."""
    _note("in", host)


def landed(host: str) -> None:
    """It has ended."""
    _note("out", host)


def _note(what: str, name: str) -> None:
    _NOTES.write(json.dumps([what, name]).encode() + b"\n")


def told(notes: bytes) -> str:
    """What to say by the notes of a run; empty where it has told its end, or has begun nothing."""
    service, flying = "", dict[str, None]()
    for line in notes.splitlines():
        what, name = json.loads(line)
        if what in ("begun", "ended"):
            service = name
        elif what == "in":
            flying[name] = None
        else:
            flying.pop(name, None)
    if not service:
        return ""
    names = list(flying)
    hosts = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    left = f"In its turn: {hosts}; what is in maintenance stays so, and gets no traffic. " if names else ""
    return (
        f"The rollout of {service} was interrupted. {left}The same command again goes on from here; "
        f"hitless.consul.recover -e rollout_service={service} only returns what is left to rotation, and "
        f"hitless.consul.status -e rollout_service={service} tells what runs where."
    )


@atexit.register
def _tell() -> None:
    if os.getpid() != _MAIN:
        return
    _NOTES.seek(0)
    text = told(_NOTES.read())
    if text:
        Display().warning(text)
