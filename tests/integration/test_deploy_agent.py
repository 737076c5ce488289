"""The deploy agent of a machine on a real Consul: each request is taken once, whatever is killed at whatever moment."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._errors import LockLost
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_protocol import (
    ABANDONED,
    DONE,
    FAILED,
    WAITING,
    WITHDRAWN,
    Request,
    Status,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_version
from lab import wait_until
from lab.deploy_agent import PROGRAM
from tests.http_server import Asked, HttpServer, Reply
from tests.integration.consul_agent import Server, alive, end, processes
from tests.integration.services import ENDS, Services, started
from tests.integration.services import assignment as asked

ID = "20261123T142233Z-2.0.0-7f3a"
OLD, NEW = "1.0.0", "2.0.0"


@pytest.fixture(
    scope="module", params=[pytest.param(ENDS[0], marks=pytest.mark.slow), ENDS[1]], ids=["oldest", "newest"]
)
def consul(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from started(request.param)


class Machine:
    """A service on the one node there is, its deploy agent, and the controller's side of requests to it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.web = Services(server)
        self.web.register()
        self.keys = Keys(self.web.name)
        self.node = self.web.node
        self.client = self.web.client()
        self.session = self.web.session(self.keys.lock)
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.config = folder / "agent.json"
        self.ran = folder / "ran"
        self.agent: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self, command: str | list[str] = "true", **settings: Any) -> None:
        """The command's line, after which it notes that it has run to its end."""
        note = f'echo "$DEPLOY_VERSION $DEPLOY_PREVIOUS_VERSION $DEPLOY_REASON" >> {self.ran}'
        line = f"{command}; code=$?; {note}; exit $code"
        values = {
            "service": self.web.name,
            "node": self.node,
            "url": self.web.server.url,
            "command": command if isinstance(command, list) else line,
            "state_directory": str(self.folder / "state"),
            **settings,
        }
        self.config.write_text(json.dumps(values), encoding="utf-8")

    def start(self, mode: str = "watch") -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-I", str(PROGRAM), mode, str(self.config)], stdin=subprocess.DEVNULL, stderr=log
            )
        return self.agent

    def kill(self) -> None:
        """kill -9 of the agent alone; a command it has started goes on."""
        for pid in processes(str(PROGRAM), "watch", str(self.config)):
            end(pid)
        if self.agent:
            self.agent.wait()

    def crash(self) -> None:
        """The machine's power fails: the command and its keeper end with the agent."""
        self.kill()
        for pid in processes(str(PROGRAM), "command", str(self.config)):
            end(pid)
        for file in (self.folder / "state").glob("*/process.json"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(json.loads(file.read_text(encoding="utf-8"))["pid"], signal.SIGKILL)

    def ask(self, version: str | None = NEW, **order: Any) -> Request:
        quick = {"drain_time": 0, "min_healthy_time": 0, "check_interval": 0, "healthy_deadline": 20}
        wanted = asked(version, **{"deployment": ID, "previous": OLD, "remember": OLD, **quick, **order})
        request = Request(self.client, self.keys, self.node, wanted, self.session)
        request.submit()
        return request

    def status(self) -> Status:
        pair = self.client.key(self.keys.status(self.node), consistent=True)
        return Status.parse(pair.value, pair.index) if pair else Status()

    def reaches(self, *states: str) -> Status:
        log = self.folder / "log"
        wait_until(f"it is {' or '.join(states)}", lambda: self.status().state in states, log=log)
        return self.status()

    def runs(self) -> list[str]:
        """What the command wrote at each of its ends."""
        return self.ran.read_text(encoding="utf-8").splitlines() if self.ran.exists() else []

    def recorded(self, name: str) -> str | None:
        pair = self.client.key(self.keys.node(self.node) + name)
        return pair.value if pair else None

    def printed(self) -> str:
        return "".join(pair.value for pair in self.client.keys(self.keys.agent_log(self.node, ID)))

    @property
    def maintenance(self) -> str | None:
        return self.web.reasons()[self.web.name]


@pytest.fixture
def machine(consul: Server, tmp_path: Path) -> Iterator[Machine]:
    one = Machine(consul, tmp_path)
    yield one
    one.crash()


# -- what it does -------------------------------------------------------------------------------------------------


def test_a_request_is_taken_once_and_recorded(machine: Machine) -> None:
    machine.configure('echo "from $DEPLOY_SERVICE"; echo to stderr >&2; echo again')
    request = machine.ask()
    # Asked before it is started: a machine that boots finds what it is asked for.
    machine.start()
    assert request.follow(20).state == DONE
    assert machine.runs() == [f"{NEW} {OLD} deploy"]
    assert (machine.recorded("version"), machine.recorded("previous")) == (NEW, OLD)
    assert machine.maintenance is None
    assert f"from {machine.web.name}\nto stderr\nagain\n" in machine.printed()
    assert [step["state"] for step in machine.status().steps] == [
        *("claimed", "draining", "deploying", "verifying", "returning", "done")
    ]
    # A watch fires at each start and reload, without a change.
    machine.kill()
    assert machine.start("run").wait(20) == 0
    assert machine.runs() == [f"{NEW} {OLD} deploy"]


def test_it_sees_to_it_that_its_key_is_there(machine: Machine) -> None:
    """A watch on a key that is missing fires at each change of any other."""
    machine.start()
    wait_until("its key is there", lambda: machine.recorded("new") == "{}")
    assert machine.ask().follow(0.0).state in (WITHDRAWN, DONE)
    wait_until("it is there again", lambda: machine.recorded("new") is not None)


def test_a_failed_command_keeps_it_out_and_a_rollback_brings_it_back(machine: Machine) -> None:
    machine.configure('test "$DEPLOY_REASON" = rollback')
    machine.start()
    failed = machine.ask().follow(20)
    assert (failed.state, failed.touched) == (FAILED, True)
    assert "exited with 1" in failed.message
    assert machine.maintenance == f"deploy:{ID} {machine.web.name}"
    assert machine.recorded("version") is None
    back = machine.ask(OLD, reason="rollback", previous=NEW, remember=None).follow(20)
    assert back.state == DONE
    assert (machine.recorded("version"), machine.recorded("previous")) == (OLD, None)
    assert machine.maintenance is None


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(machine: Machine) -> None:
    child = machine.folder / "child"
    machine.configure(["/bin/sh", "-c", f"sleep 300 & echo $! > {child}; wait"])
    machine.start()
    status = machine.ask(deploy_timeout=1).follow(20)
    assert "ended after 1 s" in status.message
    assert not alive(int(child.read_text(encoding="utf-8")))


def test_a_failing_check_keeps_it_out(machine: Machine) -> None:
    machine.start()
    machine.web.set("critical", "no answer from the database")
    status = machine.ask(healthy_deadline=1).follow(20)
    assert "no answer from the database" in status.message
    assert machine.maintenance is not None


def test_somebody_elses_maintenance_is_left(machine: Machine) -> None:
    machine.web.operator("disk")
    machine.start()
    status = machine.ask().follow(20)
    assert (status.state, status.other_owner, status.touched) == (FAILED, True, False)
    assert machine.maintenance == "disk"
    assert not machine.runs()


def test_a_service_whose_name_differs_in_case_alone_is_not_its_own(machine: Machine) -> None:
    legacy = f"legacy-{machine.web.name}"
    machine.web.server.put("agent/service/register", {"Name": machine.web.name.capitalize(), "ID": legacy})
    machine.web.shown(legacy)
    machine.web.operator("disk", service_id=legacy)
    machine.start()
    assert machine.ask().follow(20).state == DONE
    assert machine.web.reasons() == {machine.web.name: None, legacy: "disk"}


@pytest.mark.parametrize(
    "order",
    [{"version": "2.0.0; touch /tmp/x"}, {"reason": "explode"}, {"drain_time": -1}, {"health_match": "("}],
    ids=["version", "reason", "time", "pattern"],
)
def test_a_request_that_is_not_clean_is_refused(machine: Machine, order: dict[str, Any]) -> None:
    machine.start()
    status = machine.ask(**{"version": NEW, **order}).follow(20)
    assert (status.state, status.touched) == (FAILED, False)
    assert "cannot be used" in status.message
    assert not machine.runs()
    assert machine.maintenance is None


@pytest.mark.parametrize("name", ["drain_time", "deploy_timeout", "healthy_deadline", "scope", "reason", "session"])
def test_a_request_that_lacks_a_value_is_refused(machine: Machine, name: str) -> None:
    """A default of the machine's own would differ one day from that of the rollout."""
    request = machine.ask()
    key = machine.keys.new(machine.node)
    pair = machine.client.key(key)
    assert pair is not None
    wanted = json.loads(pair.value)
    del wanted[name]
    machine.client.set_key(key, json.dumps(wanted))
    machine.start()
    status = request.follow(20)
    assert (status.state, status.touched) == (FAILED, False)
    assert status.message.startswith(f"The request lacks {name}.")
    assert not machine.runs()


def test_a_drain_that_was_interrupted_begins_anew(machine: Machine) -> None:
    """In rotation it got new requests: all of them have their whole time to end."""
    machine.start()
    request = machine.ask(drain_time=3)
    machine.reaches("draining")
    wait_until("it is in maintenance", lambda: machine.maintenance is not None)
    time.sleep(1.5)
    ended = time.monotonic()
    machine.web.server.put(f"agent/service/maintenance/{machine.web.name}?enable=false")
    machine.reaches("deploying", "verifying", "returning", DONE)
    assert time.monotonic() - ended >= 3
    assert request.follow(20).state == DONE
    assert "something else ended its maintenance" in machine.printed()


def test_an_abort_ends_a_drain_at_once(machine: Machine) -> None:
    """Also one that came before; a word that is none, and the drain of a rollback, go on."""
    machine.start()
    request = machine.ask(drain_time=60)
    machine.reaches("draining")
    key = machine.keys.control
    machine.client.set_key(key, '{"word": "stop"}')
    time.sleep(0.5)
    assert machine.status().state == "draining"
    machine.client.set_key(key, '{"word": "abort", "by": "anna"}')
    status = request.follow(20)
    assert (status.state, status.touched) == (FAILED, False)
    assert "An operator has aborted the rollout." in status.message
    assert machine.maintenance is None
    assert not machine.runs()
    assert machine.ask(drain_time=1, reason="rollback", version="1.0.0").follow(20).state == DONE


@pytest.mark.parametrize("value", ['{"a":' * 50_000 + "1" + "}" * 50_000, "[" * 100_000, "1" * 5000, "\udc00", "[]"])
@pytest.mark.parametrize("name", ["new", "status"])
def test_nothing_that_stands_in_a_key_ends_it(machine: Machine, name: str, value: str) -> None:
    agent = machine.start()
    wait_until("it watches", lambda: machine.recorded("new") == "{}")
    machine.web.server.put(f"kv/{machine.keys.node(machine.node)}{name}", value.encode("utf-8", "replace"))
    time.sleep(0.5)
    assert machine.ask().follow(20).state == DONE
    assert agent.poll() is None


@pytest.mark.parametrize(
    "status",
    [{"steps": 5}, {"steps": ["x"], "state": "claimed"}, {"deployment": None}, {"state": ["requested"]}, {"state": {}}],
)
def test_no_status_ends_it(machine: Machine, status: dict[str, Any]) -> None:
    agent = machine.start()
    wait_until("it watches", lambda: machine.recorded("new") == "{}")
    request = machine.ask()
    strange = {"request": request.id, "state": "requested", "deployment": ID, **status}
    machine.client.set_key(machine.keys.status(machine.node), json.dumps(strange))
    time.sleep(1.0)
    assert machine.ask().follow(20).state == DONE
    assert agent.poll() is None


def test_it_asks_no_machine_but_its_own(machine: Machine) -> None:
    """The URL comes from a key: it must not make a machine ask what others cannot reach."""
    machine.start()
    status = machine.ask(health_url="http://169.254.169.254/latest/meta-data").follow(20)
    assert "not at an address of this machine" in status.message


def test_a_redirect_is_not_health(machine: Machine) -> None:
    def answer(asked: Asked) -> Reply:
        return Reply(200, "log in") if asked.path == "/login" else Reply(302, "", {"Location": "/login"})

    machine.start()
    with HttpServer(answer=answer, address=machine.web.server.address) as application:
        status = machine.ask(health_url=application.url, health_match="log in", healthy_deadline=1).follow(20)
    assert status.state == FAILED
    assert status.message.endswith("within 1 s: it redirects to /login.")


def test_the_age_of_a_result_counts_for_a_check_of_the_node_too(machine: Machine) -> None:
    """It still passes for the old process, and finds the new one broken at its next run."""
    server = machine.web.server
    answers = {"status": 200}

    def status_of_app() -> str | None:
        checks = server.get(f"health/node/{machine.node}")
        return next((one["Status"] for one in checks if one["CheckID"] == "app"), None)

    with HttpServer(answer=lambda _asked: Reply(answers["status"]), address=server.address) as application:
        check = {"ID": "app", "Name": "app", "HTTP": application.url, "Interval": "3s", "Timeout": "1s"}
        server.put("agent/check/register", check)
        try:
            wait_until("it passes", lambda: status_of_app() == "passing")
            answers["status"] = 500
            machine.start()
            # Where Consul tells the interval, that counts, and not what is assumed.
            assumed = 5 if server.version < (1, 20) else 0
            status = machine.ask(check_interval=assumed, healthy_deadline=0.5).follow(30)
        finally:
            server.put("agent/check/deregister/app")
    assert status.state == FAILED
    assert "app is critical" in status.message
    assert machine.maintenance is not None


# -- killed, at each step -----------------------------------------------------------------------------------------


def kill_at(machine: Machine, step: str) -> None:
    """As soon as Consul shows the step."""
    machine.start()
    machine.reaches(step)
    machine.kill()


def test_killed_while_draining_it_goes_on(machine: Machine) -> None:
    request = machine.ask(drain_time=2)
    kill_at(machine, "draining")
    assert not machine.runs()
    machine.start()
    assert request.follow(20).state == DONE
    assert len(machine.runs()) == 1


def test_killed_while_the_command_runs_it_takes_its_result(machine: Machine) -> None:
    """The command outlives its agent, and the next one waits for it: nothing runs twice, nothing is cut in half."""
    machine.configure("echo begun; sleep 3; echo ended")
    request = machine.ask()
    machine.start()
    wait_until("the command runs", lambda: "begun\n" in machine.printed())
    machine.kill()
    machine.start()
    assert request.follow(20).state == DONE
    assert len(machine.runs()) == 1
    assert "ended\n" in machine.printed()


def test_killed_while_verifying_it_goes_on(machine: Machine) -> None:
    machine.web.set("critical")
    request = machine.ask(healthy_deadline=30)
    kill_at(machine, "verifying")
    machine.web.set("passing")
    machine.start()
    assert request.follow(20).state == DONE
    assert len(machine.runs()) == 1
    assert machine.maintenance is None


def test_killed_while_returning_it_goes_on(machine: Machine) -> None:
    """It takes some hundredths of a second: killed so soon, it has ended only sometimes, and either way ends well."""
    agent = machine.start()
    request = machine.ask()

    def kill(status: Status) -> None:
        if status.state == "returning":
            agent.kill()
            agent.wait()
            machine.start()

    assert request.follow(20, kill).state == DONE
    assert agent.returncode == -signal.SIGKILL
    assert len(machine.runs()) == 1
    assert machine.recorded("version") == NEW
    assert machine.maintenance is None


def test_a_crash_while_the_command_runs_is_told_and_nothing_runs_again(machine: Machine) -> None:
    machine.configure("sleep 60")
    request = machine.ask()
    machine.start()
    machine.reaches("deploying")
    wait_until("the command runs", lambda: bool(list((machine.folder / "state").glob("*/process.json"))))
    machine.crash()
    machine.start()
    status = request.follow(20)
    assert (status.state, status.touched) == (FAILED, True)
    assert "Interrupted" in status.message
    assert machine.maintenance == f"deploy:{ID} {machine.web.name}"
    assert not machine.runs()
    machine.configure()
    assert machine.ask(OLD, reason="rollback", remember=None).follow(20).state == DONE


def test_a_machine_that_lost_its_files_says_so(machine: Machine) -> None:
    machine.configure("sleep 60")
    request = machine.ask()
    machine.start()
    machine.reaches("deploying")
    machine.crash()
    for file in (machine.folder / "state").glob("*/*.json"):
        file.unlink()
    machine.start()
    assert "not known any more" in request.follow(20).message


def test_a_watch_starts_a_killed_one_again_by_itself(machine: Machine) -> None:
    """`consul watch` would start nobody before the key changes."""
    request = machine.ask(drain_time=3)
    machine.start("run")
    machine.reaches("draining")
    mine = machine.agent.pid if machine.agent else 0
    (child,) = (pid for pid in processes(str(PROGRAM), "run", str(machine.config)) if pid != mine)
    end(child)
    assert request.follow(20).state == DONE
    assert len(machine.runs()) == 1


def test_a_restart_runs_its_own_command_and_records_no_version(machine: Machine) -> None:
    """Also where no version is recorded; what an earlier deployment left open about it stays open."""
    machine.configure(restart_command=f'echo "restarted $DEPLOY_REASON $DEPLOY_VERSION" >> {machine.ran}')
    machine.start()
    order = {"version": None, "reason": "restart", "remember": None, "previous": ""}
    assert machine.ask(**order).follow(20).state == DONE
    assert machine.runs() == ["restarted restart "]
    assert (machine.recorded("version"), machine.recorded("previous")) == (None, None)
    assert read_version(machine.client, machine.keys, machine.node).version_is_trusted
    machine.client.set_key(machine.keys.status(machine.node), '{"deployment": "d0", "state": "deploying"}')
    assert machine.ask(**order).follow(20).state == DONE
    assert not read_version(machine.client, machine.keys, machine.node).version_is_trusted


def test_a_restart_that_fails_holds_the_machine_and_leaves_its_version_known(machine: Machine) -> None:
    machine.configure(restart_command="exit 5", success_codes=[0, 5])
    machine.start()
    failed = machine.ask(None, reason="restart", remember=None, previous="").follow(20)
    assert (failed.state, failed.message) == (FAILED, "The restart command exited with 5.")
    assert machine.web.reasons() == {machine.web.name: f"deploy:{ID} {machine.web.name}"}
    assert read_version(machine.client, machine.keys, machine.node).version_is_trusted


def test_recovered_it_runs_nothing_and_tells_which_version_answers(machine: Machine) -> None:
    machine.configure("sleep 2")
    machine.start()
    machine.ask()
    machine.reaches("deploying")
    order = {"version": None, "reason": "recover", "remember": None, "health_match": '"version": "(1|2).0.0"'}
    with HttpServer(Reply(200, '{"version": "2.0.0", "pid": 7}'), address=machine.web.server.address) as application:
        recovered = machine.ask(**order, health_url=application.url).follow(20)
    assert (recovered.state, recovered.answer) == (DONE, '"version": "2.0.0"')
    assert machine.runs() == [f"{NEW} {OLD} deploy"], "it waits for the command, and runs none"
    assert machine.maintenance is None
    assert machine.recorded("version") is None


@pytest.mark.slow
def test_an_event_wakes_it(machine: Machine) -> None:
    """By `consul watch`, as the role's unit runs it; nobody watches the key here."""
    server = machine.web.server
    program = [sys.executable, "-I", str(PROGRAM), "run", str(machine.config)]
    by_event = ["-shell=false", "-type=event", "-name=hitless-deploy", f"-http-addr={server.url}"]
    with subprocess.Popen([server.binary, "watch", *by_event, *program]) as watch:
        try:
            time.sleep(2)  # at its start it runs the program once
            request = machine.ask()
            time.sleep(2)
            assert machine.status().state == "requested"
            request.fire_event()
            assert request.follow(20).state == DONE
        finally:
            watch.kill()


# -- taken, withdrawn, overtaken ----------------------------------------------------------------------------------


def test_a_request_that_nobody_takes_is_withdrawn_for_good(machine: Machine) -> None:
    request = machine.ask()
    status = request.follow(0.5)
    assert (status.state, status.steps[-1]["state"]) == (WITHDRAWN, WITHDRAWN)
    assert machine.start("run").wait(20) == 0
    assert not machine.runs()
    assert machine.status().state == WITHDRAWN


def test_either_taken_or_withdrawn(machine: Machine) -> None:
    """Both at once, again and again: what was withdrawn never runs, what was taken always does."""
    machine.start()
    for number in range(12):
        before = len(machine.runs())
        request = machine.ask(f"2.0.{number}")
        time.sleep(number * 0.01)
        seen = machine.status()
        withdrawn = seen.is_open and request.end(seen, WITHDRAWN, "too late")
        if not withdrawn:
            assert request.follow(20).state == DONE
        time.sleep(0.3)
        assert len(machine.runs()) == before + (not withdrawn)


def test_the_request_of_an_interrupted_run_is_not_taken(machine: Machine) -> None:
    """Nobody would watch it, and another run may begin at any time."""
    machine.ask()
    machine.web.server.put(f"session/destroy/{machine.session}")
    assert machine.start("run").wait(20) == 0
    assert not machine.runs()
    assert machine.maintenance is None


def test_of_two_in_quick_succession_the_last_counts(machine: Machine) -> None:
    machine.start()
    first = machine.ask("2.0.1", drain_time=1)
    machine.reaches("draining")
    second = machine.ask("2.0.2")
    with pytest.raises(LockLost, match="Somebody else has asked"):
        first.follow(20)
    assert second.follow(20).state == DONE
    assert [line.split()[0] for line in machine.runs()] == ["2.0.2"]
    assert machine.recorded("version") == "2.0.2"


def test_a_newer_request_waits_for_the_command_of_the_older(machine: Machine) -> None:
    machine.configure('test "$DEPLOY_VERSION" = 2.0.2 || sleep 6')
    machine.start()
    machine.ask("2.0.1")
    machine.reaches("deploying")
    second = machine.ask("2.0.2")
    trusted: dict[str, bool] = {}

    def see(status: Status) -> None:
        there = read_version(machine.client, machine.keys, machine.node)
        trusted[status.state] = there.version_is_trusted

    # Sooner than the command ends; that it is told to wait keeps it from being withdrawn.
    assert second.follow(5, see).state == DONE
    assert (trusted[WAITING], trusted[DONE]) == (False, True), "the older one had been cut off"
    assert [line.split()[0] for line in machine.runs()] == ["2.0.1", "2.0.2"]
    assert machine.recorded("version") == "2.0.2"


def test_one_that_was_abandoned_stops_at_its_next_step(machine: Machine) -> None:
    machine.configure("sleep 2")
    machine.start()
    request = machine.ask()
    seen = machine.reaches("deploying")
    assert request.end(seen, ABANDONED, "out of sight")
    wait_until("it has let go", lambda: "left as it is" in (machine.folder / "log").read_text(encoding="utf-8"))
    assert machine.maintenance == f"deploy:{ID} {machine.web.name}"
    assert machine.recorded("version") is None
    assert machine.status().state == ABANDONED


def test_one_deployment_at_a_time_on_a_machine(machine: Machine, consul: Server, tmp_path: Path) -> None:
    """By option, of all services: puppet and apt are host-wide."""
    other = Machine(consul, tmp_path / "other")
    noted = tmp_path / "noted"
    for one in (machine, other):
        one.configure(f"echo begin >> {noted}; sleep 1; echo end >> {noted}", exclusive="machine")
        one.start()
    requests = [one.ask() for one in (machine, other)]
    assert [request.follow(20).state for request in requests] == [DONE, DONE]
    assert noted.read_text(encoding="utf-8").split() == ["begin", "end", "begin", "end"]
    other.crash()


# -- the log ------------------------------------------------------------------------------------------------------


def test_much_output_is_cut_and_its_end_kept(machine: Machine) -> None:
    machine.configure("seq 1 1500000; echo the last line", log_limit=300_000)
    machine.start()
    assert machine.ask().follow(60).state == DONE
    printed = machine.printed()
    assert 200_000 < len(printed) < 400_000
    assert "\n1\n2\n3\n" in printed
    assert "bytes left out" in printed
    assert "1500000\nthe last line\n" in printed
    chunks = machine.client.keys(machine.keys.agent_log(machine.node, ID))
    assert max(len(chunk.value.encode()) for chunk in chunks) < 200_000


@pytest.mark.parametrize("holes", [True, False], ids=["", "no holes"])
def test_output_that_never_ends_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holes: bool
) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    store = importlib.import_module("hitless_deploy.store")
    monkeypatch.setattr(store, "OUTPUT_TAIL", 1 << 20)
    if not holes:
        monkeypatch.setattr(store, "_PUNCH_HOLE", 1 << 20)
    path = tmp_path / "output"
    with path.open("ab", buffering=0) as output:
        for number in range(40):
            output.write(bytes([65 + number]) * (1 << 20))
            store.bound_output(output, 300_000)
        output.write(b"the end")
    data = path.read_bytes()
    assert data[:300_000] == b"A" * 300_000
    assert data.endswith(b"the end")
    assert path.stat().st_blocks * 512 < 5 << 20
    if holes:
        assert (len(data), data[-(1 << 20) - 7 : -7]) == ((40 << 20) + 7, b"h" * (1 << 20))


