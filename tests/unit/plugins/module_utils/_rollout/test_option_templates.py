"""What of the user's templates is refused before the first host is drained, and what cannot be told so early."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_reader import opaque
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_tasks import HookTask, HookTasks
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_templates import Templates, given_to

pytestmark = pytest.mark.oldest

HOSTS: dict[str, dict[str, Any]] = {
    name: {"inventory_hostname": name, "meta": {"rack": "r1"}, "url": "http://{{ meta.rack }}"}
    for name in ("web1", "web2")
}


def needed(text: str) -> set[str]:
    return set(re.findall(r"{{ *(\w+)", text))


def hook(*texts: str, option: str = "deploy_tasks", sets: set[str] | None = frozenset()) -> HookTasks:  # type: ignore[assignment]
    tasks = [HookTask("Install", "command", texts=texts)]
    return HookTasks(option, "/deploy.yml", tasks, sets=None if sets is None else set(sets))


def templates(*hooks: HookTasks, hosts: Mapping[str, Mapping[str, Any]] = HOSTS) -> Templates:
    return Templates(hosts, {"of_localhost": 1}, {"of_play": 1}, hooks, needed)


class Resolver:
    """Resolves ``{{ name.part }}`` as Ansible does, and says what it lacks in Ansible's words."""

    def __init__(self, hosts: Mapping[str, Mapping[str, Any]] = HOSTS) -> None:
        self._hosts = hosts
        self._given = given_to("2.0.0", "deploy", "web")[0]
        self.asked: list[str] = []

    def __call__(self, value: str, host: str) -> None:
        self.asked.append(host)
        known = {**self._hosts[host], **self._given}
        for name, part in re.findall(r"{{ *(\w+)(?:\.(\w+))?", value):
            if name not in known:
                raise HitlessError(f"'{name}' is undefined")
            if part and part not in known[name]:
                raise HitlessError(f"object of type 'dict' has no attribute '{part}'")


def tried(
    value: str, *hooks: HookTasks, hosts: Mapping[str, Mapping[str, Any]] = HOSTS, version: str | None = "2.0.0"
) -> list[str]:
    resolver = Resolver(hosts)
    stand_ins = given_to(version, "deploy", "web")[1]
    templates(*hooks, hosts=hosts).refuse_unresolvable(
        "rollout_health_url", dict.fromkeys(hosts, value), stand_ins, resolver
    )
    return resolver.asked


@pytest.mark.parametrize("value", ["{{ typo }}", "{{ deploy_version }}{{ typo }}", "{{ meta.typo }}"])
def test_an_option_that_cannot_be_resolved(value: str) -> None:
    with pytest.raises(HitlessError, match=r"^The template in rollout_health_url of web1 cannot be resolved: .*typo"):
        tried(value)


@pytest.mark.parametrize(
    ("value", "hooks"),
    [
        # A hook sets it, or may; facts are gathered in the host's turn; what another host has may come from there.
        ("{{ release }}", [hook(sets={"release"})]),
        ("{{ release.url }}", [hook(sets={"release"})]),
        ("{{ release }}", [hook(sets=None)]),
        ("{{ release }}", [opaque("deploy_role", "acme.web.install")]),
        ("{{ ansible_distribution }}", []),
        ("{{ meta.typo }}{{ hostvars.web1 }}", []),
        # The version before is not known yet, so that what is made of it says nothing.
        ("{{ deploy_previous_version.typo }}", []),
    ],
)
def test_what_cannot_be_told_yet(value: str, hooks: list[HookTasks]) -> None:
    tried(value, *hooks)


def test_the_version_is_not_known_in_a_rollback() -> None:
    with pytest.raises(HitlessError):
        tried("{{ deploy_version.typo }}")
    tried("{{ deploy_version.typo }}", version=None)


def test_hosts_that_look_alike_are_tried_once() -> None:
    assert tried("{{ meta.rack }} {{ inventory_hostname }}") == ["web1"]
    without = {**HOSTS, "web2": {**HOSTS["web2"], "meta": {}}}
    with pytest.raises(HitlessError, match="of web2 cannot be resolved"):
        tried("{{ meta.rack }}", hosts=without)
    assert tried("{{ hostvars[inventory_hostname] }}", hook(sets=None)) == ["web1", "web2"]
    assert tried("{{ lookup('x') }}", hook(sets=None)) == ["web1", "web2"]


# --- tasks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option", ["prepare_tasks", "deploy_tasks", "deploy_role", "smoke_tasks", "drain_tasks", "restore_tasks"]
)
def test_a_task_that_needs_what_a_host_does_not_have(option: str) -> None:
    told = rf"^rollout_{option}: the task Install \(/deploy.yml\) needs the variable typo, which web1 does not have"
    with pytest.raises(HitlessError, match=told):
        templates(hook("install {{ typo }}", option=option)).refuse_unknown_variables()


