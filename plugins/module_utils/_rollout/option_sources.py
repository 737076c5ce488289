# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options of a rollout are read from, and where the value of one is found (a private helper).

A role's argument_specs would not do: they validate without converting (``1.10`` arrives as 1.1), and let unknown names
pass; and group_vars of the hosts are invisible to localhost, where a rollout is prepared.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.hitless.consul.plugins.module_utils._consul.options import (
    CLUSTER_SPEC,
    KEYS_SPEC,
    VARIABLE_PREFIX,
)
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_reader import Load
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_variables import RESERVED
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_files import SearchPaths
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import (
    BY_NAME,
    OPTIONS,
    PREFIX,
    ROLLBACK_PREFIX,
    UNSET,
    Option,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.template_words import has_template, inputs_of

_ABSENT = object()


class Inventory(Protocol):
    """What is read of Ansible's inventory and variables."""

    @property
    def groups(self) -> Iterable[str]:
        """Names of all groups."""

    def select(self, pattern: str) -> list[str]:
        """Names of the hosts that match, in the inventory's order."""

    def variables(self, host: str) -> Mapping[str, Any]:
        """The host's variables, templates unresolved."""

    def resolve(self, value: Any, host: str | None, given: Mapping[str, Any] | None = None) -> Any:
        """A value with its templates resolved, with a host's variables or with those of this play on localhost.

        :param given: variables that beat those of the host.
        """


@dataclass(frozen=True)
class Settings:
    """Ansible's own configuration, as far as a rollout cannot run with all of it.

    :param strategy: the default strategy.
    :param native_templates: whether a template makes 1.1 of the text 1.10 (jinja2_native before ansible-core 2.19).
    """

    strategy: str = "linear"
    native_templates: bool = False


@dataclass(frozen=True)
class OptionSources:
    """What options are read from: extra vars, else the play's own variables, else the hosts', else localhost's.

    :param unread: inventory sources that could not be read, each with the reason.
    :param load: reads the user's tasks files.
    :param needed: the variables without which a template cannot be resolved.
    """

    inventory: Inventory
    extra: Mapping[str, Any] = field(default_factory=dict)
    play: Mapping[str, Any] = field(default_factory=dict)
    localhost: Mapping[str, Any] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    search_paths: SearchPaths = field(default_factory=SearchPaths)
    unread: Sequence[str] = ()
    load: Load = lambda path: None
    needed: Callable[[str], Iterable[str]] = lambda text: ()


@dataclass(frozen=True)
class Address:
    """What localhost takes from the hosts' variables of how Consul is asked: it is one rollout, and one Consul.

    :param host: whose variables; their names are in ``variables``, never their values: one may be a token.
    :param differ: why the address is not taken from the hosts, as a sentence.
    """

    host: str = ""
    variables: Sequence[str] = ()
    differ: str = ""


class Values:
    """Finds the value of each option, and says where it was found.

    ``by_host`` has the variables of each host, templates unresolved, once :meth:`find_hosts` has found them.
    """

    def __init__(self, sources: OptionSources) -> None:
        self.sources = sources
        self._inventory = sources.inventory
        self.by_host: dict[str, Mapping[str, Any]] = {}
        self._pattern = ""
        # Somebody may have a rollback_ variable of their own; whoever misspells one of ours must be told.
        back = sources.play.get("rollout_direction") == "rollback"
        self._prefixes = (PREFIX, ROLLBACK_PREFIX) if back else (PREFIX,)
        self._own = {
            "extra vars": sources.extra,
            "the play's variables": sources.play,
            "the variables of localhost": sources.localhost,
        }

    def check_names(self, places: Iterable[str]) -> None:
        """Refuse names that are ours to give, and ``rollout_`` names that nobody knows."""
        seen: set[str] = set()
        for place in places:
            variables = self._own.get(place, self.by_host.get(place, {}))
            where = place if place in self._own else f"the variables of {place}"
            for name in RESERVED:
                if name in variables:
                    raise HitlessError(
                        f"{name} is set in {where}; the rollout sets it itself for each host, and yours would win, in "
                        "the rollback too.",
                        hint="Remove it (the version to deploy is rollout_version).",
                    )
            for name in variables:
                if name not in seen and name.startswith(self._prefixes):
                    seen.add(name)
                    if not _is_result(variables[name]):
                        _refuse_unknown(name, where)

    def find_hosts(self) -> list[str]:
        """The hosts of the rollout, in the inventory's order."""
        pattern = self._locally(BY_NAME["hosts"])
        if pattern is None:
            service = self._locally(BY_NAME["service"])
            if service is None:
                raise HitlessError(
                    "rollout_service is not set: the service to roll over.",
                    hint="Add -e rollout_service=NAME; where variables of the hosts set it, give rollout_hosts.",
                )
            pattern = "service_" + re.sub(r"[^A-Za-z0-9_]", "_", service)
        hosts = self._inventory.select(pattern)
        if not hosts:
            raise self._no_hosts(pattern)
        self._pattern = pattern
        self.by_host = {host: self._inventory.variables(host) for host in hosts}
        for host, variables in self.by_host.items():
            own = variables.get("rollout_hosts")
            if own not in UNSET and self._first_own("rollout_hosts") is _ABSENT:
                raise HitlessError(
                    f"rollout_hosts is set in the variables of {host} ({own}), which are read only once the hosts are "
                    "known.",
                    hint="Give it with -e, or as vars of import_playbook.",
                )
        return hosts

    def _no_hosts(self, pattern: str) -> HitlessError:
        if self.sources.unread:
            unread = " ".join(self.sources.unread)
            return HitlessError(f"There is no host to roll over, since the inventory could not be read: {unread}")
        plain = re.fullmatch(r"[A-Za-z0-9_.-]+", pattern)
        groups = sorted(self._inventory.groups)
        services = [group for group in groups if group.startswith("service_")]
        there = f"its groups of services are {', '.join(services[:20])}" if services else "it has no groups of services"
        problem = "is empty" if pattern in groups else "is not in the inventory" if plain else "matches no host"
        return HitlessError(
            f"There is no host to roll over: the {'group' if plain else 'pattern'} {pattern} {problem} ({there}).",
            hint="Set rollout_hosts to a group or pattern of hosts, or use an inventory of the plugin "
            "hitless.consul.catalog.",
        )

    def find_address(self) -> Address:
        """Which variables of how Consul is asked localhost lacks, and all hosts agree in."""
        url = VARIABLE_PREFIX + "url"
        own, values = self._first_own(url), self._values_of(url)
        of_hosts = next(iter(values), "") if len(values) == 1 else ""
        if len(values) > 1:
            (first, host), (second, other) = list(values.items())[:2]
            sentence = f"{url} is {_shown(first)} for {host} and {_shown(second)} for {other}."
            return Address(differ=sentence if own is _ABSENT else "")
        if own is not _ABSENT and of_hosts not in UNSET and self._resolved(own, url) != of_hosts:
            # Another Consul's token must not go to this one.
            return Address()
        names = [VARIABLE_PREFIX + name for name in (*CLUSTER_SPEC, *KEYS_SPEC)]
        lacking = [name for name in names if self._first_own(name) is _ABSENT]
        agreed = [name for name in lacking if self._has_one(name)]
        return Address(next(iter(self.by_host)), agreed) if agreed else Address()

    def _has_one(self, variable: str) -> bool:
        values = self._values_of(variable)
        return len(values) == 1 and next(iter(values)) not in UNSET

    def _values_of(self, variable: str) -> dict[Any, str]:
        """The values that hosts give to a variable, each with the first host that has it."""
        pairs = [(host, variables.get(variable)) for host, variables in self.by_host.items()]
        first = pairs[0][1]
        if not has_template(first) and all(value == first for _host, value in pairs):
            pairs = pairs[:1]
        elif has_template([value for _host, value in pairs]):
            pairs = self._resolved_of_hosts(pairs, variable)
        values: dict[Any, str] = {}
        for host, value in pairs:
            values.setdefault(value if value in UNSET else str(value), host)
        return values

    def read_all(self) -> dict[str, Any]:
        """Each option that holds for the whole rollout; the last one may name what is deployed."""
        last = BY_NAME["analysis"]
        options = {option.name: self.read(option) for option in OPTIONS if not option.per_host and option != last}
        about = {"deploy_version": options["version"] or "", "deploy_service": options["service"]}
        return {**options, last.name: self.read(last, about)}

    def read(self, option: Option, given: Mapping[str, Any] | None = None) -> Any:
        """The option's value, else its default.

        :param given: variables that its template is given beside the user's.
        """
        if option.name == "hosts":
            return self._pattern
        value = self._found(option.variable, given)
        return option.default if value in UNSET else option.kind.read(value, option.variable)

    def is_given(self, option: Option) -> bool:
        """Whether it is set for this start alone: by an extra var, or by the play."""
        return self._first_own(option.variable, localhost=False) not in (_ABSENT, *UNSET)

    def templates_of(self, variable: str) -> dict[str, Any]:
        """Each host's template of an option that is read there, later."""
        own = self._first_own(variable, localhost=False)
        values = {host: self.by_host[host].get(variable) if own is _ABSENT else own for host in self.by_host}
        return {host: value for host, value in values.items() if has_template(value)}

    def hosts_with(self, name: str) -> list[str]:
        """Hosts for which an option is set that is read there, later."""
        own = self._first_own(PREFIX + name, localhost=False)
        if own is not _ABSENT:
            return [] if own in UNSET else list(self.by_host)
        return [host for host, variables in self.by_host.items() if variables.get(PREFIX + name) not in UNSET]

    def resolved_of(self, host: str, value: Any) -> Any:
        """The value of a host's variable, with its templates resolved."""
        return self._resolved(value, "rollout_waves_by", host)

    def _locally(self, option: Option) -> Any:
        """An option that is needed before the hosts are known."""
        value = self._resolved(self._first_own(option.variable), option.variable)
        return None if value in UNSET else option.kind.read(value, option.variable)

    def _first_own(self, variable: str, *, localhost: bool = True) -> Any:
        own = (self.sources.extra, self.sources.play, *((self.sources.localhost,) if localhost else ()))
        return next((variables[variable] for variables in own if variable in variables), _ABSENT)

    def _found(self, variable: str, given: Mapping[str, Any] | None = None) -> Any:
        own = self._first_own(variable, localhost=False)
        if own is not _ABSENT:
            return self._resolved(own, variable, given=given)
        pairs = [(host, variables.get(variable)) for host, variables in self.by_host.items()]
        if all(value in UNSET for _host, value in pairs):
            return self._resolved(self._first_own(variable), variable, given=given)
        first_host, first = pairs[0]
        if has_template([value for _host, value in pairs]):
            pairs = self._resolved_of_hosts(pairs, variable, given)
            first = pairs[0][1]
        other = next(((host, value) for host, value in pairs if value != first), None)
        if other:
            raise HitlessError(
                f"{variable} holds for the whole rollout, but it is {_shown(first)} for {first_host} and "
                f"{_shown(other[1])} for {other[0]}.",
                hint="Set it alike for all its hosts, or with -e.",
            )
        return first

    def _resolved_of_hosts(
        self, pairs: Iterable[tuple[str, Any]], variable: str, given: Mapping[str, Any] | None = None
    ) -> list[tuple[str, Any]]:
        """Each host's value; resolved once for hosts that agree in all it names, since it takes 4 ms a host."""
        results: list[tuple[str, Any]] = []
        known: list[tuple[Any, Mapping[str, Any], Any]] = []
        for host, value in pairs:
            inputs = inputs_of(value, self.by_host[host])
            same = (result for one, its, result in known[-4:] if inputs is not None and (one, its) == (value, inputs))
            result = next(same, _ABSENT)
            if result is _ABSENT:
                result = self._resolved(value, variable, host, given)
                known.append((value, inputs or {}, result))
            results.append((host, result))
        return results

    def _resolved(
        self, value: Any, variable: str, host: str | None = None, given: Mapping[str, Any] | None = None
    ) -> Any:
        if value is _ABSENT:
            return None
        if not has_template(value):
            return value
        try:
            return self._inventory.resolve(value, host, given)
        except HitlessError as error:
            where = f" of {host}" if host else ""
            raise HitlessError(f"The template in {variable}{where} cannot be resolved: {error}") from None


def _shown(value: Any) -> str:
    return "not set" if value in UNSET else repr(value)


def _is_result(value: Any) -> bool:
    """Whether a variable is the registered result of a task, of ours or of the user's, and so no option."""
    return isinstance(value, Mapping) and "failed" in value and "changed" in value


def _refuse_unknown(variable: str, where: str) -> None:
    if any(option.variable == variable for option in OPTIONS):
        return
    near = difflib.get_close_matches(variable, [option.variable for option in OPTIONS], n=1, cutoff=0.6)
    raise HitlessError(
        f"{variable} (in {where}) is not an option of a rollout.",
        hint=f"Is it {near[0]}?" if near else "docs/options.md has a table of them.",
    )