def test_binary_output_and_secrets(machine: Machine) -> None:
    secret = "5ecrec7e-7aa5-4b6f-9c1d-7aa5ecrec7e1"
    token_file = machine.folder / "token"
    token_file.write_text(secret, encoding="utf-8")
    line = f"head -c 300000 /dev/urandom; printf 'a\\033[31mred\\033[0m {secret}\\000\\r\\nb'"
    machine.configure(line, token_file=str(token_file))
    machine.start()
    assert machine.ask().follow(60).state == DONE
    printed = machine.printed()
    assert "ared ***\nb" in printed
    assert secret not in printed
    assert not [one for one in printed if one < " " and one not in "\n\t"]


def test_the_token_is_in_no_environment_and_no_argument(machine: Machine) -> None:
    secret = "5ecrec7e-7aa5-4b6f-9c1d-7aa5ecrec7e1"
    token_file = machine.folder / "token"
    token_file.write_text(secret, encoding="utf-8")
    machine.configure("env; cat /proc/self/cmdline", token_file=str(token_file))
    machine.start()
    assert machine.ask().follow(60).state == DONE
    assert "DEPLOY_VERSION=2.0.0" in machine.printed()
    assert "***" not in machine.printed(), "it was there, and taken out"


def test_output_comes_while_the_command_runs(machine: Machine) -> None:
    machine.configure("echo first; sleep 5; echo second")
    machine.start()
    machine.ask()
    wait_until("the first line is there", lambda: "first\n" in machine.printed())
    assert "second" not in machine.printed()
    machine.reaches(DONE)


def test_a_service_that_the_command_starts_keeps_nothing_waiting(machine: Machine) -> None:
    machine.configure(f"sleep 300 & echo $! > {machine.folder / 'service'}")
    machine.start()
    assert machine.ask().follow(20).state == DONE
    service = int((machine.folder / "service").read_text(encoding="utf-8"))
    assert alive(service)
    end(service)


@pytest.fixture
def own_consul() -> Iterator[Server]:
    yield from started(None)


def test_a_consul_that_is_away_does_not_stop_the_command(own_consul: Server, tmp_path: Path) -> None:
    machine = Machine(own_consul, tmp_path)
    machine.configure("echo begun; sleep 2; echo ended")
    machine.start()
    machine.ask()
    machine.reaches("deploying")
    own_consul.kill()
    wait_until("the command has ended", lambda: len(machine.runs()) == 1)
    own_consul.start()
    machine.web.server.put(f"agent/check/update/check-{machine.web.name}", {"Status": "passing"})
    assert machine.reaches(DONE, FAILED).state == DONE
    assert "begun\nended\n" in machine.printed()
    machine.crash()
