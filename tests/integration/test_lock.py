"""The deployment lock and its keeper, against a real Consul whose sessions may have a TTL of a second."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._consul import lock
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client
from ansible_collections.hitless.consul.plugins.module_utils._consul.connection import Connection
from ansible_collections.hitless.consul.plugins.module_utils._consul.holder import Held, Holder
from ansible_collections.hitless.consul.plugins.module_utils._consul.keeper_start import KEEPER, start_keeper
from ansible_collections.hitless.consul.plugins.module_utils._errors import ConsulUnavailable, HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from lab import wait_until
from lab.agents import Authority
from lab.binaries import find_tool
from lab.testkit import link_tree
from lab.testkit.ansible_run import Ansible, Run
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server, alive, cluster, end, processes

ANNA = Holder("20261123T142233Z-1.4.2-7f3a", "anna@deploy1", "2026-11-23T14:22:33Z", "web 1.4.2")
BEN = Holder("20261123T142301Z-1.4.3-9c01", "ben@deploy2", "2026-11-23T14:23:01Z", "web 1.4.3")
TTL = 2
FAKE_RUN = Path(__file__).with_name("fake_run.py")
LEAST_POLICY = 'key_prefix "deploy/" { policy = "write" }\nsession "server2" { policy = "write" }'
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    server = Server(CONSUL)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def client(consul: Server) -> Client:
    return Client(Connection(consul.url))


@pytest.fixture
def keys() -> Keys:
    """A service of this test alone."""
    return Keys(f"web-{os.getpid()}-{next(numbers)}")


def sessions_of(consul: Server, keys: Keys) -> list[dict[str, Any]]:
    return [one for one in consul.get("session/list") if keys.service in one["Name"].split()]


# -- taking and releasing -----------------------------------------------------------------------------------------


@pytest.mark.oldest
def test_a_taken_lock_names_its_holder_and_a_released_one_nobody(consul: Server, client: Client, keys: Keys) -> None:
    session = lock.acquire(client, keys, ANNA, wait=0)

    assert lock.read_lock(client, keys) == Held(ANNA, session, True)
    assert lock.still_ours(client, keys, session)
    (entry,) = consul.get(f"kv/{keys.lock}")
    assert json.loads(base64.b64decode(entry["Value"])) == {
        "deployment": ANNA.deployment,
        "holder": "anna@deploy1",
        "since": "2026-11-23T14:22:33Z",
        "message": "web 1.4.2",
        "origin": "",
    }

    assert lock.release(client, keys, session) is True
    assert lock.read_lock(client, keys) is None
    assert not lock.still_ours(client, keys, session)
    assert sessions_of(consul, keys) == []
    # Released before its session was destroyed: no lock delay.
    again = lock.acquire(client, keys, BEN, wait=0)
    assert lock.read_lock(client, keys) == Held(BEN, again, True)


@pytest.mark.oldest
def test_the_session_does_not_follow_any_node(consul: Server, client: Client, keys: Keys) -> None:
    session = lock.acquire(client, keys, ANNA, wait=0, ttl=11)

    (info,) = consul.get(f"session/info/{session}")
    assert not info.get("Checks")
    assert not info.get("NodeChecks")
    assert not info.get("ServiceChecks")
    assert (info["TTL"], info["LockDelay"], info["Behavior"]) == ("11s", 0, "release")


@pytest.mark.oldest
def test_a_held_lock_is_refused_at_once_and_leaves_nothing(consul: Server, client: Client, keys: Keys) -> None:
    session = lock.acquire(client, keys, ANNA, wait=0)

    with pytest.raises(HitlessError) as refused:
        lock.acquire(client, keys, BEN, wait=0)

    for part in ("anna@deploy1", "2026-11-23T14:22:33Z", "web 1.4.2", ANNA.deployment, "rollout_lock_wait", "30 s"):
        assert part in str(refused.value)
    assert refused.value.details["holder"]["holder"] == "anna@deploy1"
    assert lock.read_lock(client, keys) == Held(ANNA, session, True)
    assert [one["ID"] for one in sessions_of(consul, keys)] == [session]


def test_waiting_gets_the_lock_when_it_is_released(consul: Server, client: Client, keys: Keys) -> None:
    first = lock.acquire(client, keys, ANNA, wait=0, ttl=60)
    told: list[Held] = []
    waiting = threading.Event()
    waiter = Client(Connection(consul.url))

    def tell(held: Held) -> None:
        told.append(held)
        waiting.set()

    got: list[str] = []
    thread = threading.Thread(
        target=lambda: got.append(lock.acquire(waiter, keys, BEN, wait=60, ttl=60, on_wait=tell)), daemon=True
    )
    thread.start()
    assert waiting.wait(30)
    # Longer than a poller would sit still.
    thread.join(3)
    assert thread.is_alive()
    asked = waiter.requests
    assert asked <= 3, "it polls"
    lock.release(client, keys, first)
    thread.join(30)

    assert lock.read_lock(client, keys) == Held(BEN, got[0], True)
    assert told == [Held(ANNA, first, True)]
    assert waiter.requests <= asked + 3


def test_waiting_ends_with_the_holder_of_then(client: Client, keys: Keys) -> None:
    lock.acquire(client, keys, ANNA, wait=0)

    with pytest.raises(HitlessError, match=r"anna@deploy1.*also after 1 s"):
        lock.acquire(client, keys, BEN, wait=1)


def test_the_lock_of_an_interrupted_run_is_free_and_still_names_it(client: Client, keys: Keys) -> None:
    session = lock.acquire(client, keys, ANNA, wait=0, ttl=1)
    wait_until("the session expires", lambda: not lock.still_ours(client, keys, session))

    assert lock.read_lock(client, keys) == Held(ANNA, "", False)
    lock.acquire(client, keys, BEN, wait=0)


def test_of_many_at_once_one_gets_it(consul: Server, client: Client, keys: Keys) -> None:
    start = threading.Barrier(8)
    taken: list[str] = []
    refused: list[HitlessError] = []

    def race(number: int) -> None:
        mine = Client(Connection(consul.url))
        start.wait()
        try:
            taken.append(lock.acquire(mine, keys, Holder.now("", f"racer{number}"), wait=0))
        except HitlessError as error:
            refused.append(error)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 1
    assert all("is held by racer" in str(error) for error in refused)
    assert len(refused) == 7
    assert [one["ID"] for one in sessions_of(consul, keys)] == taken


def test_another_ones_lock_is_not_released(consul: Server, client: Client, keys: Keys) -> None:
    session = lock.acquire(client, keys, ANNA, wait=0)
    other = consul.put("session/create", {"Name": "other"})["ID"]

    assert lock.release(client, keys, other) is False
    assert lock.still_ours(client, keys, session)


def test_a_lock_that_nobody_ever_took(client: Client, keys: Keys) -> None:
    assert lock.read_lock(client, keys) is None
    assert lock.release(client, keys, "6ee2d5bd-5ad1-2f0a-8f7c-8d9ef7b0cb1d") is False
    assert not lock.still_ours(client, keys, "")


def test_in_another_datacenter_it_says_where_to_ask(keys: Keys) -> None:
    """Consul forwards everything but a session: that needs a node of its datacenter."""
    near, far = Server(CONSUL, 21), Server(CONSUL, 22, datacenter="dc2")
    try:
        near.start()
        far.start()
        near.join(far)
        client = Client(Connection(near.url, datacenter="dc2"), retry_for=5)
        with pytest.raises(HitlessError) as error:
            lock.acquire(client, keys, ANNA, wait=0)
        assert "needs a node of that datacenter" in str(error.value)
        assert "Set hitless_consul_url (CONSUL_HTTP_ADDR) to an agent of dc2" in str(error.value)
        assert f"server22 ({far.address})" in str(error.value)
        session = lock.acquire(Client(Connection(far.url, datacenter="dc2")), keys, ANNA, wait=0)
        # All other requests go there from here, too.
        assert client.key(keys.lock).session == session  # type: ignore[union-attr]
        assert client.key_names("") == [keys.lock, "ready"]
    finally:
        near.close()
        far.close()


@pytest.mark.slow
def test_a_lock_within_its_delay_says_so(consul: Server, client: Client, keys: Keys) -> None:
    session = consul.put("session/create", {"LockDelay": "15s"})["ID"]
    assert consul.put(f"kv/{keys.lock}?acquire={session}", b"") is True
    consul.put(f"session/destroy/{session}")

    with pytest.raises(HitlessError, match="lock delay"):
        lock.acquire(client, keys, BEN, wait=0)
    assert sessions_of(consul, keys) == []
    # The delay is Consul's; with a wait it passes.
    assert lock.acquire(client, keys, BEN, wait=40)


def test_a_lock_that_is_not_ours_by_its_value_is_respected(consul: Server, client: Client, keys: Keys) -> None:
    session = consul.put("session/create", {"Name": "somebody's script"})["ID"]
    consul.put(f"kv/{keys.lock}?acquire={session}", b"do not touch")

    with pytest.raises(HitlessError, match=r"somebody unnamed.*do not touch"):
        lock.acquire(client, keys, BEN, wait=0)


def test_the_session_of_a_run_is_found_again(client: Client, keys: Keys) -> None:
    session = lock.acquire(client, keys, ANNA, wait=0, run="run-1")

    assert lock.session_of(client, keys, run="run-1") == session
    assert lock.session_of(client, keys, run="run-2") is None
    assert lock.session_of(client, keys, run="") is None
    assert lock.session_of(client, keys, deployment=ANNA.deployment) == session
    assert lock.session_of(client, keys, run="run-1", deployment=BEN.deployment) is None


# -- what Consul makes of requests --------------------------------------------------------------------------------


class Unsteady(Client):
    """Does ``before`` or ``after`` each acquire, with the number of it."""

    def __init__(self, url: str, **hooks: Callable[[int, str], None]) -> None:
        super().__init__(Connection(url))
        self.hooks = hooks
        self.acquires = 0

    def set_key(self, key: str, value: str, **params: object) -> bool:
        self.acquires += 1
        session = str(params["acquire"])
        if "before" in self.hooks:
            self.hooks["before"](self.acquires, session)
        done = super().set_key(key, value, **params)
        if "after" in self.hooks:
            self.hooks["after"](self.acquires, session)
        return done


def no_answer(number: int, session: str) -> None:
    if number == 1:
        raise ConsulUnavailable("no answer")


def test_an_acquire_without_an_answer_is_read_back(consul: Server, client: Client, keys: Keys) -> None:
    unsteady = Unsteady(consul.url, after=no_answer)

    session = lock.acquire(unsteady, keys, ANNA, wait=0)

    assert unsteady.acquires == 1
    assert lock.still_ours(client, keys, session)


def test_an_acquire_that_never_arrived_is_sent_again(consul: Server, client: Client, keys: Keys) -> None:
    unsteady = Unsteady(consul.url, before=no_answer)

    session = lock.acquire(unsteady, keys, ANNA, wait=0)

    assert unsteady.acquires == 2
    assert lock.still_ours(client, keys, session)


@pytest.mark.oldest
def test_a_dead_session_is_replaced(consul: Server, client: Client, keys: Keys) -> None:
    tried = []

    def kill_first(number: int, session: str) -> None:
        tried.append(session)
        if number == 1:
            consul.put(f"session/destroy/{session}")

    session = lock.acquire(Unsteady(consul.url, before=kill_first), keys, ANNA, wait=0)

    assert tried[0] != session == tried[1]
    assert lock.still_ours(client, keys, session)


def test_sessions_that_never_live_are_an_error(consul: Server, keys: Keys) -> None:
    def kill(number: int, session: str) -> None:
        consul.put(f"session/destroy/{session}")

    with pytest.raises(HitlessError, match="invalid session"):
        lock.acquire(Unsteady(consul.url, before=kill), keys, ANNA, wait=0)


# -- the keeper ---------------------------------------------------------------------------------------------------


@dataclass
class FakeRun:
    """A run as the keeper sees one, see fake_run.py."""

    consul: Server
    keys: Keys
    main: subprocess.Popen[str]
    session: str
    worker: int
    keeper: int

    def holds(self) -> bool:
        entry = self.consul.get(f"kv/{self.keys.lock}?consistent")
        return bool(entry) and entry[0].get("Session") == self.session

    def record(self) -> dict[str, Any]:
        (entry,) = self.consul.get(f"kv/{self.keys.record(ANNA.deployment)}")
        return dict(json.loads(base64.b64decode(entry["Value"])))

    def has_session(self) -> bool:
        return bool(self.consul.get(f"session/info/{self.session}"))

    def wait_keeper(self) -> None:
        wait_until("the keeper ends", lambda: not alive(self.keeper))

    def outlasts_the_ttl(self) -> bool:
        """Whether the lock is held all through the time in which an unrenewed session would have expired."""
        ended = threading.Event()
        return not any(ended.wait(0.25) or not self.holds() for _ in range(4 * 2 * TTL + 4))


Start = Callable[..., FakeRun]


@pytest.fixture
def start(consul: Server, keys: Keys) -> Iterator[Start]:
    """Starts a fake run with a record that says "running"."""
    started: list[FakeRun] = []

    def starter(server: Server = consul, connection: dict[str, Any] | None = None, **options: Any) -> FakeRun:
        server.put(f"kv/{keys.record(ANNA.deployment)}", {"state": "running", "service": keys.service})
        request = {
            "connection": connection or {"url": server.url},
            "service": keys.service,
            "deployment": ANNA.deployment,
            "ttl": TTL,
            "progress_deadline": 0,
            "worker": False,
            **options,
        }
        main = subprocess.Popen(
            [sys.executable, str(FAKE_RUN), json.dumps(request)],
            env={**os.environ, "PYTHONPATH": str(link_tree.COLLECTIONS), "SECRET_OF_THE_RUN": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert main.stdout is not None
        said: dict[str, Any] = {}
        for _ in range(2):
            said.update(json.loads(main.stdout.readline()))
        (keeper,) = processes(str(KEEPER), keys.service)
        run = FakeRun(server, keys, main, said["session"], said["worker"], keeper)
        started.append(run)
        return run

    yield starter
    for run in started:
        run.main.kill()
        for stream in (run.main.stdin, run.main.stdout):
            if stream is not None:
                stream.close()
        run.main.wait()
        for pid in (run.worker, run.keeper):
            if pid:
                end(pid)


def test_the_lock_outlives_the_main_process_until_its_last_worker_is_gone(start: Start, client: Client) -> None:
    run = start(worker=True)
    assert run.outlasts_the_ttl()

    run.main.kill()
    run.main.wait()
    assert run.outlasts_the_ttl()
    assert run.record()["state"] == "running"

    os.kill(run.worker, signal.SIGKILL)
    wait_until("the lock is free", lambda: not run.holds())
    record = run.record()
    assert record["state"] == "interrupted"
    assert record["service"] == run.keys.service
    assert record["finished"].endswith("Z")
    assert "without finishing" in record["description"]
    run.wait_keeper()
    # Released, not expired: the lock names nobody.
    assert lock.read_lock(client, run.keys) is None
    assert not run.has_session()


@pytest.mark.oldest
def test_a_run_that_ends_without_releasing_is_released_for(start: Start, client: Client) -> None:
    run = start()
    assert run.main.stdin is not None
    run.main.stdin.close()
    run.main.wait()
    run.wait_keeper()

    assert lock.read_lock(client, run.keys) is None
    assert run.record()["state"] == "interrupted"
    assert not run.has_session()


def test_a_record_that_is_finished_stays_as_it_is(start: Start, consul: Server, client: Client) -> None:
    run = start()
    consul.put(f"kv/{run.keys.record(ANNA.deployment)}", {"state": "successful"})
    run.main.kill()
    run.wait_keeper()

    assert lock.read_lock(client, run.keys) is None
    assert run.record() == {"state": "successful"}


def test_the_keeper_of_a_lost_lock_leaves_the_record_alone(start: Start, consul: Server, client: Client) -> None:
    run = start(ttl=60)
    consul.put(f"kv/{run.keys.lock}?release={run.session}", b"")
    other = lock.acquire(client, run.keys, BEN, wait=0, ttl=60)
    run.main.kill()
    run.wait_keeper()

    assert run.record()["state"] == "running"
    assert lock.still_ours(client, run.keys, other)


def test_a_stopped_main_process_loses_the_lock(start: Start, client: Client) -> None:
    run = start()
    run.main.send_signal(signal.SIGSTOP)
    try:
        wait_until("the lock is lost", lambda: not run.holds())
        run.wait_keeper()
    finally:
        run.main.send_signal(signal.SIGCONT)

    held = lock.read_lock(client, run.keys)
    assert held is not None
    assert not held.alive
    assert run.record()["state"] == "running"


def test_a_main_process_stopped_for_a_moment_keeps_it(start: Start) -> None:
    run = start(ttl=6)
    run.main.send_signal(signal.SIGSTOP)
    assert run.holds()
    run.main.send_signal(signal.SIGCONT)

    assert run.outlasts_the_ttl()
    assert alive(run.keeper)


def test_without_its_keeper_the_lock_expires(start: Start, client: Client) -> None:
    run = start()
    os.kill(run.keeper, signal.SIGKILL)
    wait_until("the lock is lost", lambda: not run.holds())

    held = lock.read_lock(client, run.keys)
    assert held is not None
    assert held.holder.deployment == ANNA.deployment
    assert not held.alive
    lock.acquire(client, run.keys, BEN, wait=0)


def test_the_keeper_ends_when_an_operator_destroys_the_session(start: Start, consul: Server) -> None:
    run = start()
    consul.put(f"session/destroy/{run.session}")
    run.wait_keeper()

    assert run.main.poll() is None
    assert run.record()["state"] == "running"


def test_sigterm_ends_the_keeper_as_if_the_run_had_ended(start: Start, client: Client) -> None:
    run = start(ttl=60)
    os.kill(run.keeper, signal.SIGHUP)
    os.kill(run.keeper, signal.SIGINT)
    assert run.holds()
    os.kill(run.keeper, signal.SIGTERM)
    run.wait_keeper()

    assert lock.read_lock(client, run.keys) is None
    assert run.record()["state"] == "interrupted"


def test_without_progress_the_lock_is_kept_no_longer(start: Start, client: Client) -> None:
    run = start(progress_deadline=3)
    run.wait_keeper()
    assert run.main.poll() is None
    wait_until("the lock is lost", lambda: not run.holds())

    held = lock.read_lock(client, run.keys)
    assert held is not None
    assert not held.alive


@pytest.mark.slow
def test_with_progress_it_is_kept_beyond_the_deadline(start: Start, consul: Server) -> None:
    run = start(progress_deadline=4)
    pause = threading.Event()
    for number in range(8):
        # New outcomes, and later ones of the same hosts.
        consul.put(f"kv/{run.keys.outcome(ANNA.deployment, f'vm{number % 3}')}", {"outcome": "ok", "batch": number})
        assert run.holds()
        pause.wait(1)

    assert alive(run.keeper)


def test_other_keys_are_no_progress(start: Start, consul: Server) -> None:
    run = start(progress_deadline=2)
    pause = threading.Event()
    for number in range(60):
        if not alive(run.keeper):
            break
        consul.put(f"kv/other/{number}", b"x")
        pause.wait(0.5)

    assert not alive(run.keeper)


def test_the_keeper_holds_nothing_of_the_run(start: Start, consul: Server) -> None:
    run = start(connection={"url": consul.url, "token": "token-of-the-test"})
    process = Path(f"/proc/{run.keeper}")
    files = {int(link.name): os.readlink(link) for link in (process / "fd").iterdir()}

    assert {files.pop(number) for number in (0, 1, 2)} == {os.devnull}
    # Its own may be a connection to Consul that it is just renewing the session on, or its look at the main process.
    known = ("pipe:", "socket:", "anon_inode:[pidfd]", f"/proc/{run.main.pid}/")
    assert [target for target in files.values() if not target.startswith(known)] == []
    mains = {os.readlink(link) for link in Path(f"/proc/{run.main.pid}/fd").iterdir()}
    shared = set(files.values()) & mains
    assert len(shared) == 1, "the pipe of the run; this one has none of results"
    assert shared.pop().startswith("pipe:")
    assert os.readlink(process / "cwd") == "/"
    fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    assert int(fields[1]) != run.main.pid
    assert int(fields[3]) != os.getsid(run.main.pid)
    seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert b"token-of-the-test" not in seen
    assert b"SECRET_OF_THE_RUN" not in seen


def test_a_keeper_that_cannot_start_says_why(consul: Server, client: Client, keys: Keys, tmp_path: Path) -> None:
    connection = Connection("https://127.0.32.1:8501", ca_path=str(tmp_path / "missing.pem"))

    with pytest.raises(HitlessError, match=r"did not start.*No such file"):
        start_keeper(connection, keys, ANNA, "no-session", pipe=0, controller=os.getpid(), progress_deadline=0)


def test_the_keeper_speaks_tls_with_a_client_certificate_and_a_token(start: Start, tmp_path: Path) -> None:
    management = "3f1c1a52-0d7f-4f0e-9d0a-5b1f0f6b7a10"
    folder = tmp_path / "tls"
    authority = Authority(find_tool("openssl", "openssl"), folder)
    certificate = authority.issue("server", "127.0.32.2", True)
    server = Server(CONSUL, 2, certificate=certificate, token=management)
    try:
        server.start()
        server.put("acl/policy", {"Name": "deployer", "Rules": LEAST_POLICY})
        token = server.put("acl/token", {"Policies": [{"Name": "deployer"}]})["SecretID"]
        connection = {
            "url": server.url,
            "token": token,
            "ca_path": str(certificate.ca),
            "client_cert": str(certificate.certificate),
            "client_key": str(certificate.key),
        }
        run = start(server, connection)
        assert run.outlasts_the_ttl()

        run.main.kill()
        run.wait_keeper()
        assert not run.holds()
        assert run.record()["state"] == "interrupted"
        assert not run.has_session()
    finally:
        server.close()


def test_the_lock_survives_the_leader(start: Start) -> None:
    servers = cluster(CONSUL, (11, 12, 13))
    try:
        leader_address = str(servers[0].get("status/leader")).rpartition(":")[0]
        leader = next(server for server in servers if server.address == leader_address)
        ours = next(server for server in servers if server is not leader)
        run = start(ours, ttl=4)
        leader.kill()
        ours.wait()

        assert run.holds()
        assert all(run.outlasts_the_ttl() for _ in range(2))
        assert alive(run.keeper)
    finally:
        for server in servers:
            server.close()


# -- whole runs of Ansible ----------------------------------------------------------------------------------------

PLAY = """\
- name: Deploy
  hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    service: undefined
    deployment: ""
  tasks:
    - name: Say hello
      ansible.builtin.debug:
        msg: hello
    - name: Take the lock
      hitless.consul.lock:
        service: "{{ service }}"
        deployment: "{{ deployment }}"
        note: web 1.4.2
        progress_deadline: 3600
      register: taken
