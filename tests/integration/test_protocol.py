"""One protocol, told twice: the steps of push mode and the deploy agent of a machine keep the same rules.

The rules are compared value by value; the turns are run by both on a real Consul, and have to take the same states, as
the table of a host's states has them, and to end the same.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import maintenance
from ansible_collections.hitless.consul.plugins.module_utils._consul.durations import seconds_of
from ansible_collections.hitless.consul.plugins.module_utils._consul.health import (
    freshness,
    parse_instances,
    read_instances,
)
from ansible_collections.hitless.consul.plugins.module_utils._consul.kv import json_object
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import ON_HOST, Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import states
from ansible_collections.hitless.consul.plugins.module_utils._rollout.agent_turn import deploy_by_agent
from ansible_collections.hitless.consul.plugins.module_utils._rollout.host import HostDeployment
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import (
    checked_name,
    checked_version,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.outcome import Outcome
from ansible_collections.hitless.consul.plugins.module_utils._rollout.states import (
    DEFERRED,
    DEPLOYING,
    DRAINING,
    FAILED,
    OK,
    PENDING,
    RETURNING,
    ROLLED_BACK,
    ROLLING_BACK,
    SKIPPED,
    UNTOUCHED,
    VERIFYING,
)
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import read_version
from lab import wait_until
from lab.deploy_agent import PROGRAM
from tests.http_server import Asked, HttpServer, Reply
from tests.integration.consul_agent import Server
from tests.integration.test_deploy_agent import ID, NEW, OLD, Machine

BEFORE = "deploy:20251123T142233Z-1.4.1-aaaa"


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module of the deploy agent by its name."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    return lambda name: importlib.import_module(f"hitless_deploy.{name}")


# -- what is one file ---------------------------------------------------------------------------------------------


def test_the_agent_runs_the_programs_that_push_mode_sends() -> None:
    for path in sorted((PROGRAM / "programs").glob("*.py")):
        sent = importlib.import_module(f"{ON_HOST}{path.stem}" if path.stem != "__init__" else ON_HOST.rstrip("."))
        assert path.read_text(encoding="utf-8") == Path(str(sent.__file__)).read_text(encoding="utf-8"), path.name


OLD_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.[6-9].*/bin/python"))


@pytest.mark.parametrize("python", [*map(str, OLD_PYTHONS[:1]), sys.executable])
def test_it_starts_with_an_old_python(python: str, tmp_path: Path) -> None:
    config = {"service": "web", "node": "web1", "command": "true", "state_directory": str(tmp_path)}
    (tmp_path / "web.json").write_text(json.dumps(config), encoding="utf-8")
    done = subprocess.run(
        [python, "-I", "-B", PROGRAM, "check", tmp_path / "web.json"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- rules, value by value ----------------------------------------------------------------------------------------


def takes(check: Callable[..., object], *arguments: object) -> bool:
    try:
        check(*arguments)
    except HitlessError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("web", True),
        ("web-1.internal_x", True),
        ("..web", False),
        ("a..b", False),
        (".", False),
        ("..", False),
        ("", False),
    ]
    + [(name, False) for name in ("a b", "a/b", "web\n", "wéb", "a:b", "{{ x }}", "$(id)")],
)
def test_names(agents: Callable[[str], ModuleType], name: str, good: bool) -> None:
    assert takes(checked_name, name, "service") is good
    assert agents("config").is_name(name) is good


@pytest.mark.parametrize(
    ("version", "good"),
    [("1.10", True), ("1:2.0~rc1+b3-4_x@y", True), ("a" * 128, True), ("a" * 129, False), ("", False), (1.1, False)]
    + [(version, False) for version in ("1.0 0", "1.0\n", "1;id", "$(id)", "release/1", "é", None, ["1"])],
)
def test_versions(agents: Callable[[str], ModuleType], version: object, good: bool) -> None:
    assert takes(checked_version, version) is good
    assert agents("config").is_version(version) is good


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("1h", 3600),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("5ns", 5e-9),
        ("", 0),
        (None, 0),
        (0, 0),
        (1_500_000_000, 1.5),
        ("nonsense", 0),
    ],
)
def test_durations(agents: Callable[[str], ModuleType], duration: object, seconds: float) -> None:
    assert seconds_of(duration) == pytest.approx(seconds)
    assert agents("checks").seconds_of(duration) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "data"),
    [('{"a": 1}', {"a": 1}), ("{}", {})]
    + [(text, None) for text in ("", "null", "[1]", '"x"', "1", "{", "\x00", "1" * 5000)]
    + [("[" * 100_000, None), ('{"a":' * 100_000, None), ('{"a":' * 50_000 + "1" + "}" * 50_000, None)],
    ids=lambda value: str(value)[:12],
)
def test_the_json_of_a_key(agents: Callable[[str], ModuleType], text: str, data: dict[str, Any] | None) -> None:
    assert json_object(text) == data
    assert agents("consul").parsed((text, 7)) == (data or {}, 7)


@pytest.mark.parametrize(
    ("reason", "ours"),
    [(f"deploy:{ID} web", True), (f"{BEFORE} web", True)]
    + [(f"deploy:{ID} {service}", False) for service in ("web2", "api", "web x", "web\n", "")]
    + [(reason, False) for reason in ("", "disk", "deploy:", "redeploy:x web", f" deploy:{ID} web")],
)
def test_whose_maintenance_it_is(agents: Callable[[str], ModuleType], reason: str, ours: bool) -> None:
    turn = agents("turn").Turn.__new__(agents("turn").Turn)
    turn.config = {"service": "web"}
    assert maintenance.set_by_deployment_of("web")(reason) is ours
    assert turn.is_ours(reason) is ours
    assert turn.may_end(reason) is ours


@pytest.mark.parametrize("pattern", ["(", "a" * 1001, "(" * 900 + ")" * 900, "a{99999999999999999999}", 5, None])
def test_patterns_that_cannot_be_used(agents: Callable[[str], ModuleType], pattern: Any) -> None:
    assert not agents("config").is_pattern(pattern)
    with HttpServer(Reply(200, "a")) as application:
        asked = {"url": application.url, "match": pattern, "deadline": 0, "interval": 1, "timeout": 5, "stable_for": 0}
        assert Host(None).call("probe", asked)["ok"] is (pattern is None)


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;u\x1b\\x", "x"),
        ("a\x07\x00\x7f\x9bb", "ab"),
        ("a\r\nb\rc\td", "a\nb\nc\td"),
        ("é ü", "é ü"),
        ("\x1bM\x1bcx", "cx"),
    ],
)
def test_control_characters(agents: Callable[[str], ModuleType], raw: str, plain: str) -> None:
    callback = importlib.import_module("ansible_collections.hitless.consul.plugins.callback.deployment_log")
    writer = callback.CallbackModule.__new__(callback.CallbackModule)
    writer._secrets = []
    assert writer._clean(raw) == plain
    assert agents("log").clean(raw.encode(), []) == plain


# -- how long a result may be of the process before ---------------------------------------------------------------

HTTP = {"HTTP": "http://127.0.0.1:1/", "Interval": "7s", "Timeout": "2s"}
TTL = {"TTL": "60s", "Status": "passing"}
SLOW = {"HTTP": "http://127.0.0.1:1/", "Interval": "1m"}


@pytest.mark.parametrize("interval", [3.0, 30.0])
@pytest.mark.parametrize(
    ("own", "node"),
    [([], []), ([HTTP], []), ([TTL], []), ([HTTP, TTL], []), ([HTTP, SLOW], []), ([], [SLOW]), ([HTTP], [TTL])],
    ids=["none", "http", "ttl", "http and ttl", "two", "the node's", "the node's ttl"],
)
def test_freshness(
    agents: Callable[[str], ModuleType],
    consul: Server,
    tmp_path: Path,
    own: list[Any],
    node: list[Any],
    interval: float,
) -> None:
    machine = Machine(consul, tmp_path)
    web = machine.web
    checks = [{**one, "CheckID": f"{web.name}-{number}", "Name": "x"} for number, one in enumerate(own)]
    of_node = [{**one, "ID": f"{web.name}-node-{number}", "Name": "x"} for number, one in enumerate(node)]
    web.deregister()
    consul.put("agent/service/register", {"Name": web.name, "ID": web.name, "Checks": checks})
    for one in of_node:
        consul.put("agent/check/register", one)
    wanted = len(own) + len(of_node) + 1
    try:
        wait_until("they are shown", lambda: sum(len(one["Checks"]) for one in web.entries()) == wanted)
        turn = agents("turn").Turn.__new__(agents("turn").Turn)
        turn.config = agents("config").read_config(str(machine.config))
        turn.consul = agents("consul").Consul(turn.config)
        turn.request = {"tags": [], "scope": ["service"], "check_interval": interval}
        entries = read_instances(web.client(), web.name, web.node)[0]
        told = turn.freshness()
        assert told == freshness(entries, interval)
        assert parse_instances(web.entries()) == entries
    finally:
        for one in of_node:
            consul.put(f"agent/check/deregister/{one['ID']}")
    if consul.version < (1, 20):
        assert told == (interval if own or node else 0)
    else:
        assumed = [interval for one in (*own, *node) if one is TTL]
        known = [9.0 for one in own if one is HTTP] + [70.0 for one in (*own, *node) if one is SLOW]
        assert told == max([*assumed, *known], default=0)


# -- whole turns --------------------------------------------------------------------------------------------------


DEPLOY = (DRAINING, DEPLOYING, VERIFYING, RETURNING)


@dataclass
class Case:
    """What both have to do alike.

    :param outcome: of the host, with ``rollout_rollback: none`` where ``rollback`` is not set.
    :param said: a pattern of the error that is recorded.
    :param left: the reason of the maintenance that is left; ``ours`` is this deployment's.
    :param taken: the states that the host takes before its outcome.
    :param runs: of the deployment command, as far as it comes to its end: version, previous version and reason.
    :param prepare: is called before the turn, ``meanwhile`` while the command runs, which waits for it.
    """

    outcome: str
    said: str = ""
    left: str | None = None
    taken: tuple[str, ...] = DEPLOY
    runs: tuple[str, ...] = (f"{NEW} {OLD} deploy",)
    prepare: Callable[[Machine], object] = lambda machine: None
    meanwhile: Callable[[Machine], object] = lambda machine: None
    command: str = "true"
    answer: Callable[[Asked], Reply] | None = None
    health_match: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def touched(self) -> bool:
        """Whether the deployment may have changed the host."""
        return DEPLOYING in self.taken

    @property
    def recorded(self) -> tuple[str | None, str | None]:
        """The version that is recorded in the end, and the one before."""
        return {OK: (NEW, OLD), ROLLED_BACK: (OLD, None)}.get(self.outcome, (None, None))


def end_maintenance(machine: Machine) -> None:
    machine.web.server.put(f"agent/service/maintenance/{machine.web.name}?enable=false")
    put_back(machine)


def register_anew(machine: Machine) -> None:
    machine.web.deregister()
    machine.web.register()
    put_back(machine)


def put_back(machine: Machine) -> None:
    """While the command runs on: whoever waits for its end is too late."""
    wait_until("it is put back", lambda: machine.maintenance == ours(machine), seconds=10)


def ours(machine: Machine) -> str:
    return f"deploy:{ID} {machine.web.name}"


def take_out_node(machine: Machine) -> None:
    machine.web.server.put("agent/maintenance?enable=true&reason=kernel")
    wait_until("the catalog shows it", lambda: machine.web.node_reason() == "kernel")


def all_fail(machine: Machine) -> None:
    machine.web.set("critical", "no database")
    machine.web.beside("critical")


def login(asked: Asked) -> Reply:
    return Reply(200, "log in") if asked.path == "/login" else Reply(302, "", {"Location": "/login"})


CASES = {
    "goes well": Case(OK),
    "a health URL that answers": Case(OK, answer=lambda asked: Reply(200, NEW), health_match=NEW),
    "an operator's maintenance": Case(
        SKIPPED,
        "set by someone else .reason: disk.",
        "disk",
        (DRAINING,),
        (),
        lambda machine: machine.web.operator("disk"),
    ),
    "an operator's maintenance of the whole node": Case(
        SKIPPED, "set by someone else .reason: kernel.", None, (DRAINING,), (), take_out_node
    ),
    "another service's deployment": Case(
        SKIPPED,
        f"set by someone else .reason: {BEFORE} api.",
        f"{BEFORE} api",
        (DRAINING,),
        (),
        lambda machine: machine.web.operator(f"{BEFORE} api"),
    ),
    "an earlier deployment's maintenance": Case(
        OK, prepare=lambda machine: machine.web.operator(f"{BEFORE} {machine.web.name}")
    ),
    "not registered": Case(
        UNTOUCHED, "No instance of", None, (DRAINING,), (), lambda machine: machine.web.deregister()
    ),
    "the maintenance ends while the command runs": Case(OK, meanwhile=end_maintenance),
    "the application registers itself while the command runs": Case(OK, meanwhile=register_anew),
    "the command fails": Case(FAILED, "exited with 3", "ours", DEPLOY[:2], command="exit 3"),
    "the command takes too long": Case(
        FAILED, "ended after 1 s", "ours", DEPLOY[:2], (), command="sleep 60", options={"deploy_timeout": 1}
    ),
    "a redirect": Case(FAILED, "it redirects to /login", "ours", DEPLOY[:3], answer=login, health_match="log in"),
    "an error": Case(FAILED, "it answered 500", "ours", DEPLOY[:3], answer=lambda asked: Reply(500)),
    "the old version answers": Case(
        FAILED, "does not match '2'", "ours", DEPLOY[:3], answer=lambda asked: Reply(200, OLD), health_match="2"
    ),
    "a pattern that takes ages": Case(
        FAILED,
        "takes more than 1 s",
        "ours",
        DEPLOY[:3],
        answer=lambda asked: Reply(200, "a" * 40 + "!"),
        health_match="(a+)+$",
    ),
    "a check that fails": Case(
        FAILED, "no database", "ours", DEPLOY[:3], prepare=lambda machine: machine.web.set("critical", "no database")
    ),
    "a check that warns": Case(
        FAILED, "warning", "ours", DEPLOY[:3], prepare=lambda machine: machine.web.set("warning")
    ),
    "a check that may warn": Case(
        OK, prepare=lambda machine: machine.web.set("warning"), options={"accept_warning": True}
    ),
    "the command fails, and is rolled back": Case(
        ROLLED_BACK,
        "exited with 3",
        None,
        (*DEPLOY[:2], ROLLING_BACK, *DEPLOY),
        (f"{NEW} {OLD} deploy", f"{OLD} {NEW} rollback"),
        command='test "$DEPLOY_REASON" = rollback || exit 3',
        options={"rollback": "host"},
    ),
    "what all instances depend on is away": Case(
        DEFERRED,
        "no database.*the other instance fails alike.*until its turn comes again",
        "ours",
        DEPLOY[:3],
        prepare=all_fail,
        options={"rollback": "host", "watch_grace": 0.2},
    ),
    "the rollback fails too": Case(
        FAILED,
        "exited with 3.*The rollback failed too.*exited with 3",
        "ours",
        (*DEPLOY[:2], ROLLING_BACK, *DEPLOY[:2]),
        (f"{NEW} {OLD} deploy", f"{OLD} {NEW} rollback"),
        command="exit 3",
        options={"rollback": "host"},
    ),
}


def push(host: HostDeployment, command: str, url: str, match: str) -> None:
    host.drain()
    host.deploy(command)
    _result, seen = host.verify(url, match)
    host.return_to_rotation(seen)


def agent(host: HostDeployment, _command: str, url: str, match: str) -> None:
    deploy_by_agent(host, url, match)


Turn = Callable[[HostDeployment, str, str, str], None]


def whole_turn(take: Turn, host: HostDeployment, *about: str) -> None:
    """A host's turn as the role has it taken, its rollback too."""
    for _direction in ("deploy", "rollback"):
        try:
            take(host, *about)
        except HitlessError as error:
            host.on_failure({"msg": str(error), **error.details}, "")
        if host.turn.decision != states.ROLL_BACK:
            return


