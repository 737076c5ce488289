"""What the role consul_load_balancer makes of its options, on real programs: whose request goes where, by TLS too."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab import BinaryError, wait_until
from lab.balancer import METHODS
from lab.binaries import find_consul_template, find_tool
from lab.render import balancer as render
from lab.render import render as render_template
from lab.render import role_variables
from tests.http_server import HttpServer, Reply
from tests.integration.consul_agent import Server, free_ports
from tests.integration.services import ENDS

CHECKOUT = Path(__file__).resolve().parents[2]
ADDRESS = "127.0.35.2"
SERVICES: list[dict[str, Any]] = [
    {"name": "api", "paths": ["/api/", "/v2.0/"]},
    {"name": "shop", "hosts": ["shop.example.net"]},
    {"name": "shop-admin", "hosts": ["shop.example.net", "admin.example.net"], "paths": ["/admin/"], "tag": "blue"},
    {"name": "web", "balance": "leastconn"},
]
ORDER = ["api", "shop-admin", "shop", "web"]


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    """Each service has one instance, which answers with the service's name, and shop-admin one without the tag."""
    with ExitStack() as stack:
        server = Server(None, 200, dns=True)
        stack.callback(server.close)
        server.start()
        for name in (*ORDER, "untagged"):
            instance = stack.enter_context(HttpServer(Reply(body=name)))
            server.put(
                "agent/service/register",
                {
                    "Name": "shop-admin" if name == "untagged" else name,
                    "ID": name,
                    "Address": "127.0.35.1",
                    "Port": instance.port,
                    "Tags": ["blue"] if name == "shop-admin" else [],
                },
            )
        wait_until("they are there", lambda: len(server.get("catalog/services")) == len(ORDER) + 1)
        yield server


