"""The relay to a host's own Python, through a shell that behaves as login shells do."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._errors import (
    ConsulError,
    ConsulUnavailable,
    HitlessError,
    HostLost,
)
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import (
    _CANDIDATES,
    Host,
    HostTransport,
    program_text,
)
from tests.http_server import HttpServer, Reply, nobody
from tests.shell import in_a_shell

pytestmark = pytest.mark.oldest

SECRET = "not-for-anybody"
NO_TLS = {"ca_path": None, "client_cert": None, "client_key": None, "validate_certs": True}


class Shell:
    """What a connection plugin does with a command line and its standard input; keeps what it was given."""

    def __init__(self, before: str = "", after: str = "", environment: Mapping[str, str] | None = None) -> None:
        self.before, self.after, self.environment = before, after, environment
        self.commands: list[str] = []

    def __call__(self, command: str, data: bytes) -> tuple[int, bytes, bytes]:
        self.commands.append(command)
        whole = f"{self.before}{command}; code=$?; {self.after} exit $code"
        return in_a_shell(whole, data, self.environment)


def ask(host: Host, url: str, **more: Any) -> dict[str, Any]:
    request = {"method": "GET", "url": url, "headers": {}, "body": "", "timeout": 5, **NO_TLS, **more}
    return host.call("http", request)


def test_the_same_answer_here_and_there() -> None:
    with HttpServer(Reply(200, '["é"]', {"X-Consul-Index": "7"})) as server:
        here, there = ask(Host(None), server.url), ask(Host(Shell(), sys.executable), server.url)
    assert (here["status"], here["body"]) == (there["status"], there["body"]) == (200, '["é"]')
    assert there["headers"]["X-Consul-Index"] == "7"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("echo 'Welcome to web1'; echo oops >&2; ", "echo bye;"),
        ("printf 'no newline at the end'; ", ""),
        # A banner that looks like an answer, before the real one.
        ("echo '<<hitless-answer:{1: 2}>>'; ", ""),
        ("printf '\\377\\376\\n'; ", "printf '\\377';"),
    ],
)
def test_what_a_login_shell_prints_does_no_harm(before: str, after: str) -> None:
    with HttpServer(Reply(200, "[1]")) as server:
        assert ask(Host(Shell(before, after), sys.executable), server.url)["body"] == "[1]"


def test_the_token_is_in_no_argument() -> None:
    shell = Shell()
    with HttpServer(Reply(200, "[]")) as server:
        transport = HostTransport(Host(shell, sys.executable), server.url, NO_TLS, 5)
        Client(Connection(server.url, token=SECRET), transport).keys("secret/")
        assert server.asked[0].headers["X-Consul-Token"] == SECRET
    (command,) = shell.commands
    assert SECRET not in command
    assert command == f"{shlex.quote(sys.executable)} -I -S -"


def test_an_interpreter_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "my python's; echo"
    folder.mkdir()
    python = folder / "py"
    python.symlink_to(sys.executable)
    with HttpServer(Reply(200, "[]")) as server:
        assert ask(Host(Shell(), str(python)), server.url)["status"] == 200


def test_the_first_python_there_is_taken(tmp_path: Path) -> None:
    """PATH holds none but the last candidate; what is elsewhere on this machine comes before it."""
    (tmp_path / "python").symlink_to(sys.executable)
    sh = shutil.which("sh")
    assert sh is not None
    (tmp_path / "sh").symlink_to(sh)
    with HttpServer(Reply(200, "[]")) as server:
        assert ask(Host(Shell(environment={"PATH": str(tmp_path)})), server.url)["status"] == 200


def test_no_python_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ansible_collections.hitless.consul.plugins.module_utils._remote.host._CANDIDATES", ("/gone/python3",)
    )
    with pytest.raises(
        HitlessError, match="The Python on web1 gave no answer .exit code 127.: no Python found.*Set ansi"
    ):
        ask(Host(Shell(), name="web1"), "http://127.0.0.1:1")
    with pytest.raises(HitlessError, match="exit code 127.*ansible_python_interpreter"):
        ask(Host(Shell(), "/gone/python3", "web1"), "http://127.0.0.1:1")
    assert _CANDIDATES[0] == "python3"


@pytest.mark.parametrize("banner", ["", "Welcome"])
def test_sshs_own_failure_is_a_lost_host(banner: str) -> None:
    def broken(command: str, data: bytes) -> tuple[int, bytes, bytes]:
        return 255, banner.encode(), b"ssh: connect to host web1 port 22: Connection refused"

    with pytest.raises(HostLost, match="web1 cannot be reached: ssh: connect to host web1 port 22"):
        ask(Host(broken, name="web1"), "http://127.0.0.1:1")


@pytest.mark.parametrize(
    "printed",
    [
        b"{'status': 2",
        b"{'status': 200}",
        b"{'status': 200>>",
        b"200>>",
        b"__import__('os').abort()>>",
        b"{'status': open('/etc/passwd').read()}>>",
        b"(" * 5000 + b">>",
        b"-" * 100_000 + b"1>>",
        b"\0>>",
    ],
)
def test_what_is_no_whole_answer(printed: bytes) -> None:
    """Whatever a host says is read as data, and never run."""

    def host(command: str, data: bytes) -> tuple[int, bytes, bytes]:
        return 0, b"\n<<hitless-answer:" + printed + b"\n", b""

    with pytest.raises(HitlessError, match="gave no answer"):
        ask(Host(host), "http://127.0.0.1:1")


def test_any_text_and_number_comes_through_unchanged() -> None:
    asked = {"text": "é'\"\\\n\r\0\u2028\ud800>>\n", "none": None, "yes": True, "list": [1, -2.5, 1e300, {"x": []}]}
    sent = {**asked, "method": "GET", "url": "x://", "headers": {}, "body": "", "timeout": 1, **NO_TLS}
    said = Shell(after="")

    def echo(command: str, data: bytes) -> tuple[int, bytes, bytes]:
        return said(command, data.replace(program_text("http").encode(), b"def main(request):\n    return request\n"))

    assert Host(echo, sys.executable).call("http", sent) == sent


def test_a_program_that_breaks_says_why() -> None:
    with pytest.raises(HitlessError, match="(?s)gave no answer .exit code 1.: .*KeyError"):
        Host(Shell(), sys.executable).call("http", {})


# -- requests to the agent ----------------------------------------------------------------------------------------


def through(url: str, shell: Shell | None = None, *, retry_for: float = 0, **tls: Any) -> Client:
    host = Host(shell or Shell(), sys.executable, "web1")
    connection = Connection(url, token=SECRET)
    return Client(connection, HostTransport(host, connection.base, {**NO_TLS, **tls}, 5), retry_for=retry_for)


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_requests_arrive_as_they_were_asked(method: str) -> None:
    with HttpServer(Reply(200, "true")) as server:
        asked = through(server.url)
        answer = asked.request(
            method, "/v1/agent/service/maintenance/a b/é?", [("enable", "true"), ("reason", "a&b=c é")]
        )
    (one,) = server.asked
    assert one.method == method
    assert one.path == "/v1/agent/service/maintenance/a%20b/%C3%A9%3F?enable=true&reason=a%26b%3Dc+%C3%A9"
    assert answer.data is True


def test_both_ways_ask_for_the_same() -> None:
    with HttpServer(Reply(200, "true")) as server:
        for asked in (through(server.url), Client(Connection(server.url, token=SECRET))):
            asked.put("/v1/agent/service/maintenance/a b", [("reason", "a&b=c é")], "bödy")
    first, second = server.asked
    assert (first.method, first.path, first.body) == (second.method, second.path, second.body)
    assert first.headers["X-Consul-Token"] == second.headers["X-Consul-Token"] == SECRET


def test_an_error_of_the_agent_is_told_as_from_the_host() -> None:
    with HttpServer(Reply(403, "Permission denied")) as server, pytest.raises(ConsulError) as error:
        through(server.url).get("/v1/agent/self")
    assert error.value.status == 403
    assert "(asked from the host) refused GET /v1/agent/self with 403: Permission denied" in str(error.value)


def test_an_agent_that_does_not_listen() -> None:
    url = nobody()
    with pytest.raises(ConsulUnavailable) as error:
        through(url).get("/v1/agent/self")
    assert f"No answer from the Consul agent at {url} on web1 to GET /v1/agent/self" in str(error.value)
    assert "Connection refused" in str(error.value)
    assert "hitless_consul_agent_url" in str(error.value)
    # As for a direct request: tried again for a shorter time than a missing leader.
    assert error.value.status == -1
    assert "503" not in str(error.value).replace(url, "")


def test_files_that_are_not_on_the_host_are_final() -> None:
    with HttpServer() as server:
        url = server.url.replace("http:", "https:")
        for option in ({"ca_path": "/gone.pem"}, {"client_cert": "/gone.pem"}):
            with pytest.raises(
                ConsulError, match="TLS with the Consul agent at https.* on web1 failed: /gone.pem: .*No such"
            ) as error:
                through(url, retry_for=60, **option).get("/v1/agent/self")
            assert not isinstance(error.value, ConsulUnavailable)


def test_tls_with_a_port_that_speaks_none_is_final() -> None:
    with HttpServer() as server, pytest.raises(ConsulError, match="TLS with the Consul agent") as error:
        through(server.url.replace("http:", "https:"), retry_for=60).get("/v1/agent/self")
    assert not isinstance(error.value, ConsulUnavailable)


@pytest.mark.parametrize("raw", [b"", b"what is this\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"])
def test_an_agent_that_talks_nonsense_is_no_crash(raw: bytes) -> None:
    with (
        HttpServer(Reply(raw=raw)) as server,
        pytest.raises(ConsulUnavailable, match="No answer from the Consul agent"),
    ):
        through(server.url).get("/v1/agent/self")


def test_plain_http_reads_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the system's are two hundredths of a second of processor time, and there are several requests a host."""

    def read(*_arguments: object) -> None:
        raise AssertionError("the system's certificates are read")

    monkeypatch.setattr("ssl.SSLContext.load_default_certs", read)
    with HttpServer(Reply(200, "true")) as server:
        assert ask(Host(None), server.url)["status"] == 200


