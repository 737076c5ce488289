# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the user's templates can be resolved, before the first host is drained (a private helper). Pure.

A template that fails while its host is out of rotation fails in the rollback as well, and keeps a healthy host out.
What can only be told later is left to the host's turn: variables that a hook may set, facts, and the version before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_tasks import (
    ON_HOST,
    HookTask,
    HookTasks,
    MissingHandler,
    missing_handlers,
    variables_set,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_variables import OF_HOST, RESERVED, given_by
from ansible_collections.hitless.consul.plugins.module_utils._rollout.template_words import (
    has_template,
    inputs_of,
    words_of,
)

STAND_IN = "1.0.0"
"""A version where none is known yet."""
_MAGIC = {
    *("environment", "group_names", "groups", "hostvars", "inventory_dir", "inventory_file"),
    *("inventory_hostname", "inventory_hostname_short", "item", "omit", "play_hosts", "playbook_dir"),
    *("role_name", "role_names", "role_path", "vars"),
}
"""Ansible's own names, besides those that begin with ansible_."""
_OURS = "deploy_"
"""What the variables begin with that hooks get."""
_MOST = 5
"""Warnings of one kind."""
_UNDEFINED = re.compile(r"'(\w+)' is undefined")


def refuse_missing_handlers(hooks: Sequence[HookTasks]) -> list[str]:
    """Refuse a task that notifies a handler which is not there: Ansible would end the run, without rescue.

    :returns: warnings of those that may be such a task.
    """
    found = missing_handlers(hooks)
    sure = next((one for one in found if one.sure), None)
    if sure:
        raise HitlessError(
            f"{_of(sure)} notifies the handler {sure.name}, which is not there.",
            hint="Add it to handlers/main.yml of the role."
            if sure.hook.option == "deploy_role"
            else "A tasks file has no handlers. Make it a role with handlers/main.yml, and name that by "
            "rollout_deploy_role; or let a task do it.",
        )
    warnings = dict.fromkeys(map(_warning, found))
    left = len(warnings) - _MOST
    return [*list(warnings)[:_MOST], *([f"{left} more tasks of the hooks may notify what is not there."] * (left > 0))]


def _of(one: MissingHandler) -> str:
    return f"rollout_{one.hook.option}: the task {one.task.name or one.task.action} ({one.task.path})"


def _warning(one: MissingHandler) -> str:
    fits = f" {one.task.template} may come to this file." if one.task.template and one.task.rests_on is None else ""
    in_maintenance = one.hook.option in ON_HOST and one.hook.option != "prepare_tasks"
    ends = (
        "Ansible ends the whole run at that host, without a rollback: it stays in maintenance until you run "
        "hitless.consul.recover."
        if in_maintenance
        else "Ansible ends the whole run there, without a verdict."
    )
    return (
        f"{_of(one)} notifies the handler {one.name}, and nothing that can be found beforehand defines it.{fits} Where "
        f"the handler is not there when this runs, {ends}"
    )


def given_to(version: str | None, direction: str, service: str) -> tuple[dict[str, str], set[str]]:
    """What the user's deployment is given, and what of that, or of what other hooks are told, nobody knows yet."""
    given = dict.fromkeys(OF_HOST, version or STAND_IN) | {"deploy_reason": direction, "deploy_service": service}
    known = {"deploy_reason", "deploy_service", *(["deploy_version"] if version else [])}
    return given, {*RESERVED} - known


