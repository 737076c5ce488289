# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the event sources watch: keys, and the health of services (a private helper of this collection). Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    Instance,
    parse_instances,
    service_query,
)
from ansible_collections.hitless.consul.plugins.module_utils._eda.source import (
    DELETED,
    Found,
    KeyMemory,
    Options,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_name


@dataclass(frozen=True)
class KeyWatch:
    """One key, or all below a prefix."""

    key: str
    recurse: bool = False
    datacenter: str | None = None

    @property
    def name(self) -> str:
        return f"{self.key}{'*' if self.recurse else ''}"

    @property
    def query(self) -> tuple[str, list[tuple[str, object]]]:
        params: list[tuple[str, object]] = [("recurse", "")] if self.recurse else []
        return f"/v1/kv/{self.key}", [*params, *([("dc", self.datacenter)] if self.datacenter else [])]

    def found(self, data: Any) -> dict[str, Found]:
        return {item["Key"]: Found(_mark(item), _key_event(item)) for item in data or ()}

    def same(self, old: Any, new: Any, rebuilt: bool) -> bool:
        """In a Consul that was built anew each key has another index; only its value tells then."""
        return bool(old[1] == new[1] if rebuilt else old == new)

    def told(self, change: str, name: str, found: Found | None, old: Any) -> dict[str, Any]:  # noqa: ARG002
        return {"key": name, "change": change, **(found.event if found else {})}


def _mark(item: Mapping[str, Any]) -> list[Any]:
    return [item["ModifyIndex"], hashlib.sha256(str(item.get("Value") or "").encode()).hexdigest()[:16]]


def _key_event(item: Mapping[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = {"index": item["ModifyIndex"], "flags": item.get("Flags", 0)}
    if item.get("Session"):
        event["session"] = item["Session"]
    raw = base64.b64decode(item.get("Value") or "")
    try:
        event["value"] = raw.decode("utf-8")
    except UnicodeDecodeError:
        return {**event, "value_base64": item["Value"]}
    try:
        data = json.loads(event["value"])
    except ValueError:
        data = None
    if isinstance(data, dict):
        event["data"] = data
    return event


def key_watch(options: Options) -> KeyWatch:
    """The watch that the options of the source ``kv`` ask for."""
    key, prefix = options.own["key"], options.own["prefix"]
    if bool(key) == bool(prefix):
        raise HitlessError("Only one of key and prefix can be set." if key else "One of key and prefix is required.")
    text = str(key or prefix).lstrip("/")
    if not text or any(character in text for character in "?#%") or not text.isprintable():
        raise HitlessError(f"{'key' if key else 'prefix'} {str(key or prefix)!r} is not a key of Consul's KV store.")
    watch = KeyWatch(text, bool(prefix), options.client.connection.datacenter)
    if isinstance(options.memory, KeyMemory):
        kept = options.memory.key
        if kept == text or (watch.recurse and kept.startswith(text)):
            raise HitlessError(
                f"remember_key {kept} is itself watched, so that each event would cause another.",
                hint="Name a key elsewhere.",
            )
    return watch


@dataclass(frozen=True)
class HealthWatch:
    """The instances of one service: those that come, go, or change their state."""

    service: str
    datacenter: str | None = None

    @property
    def name(self) -> str:
        return f"service {self.service}"

    @property
    def query(self) -> tuple[str, list[tuple[str, object]]]:
        return service_query(self.service, dc=self.datacenter)

    def found(self, data: Any) -> dict[str, Found]:
        instances = parse_instances(data)
        return {f"{one.node}/{one.service_id}": Found(one.status, _health_event(one)) for one in instances}

    def same(self, old: Any, new: Any, rebuilt: bool) -> bool:  # noqa: ARG002 - a state is the same in any Consul
        return bool(old == new)

    def told(self, change: str, name: str, found: Found | None, old: Any) -> dict[str, Any]:
        node, _slash, service_id = name.partition("/")
        event = {"service": self.service, "node": node, "id": service_id, "change": change}
        if old is not None:
            event["previous"] = old
        if change == DELETED or found is None:
            return {**event, "status": "gone"}
        return {**event, "status": found.mark, **found.event}


def _health_event(instance: Instance) -> dict[str, Any]:
    maintenance = instance.maintenance
    return {
        "address": instance.address,
        "port": instance.port,
        "tags": list(instance.tags),
        "failing": [check.told() for check in instance.failing(accept_warning=False, but_maintenance=True)],
        **({"maintenance": maintenance.notes} if maintenance else {}),
    }


def health_watches(options: Options) -> list[HealthWatch]:
    """The watches that the options of the source ``health`` ask for."""
    services = options.own["services"]
    if isinstance(services, str):
        services = [part.strip() for part in services.split(",") if part.strip()]
    if not isinstance(services, list) or not services or not all(isinstance(one, str) for one in services):
        raise HitlessError(f"services must be a list of names of services, and is {services!r}.")
    return [
        HealthWatch(checked_name(one, "service"), options.client.connection.datacenter)
        for one in dict.fromkeys(services)
    ]
