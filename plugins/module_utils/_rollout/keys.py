# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of this collection in Consul's KV store, and what may be part of one (a private helper of this collection).

Below two prefixes, which are settings; docs/keys.md tells what the values hold:

    deploy/<service>/lock                            session lock, JSON {deployment, holder, since, message}
    deploy/<service>/request                         text or JSON: a rollout that is asked for, see trigger.py
    deploy/<service>/control                         text or JSON: a word of an operator, see control.py
    deploy/<service>/freeze, deploy/freeze           text or JSON: no rollout of the service, or of any, see control.py
    deploy/<service>/deployments/<id>/record         JSON, small, see record.py
    deploy/<service>/deployments/<id>/plan/<n>       JSON {hosts, uncovered}, 000001 first, see plan_chunks.py
    deploy/<service>/deployments/<id>/progress       JSON {batch, at, stop}: the last batch begun, why no other follows
    deploy/<service>/deployments/<id>/control        JSON: what the deployment has made of that, see control.py
    deploy/<service>/deployments/<id>/in_flight/<node>  a host whose turn has begun in a window, see progress.py
    deploy/<service>/deployments/<id>/spent/<node>   a host that spent the failure budget in a window
    deploy/<service>/deployments/<id>/findings/<watcher>  JSON {failure, why, at}, see findings.py
    deploy/<service>/deployments/<id>/analysis       JSON {new, old, log_bets, told}, see comparison.py
    deploy/<service>/deployments/<id>/ended          when a host has ended last in a window
    deploy/<service>/deployments/<id>/nodes/<node>   JSON {outcome, from, to, batch, started, finished, error}
    nodes/<node>/deployment/<service>/version        plain text: what runs there now
    nodes/<node>/deployment/<service>/previous       plain text: what ran there before
    nodes/<node>/deployment/<service>/new            JSON, a request to the machine's own agent, see agent_protocol.py
    nodes/<node>/deployment/<service>/status         JSON {deployment, state, at, message, request, steps}
    nodes/<node>/log/<service>/<id>/<n>              text, what a deployment printed there, by the machine's own agent
    deploy/<service>/deployments/<id>/log/<host>/<n> text, what happened to a host, by the callback deployment_log
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import date, datetime, timezone

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError

NAME = re.compile(r"[A-Za-z0-9_.-]+")
VERSION = re.compile(r"[A-Za-z0-9._+~:@-]{1,128}")
_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "true or false"),
    ((int, float), "a number"),
    ((date,), "a date"),
    ((list, tuple), "a list"),
    ((dict,), "a dictionary"),
    ((type(None),), "nothing"),
)
"""What YAML makes of a version that is not quoted."""


FREEZE = "freeze"
"""The last part of the keys that keep rollouts from beginning."""


def freeze_of_all(prefix: str) -> str:
    """The key that freezes all services.

    :param prefix: of the deployments' keys.
    """
    return f"{prefix}/{FREEZE}"


def checked_name(name: str, what: str) -> str:
    """A node or service name that can stand in a key and a path; raises :class:`HitlessError` for any other.

    Consul takes a node called ``a b:c/d`` with only a warning, and validates keys from 1.22 on.
    """
    if not NAME.fullmatch(name) or name in (".", "..") or ".." in name:
        raise HitlessError(
            f"The {what} name {name!r} cannot be used: only letters, digits, '_', '.' and '-' can stand in its keys.",
            hint=f"Rename the {what} in Consul.",
        )
    return name


def checked_prefix(prefix: object, what: str) -> str:
    """A prefix of keys, ``deploy`` or ``team/deploy``, without slashes around it; raises :class:`HitlessError`."""
    text = str(prefix).strip("/")
    if not all(NAME.fullmatch(part) and part != "." and ".." not in part for part in text.split("/")):
        raise HitlessError(
            f"{what} {prefix!r} is not a prefix of keys.",
            hint="Only letters, digits, '_', '.', '-', and '/' between them, can stand in it.",
        )
    return text


def checked_version(version: object, where: str = "version") -> str:
    """A version as a string of the allowed characters; raises :class:`HitlessError` for anything else."""
    if not isinstance(version, str):
        # What it was is not known: 1.10 and 1.1 are one number, so that proposing this one could be the wrong version.
        kind = next((name for kinds, name in _KINDS if isinstance(version, kinds)), "something else")
        raise HitlessError(
            f"{where} must be a string, and {version} is {kind} (YAML reads 1.10 as the number 1.1).",
            hint=f'Quote what you wrote, as in {where}: "1.10", or -e \'{{"{where}": "1.10"}}\' on the command line.',
        )
    if not VERSION.fullmatch(version):
        raise HitlessError(
            f"{where} {version!r} is not a version: 1 to 128 of letters, digits and . _ + ~ : @ - are allowed."
        )
    return version


