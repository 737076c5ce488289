"""What balancer.py reads out of configurations, and what it tells HAProxy. Pure."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.http_server import HttpServer, Reply

SCRIPT = Path(__file__).resolve().parents[4] / "roles" / "consul_load_balancer" / "files" / "balancer.py"

HAPROXY = """
frontend clients
    default_backend web
backend web
    balance roundrobin
    server web1:web 10.0.0.1:8080 weight 1 check
    server web2:web [fd00::2]:8080 weight 1 check
backend api
"""
NGINX = """
http {
    upstream web {
        server 10.0.0.1:8080 weight=1;
        keepalive 32;
    }
    upstream api {
        server 127.0.0.1:9 down;
    }
    server {
        listen *:80;
    }
}
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("balancer", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_servers_of_each_backend(script: ModuleType) -> None:
    assert script.servers(HAPROXY) == {
        "web": {"web1:web": "10.0.0.1:8080 weight 1 check", "web2:web": "[fd00::2]:8080 weight 1 check"},
        "api": {},
    }
    assert script.servers(NGINX) == {"web": {"10.0.0.1:8080": "weight=1;"}, "api": {}}


class Runtime:
    """What HAProxy is told, and its answer."""

    def __init__(self, answer: str = "") -> None:
        self.told: list[str] = []
        self._answer = answer

    def ask(self, _path: str, command: str) -> str:
        self.told.append(command)
        return self._answer


def state(address: str = "10.0.0.1", port: str = "8080", admin: int = 0) -> dict[str, str]:
    return {"srv_addr": address, "srv_port": port, "srv_admin_state": str(admin)}


ONE = {"web": {"web1": "10.0.0.1:8080 weight 1 check"}}


def by_runtime(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, wanted: Any, before: Any, running: Any, answer: str = ""
) -> tuple[bool, list[str]]:
    runtime = Runtime(answer)
    monkeypatch.setattr(script.haproxy, "ask", runtime.ask)
    return script.by_runtime({"socket": ""}, wanted, before, running), runtime.told


@pytest.mark.parametrize(
    ("wanted", "running", "told"),
    [
        (ONE, {"web": {"web1": state()}}, []),
        ({"web": {}}, {"web": {"web1": state()}}, ["set server web/web1 state maint"]),
        ({"web": {}}, {"web": {"web1": state(admin=1)}}, []),
        (
            ONE,
            {"web": {"web1": state(admin=1)}},
            ["set server web/web1 weight 1", "set server web/web1 state ready"],
        ),
        (ONE, {"web": {"web1": state(address="10.0.0.9")}}, ["set server web/web1 addr 10.0.0.1 port 8080"]),
    ],
)
def test_known_servers_leave_and_return_by_the_runtime_api(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, wanted: Any, running: Any, told: list[str]
) -> None:
    assert by_runtime(script, monkeypatch, wanted, ONE, running) == (True, told)


def test_a_new_server_and_other_options_take_a_reload(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_runtime(script, monkeypatch, ONE, {}, {"web": {}}) == (False, [])
    before = {"web": {"web1": "10.0.0.1:8080 weight 1 check inter 5s"}}
    assert by_runtime(script, monkeypatch, ONE, before, {"web": {"web1": state()}}) == (False, [])


def test_what_haproxy_does_not_do_takes_a_reload(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    running = {"web": {"web1": state()}}
    done, _told = by_runtime(script, monkeypatch, {"web": {}}, ONE, running, answer="No such server.")
    assert not done


def test_a_haproxy_that_does_not_run_has_nothing_to_reload(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a container's files are written before it starts."""
    nowhere = str(tmp_path / "nowhere")
    script.reload({"kind": "haproxy", "socket": nowhere, "master": nowhere, "state": nowhere, "config": "/x.cfg"})
    assert "HAProxy does not run; it will start with /x.cfg" in capsys.readouterr().out


def test_services_whose_names_differ_in_case_alone_are_refused(script: ModuleType) -> None:
    """Consul gives the instances of both for either name, by DNS as well."""
    consul = {"datacenter": "", "token": "", "ca_path": "", "client_cert": "", "client_key": ""}

    def told(*names: str) -> list[str]:
        with HttpServer(Reply(body=json.dumps([{"Service": {"Service": name}} for name in names]))) as server:
            settings = {"services": [{"name": "web"}], "consul": {**consul, "url": server.url}}
            problems: list[str] = script.spelled_otherwise(settings)
            return problems

    assert told("web", "web") == told() == []
    (problem,) = told("web", "Web", "WEB")
    assert problem == "Consul also has WEB, Web, and does not tell its instances from those of web: rename one of them"


PROGRAM = """#!{python}
import pathlib, sys, time
text = pathlib.Path(sys.argv[-1]).read_text()
while "slow" in text and not pathlib.Path("{go}").exists():
    time.sleep(0.01)
sys.exit(0 if pathlib.Path(sys.argv[-1]).read_text() == text and "bad" not in text else text)
"""


def test_two_checks_at_once_do_not_meet(script: ModuleType, tmp_path: Path) -> None:
    """consul-template applies while Ansible validates."""
    go, program, config = tmp_path / "go", tmp_path / "program", tmp_path / "haproxy.cfg"
    program.write_text(PROGRAM.format(python=sys.executable, go=go), encoding="utf-8")
    program.chmod(0o755)
    settings = {"kind": "haproxy", "program": str(program), "before": [], "config": str(config)}
    with ThreadPoolExecutor() as pool:
        first = pool.submit(script.check, settings, "slow and good")
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        with pytest.raises(script.Refused, match="haproxy refuses"):
            script.check(settings, "bad")
        go.touch()
        first.result(30)
    assert {one.name for one in tmp_path.iterdir()} == {"go", "program"}


def test_what_is_written_is_there_at_once_and_alone(script: ModuleType, tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    # What a write that was cut off has left must not be in the way of another one.
    (tmp_path / "haproxy.cfg.new").mkdir()
    script.write(str(config), "text")
    assert config.read_text(encoding="utf-8") == "text"
    assert config.stat().st_mode & 0o777 == 0o640


ENTRY: dict[str, Any] = {
    "Node": {"Node": "vm1", "Address": "10.0.0.1"},
    "Service": {"ID": "web", "Service": "web", "Address": "10.0.0.2", "Port": 8080},
    "Checks": [{"CheckID": "web", "Status": "passing"}],
}


def without(*path: str) -> dict[str, Any]:
    """The entry without one field."""
    entry: dict[str, Any] = json.loads(json.dumps(ENTRY))
    inner = entry
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return entry


def consul_says(script: ModuleType, entry: dict[str, Any]) -> tuple[set[str], set[str]]:
    consul = dict.fromkeys(("token", "datacenter", "ca_path", "client_cert", "client_key"), "")
    with HttpServer(Reply(body=json.dumps([entry]))) as server:
        settings = {"warning": False, "consul": {**consul, "url": server.url}}
        found: tuple[set[str], set[str]] = script.instances(settings, {"name": "web"})
    return found


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (("Service", "Address"), "10.0.0.1:8080"),
        (("Service", "Port"), "10.0.0.2:0"),
        (("Node",), "10.0.0.2:8080"),
        (("Checks",), "10.0.0.2:8080"),
    ],
)
def test_a_field_that_consul_leaves_out_is_empty(script: ModuleType, path: tuple[str, ...], address: str) -> None:
    assert consul_says(script, without(*path)) == ({address}, {address})


def test_a_check_without_a_status_does_not_pass(script: ModuleType) -> None:
    assert consul_says(script, {**ENTRY, "Checks": [{"CheckID": "web"}]}) == ({"10.0.0.2:8080"}, set())


def test_an_instance_without_a_port_is_named(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"10.0.0.1:0", "10.0.0.2:8080"}
    monkeypatch.setattr(script, "spelled_otherwise", lambda _settings: [])
    monkeypatch.setattr(script, "instances", lambda _settings, _service: (addresses, addresses))
    monkeypatch.setattr(script, "served", lambda _settings, _name: {"10.0.0.2:8080"})
    for by_traffic in (False, True):
        with pytest.raises(script.Refused) as error:
            script.compare({"services": [{"name": "web"}], "slots": 0}, by_traffic=by_traffic)
        assert str(error.value) == "web: registered without a port, so that no request can be sent there: 10.0.0.1:0"