"""


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Ansible(link_tree.COLLECTIONS, home, tmp_path / "logs")


@pytest.fixture
def play(consul: Server, keys: Keys, ansible: Ansible) -> Callable[..., Run]:
    """Starts a play that takes the lock and then does what is given."""

    def starter(tasks: str, *arguments: str, **environment: str) -> Run:
        (ansible.home / "play.yml").write_text(PLAY + tasks, encoding="utf-8")
        variables = {"service": keys.service, "deployment": ANNA.deployment}
        return ansible.start(
            "play.yml",
            "-e",
            json.dumps(variables),
            *arguments,
            # By default it lies in the passwd entry's home, not in HOME's.
            env={"CONSUL_HTTP_ADDR": consul.url, "ANSIBLE_ASYNC_DIR": str(ansible.home / "async"), **environment},
        )

    return starter


Play = Callable[..., Run]

DEPLOY = """\
    - name: Deploy for a while, and print more than a pipe holds
      ansible.builtin.shell: echo $$ > deploying; until [ -e finish ]; do sleep 0.1; done; seq 100000
"""


@pytest.mark.oldest
def test_a_killed_run_keeps_the_lock_while_its_worker_deploys(
    play: Play, consul: Server, client: Client, keys: Keys, ansible: Ansible
) -> None:
    consul.put(f"kv/{keys.record(ANNA.deployment)}", {"state": "running"})
    with play(DEPLOY) as run:
        wait_until("the deployment runs", (ansible.home / "deploying").exists)
        held = lock.read_lock(client, keys)
        assert held is not None
        assert held.alive
        assert held.holder.deployment == ANNA.deployment
        (keeper,) = processes(str(keeper_of(ansible)), keys.service)
        files = [os.readlink(link) for link in Path(f"/proc/{keeper}/fd").iterdir()]
        assert not [name for name in files if not name.startswith(("pipe:", "anon_inode:[pidfd]", os.devnull))]

        run.send(signal.SIGKILL)
        run.process.wait()
        pause = threading.Event()
        pause.wait(3)
        assert lock.read_lock(client, keys) == held, "its worker still deploys"
        (entry,) = consul.get(f"kv/{keys.record(ANNA.deployment)}")
        told = json.loads(base64.b64decode(entry["Value"]))
        assert told["state"] == "running"
        assert "The run was interrupted" in told["description"]

        (ansible.home / "finish").touch()
        wait_until("the keeper ends", lambda: not alive(keeper))
    # Released, not expired: the lock names nobody.
    assert lock.read_lock(client, keys) is None
    (entry,) = consul.get(f"kv/{keys.record(ANNA.deployment)}")
    assert json.loads(base64.b64decode(entry["Value"]))["state"] == "interrupted"


def keeper_of(ansible: Ansible) -> Path:
    """The keeper's file as that Ansible finds it."""
    return ansible.collections / "ansible_collections/hitless/consul/plugins/module_utils/_consul/keeper.py"


