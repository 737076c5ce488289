# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Service definitions that a machine's agent reads, and what the catalog shows of them (a private helper).

A definition is Consul's own, in the spelling of its files; ``version`` (meta) and ``state`` are ours. What Consul takes
without a word and regrets later is refused here; the rest is for ``consul validate``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.durations import is_duration, seconds_of
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulError, DeadlineExceeded, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import checked_name

RELOAD_FOR = 5.0
"""Seconds a reload is tried: an agent that refuses a configuration answers 500 and will go on doing so."""
LOOK_EVERY = 5.0
"""Longest wait of one read in seconds, below the timeout of a request that travels through the host."""
_DEREGISTER = "deregister_critical_service_after"
_RUN_BY_INTERVAL = ("http", "tcp", "udp", "grpc", "args", "script", "docker_container_id", "h2ping")
_DEFAULT_WEIGHTS = {"Passing": 1, "Warning": 1}
"""Consul's own (agent/structs, Weights)."""


def checked_duration(value: object, what: str) -> float:
    """A duration of a definition in seconds.

    :raises HitlessError: it is none.
    """
    if not is_duration(value):
        raise HitlessError(f'{what} is {value!r}, which is no duration as Consul writes it, such as "10s" or "1h30m".')
    return seconds_of(value)


@dataclass(frozen=True)
class Definition:
    """One instance of a service on a machine.

    :param id: unique on the machine; the service's name where not given.
    :param wanted: the definition as the agent's configuration has it; empty where the instance is to go away.
    """

    id: str
    wanted: Mapping[str, Any]

    @property
    def present(self) -> bool:
        return bool(self.wanted)

    @property
    def file(self) -> str:
        return f"service-{self.id}.json"

    def differs(self, shown: Mapping[str, Any] | None) -> str:
        """How an entry of the catalog differs from the definition, in words; empty where it does not."""
        if not self.present:
            return "" if shown is None else f"{self.id} is still registered"
        if shown is None:
            return f"{self.id} is not registered"
        # Newer versions of Consul leave empty fields out of their answers, a port of 0 for instance.
        wanted = self.wanted
        pairs = [
            ("name", wanted["name"], shown.get("Service") or ""),
            ("port", wanted.get("port") or 0, shown.get("Port") or 0),
            ("address", wanted.get("address") or "", shown.get("Address") or ""),
        ]
        if not wanted.get("enable_tag_override"):
            pairs.append(("tags", sorted(wanted.get("tags") or []), sorted(shown.get("Tags") or [])))
        meta = {name: value for name, value in (shown.get("Meta") or {}).items() if not name.startswith("consul-")}
        pairs.append(("meta", wanted.get("meta") or {}, meta))
        if wanted.get("weights"):
            weights = {name.lower(): value for name, value in (shown.get("Weights") or _DEFAULT_WEIGHTS).items()}
            # Only those that were asked for: Consul fills in the others.
            asked = {name: weights.get(name.lower()) for name in wanted["weights"]}
            pairs.append(("weights", wanted["weights"], asked))
        found = [f"{what} {is_!r} instead of {want!r}" for what, want, is_ in pairs if want != is_]
        return f"{self.id} is shown with {', '.join(found)}" if found else ""


def read_definitions(services: Sequence[Mapping[str, Any]], deploy_timeout: float) -> list[Definition]:
    """All definitions of one machine, checked.

    :param deploy_timeout: seconds a deployment may take, during which its service is critical.
    :raises HitlessError: one sentence that names the service and what is wrong with it.
    """
    found: dict[str, Definition] = {}
    for number, service in enumerate(services, start=1):
        definition = _definition(service, number, deploy_timeout)
        if definition.id in found:
            raise HitlessError(
                f"Two services have the ID {definition.id}: the agent would keep one of them.",
                hint="Give each instance on a machine an id of its own.",
            )
        found[definition.id] = definition
    return list(found.values())


def _definition(service: Mapping[str, Any], number: int, deploy_timeout: float) -> Definition:
    name = service.get("name")
    if not isinstance(name, str) or not name:
        raise HitlessError(f"Service number {number} has no name.")
    checked_name(name, "service")
    identifier = str(service.get("id") or name)
    checked_name(identifier, "service ID")
    state = service.get("state", "present")
    if state not in ("present", "absent"):
        raise HitlessError(f"{identifier}: state must be present or absent, and is {state!r}.")
    if state == "absent":
        return Definition(identifier, {})
    if "token" in service:
        raise HitlessError(
            f"{identifier}: a token in the definition would show in Ansible's output.",
            hint="Set consul_service_token, which holds for all services of the machine and is not shown.",
        )
    wanted = {key: value for key, value in service.items() if key not in ("state", "version")}
    wanted["id"] = identifier
    wanted |= _whole_numbers(identifier, service)
    meta = {str(key): _text(identifier, f"meta {key}", value) for key, value in (service.get("meta") or {}).items()}
    if service.get("version"):
        meta["version"] = _text(identifier, "version", service["version"])
    if meta:
        wanted["meta"] = meta
    checks = wanted.get("checks", [])
    if not isinstance(checks, list) or not all(isinstance(check, Mapping) for check in checks):
        raise HitlessError(f"{identifier}: checks must be a list of checks.")
    for check in [*checks, *([wanted["check"]] if "check" in wanted else [])]:
        _refuse_check(identifier, check, deploy_timeout)
    return Definition(identifier, wanted)


