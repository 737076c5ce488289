# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a paused deployment waits for, and the command that goes on (a private helper of this collection). Pure."""

from __future__ import annotations

from ansible_collections.hitless.consul.plugins.module_utils._rollout.control import (
    ALIKE,
    CLOSED,
    FREEZE,
    PROMOTE,
    RESUME,
    STAGE,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Brief
from ansible_collections.hitless.consul.plugins.module_utils._views.text import plain

_WAITS = {
    FREEZE: "Once the freeze is over",
    CLOSED: "Within rollout_windows",
}


def goes_on(record: Brief, kind: str, *, in_place: bool = False) -> str:
    """How a paused deployment goes on, as a sentence with the commands.

    :param kind: of its halt, see ``control.PAUSING``.
    :param in_place: whether its run is still there and waits, so that nothing has to be started.
    """
    service = record.service
    version = f" -e rollout_version={record.version}" if record.version else ""
    start = f"ansible-playbook hitless.consul.{record.kind.playbook} -e rollout_service={service}{version}"
    again = "its run goes on." if in_place else f"the same start goes on with it ({start})."
    if kind in _WAITS:
        return plain(f"{_WAITS[kind]} {again}")
    word = PROMOTE if kind == STAGE else RESUME
    said = f"ansible-playbook hitless.consul.control -e rollout_service={service} -e control_action={word}"
    first = "See first to what all of them depend on. " if kind == ALIKE else ""
    return plain(f"{first}It waits for {word} ({said}); then {again}")