@pytest.mark.oldest
def test_the_end_of_a_run_releases_the_lock(play: Play, client: Client, keys: Keys, ansible: Ansible) -> None:
    with play("    - name: See it\n      ansible.builtin.debug:\n        var: taken\n") as run:
        result = run.wait()
    assert result.rc == 0, result.output
    assert '"changed": true' in result.stdout
    wait_until("the keeper ends", lambda: not processes(str(keeper_of(ansible)), keys.service))

    assert lock.read_lock(client, keys) is None


def test_a_second_run_is_refused_and_changes_nothing(play: Play, client: Client, keys: Keys) -> None:
    session = lock.acquire(client, keys, BEN, wait=0, ttl=60)

    with play("") as run:
        result = run.wait()

    assert result.red == {"localhost"}
    for part in ("ben@deploy2", BEN.deployment, "2026-11-23T14:23:01Z", "rollout_lock_wait"):
        assert part in result.stdout
    assert lock.read_lock(client, keys) == Held(BEN, session, True)


@pytest.mark.oldest
def test_a_run_takes_once_releases_its_own_and_no_other(play: Play, client: Client, keys: Keys, consul: Server) -> None:
    tasks = """\
    - name: Take it again
      hitless.consul.lock: {service: "{{ service }}", deployment: "{{ deployment }}"}
      register: again
    - name: Release another one's
      hitless.consul.lock: {service: "{{ service }}-other", state: absent}
      register: other
    - name: Would release it
      hitless.consul.lock: {service: "{{ service }}", state: absent}
      check_mode: true
      register: would
    - name: Release it
      hitless.consul.lock: {service: "{{ service }}", state: absent}
      register: released
    - name: Release it again
      hitless.consul.lock: {service: "{{ service }}", state: absent}
      register: nothing
    - name: Judge
      ansible.builtin.assert:
        that:
          - taken is changed
          - taken.holder.message == 'web 1.4.2'
          - again is not changed
          - again.session == taken.session
          - other is not changed
          - other.holder.holder == 'ben@deploy2'
          - would is changed
          - released is changed
          - released.session == taken.session
          - nothing is not changed
"""
    other_keys = Keys(f"{keys.service}-other")
    other = lock.acquire(client, other_keys, BEN, wait=0, ttl=60)

    with play(tasks) as run:
        result = run.wait()

    assert result.rc == 0, result.output
    assert lock.read_lock(client, keys) is None
    assert lock.still_ours(client, other_keys, other)