def test_a_token_follows_no_redirect() -> None:
    with HttpServer(Reply(200, "[]")) as other:
        away = Reply(307, "", {"Location": f"{other.url}/v1/agent/self"})
        with HttpServer(away) as server, pytest.raises(ConsulError, match="307"):
            through(server.url).get("/v1/agent/self")
        assert other.asked == []


def test_a_proxy_in_the_hosts_environment_is_not_asked() -> None:
    with HttpServer() as proxy, HttpServer(Reply(200, json.dumps({"Config": {}}))) as server:
        shell = Shell(environment={"http_proxy": proxy.url, "HTTP_PROXY": proxy.url, "PATH": "/usr/bin:/bin"})
        assert through(server.url, shell).get("/v1/agent/self").data == {"Config": {}}
        assert proxy.asked == []


OLD_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.[6-9].*/bin/python"))


@pytest.mark.parametrize("program", ["command", "http", "probe"])
@pytest.mark.parametrize("python", [*map(str, OLD_PYTHONS[:1]), sys.executable])
def test_each_is_one_text_that_needs_nothing_of_the_collection(program: str, python: str, tmp_path: Path) -> None:
    """Nothing but a folder without the collection, a Python and its standard library."""
    text = program_text(program)
    assert "from ." not in text
    assert "ansible_collections" not in text
    done = subprocess.run(
        [python, "-I", "-"],
        check=False,
        input=f"{text}\nprint(main.__name__)",
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("main\n", "")


def test_a_connection_that_hangs_is_given_up() -> None:
    def hang(_command: str, _data: bytes) -> tuple[int, bytes, bytes]:
        time.sleep(30)
        return 0, b"", b""

    with pytest.raises(HostLost, match=r"web1 has not answered for 0\.2 s"):
        Host(hang, "python3", "web1").call("http", {}, within=0.2)