def _whole_numbers(identifier: str, service: Mapping[str, Any]) -> dict[str, Any]:
    """The port and the weights, which a template may have made text."""
    found: dict[str, Any] = {}
    try:
        if service.get("port") is not None:
            found["port"] = int(str(service["port"]))
        if service.get("weights"):
            found["weights"] = {key: int(str(value)) for key, value in service["weights"].items()}
    except (ValueError, AttributeError):
        raise HitlessError(f"{identifier}: port and weights must be whole numbers.") from None
    return found


def _text(identifier: str, what: str, value: object) -> str:
    if not isinstance(value, str):
        raise HitlessError(
            f"{identifier}: {what} is {value!r}, and must be text.", hint='Put it in quotes: "1.10" is not 1.1.'
        )
    return value


def _refuse_check(identifier: str, check: Mapping[str, Any], deploy_timeout: float) -> None:
    kind = next((key for key in _RUN_BY_INTERVAL if key in check), None)
    if kind is not None and not check.get("interval"):
        raise HitlessError(f"{identifier}: the {kind} check has no interval, so that the agent would refuse it.")
    for key in ("interval", "timeout", "ttl"):
        if check.get(key):
            checked_duration(check[key], f"{identifier}: {key} of a check")
    if check.get(_DEREGISTER):
        limit = checked_duration(check[_DEREGISTER], f"{identifier}: {_DEREGISTER}")
        if limit <= deploy_timeout:
            raise HitlessError(
                f"{identifier}: {_DEREGISTER} is {check[_DEREGISTER]}, and a deployment may take {deploy_timeout:g} s: "
                "Consul would remove the service in the middle of one, its maintenance with it.",
                hint="Leave it out, make it longer, or say with consul_service_deploy_timeout how long one may take.",
            )


@dataclass(frozen=True)
class Registered:
    """What became of a machine's definitions.

    :param before: how the catalog differed before, one sentence each.
    :param seconds: until the catalog showed them all.
    """

    changed: bool
    before: list[str]
    seconds: float


def differences(definitions: Sequence[Definition], shown: Any) -> list[str]:
    """How the answer of ``catalog/node`` differs from the definitions."""
    services = (shown or {}).get("Services") or {}
    return [words for one in definitions if (words := one.differs(services.get(one.id)))]


def register(
    agent: Client,
    node: str,
    definitions: Sequence[Definition],
    within: float,
    *,
    reload: bool = False,
    check_mode: bool = False,
) -> Registered:
    """Have the agent read its files anew where that is needed; returns when the catalog shows all definitions.

    :param agent: the machine's own; the catalog is asked through it.
    :param reload: the files have changed, so that it is needed in any case.
    :raises DeadlineExceeded: names what the catalog does not show.
    """
    path = f"/v1/catalog/node/{node}"
    before = differences(definitions, agent.get(path).data)
    changed = reload or bool(before)
    if check_mode or not changed:
        return Registered(changed, before, 0.0)
    started = time.monotonic()
    _reload(agent)

    def shown(data: Any) -> bool | None:
        return None if differences(definitions, data) else True

    try:
        agent.watch(path, [], shown, started + within, every=min(LOOK_EVERY, agent.connection.timeout / 2))
    except DeadlineExceeded as error:
        left = "; ".join(differences(definitions, error.details["last"]))
        raise DeadlineExceeded(
            f"The agent of {node} was reloaded, but after {within:g} s the catalog does not show what the files say: "
            f"{left}.",
            hint="Does the agent read this folder (consul_service_config_dir), and may its token, or "
            "consul_service_token, write the service?",
        ) from None
    return Registered(True, before, time.monotonic() - started)


def _reload(agent: Client) -> None:
    try:
        agent.retrying(RELOAD_FOR).put("/v1/agent/reload")
    except ConsulError as error:
        hint = "The token needs agent:write there (hitless_consul_agent_token)." if error.status == 403 else ""
        raise HitlessError(f"The agent did not reload: {error}", hint=hint) from None