def test_check_mode_takes_nothing(play: Play, consul: Server, client: Client, keys: Keys) -> None:
    tasks = "session [{{ taken.session }}], changed {{ taken.changed }}"
    show = f"    - name: See it\n      ansible.builtin.debug:\n        msg: {tasks}\n"
    with play(show, "--check") as run:
        result = run.wait()
    assert "session [], changed True" in result.stdout, result.output
    assert result.rc == 0, result.output
    assert result.recap["localhost"]["changed"] == 1
    assert lock.read_lock(client, keys) is None
    assert sessions_of(consul, keys) == []

    lock.acquire(client, keys, BEN, wait=0, ttl=60)
    with play("", "--check") as run:
        result = run.wait()
    assert result.red == {"localhost"}
    assert "ben@deploy2" in result.stdout


def test_async_is_refused_and_nothing_is_sent_to_the_host(play: Play, client: Client, keys: Keys) -> None:
    """It would take the token there: a connection that is opened at all fails otherwise than with this sentence."""
    tasks = """\
    - name: Take it in the background
      hitless.consul.lock: {service: "{{ service }}-async"}
      async: 30
      poll: "{{ item }}"
      register: refused
      ignore_errors: true
      vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 9, ansible_async_dir: /nonexistent}
      loop: [0, 1]
    - name: See
      ansible.builtin.assert:
        that:
          - refused.results | length == 2
          - refused.results | selectattr('failed') | length == 2
          - refused.results | selectattr('msg', 'search', 'takes no async') | length == 2
          - refused.results | selectattr('ansible_job_id', 'defined') | length == 0
          - refused.results | selectattr('unreachable', 'defined') | length == 0
"""
    with play(tasks) as run:
        result = run.wait()

    assert result.rc == 0, result.output
    assert lock.read_lock(client, Keys(f"{keys.service}-async")) is None


def test_awx_tells_who_started_the_job(play: Play, client: Client, keys: Keys, ansible: Ansible) -> None:
    tasks = "    - name: See it\n      ansible.builtin.debug:\n        msg: by {{ taken.holder.holder }}\n"
    with play(tasks, "-e", "awx_user_name=carla", "-e", "awx_job_id=4711") as run:
        result = run.wait()

    assert "by carla (AWX job 4711)" in result.stdout, result.output