def taken(outcome: Outcome) -> tuple[str, ...]:
    """The states of a host before its outcome; the deploy agent's own are those of its request."""
    ends = {"done", "failed", outcome.outcome}
    names = [step["state"] for step in outcome.steps]
    assert names[-1] in ends
    return tuple(name for name in names if name not in {"requested", "waiting", "claimed", *ends})


def require_table(outcome: Outcome) -> None:
    """Each of its states follows from the one before, as the table of states has it."""
    state = PENDING
    for name in (*taken(outcome), outcome.outcome):
        after = ROLLING_BACK if state == ROLLING_BACK and name in DEPLOY else name
        states.require_transition(state, after)
        state = after


@pytest.mark.parametrize("mode", ["push", "agent"])
@pytest.mark.parametrize("name", CASES)
def test_a_turn(consul: Server, tmp_path: Path, mode: str, name: str) -> None:
    case = CASES[name]
    machine = Machine(consul, tmp_path)
    up, go = tmp_path / "up", tmp_path / "go"
    machine.configure(f"touch {up}; while [ ! -e {go} ]; do sleep 0.02; done; ( {case.command} )")
    command = json.loads(machine.config.read_text(encoding="utf-8"))["command"]
    options = {"deploy_timeout": 60, "healthy_deadline": 2, "rollback": "none", **case.options}
    run = machine.web.rollout(ID, session=machine.session, mode=mode, **options)
    host = machine.web.host(run, from_version=OLD, to_version=NEW, rollback_to=OLD)
    problems: list[BaseException] = []

    def beside() -> None:
        try:
            wait_until("the command runs", up.exists, seconds=20)
            case.meanwhile(machine)
        except BaseException as problem:
            problems.append(problem)
        finally:
            go.touch()

    case.prepare(machine)
    watcher = threading.Thread(target=beside, daemon=True)
    if case.touched:
        watcher.start()
    try:
        if mode == "agent":
            machine.start()
        with HttpServer(answer=case.answer, address=consul.address) as application:
            url = application.url if case.answer else ""
            whole_turn(agent if mode == "agent" else push, host, command, url, case.health_match)
        if case.touched:
            watcher.join(30)
        left = machine.web.reasons().get(machine.web.name)
    finally:
        machine.crash()
        consul.put("agent/maintenance?enable=false")
        wait_until("the node is in rotation", lambda: machine.web.node_reason() is None)
    assert not problems
    found = machine.client.key(machine.keys.outcome(ID, machine.node))
    assert found is not None
    ended = Outcome.from_json(found.value, machine.node)
    assert ended.outcome == case.outcome, ended.error
    assert (taken(ended), up.exists()) == (case.taken, case.touched)
    require_table(ended)
    assert re.search(case.said, ended.error) if case.said else not ended.error
    assert left == (ours(machine) if case.left == "ours" else case.left)
    assert tuple(machine.runs()) == case.runs
    there = read_version(machine.client, machine.keys, machine.node)
    assert (there.version, there.previous) == case.recorded
    assert there.version_is_trusted is (case.outcome not in (FAILED, DEFERRED))