class Balancer:
    """One load balancer as the role makes it, in its foreground mode."""

    def __init__(self, consul: Server, method: str, folder: Path, **more: Any) -> None:
        self.kind, _, follows = method.partition("-")
        self.folder, self.by_template = folder, follows == "template"
        self.config = folder / ("haproxy.cfg" if self.kind == "haproxy" else "nginx.conf")
        ports = free_ports(ADDRESS)
        self.url, self.tls = f"http://{ADDRESS}:{ports['http']}", f"https://{ADDRESS}:{ports['server']}"
        self.stats = f"http://{ADDRESS}:{ports['dns']}/"
        options: dict[str, Any] = {
            "method": method,
            "services": sorted(SERVICES, key=lambda one: ORDER.index(one["name"])),
            "bind": [f"{ADDRESS}:{ports['http']}"],
            "stats": f"{ADDRESS}:{ports['dns']}",
            "dns": f"{consul.address}:{consul.ports['dns']}",
            "consul_url": consul.url,
            "run": "foreground",
            "directory": str(folder),
            "program": str(find_tool(self.kind, self.kind)),
            "python": sys.executable,
            **more,
        }
        if self.by_template:
            options["consul_template"] = str(find_consul_template())
        if self.kind == "nginx" and os.geteuid() == 0:
            options["extra_global"] = ["user root;", *options.get("extra_global", [])]
        self.variables = {f"consul_load_balancer_{name}": value for name, value in options.items()}
        template = f"{self.config.name}.j2"
        part = {"haproxy": "backends.cfg", "nginx": "upstreams.conf"}[self.kind]
        self.file = folder / part if options.get("part") == "backends" else self.config
        names = {"balancer.json.j2": (folder / "balancer.json", "600"), "run.j2": (folder / "run", "755")}
        if self.by_template:
            names[template] = (folder / f"{self.config.name}.ctmpl", "640")
            names["follow.j2"] = (folder / "follow", "755")
            names |= {f"{name}.j2": (folder / name, "600") for name in ("consul.hcl", "follow.hcl")}
        else:
            names[template] = (self.file, "640")
        files = {name: (str(path), mode) for name, (path, mode) in names.items()}
        render({"variables": self.variables, "files": files})
        self.is_whole = True
        self._processes: list[subprocess.Popen[bytes]] = []

    def script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-IS", str(self.folder / "balancer.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def check(self) -> subprocess.CompletedProcess[str]:
        """The validation before anything is put in place."""
        if self.by_template:
            return self.script("check-template", str(self.folder / f"{self.config.name}.ctmpl"))
        return self.script("check", str(self.file))

    def __enter__(self) -> Balancer:
        with (self.folder / "log").open("wb") as log:
            for name in ("follow", "run") if self.by_template else ("run",):
                self._processes.append(subprocess.Popen([str(self.folder / name)], stdout=log, stderr=log))
        if self.is_whole:
            wait_until("it serves", lambda: self.script("status").returncode == 0, log=self.folder / "log")
        wait_until("it listens", lambda: self.get("/")[0] == 200, log=self.folder / "log")
        return self

    def __exit__(self, *_error: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(30)

    def get(self, path: str, host: str = "www.example.net", *, tls: bool = False) -> tuple[int, str]:
        """Status and body, 0 where nobody listens."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        request = urllib.request.Request((self.tls if tls else self.url) + path, headers={"Host": host})
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    """A way to follow Consul; NOT RUN where consul-template cannot be had."""
    if request.param.endswith("-template"):
        try:
            find_consul_template()
        except BinaryError as error:
            pytest.skip(f"NOT RUN: {error}")
    return str(request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One PEM file with the certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=www.example.net", "-days", "2"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    whole = folder / "whole.pem"
    whole.write_text((folder / "crt").read_text() + (folder / "key").read_text(), encoding="utf-8")
    return whole


def test_whose_request_it_is(consul: Server, method: str, certificate: Path, tmp_path: Path) -> None:
    tls = free_ports("127.0.35.3")["http"]
    more = {"certificate": str(certificate), "bind_tls": [f"127.0.35.3:{tls}"]}
    with Balancer(consul, method, tmp_path, **more) as balancer:
        balancer.tls = f"https://127.0.35.3:{tls}"
        for path, host, service in (
            ("/", "www.example.net", "web"),
            ("/api", "www.example.net", "web"),
            ("/api/x?y=z", "www.example.net", "api"),
            ("/v2.0/x", "shop.example.net", "api"),
            ("/v2x0/x", "www.example.net", "web"),
            ("/", "SHOP.example.net:8080", "shop"),
            ("/", "shop.example.net.evil", "web"),
            ("/admin/", "shop.example.net", "shop-admin"),
            ("/admin/", "admin.example.net", "shop-admin"),
            ("/admin/", "www.example.net", "web"),
        ):
            assert balancer.get(path, host) == (200, service), (path, host)
        # Only with its tag: two asked after each other would have met both.
        assert {balancer.get("/admin/", "admin.example.net")[1] for _ in range(4)} == {"shop-admin"}
        assert balancer.get("/api/x", tls=True) == (200, "api")
        if balancer.kind == "haproxy":
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{balancer.stats};csv", timeout=10) as answer:
                assert b"\nshop-admin," in answer.read()


OWN = {
    "haproxy": (
        "defaults\n    mode http\n    timeout connect 2s\n    timeout client 9s\n    timeout server 9s\n"
        "frontend mine\n    bind {address}\n    use_backend api if {{ path_beg /api/ }}\n    default_backend web\n"
    ),
    "nginx": (
        "{user}pid {folder}/nginx.pid;\nerror_log stderr;\nevents {{ }}\nhttp {{\n    access_log off;\n{temporary}"
        "    include {folder}/upstreams.conf;\n    server {{\n        listen {address};\n"
        "        location /api/ {{ proxy_pass http://api; }}\n"
        "        location / {{ proxy_pass http://web; }}\n    }}\n}}\n"
    ),
}


def test_a_configuration_of_ones_own_includes_the_backends(consul: Server, method: str, tmp_path: Path) -> None:
    balancer = Balancer(consul, method, tmp_path, part="backends", services=[{"name": "web"}, {"name": "api"}])
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"    {kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    own = OWN[balancer.kind].format(
        address=balancer.url.removeprefix("http://"),
        folder=tmp_path,
        user="user root;\n" if os.geteuid() == 0 else "",
        temporary=temporary,
    )
    balancer.config.write_text(own.replace("upstreams.conf", "other.conf"), encoding="utf-8")
    if balancer.kind == "nginx":
        refused = balancer.check()
        assert refused.returncode == 1
        assert f"does not include {tmp_path}/upstreams.conf" in refused.stderr
    balancer.config.write_text(own, encoding="utf-8")
    checked = balancer.check()
    assert checked.returncode == 0, checked.stderr
    with balancer:
        assert balancer.get("/") == (200, "web")
        assert balancer.get("/api/x") == (200, "api")
        assert balancer.config.read_text(encoding="utf-8") == own


def test_what_is_given_stands_in_the_configuration(consul: Server, method: str, tmp_path: Path) -> None:
    kind = method.partition("-")[0]
    lines = {
        "haproxy": {"extra_global": "maxconn 123", "extra_defaults": "maxconn 122", "extra_frontend": "maxconn 121"},
        "nginx": {
            "extra_global": "timer_resolution 1s;",
            "extra_defaults": "tcp_nopush on;",
            "extra_frontend": "etag off;",
        },
    }[kind]
    extra = {"haproxy": "fullconn 120", "nginx": "zone web 64k;"}[kind]
    more: dict[str, Any] = {name: [line] for name, line in lines.items()}
    services = [{"name": "web", "extra": [extra], "health_path": "/health", "slots": 7}]
    balancer = Balancer(consul, method, tmp_path, services=services, token="a-token", **more)
    checked = balancer.check()
    assert checked.returncode == 0, checked.stderr
    source = tmp_path / f"{balancer.config.name}.ctmpl" if balancer.by_template else balancer.config
    text = source.read_text(encoding="utf-8")
    for line in (*lines.values(), extra):
        assert f" {line}\n" in text or f"\n{line}\n" in text
    if kind == "haproxy":
        assert "option httpchk GET /health" in text
    if method == "haproxy-dns":
        assert "server-template web 1-7 " in text
    if balancer.by_template:
        assert 'token = "a-token"' in (tmp_path / "consul.hcl").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "balancer.json").read_text(encoding="utf-8"))["consul"]["token"] == "a-token"


PROBLEMS = """
import json, sys
from lab import render
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader()
given = json.loads(sys.argv[1])
variables = render.trusted(render.role_variables("consul_load_balancer", given))
templar = render.Templar(loader=render.DataLoader(), variables=variables)
print(json.dumps(templar.template(variables["_consul_load_balancer_problems"])))
"""


def problems(method: str, **service: str) -> list[str]:
    """What the role refuses."""
    given = {"consul_load_balancer_method": method, "consul_load_balancer_services": [{"name": "web"}, service]}
    command = [sys.executable, "-c", PROBLEMS, json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "service", [{"name": "go.micro.api"}, {"name": "web+x"}, {"name": "a b"}, {"name": "web", "tag": "a b"}]
)
def test_what_cannot_be_asked_for_is_refused(method: str, service: dict[str, str]) -> None:
    (problem,) = problems(method, **service)
    assert ("Consul's DNS" if method == "haproxy-dns" else "consul-template") in problem
    assert ("the tag a b: " if "tag" in service else f"a service called {service['name']}: ") in problem


@pytest.mark.parametrize("method", METHODS)
def test_what_can_be_asked_for_is_taken(method: str) -> None:
    assert problems(method, name="Web_1-x", tag="blue_1") == []
    by_dns = method == "haproxy-dns"
    assert problems(method, name="n" * 62) == []
    assert bool(problems(method, name="n" * 63)) == by_dns
    assert bool(problems(method, name="web", tag="v1.0")) == by_dns


def test_every_name_that_is_taken_gets_its_requests(consul: Server, method: str, tmp_path: Path) -> None:
    name, tag = "Web_1-x", "blue_1" if method == "haproxy-dns" else "v1.0:a=b"
    with HttpServer(Reply(body="here")) as instance:
        where = {"Address": "127.0.35.1", "Port": instance.port}
        consul.put("agent/service/register", {"Name": name, "Tags": [tag], **where})
        try:
            with Balancer(consul, method, tmp_path, services=[{"name": name, "tag": tag}]) as balancer:
                assert balancer.get("/") == (200, "here")
        finally:
            consul.put(f"agent/service/deregister/{name}")


@pytest.mark.parametrize("consul_version", ENDS)
def test_an_instance_without_a_port_is_named_and_stops_nobody_else(
    consul_version: str | None, method: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        consul = Server(consul_version, 201, dns=True)
        stack.callback(consul.close)
        consul.start()
        web = stack.enter_context(HttpServer(Reply(body="web")))
        consul.put("agent/service/register", {"Name": "web", "Address": "127.0.35.1", "Port": web.port})
        consul.put("agent/service/register", {"Name": "worker", "Address": "127.0.35.1"})
        wait_until("they are there", lambda: len(consul.get("catalog/services")) == 3)
        services = [{"name": "web"}, {"name": "worker", "paths": ["/worker/"]}]
        balancer = Balancer(consul, method, tmp_path, services=services)
        balancer.is_whole = False
        checked = balancer.check()
        assert checked.returncode == 0, checked.stderr
        with balancer:
            for command in ("slots", "status"):
                said = balancer.script(command)
                sentence = "worker: registered without a port, so that no request can be sent there: 127.0.35.1:0"
                assert (said.returncode, said.stderr.strip()) == (1, f"balancer: {sentence}")
            assert balancer.get("/") == (200, "web")
            assert balancer.get("/worker/")[0] in (502, 503)


def test_what_ones_own_nginx_includes_is_relative_to_its_folder(consul: Server, tmp_path: Path) -> None:
    try:
        find_consul_template()
    except BinaryError as error:
        pytest.skip(f"NOT RUN: {error}")
    own, role = tmp_path / "own", tmp_path / "role"
    own.mkdir()
    role.mkdir()
    config = own / "nginx.conf"
    balancer = Balancer(consul, "nginx-template", role, part="backends", config=str(config), services=[{"name": "web"}])
    address = balancer.url.removeprefix("http://")
    (own / "more.conf").write_text(f"server {{ listen {address}; }}\n", encoding="utf-8")
    config.write_text(
        f"pid {role}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{ include {role}/upstreams.conf; include more.conf; access_log off; }}\n",
        encoding="utf-8",
    )
    checked = balancer.check()
    assert checked.returncode == 0, checked.stderr
    assert {one.name for one in own.iterdir()} == {"more.conf", "nginx.conf"}


def test_the_units_are_what_systemd_takes(method: str, tmp_path: Path) -> None:
    """No systemd runs here: its own verification, with the programs' paths replaced by ones that exist."""
    options = {"method": method, "services": [{"name": "web"}], "program": "/bin/true", "directory": str(tmp_path)}
    variables = role_variables(
        "consul_load_balancer", {f"consul_load_balancer_{name}": value for name, value in options.items()}
    )
    follow = tmp_path / "follow"
    follow.write_text("#!/bin/sh\n", encoding="utf-8")
    follow.chmod(0o755)
    units = {"consul-load-balancer.service": "consul-load-balancer.service.j2"} if method != "haproxy-dns" else {}
    if method.startswith("haproxy"):
        units["haproxy.service"] = "haproxy.service.j2"
    systemd = shutil.which("systemd-analyze")
    if systemd is None:
        pytest.skip("NOT RUN: systemd-analyze is not installed")
    for name, template in units.items():
        text = render_template("consul_load_balancer", template, variables)
        if name == "haproxy.service":
            # Debian's unit, as far as the drop-in changes it.
            text = "[Service]\nType=notify\nExecStart=/bin/true\nExecReload=/bin/true\n" + text
        (tmp_path / name).write_text(text, encoding="utf-8")
        command = [systemd, "verify", "--man=no", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        about = [line for line in done.stderr.splitlines() if str(tmp_path) in line or name in line]
        assert done.returncode == 0, done.stderr
        assert not about, about