class Templates:
    """Tries templates before anything is changed.

    :param hosts: the hosts with their variables, templates unresolved.
    :param localhost: likewise those of the controller.
    :param shared: variables that all of these have besides.
    :param hooks: the user's tasks.
    :param needed: the variables without which a template cannot be resolved.
    """

    def __init__(
        self,
        hosts: Mapping[str, Mapping[str, Any]],
        localhost: Mapping[str, Any],
        shared: Mapping[str, Any],
        hooks: Sequence[HookTasks],
        needed: Callable[[str], Iterable[str]],
    ) -> None:
        self._hosts = hosts
        self._localhost = {"localhost": localhost}
        self._shared = {*shared, *_MAGIC}
        self._hooks = hooks
        self._needed = needed
        self._sets = variables_set(hooks)

    def refuse_unresolvable(
        self, variable: str, values: Mapping[str, Any], stand_ins: Iterable[str], resolve: Callable[[Any, str], Any]
    ) -> None:
        """Resolve an option of each host; once for hosts whose variables look the same.

        :param values: each host's value.
        :param resolve: a value with a host's variables and what the deployment is given.
        """
        tried: list[Any] = []
        for host, value in values.items():
            inputs = inputs_of(value, self._hosts[host])
            of_others = inputs is None or "hostvars" in words_of(value, *inputs.values())
            looks = None if of_others else (value, {name: _shape(one) for name, one in (inputs or {}).items()})
            if looks is not None and looks in tried[-4:]:
                continue
            tried.append(looks)
            try:
                resolve(value, host)
            except HitlessError as error:
                if self._is_sure(str(error), value, inputs, set(stand_ins)):
                    raise HitlessError(
                        f"The template in {variable} of {host} cannot be resolved: {str(error).rstrip('.')}.",
                        hint="Nothing was changed.",
                    ) from None

    def _is_sure(self, error: str, value: Any, inputs: Mapping[str, Any] | None, stand_ins: set[str]) -> bool:
        """Whether it would fail in the host's turn as well."""
        if self._sets is None:
            return False
        undefined = _UNDEFINED.search(error)
        if undefined:
            return not self._may_come(undefined[1])
        if inputs is None:
            return False
        words = words_of(value, *inputs.values())
        return "hostvars" not in words and not any(word in stand_ins or self._may_come(word) for word in words)

    def _may_come(self, name: str) -> bool:
        """Whether a variable may be there in the host's turn, and is not yet."""
        return name in (self._sets or ()) or name.startswith(("ansible_", "_"))

    def refuse_unknown_variables(self) -> None:
        """Refuse a task that needs a variable which is not there where it runs, and which no hook sets.

        A mistake in what tells somebody of the end would show at the end only. So what runs on the controller is looked
        at also where the user handles its failure, and of all tasks whether a name looks like one of ours.
        """
        if self._sets is None:
            return
        for hook in self._hooks:
            on_host, given = hook.option in ON_HOST, given_by(hook.option)
            places = self._hosts if on_host else self._localhost
            for task in hook.tasks:
                certain = task.texts if on_host else (*task.texts, *task.handled)
                names = {name for text in certain for name in self._needed(text)}
                others = (*task.handled, *task.uncertain)
                ours = {name for text in others for name in self._needed(text) if name.startswith(_OURS)}
                for host, variables in places.items():
                    missing = self._missing(names, variables, given) or self._missing(ours, variables, RESERVED)
                    if missing:
                        raise self._refusal(hook, task, missing, host)

    @staticmethod
    def _refusal(hook: HookTasks, task: HookTask, name: str, host: str) -> HitlessError:
        hint = "Is it misspelt? Where it may be missing, give it a default."
        if name.startswith(_OURS):
            hint = f"This hook gets {', '.join(given_by(hook.option))}."
        what = f"the task {task.name or task.action} ({task.path or hook.path})"
        return HitlessError(
            f"rollout_{hook.option}: {what} needs the variable {name}, which {host} does not have.",
            hint=f"Nothing was changed. {hint}",
        )

    def _missing(self, names: Iterable[str], variables: Mapping[str, Any], given: Iterable[str]) -> str:
        """The first variable that is missing, or that one of these needs; empty where there is none."""
        left = sorted(names)
        # Most hosts are asked of nothing: what all of them have is not gathered for these.
        seen = {*self._shared, *given} if left else set()
        while left:
            name = left.pop()
            if name in seen or self._may_come(name):
                continue
            seen.add(name)
            if name not in variables:
                return name
            if isinstance(variables[name], str):
                left += self._needed(variables[name])
        return ""


def _shape(value: Any) -> Any:
    """What there is in a value, whatever it says; a template's text counts, since it names others."""
    if isinstance(value, Mapping):
        return {str(name): _shape(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_shape(part) for part in value]
    return value if has_template(value) else type(value).__name__