def test_a_task_that_needs_a_variable_that_needs_what_is_missing() -> None:
    hosts = {"web1": {"artefact": "{{ repository }}/web"}}
    with pytest.raises(HitlessError, match="needs the variable repository, which web1"):
        templates(hook("fetch {{ artefact }}"), hosts=hosts).refuse_unknown_variables()


@pytest.mark.parametrize(
    "hooks",
    [
        [hook("{{ url }}{{ inventory_hostname }}{{ deploy_version }}{{ hostvars }}{{ ansible_facts }}{{ of_play }}")],
        [hook("{{ release }}", sets={"release"})],
        [hook("{{ release }}"), hook(option="prepare_tasks", sets={"release"})],
        [hook("{{ release }}", sets=None)],
        [hook("{{ release }}"), opaque("deploy_role", "acme.web.install")],
        [hook("{{ of_localhost }}{{ of_play }}{{ deploy_hosts }}", option="before_batch_tasks")],
        # What runs on the controller may set what it needs.
        [hook("{{ release }}", option="finish_tasks", sets={"release"})],
    ],
)
def test_tasks_that_may_well_run(hooks: list[HookTasks]) -> None:
    templates(*hooks).refuse_unknown_variables()


RUN = ["deploy_id", "deploy_service", "deploy_version", "deploy_reason"]
ONCE = [*RUN, "deploy_operator", "deploy_message", "deploy_hosts"]


@pytest.mark.parametrize(
    ("option", "given"),
    [
        *((name, [*RUN, "deploy_previous_version"]) for name in ("prepare_tasks", "drain_tasks", "restore_tasks")),
        *((name, ONCE) for name in ("start_tasks", "before_batch_tasks", "after_batch_tasks")),
        *((name, [*ONCE, "deploy_result"]) for name in ("on_failure_tasks", "finish_tasks")),
    ],
)
def test_each_hook_knows_what_it_gets_and_nothing_else(option: str, given: list[str]) -> None:
    for name in (*ONCE, "deploy_previous_version", "deploy_result"):
        found = templates(hook(f"{{{{ {name} }}}}", option=option))
        if name in given:
            found.refuse_unknown_variables()
        else:
            with pytest.raises(HitlessError, match=rf"needs the variable {name}, .* gets {given[0]}, .*{given[-1]}\.$"):
                found.refuse_unknown_variables()


def test_a_hook_on_the_controller_that_needs_what_is_not_there() -> None:
    told = r"^rollout_finish_tasks: the task Install \(/deploy.yml\) needs the variable chat_url, which localhost"
    with pytest.raises(HitlessError, match=told):
        templates(hook("{{ chat_url }}", option="finish_tasks")).refuse_unknown_variables()
    # What hosts have is not there either.
    with pytest.raises(HitlessError, match="needs the variable meta, which localhost"):
        templates(hook("{{ meta.rack }}", option="start_tasks")).refuse_unknown_variables()


def hook_that(option: str = "finish_tasks", sets: tuple[str, ...] = (), **texts: tuple[str, ...]) -> Templates:
    return templates(HookTasks(option, "/tell.yml", [HookTask("Tell", "uri", **texts)], sets=set(sets)))


@pytest.mark.parametrize("kind", ["handled", "uncertain"])
def test_a_misspelt_name_of_ours_is_found_in_any_task(kind: str) -> None:
    """A message that may fail would be told to nobody."""
    with pytest.raises(HitlessError, match=r"needs the variable deploy_reslut, .* This hook gets .*, deploy_result\.$"):
        hook_that(**{kind: ("{{ deploy_reslut.verdict }}",)}).refuse_unknown_variables()
    hook_that(**{kind: ("{{ deploy_result.verdict }}",)}).refuse_unknown_variables()
    hook_that(sets=("deploy_place",), **{kind: ("{{ deploy_place }}",)}).refuse_unknown_variables()


def test_what_else_is_found_where_a_failure_is_handled() -> None:
    with pytest.raises(HitlessError, match="needs the variable chat_url, which localhost does not have"):
        hook_that(handled=("{{ chat_url }}",)).refuse_unknown_variables()
    for text in ("{{ chat_url }}", "{{ deploy_result.verdict }}"):
        # One file for two hooks may ask which of them it is.
        hook_that("start_tasks", uncertain=(text,)).refuse_unknown_variables()
        hook_that("drain_tasks", handled=(text,)).refuse_unknown_variables()
