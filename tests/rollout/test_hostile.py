"""What comes from machines and from Consul is text: a template in it is shown as it is, and never runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab import Lab
from lab.agents import quote
from lab.nodes import wait_until
from tests.rollout.drive import Drive, flat

OLD, NEW = "1.0.0", "2.0.0"


@pytest.fixture
def traces(drive: Drive) -> Path:
    """Where a template that was run leaves its trace."""
    folder = drive.ansible.home / "traces"
    folder.mkdir()
    return folder


def template(traces: Path, name: str) -> str:
    return f"{{{{ lookup('pipe', 'touch {traces}/{name}') }}}}"


def check_inert(traces: Path) -> None:
    assert [path.name for path in traces.iterdir()] == []


def test_a_template_that_is_run_leaves_a_trace(drive: Drive, traces: Path) -> None:
    """The control."""
    said = f"msg={template(traces, 'control')}"
    assert drive.ansible.command("ansible", "localhost", "-m", "ansible.builtin.debug", "-a", said).rc == 0
    assert [path.name for path in traces.iterdir()] == ["control"]


@pytest.fixture
def says(traces: Path) -> Iterator[str]:
    """The URL of an application that is not healthy and says a template."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = template(traces, "health-answer").encode()
            self.send_response(503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def failing_check(lab: Lab, name: str, output: str) -> None:
    """A critical check of the service on one VM."""
    check = {"ID": "says", "Name": "says", "TTL": "1h", "ServiceID": "web"}
    agent = lab.vm(name).agent
    agent.call("PUT", "agent/check/register", check)
    agent.call("PUT", f"agent/check/fail/says?note={quote(output)}")
    wait_until("the catalog shows it", lambda: any(check["Output"] == output for check in lab.services()[0]["Checks"]))


@pytest.mark.parametrize(
    "source",
    ["deployment", pytest.param("health", marks=pytest.mark.slow), pytest.param("check", marks=pytest.mark.slow)],
)
@pytest.mark.oldest
def test_what_a_failure_tells(drive: Drive, traces: Path, says: str, source: str) -> None:
    """The output of a deployment, the answer of the application, the output of a check: told, recorded, told again."""
    lab = drive.lab
    text = traces.parent / "text"
    text.write_text(template(traces, "deployment"), encoding="utf-8")
    if source == "deployment":
        options: dict[str, Any] = {
            "deploy_command": f"cat {text}; test $DEPLOY_REASON = rollback && {{{{ lab_vm_dir }}}}/deploy"
        }
    elif source == "health":
        options = {"health_url": says, "health_match": "", "healthy_deadline": 2}
    else:
        failing_check(lab, "web1", template(traces, "check"))
        options = {"healthy_deadline": 2}
    result = drive.run(NEW, "-v", kind="ssh", hosts="web1", **options)
    assert result.rc != 0
    assert f"touch {traces}/" in flat(result.output), result.output
    assert drive.outcomes()["web1"] == ("rolled_back" if source == "deployment" else "failed")
    status = drive.run(None, name="status")
    assert status.rc == 0, status.output
    check_inert(traces)