def usable_version(text: str | None) -> str | None:
    """A version that others have written, None where it could not be deployed again (``release/1.0.0``)."""
    return text if text and VERSION.fullmatch(text) else None


def new_deployment_id(version: str, now: datetime | None = None) -> str:
    """An id that sorts by time: ``20261123T142233Z-1.4.2-7f3a``; other characters of the version become ``-``."""
    at = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    plain = re.sub(r"[^A-Za-z0-9._-]|\.{2,}", "-", version)[:48]
    return f"{at:%Y%m%dT%H%M%SZ}-{plain}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class Keys:
    """The keys of one service.

    :param deploy: prefix of the deployments' keys.
    :param nodes: prefix of the machines' keys.
    """

    service: str
    deploy: str = "deploy"
    nodes: str = "nodes"

    def __post_init__(self) -> None:
        checked_name(self.service, "service")
        if self.service.startswith(FREEZE):
            # Consul reads by prefix: each gate would read all keys of this service with the freeze of all services.
            raise HitlessError(
                f"The service name {self.service!r} cannot be used below {self.deploy}/: {self.deploy}/{FREEZE} is the "
                "key that freezes all services.",
                hint="Give its rollouts another prefix: hitless_consul_deploy_prefix.",
            )

    @property
    def lock(self) -> str:
        return f"{self.deploy}/{self.service}/lock"

    @property
    def request(self) -> str:
        return f"{self.deploy}/{self.service}/request"

    @property
    def control(self) -> str:
        return f"{self.deploy}/{self.service}/control"

    @property
    def freeze(self) -> str:
        return f"{self.deploy}/{self.service}/{FREEZE}"

    @property
    def freeze_all(self) -> str:
        return freeze_of_all(self.deploy)

    @property
    def deployments(self) -> str:
        return f"{self.deploy}/{self.service}/deployments/"

    def deployment(self, deployment: str) -> str:
        return f"{self.deployments}{checked_name(deployment, 'deployment')}/"

    def record(self, deployment: str) -> str:
        return f"{self.deployment(deployment)}record"

    def plan(self, deployment: str) -> str:
        """All keys of its plan: written before its record, and never changed."""
        return f"{self.deployment(deployment)}plan/"

    def plan_chunk(self, deployment: str, number: int) -> str:
        """:param number: 1 for the first."""
        return f"{self.plan(deployment)}{number:06d}"

    def progress(self, deployment: str) -> str:
        return f"{self.deployment(deployment)}progress"

    def controlled(self, deployment: str) -> str:
        return f"{self.deployment(deployment)}control"

    def findings(self, deployment: str, watcher: str = "") -> str:
        """Of one watcher, or the prefix of all."""
        return f"{self.deployment(deployment)}findings/{checked_name(watcher, 'watcher') if watcher else ''}"

    def analysis(self, deployment: str) -> str:
        return f"{self.deployment(deployment)}analysis"

    def in_flight(self, deployment: str, node: str = "") -> str:
        """Of one node, or the prefix of all."""
        return f"{self.deployment(deployment)}in_flight/{checked_name(node, 'node') if node else ''}"

    def spent(self, deployment: str, node: str = "") -> str:
        """Of one node, or the prefix of all."""
        return f"{self.deployment(deployment)}spent/{checked_name(node, 'node') if node else ''}"

    def ended(self, deployment: str) -> str:
        return f"{self.deployment(deployment)}ended"

    def outcomes(self, deployment: str) -> str:
        return f"{self.deployment(deployment)}nodes/"

    def outcome(self, deployment: str, node: str) -> str:
        return f"{self.outcomes(deployment)}{checked_name(node, 'node')}"

    def node(self, node: str) -> str:
        return f"{self.nodes}/{checked_name(node, 'node')}/deployment/{self.service}/"

    def version(self, node: str) -> str:
        return f"{self.node(node)}version"

    def previous(self, node: str) -> str:
        return f"{self.node(node)}previous"

    def status(self, node: str) -> str:
        return f"{self.node(node)}status"

    def new(self, node: str) -> str:
        return f"{self.node(node)}new"

    def agent_log(self, node: str, deployment: str) -> str:
        """Below a prefix of the node's own, so that its token can be kept to that."""
        prefix = f"{self.nodes}/{checked_name(node, 'node')}/log/{self.service}/"
        return f"{prefix}{checked_name(deployment, 'deployment')}/"

    def run_logs(self, deployment: str) -> str:
        return f"{self.deployment(deployment)}log/"

    def run_log(self, deployment: str, host: str) -> str:
        return f"{self.run_logs(deployment)}{checked_name(host, 'host')}/"
