# Copyright (c) 2026, Hitless contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run: one rollout or recovery, from its options to its result (a private helper of this collection).

It is made once, see beginning.py, and grows twice: ``beginning.begin`` adds lock, plan and record, ``recovery.begin``
what interrupted runs left behind. Each step of the playbooks takes what it needs from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Holder
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import Controller
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import trigger
from ansible_collections.hitless.consul.plugins.module_utils._rollout.hook_variables import about, hosts_told
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys, new_deployment_id
from ansible_collections.hitless.consul.plugins.module_utils._rollout.kind import Kind, kind_of
from ansible_collections.hitless.consul.plugins.module_utils._rollout.option_reader import TURN
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import UNDOING
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost, planned_hosts
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import NOTHING_DEPLOYED
from ansible_collections.hitless.consul.plugins.module_utils._rollout.waves import Waves

_NO_HOSTS: dict[str, Sequence[Any]] = {"hosts": ["localhost"], "serial": [1]}
"""Of a play without tasks: one without hosts would say so. A play's serial must not be empty."""


@dataclass(frozen=True)
class Run:
    """One run of the playbooks.

    :param options: of the rollout, by name without the prefix.
    :param hosts: those of rollout_hosts, in the inventory's order.
    :param hooks: the user's files and roles, see ``option_reader.Hook``.
    :param steps: of each host, in order; ``rollback_steps`` those of its rollback.
    :param health_urls: the hosts with a health URL.
    :param waves: wave -> its hosts, in the order of the waves; empty where there are none.
    :param address: what localhost takes from its hosts to ask Consul, see ``option_sources.Address``.
    :param first_tasks: name and action of the tasks of the deployment before which none has touched a host.
    :param operator: who runs it; ``origin``: from where.
    :param claim: of the request that it follows, empty where it follows none.
    :param session: that holds the lock; empty in check mode.
    :param plan: as ``plan.Plan.as_dict`` gives it; empty before.
    :param order: the hosts of the rolling play, each batch led by its coordinator; ``serial``: the size of each batch.
    :param recorded: whether the deployment has a record.
    :param undoes: the deployment that this one undoes by itself, since that has failed; empty where it is none such.
    :param follows: the deployment that has just ended, after which this one rolls what has joined; empty else.
    :param resumed: the deployments that it goes on with, the newest first: what they changed is watched, too.
    :param probing: the file of the probe that runs beside it, empty where none does; ``probed``: what one has counted
        that has ended, see probing.py.
    :param leftovers: maintenance that interrupted runs left, see ``recovery.Left``; ``unknown``: hosts of it that are
        not in the inventory.
    :param ended: how it has ended, see ``finishing.release``; empty before.
    """

    id: str
    options: Mapping[str, Any]
    hosts: Sequence[str] = ()
    hooks: Sequence[Mapping[str, str]] = ()
    steps: Sequence[str] = ()
    rollback_steps: Sequence[str] = ()
    health_urls: Sequence[str] = ()
    waves: Mapping[str, Sequence[str]] = field(default_factory=dict)
    address: Mapping[str, Any] = field(default_factory=dict)
    first_tasks: Sequence[Mapping[str, str]] = ()
    operator: str = ""
    origin: str = ""
    claim: str = ""
    session: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    order: Sequence[str] = ()
    serial: Sequence[int] = (1,)  # a play's serial must not be empty
    recorded: bool = False
    undoes: str = ""
    follows: str = ""
    resumed: Sequence[str] = ()
    probing: str = ""
    probed: Mapping[str, Any] = field(default_factory=dict)
    leftovers: Sequence[Mapping[str, Any]] = ()
    unknown: Sequence[str] = ()
    ended: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Run:
        """From what :meth:`as_dict` gave."""
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name in data})

    def as_dict(self) -> dict[str, Any]:
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        made = {name: getattr(self, name) for name in ("parts", "plays", "window", "is_second")}
        if self.options.get("start_tasks"):
            made["told"] = {**self.told, "hosts": hosts_told(self.changing, {})}
        return {**own, **made}

    @property
    def told(self) -> dict[str, Any]:
        """What the user's hooks are told of it, see ``hook_variables``."""
        options = self.options
        return about(self.id, self.service, options["version"], options["direction"], self.operator, options["message"])

    @property
    def service(self) -> str:
        return str(self.options["service"])

    @property
    def kind(self) -> Kind:
        """A rollout, a rollback, a restart or a reboot."""
        return kind_of(self.options["direction"])

    @property
    def by_agents(self) -> bool:
        """Whether the machines' own agents take the steps of their hosts."""
        return bool(self.options.get("mode") == "agent")

    @property
    def drains_by_hook(self) -> bool:
        """Whether the user's tasks drain and restore at a load balancer that does not follow Consul."""
        return bool(self.options.get("drain_tasks"))

    @property
    def is_window(self) -> bool:
        """Whether hosts take their turns in a sliding window, each as one task, instead of in batches."""
        return list(self.steps) == [TURN]

    @property
    def parts(self) -> list[str]:
        """The tasks of the playbook that this run has, beside those of every run; the role's tags name them."""
        kinds = {hook["kind"] for hook in self.hooks}
        in_window = self.is_window and bool(self.order)
        ends_with_hook = bool(self.options.get("on_failure_tasks") or self.options.get("finish_tasks"))
        play = "again" if self.is_second else "out"
        wanted = {
            "parse_hooks": "tasks" in kinds,
            "parse_role": bool(self.options.get("deploy_role")),
            "plan": bool(self.hooks),
            "start_hook": bool(self.options.get("start_tasks")),
            "coordinators": not self.is_window,
            f"{play}_{self._throttled_by}": in_window,
            "become": bool(self.options.get("become")),
            f"{play}_batches": not self.is_window and bool(self.order),
            "pauses": bool(self.options.get("pause_after")),
            "before_batch_hook": bool(self.options.get("before_batch_tasks")),
            "after_batch_hook": bool(self.options.get("after_batch_tasks")),
            "watch": self.recorded and not self.ended,
            "on_failure_hook": bool(self.options.get("on_failure_tasks")),
            "joiners": self.options.get("joiners") == "roll",
            "again_coordinators": self.options.get("joiners") == "roll" and not self.is_window,
            "finish_hook": bool(self.options.get("finish_tasks")),
            "release": ends_with_hook,
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]

    @property
    def _throttled_by(self) -> str:
        """How the hosts of a window keep to its size, see internal_hosts.yml.

        A throttle that is a template is resolved for each host, twice; with the whole run, before ansible-core 2.19.
        A lone stage has nothing before it that would be watched or promoted.
        """
        windows: Sequence[int] = self.plan.get("windows") or ()
        if len(windows) != 1 or self.planned_waves.each:
            return "stages"
        if windows[0] == 1:
            return "one"
        return "forks" if windows[0] >= (self.plan.get("forks") or windows[0] + 1) else "window"

    @property
    def window(self) -> int:
        """Hosts that are in flight at once in a lone stage."""
        return int((self.plan.get("windows") or [1])[0])

    @property
    def plays(self) -> dict[str, dict[str, Sequence[Any]]]:
        """Hosts and batches of the two plays that roll; one of them has no tasks, and localhost alone."""
        ours = {"hosts": self.order, "serial": self.serial} if self.order else _NO_HOSTS
        return {"out": _NO_HOSTS if self.is_second else ours, "again": ours if self.is_second else _NO_HOSTS}

    @property
    def is_second(self) -> bool:
        """Whether it comes after another deployment of the same start: its rollback, or what has joined."""
        return bool(self.undoes or self.follows)

    @property
    def accepts_warning(self) -> bool:
        """Whether a host whose check warns may begin its turn: a rollback may be what cures it."""
        return bool(self.options["accept_warning"] or self.options["direction"] == "rollback")

    @property
    def coordinators(self) -> Sequence[str]:
        return self.plan.get("coordinators") or ()

    @property
    def planned_waves(self) -> Waves:
        """The waves as they are planned."""
        return Waves.of(self.plan.get("waves"))

    def keys(self, task: Task) -> Keys:
        return task.keys(self.service)

    def undoing(self, failed: str) -> Run:
        """The run as it undoes a deployment that has failed, which is a deployment of its own.

        In as large a window as the minimum allows, and whatever becomes of a host.
        """
        message = self.options["message"] or f"{failed} failed"
        of_all = {"rollback_deployment": failed, "failure_budget": len(self.hosts), "message": message}
        options = {**self.options, **UNDOING, **of_all}
        return replace(self, id=new_deployment_id("rollback"), options=options, undoes=failed, probed={})

    def place_of(self, name: str) -> tuple[int, int]:
        """A host's place among those that change, 1 for the first, and how many there are; 0 where it is none."""
        planned = (self.plan.get("hosts") or {}).get(name) or {}
        return int(planned.get("place") or 0), int(self.plan.get("places") or 0)

    @property
    def planned(self) -> list[PlannedHost]:
        """All hosts, as they are planned."""
        return list(planned_hosts(self.plan.get("hosts") or {}).values())

    @property
    def changing(self) -> list[PlannedHost]:
        """Those that get a turn."""
        return [one for one in self.planned if one.batch is not None]

    def was_healthy(self, name: str) -> bool:
        """Whether a host was so when the plan was made."""
        return bool(((self.plan.get("hosts") or {}).get(name) or {}).get("healthy"))

    def is_unsure(self, planned: PlannedHost, state: str) -> bool | None:
        """Whether another version than the recorded one may run on a host; None where its state tells that.

        What an earlier deployment left open stays so until something is deployed, and here may be nothing.
        """
        if self.kind.keeps_version:
            return planned.unsure
        return True if planned.unsure and state in NOTHING_DEPLOYED else None

    def host(self, name: str) -> PlannedHost:
        """A host as it is planned."""
        hosts = self.plan.get("hosts") or {}
        if name not in hosts:
            raise HitlessError(f"{name} is not a host of this rollout.")
        return planned_hosts({name: hosts[name]})[name]


def holder_of(run: Run, deployment: str | None = None) -> Holder:
    """What the lock says of a run.

    :param deployment: that it names; the run's own where not given.
    """
    name = run.id if deployment is None else deployment
    return Holder.now(name, run.operator, str(run.options["message"] if name else "recover"), run.origin)


def take_lock(task: Task, run: Run, controller: Controller, *, deployment: str | None = None) -> Run:
    """The run with the session that holds the lock of its service, which is kept until the run ends.

    :param deployment: what the lock names; the run's own where not given.
    """
    holder = holder_of(run, deployment)
    session = lock.take(
        task.consul,
        run.keys(task),
        holder,
        controller,
        wait=run.options["lock_wait"],
        progress_deadline=run.options["progress_deadline"] if holder.deployment else 0,
        show=task.show,
    )
    return replace(run, session=session)


def answer_request(task: Task, run: Run, state: str, **more: Any) -> None:
    """Tell the request that this run follows what became of it, where there is one."""
    if run.claim and not task.check_mode:
        trigger.tell(task, run.keys(task), run.claim, state, **more)
