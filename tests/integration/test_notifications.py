"""examples/notifications: what arrives says whether it went well; a dead receiver delays and hides nothing."""

from __future__ import annotations

import json
import shutil
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from lab.testkit import link_tree
from lab.testkit.ansible_run import Ansible, Result, flat
from tests.http_server import ADDRESS, HttpServer, Reply, nobody

pytestmark = [pytest.mark.oldest, pytest.mark.commands]

EXAMPLES = link_tree.CHECKOUT / "examples" / "notifications"
ABOUT: dict[str, Any] = {
    "deploy_id": "20261129T033127Z-2.0.0-ab12",
    "deploy_service": "web",
    "deploy_version": "2.0.0",
    "deploy_reason": "deploy",
    "deploy_operator": "anna@deploy1",
    "deploy_message": "CHG-1234",
    "deploy_hosts": {"web1": {"from": "1.0.0", "to": "2.0.0", "outcome": "pending", "why": ""}},
}
WELL: dict[str, Any] = {
    "result": "successful",
    "verdict": 'Deployment of "web" 2.0.0 successful after 12 s: 1 changed.',
    "why": "",
    "failed_hosts": [],
    "rollback": None,
    "undoes": "",
    "seconds": 12.5,
    "standing": "web: 1 of 1 in rotation, on 2.0.0.",
    "table": "host  from   to     outcome\nweb1  1.0.0  2.0.0  ok",
}
BADLY = {
    **WELL,
    "result": "failed",
    "verdict": "Deployment of web 2.0.0 failed. It stopped.",
    "why": "web1: it is bröken.",
}


class MailServer:
    """Takes mails by SMTP; a context manager. ``mails`` are those that came."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 test\r\n")
                for line in self.rfile:
                    if line.upper().startswith(b"DATA"):
                        self.wfile.write(b"354 go on\r\n")
                        lines = iter(self.rfile.readline, b".\r\n")
                        outer.mails.append(message_from_bytes(b"".join(lines)))
                    self.wfile.write(b"250 ok\r\n")

        self._server = socketserver.ThreadingTCPServer((ADDRESS, 0), Handler)
        self._server.daemon_threads = True
        self.address = f"{ADDRESS}:{self._server.server_address[1]}"

    def __enter__(self) -> MailServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_about: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def silent() -> Iterator[str]:
    """host:port of a server that accepts connections and never answers."""
    with HttpServer(Reply(hold=True)) as server:
        yield server.url.removeprefix("http://")


class Hooks:
    """Copies of the files, run as the hooks of a rollout run; five seconds are one here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.copytree(EXAMPLES, folder / "notifications")
        for file in (folder / "notifications").iterdir():
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("timeout: 5\n", "timeout: 1\n").replace("timeout=5", "timeout=1"), "utf-8")

    def run(self, *runs: tuple[str, Mapping[str, Any] | None], **receivers: str) -> Result:
        """Each file with how the deployment ended, None before it begins."""
        tasks = [
            {
                "include_tasks": {"file": str(self._folder / "notifications" / file), "apply": {"timeout": 60}},
                "vars": {**ABOUT, **({} if result is None else {"deploy_result": result})},
            }
            for file, result in runs
        ]
        play = {"hosts": "localhost", "gather_facts": False, "vars": receivers, "tasks": tasks}
        playbook = self._folder / "hooks.yml"
        playbook.write_text(json.dumps([play]), encoding="utf-8")
        ansible = Ansible(link_tree.COLLECTIONS, self._folder, self._folder / "logs")
        return ansible.playbook("-i", "localhost,", "-c", "local", playbook)


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    return Hooks(tmp_path)


def test_what_arrives_says_whether_it_went_well(hooks: Hooks) -> None:
    paused = {**WELL, "result": "paused", "verdict": "Deployment of web 2.0.0 is paused."}
    with HttpServer() as chat, HttpServer() as grafana, MailServer() as mail:
        done = hooks.run(
            ("chat.yml", None),
            *(("finish.yml", result) for result in (WELL, BADLY, paused)),
            chat_webhook=f"{chat.url}/hooks/secret",
            grafana_url=grafana.url,
            grafana_token="glsa",
            mail_server=mail.address,
            mail_from="deploy@example.com",
            mail_to="team@example.com, oncall@example.com",
        )
    assert done.rc == 0, done.output
    assert [json.loads(asked.body) for asked in chat.asked] == [
        {"text": ":arrow_forward: web 2.0.0: anna@deploy1 begins with 1 hosts. CHG-1234"},
        {"text": f":white_check_mark: web 2.0.0 successful. {WELL['verdict']}"},
        {"text": f":x: web 2.0.0 failed. {BADLY['verdict']} web1: it is bröken."},
        {"text": f":double_vertical_bar: web 2.0.0 paused. {paused['verdict']}"},
    ]
    marks = [json.loads(asked.body) for asked in grafana.asked]
    assert [mark["tags"] for mark in marks] == [
        ["deployment", "web", one] for one in ("successful", "failed", "paused")
    ]
    assert [mark["text"] for mark in marks[:2]] == [f"web 2.0.0: {WELL['verdict']}", f"web 2.0.0: {BADLY['verdict']}"]
    assert all(mark["timeEnd"] - mark["time"] >= 12_000 and isinstance(mark["time"], int) for mark in marks)
    assert {asked.headers["Authorization"] for asked in grafana.asked} == {"Bearer glsa"}
    assert {asked.path for asked in grafana.asked} == {"/api/annotations"}
    (sent,) = mail.mails
    assert (sent["Subject"], sent["To"]) == ("web 2.0.0: failed", "team@example.com, oncall@example.com")
    body = sent.get_payload(decode=True).decode()
    assert BADLY["verdict"] in body
    assert "web1: it is bröken." in body
    assert "web1  1.0.0  2.0.0  ok" in body
    assert "20261129T033127Z-2.0.0-ab12, by anna@deploy1. CHG-1234" in body


@pytest.mark.parametrize("dead", ["never answers", pytest.param("refuses", marks=pytest.mark.slow)])
def test_a_dead_receiver_fails_nothing_and_is_told(hooks: Hooks, dead: str) -> None:
    with silent() as server:
        address = server if dead == "never answers" else nobody().removeprefix("http://")
        done = hooks.run(
            ("chat.yml", None),
            ("finish.yml", BADLY),
            chat_webhook=f"http://{address}/hooks/secret",
            grafana_url=f"http://{address}",
            grafana_token="glsa",
            mail_server=address,
            mail_from="deploy@example.com",
            mail_to="team@example.com",
        )
    assert done.rc == 0, done.output
    told = flat(done.stdout)
    assert told.count("The chat was not told of it (status -1).") == 2, done.output
    assert "Grafana was not told of it (status -1)." in told
    why = "[Errno 111] Connection refused" if dead == "refuses" else "Connection unexpectedly closed: timed out"
    assert f"No mail was sent: {address}: {why}" in told, done.output
    assert "hooks/secret" not in done.output
    assert "glsa" not in done.output
