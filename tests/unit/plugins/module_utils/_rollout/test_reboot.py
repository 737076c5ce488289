"""A reboot as its machine answers: before, while it is away, and once it is back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.answer import Answer
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulUnavailable, HitlessError, HostLost
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import reboot as module
from ansible_collections.hitless.consul.plugins.module_utils._rollout.options import DEFAULTS
from ansible_collections.hitless.consul.plugins.module_utils._rollout.reboot import Reboot
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import PlannedHost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.run import Run

GONE = HostLost("web1 cannot be reached: no route to host")
MUTE = HitlessError("The Python on web1 gave no answer (exit code 137): nothing was printed.")
NO_AGENT = ConsulUnavailable("No answer from the Consul agent.")
PASSING = {"a": {"CheckID": "service:web", "Name": "web", "Status": "passing", "ServiceID": "web"}}
CRITICAL = {"a": {**PASSING["a"], "Status": "critical", "Output": "connection refused"}}
IN_MAINTENANCE = {"CheckID": "_service_maintenance:web", "Status": "critical", "ServiceID": "web"}
WEB = {"web": {"ID": "web", "Service": "web", "Tags": ["prod"]}}
OTHER = {"api": {"ID": "api", "Service": "api"}}


class Machine(Host):
    """Answers one after the other: what a command comes to, or what is raised; the last one again and again.

    :param boots: to rollout_boot_id_command; ``down``: to the command that reboots.
    """

    def __init__(self, boots: list[object], down: object = 0) -> None:
        self.resets = 0
        super().__init__(None, name="web1", reset=self._count)
        self.boots, self.down = boots, down
        self.commands: list[str] = []

    def _count(self) -> None:
        self.resets += 1

    def call(self, program: str, request: dict[str, Any], *, as_user: bool = False, within: float = 0.0) -> Any:
        assert program == "command"
        assert within, "a connection to a machine that goes down may hang"
        self.commands.append(request["command"])
        answer = {"rc": 0, "output": "", "error": "", "waited_for": ""}
        if request["command"] == "true":
            return answer
        if as_user:
            return {**answer, **self._next([self.down])}
        return {**answer, **self._next(self.boots)}

    @staticmethod
    def _next(found: list[object]) -> dict[str, Any]:
        one = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(one, Exception):
            raise one
        return {"rc": one} if isinstance(one, int) else {"output": one}


class Agent:
    """The machine's own Consul agent: what is registered, what its checks say, or what is raised."""

    def __init__(self, *looks: object) -> None:
        self.looks = list(looks)

    def retrying(self, seconds: float) -> Agent:
        assert seconds == 0, "while it boots each look is one question"
        return self

    def get(self, path: str) -> Answer:
        look = self.looks[0]
        is_seen = path.endswith("/checks") or isinstance(look, Exception) or look[0] is OTHER  # type: ignore[index]
        if is_seen and len(self.looks) > 1:
            self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        services, checks = look  # type: ignore[misc]
        return Answer(services if path.endswith("/services") else {**checks, "m": IN_MAINTENANCE}, 1, 200)


def reboot(machine: Machine, agent: Agent | None = None, **options: Any) -> Reboot:
    values = {**DEFAULTS, "service": "web", "direction": "reboot", "healthy_deadline": 0.2, **options}
    task = Task({}, {}, machine)
    task.__dict__["agent"] = agent or Agent((WEB, PASSING))
    return Reboot(task, Run("d1", values), PlannedHost("web1", "web1"), "d1", "boot id")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_EVERY", 0.01)


def failed(call: Callable[[], object]) -> HitlessError:
    with pytest.raises(HitlessError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("down", [0, -15, 143, GONE, MUTE], ids=["answered", "killed", "its shell", "lost", "mute"])
def test_the_connection_may_die_with_the_machine(down: object) -> None:
    machine = Machine(["old", "old", GONE, MUTE, "new"], down)
    one = reboot(machine)
    assert one.begin("shutdown -r now")["changed"]
    assert machine.commands == ["boot id", "true", "shutdown -r now"]
    one.wait_until_back()
    assert machine.resets == 3, "each further question is asked by a connection of its own"


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        (Machine(["old"], 1), "The reboot command exited with 1."),
        (Machine([4]), "rollout_boot_id_command gave no id of the boot on web1: it printed nothing."),
        (Machine([""]), "rollout_boot_id_command gave no id of the boot on web1: it printed nothing."),
    ],
)
def test_one_that_was_not_sent_down_is_as_it_was(machine: Machine, told: str) -> None:
    error = failed(lambda: reboot(machine).begin("shutdown -r now"))
    assert (str(error), error.details["untouched"]) == (told, True)


def test_the_machine_that_ansible_runs_on_is_not_rebooted() -> None:
    machine = Machine([module.own_boot_id()])
    error = failed(lambda: reboot(machine).begin("shutdown -r now"))
    assert (error.details["untouched"], machine.commands) == (True, ["boot id"])
    assert str(error).startswith("web1 is the machine that Ansible runs on")


def test_one_that_cannot_be_reached_before_is_lost() -> None:
    assert isinstance(failed(lambda: reboot(Machine([GONE])).begin("shutdown -r now")), HostLost)


@pytest.mark.parametrize(
    ("boots", "lost", "told"),
    [
        (["old", "old"], False, "It has not rebooted within 0.1 s (rollout_reboot_deadline)."),
        (["old", GONE], True, "It has not come back within 0.1 s (rollout_reboot_deadline): web1 cannot be reached"),
    ],
)
def test_one_that_does_not_come_back(boots: list[object], lost: bool, told: str) -> None:
    one = reboot(Machine(boots), reboot_deadline=0.1)
    one.begin("shutdown -r now")
    error = failed(one.wait_until_back)
    assert isinstance(error, HostLost) == lost
    assert str(error).startswith(told)


def test_its_agent_and_the_service_are_waited_for() -> None:
    agent = Agent(NO_AGENT, GONE, (OTHER, {}), (WEB, CRITICAL), (WEB, PASSING))
    one = reboot(Machine(["old", "new"]), agent, reboot_deadline=20)
    one.begin("shutdown -r now")
    one.wait_until_back()
    assert agent.looks == [(WEB, PASSING)]


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        (Agent(NO_AGENT), "No answer from the Consul agent."),
        (Agent((OTHER, {})), "no instance of web is registered with its Consul agent."),
        (Agent((WEB, CRITICAL)), "its check web is critical: connection refused"),
    ],
)
def test_or_it_is_told_what_is_missing(agent: Agent, told: str) -> None:
    one = reboot(Machine(["old", "new"]), agent, reboot_deadline=0.1)
    one.begin("shutdown -r now")
    assert str(failed(one.wait_until_back)) == f"It has rebooted, and web is not back on it: {told}"
