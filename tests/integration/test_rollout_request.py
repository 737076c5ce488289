"""Requests in a key, on a real Consul: read, claimed once, answered, and never overwritten by an old answer."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.action import rollout_request as module
from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client, ConsulUnavailable
from ansible_collections.hitless.consul.plugins.module_utils._consul.options import Task
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._remote.host import Host
from ansible_collections.hitless.consul.plugins.module_utils._rollout import trigger as requests
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import VERSION, Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Record
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import ID, Services, started


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    yield from started(CONSUL)


@pytest.fixture
def web(consul: Server) -> Services:
    return Services(consul)


def ask(web: Services, text: str) -> None:
    web.server.http.call("PUT", f"kv/deploy/{web.name}/request", text.encode())


def answer(web: Services) -> dict[str, Any]:
    found = web.client().key(f"deploy/{web.name}/request")
    assert found is not None
    data: dict[str, Any] = json.loads(found.value)
    return data


def task(web: Services, *, check_mode: bool = False) -> Task:
    return Task({}, {"url": web.server.url}, Host(None), check_mode, warn=web.warned.append, show=web.shown_text.append)


def claim(web: Services, allow: Sequence[str] = requests.ALLOWED, *, check_mode: bool = False) -> dict[str, Any]:
    return requests.take(task(web, check_mode=check_mode), Keys(web.name), allow, "anna", "here")


@pytest.mark.parametrize("word", ["promote", "resume", "stop", "abort"])
def test_a_paused_one_is_claimed_again_once_it_is_told_what_to_do(web: Services, word: str) -> None:
    ask(web, '{"version": "2.0.0", "batch_size": 2}')
    first = claim(web)
    tell(web, first["claim"], "paused", deployment=ID, reason="stage 1 has ended")
    assert not claim(web)["claimed"]
    web.client().set_key(Keys(web.name).control, "pause")
    assert not claim(web)["claimed"]
    web.client().set_key(Keys(web.name).control, json.dumps({"word": word, "by": "anna"}))
    again = claim(web)
    assert again["claimed"]
    wanted = ("rollout_version", "rollout_batch_size")
    assert [again["options"][name] for name in wanted] == [first["options"][name] for name in wanted]
    assert (answer(web)["state"], answer(web)["claim"]) == ("claimed", again["claim"])


def tell(web: Services, claim_id: str, state: str, **more: Any) -> None:
    requests.tell(task(web), Keys(web.name), claim_id, state, **more)


def recover(web: Services, *left: str) -> str | None:
    return requests.recovered(web.client(), Keys(web.name), left)


def run_record(web: Services) -> str:
    """A deployment of the service that says it is running, and the session that holds its lock."""
    session = web.session(f"deploy/{web.name}/lock")
    web.client().set_key(f"deploy/{web.name}/lock", json.dumps({"deployment": ID}), acquire=session)
    record = Record(id=ID, service=web.name, version="1.4.2", started="2026-11-23T14:22:33Z")
    web.client().set_key(Keys(web.name).record(ID), record.to_json())
    return session


@pytest.mark.oldest
def test_the_life_of_a_request(web: Services) -> None:
    assert claim(web) == {
        "changed": False,
        "claimed": False,
        "state": "",
        "text": f"{web.name}: nothing is asked for in deploy/{web.name}/request.",
    }
    ask(web, "1.10\n")
    told = claim(web)
    assert told["options"] == {
        "rollout_version": "1.10",
        "rollout_message": f"asked for in deploy/{web.name}/request",
    }
    assert answer(web).items() >= {"state": "claimed", "version": "1.10", "claim": told["claim"]}.items()
    assert claim(web)["claimed"] is False
    tell(web, told["claim"], "running", deployment=ID)
    assert answer(web).items() >= {"state": "running", "deployment": ID}.items()
    tell(web, told["claim"], "failed", reason="web2 was rolled back")
    assert answer(web).items() >= {"state": "failed", "deployment": ID, "reason": "web2 was rolled back"}.items()
    assert recover(web, "web2") == "failed"
    assert answer(web)["recovered"]["left"] == ["web2"]
    assert recover(web) is None, "once is enough"
    ask(web, "1.10")
    assert claim(web)["claimed"] is True, "the same version may be asked for again"


def test_options_of_a_request(web: Services) -> None:
    ask(web, '{"version": "1.4.2", "message": "ticket {{ 7 }}", "batch_size": "25%", "state": "requested"}')
    options = claim(web)["options"]
    assert options == {"rollout_version": "1.4.2", "rollout_message": "ticket {{ 7 }}", "rollout_batch_size": "25%"}
    ask(web, '{"version": "1.4.2", "min_healthy": 1}')
    assert claim(web, allow=["min_healthy"])["options"]["rollout_min_healthy"] == 1


REFUSED = {
    "no version": ("1.0 beta", "The version '1.0 beta' is not a version"),
    "a template": ("{{ lookup('pipe', 'id') }}", "begins like JSON and is none"),
    "no JSON": ('{"version": "1"', "begins like JSON and is none"),
    "deep JSON": ('{"version":' + "[" * 2000, "begins like JSON and is none"),
    "nothing in it": ('{"message": "now"}', "names no version"),
    "a number": ('{"version": 1.10}', "version must be a string, and 1.1 is a number"),
    "a command": ('{"version": "1", "deploy_command": "rm -rf /"}', "may not set 'deploy_command'"),
    "hosts": ('{"version": "1", "hosts": "all"}', "may not set 'hosts'"),
    "not allowed here": ('{"version": "1", "min_healthy": 0}', "it may set: batch_size, message"),
    "a wrong value": ('{"version": "1", "batch_size": "many"}', "batch_size"),
    "too long": ("1" * 5000, "is longer than 4096 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_followed_is_answered(web: Services, case: str) -> None:
    text, sentence = REFUSED[case]
    ask(web, text)
    with pytest.raises(HitlessError) as error:
        claim(web)
    assert sentence in str(error.value)
    assert error.value.details == {"claimed": False, "state": "refused"}
    told = answer(web)
    assert told["state"] == "refused"
    assert sentence in told["reason"]
    assert text.startswith(told["request"])
    assert claim(web)["claimed"] is False, "it is answered once"


@given(st.text(max_size=200) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9), st.lists))
@settings(max_examples=60)
def test_any_text_is_read_or_refused_in_a_sentence(value: Any) -> None:
    for text in (value if isinstance(value, str) else json.dumps(value), json.dumps({"version": value})):
        with contextlib.suppress(HitlessError):
            wanted = requests.parse_request(text)
            assert VERSION.fullmatch(wanted.version)
            assert not wanted.options


def test_only_harmless_options_can_be_allowed(web: Services) -> None:
    ask(web, "1")
    for name in ("deploy_command", "become", "hosts", "service", "prepare_tasks", "health_url", "rollout_message"):
        with pytest.raises(HitlessError, match="cannot be allowed to a request"):
            claim(web, allow=[name])
    assert requests.BY_NAME.keys() > set(requests.ALLOWABLE) > set(requests.ALLOWED)


@pytest.mark.oldest
def test_of_many_one_gets_it(web: Services) -> None:
    for number in range(5):
        ask(web, f"1.{number}")
        start, results = threading.Barrier(6), []

        def race() -> None:
            start.wait()  # noqa: B023 - the race of this round
            results.append(claim(web)["claimed"])  # noqa: B023

        threads = [threading.Thread(target=race) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [False] * 5 + [True]


def test_an_old_answer_does_not_overwrite_a_new_request(web: Services) -> None:
    ask(web, "1.4.2")
    word = claim(web)["claim"]
    ask(web, "1.4.3")
    tell(web, word, "successful")
    assert "was replaced meanwhile" in web.shown_text[-1]
    assert claim(web)["options"]["rollout_version"] == "1.4.3"


def test_an_interrupted_run_is_answered_by_the_next(web: Services) -> None:
    ask(web, "1.4.2")
    word = claim(web)["claim"]
    session = run_record(web)
    tell(web, word, "running", deployment=ID)
    alive = claim(web)
    assert (alive["state"], alive["changed"]) == ("running", False)
    web.server.put(f"session/destroy/{session}")
    assert claim(web)["state"] == "interrupted"
    assert (
        answer(web).items() >= {"state": "interrupted", "reason": "the run was interrupted", "version": "1.4.2"}.items()
    )


def test_a_recovery_answers_for_an_interrupted_run(web: Services) -> None:
    ask(web, "1.4.2")
    word = claim(web)["claim"]
    session = run_record(web)
    tell(web, word, "running", deployment=ID)
    web.server.put(f"session/destroy/{session}")
    assert recover(web) == "interrupted"
    assert answer(web)["recovered"]["left"] == []


def test_check_mode_writes_nothing(web: Services) -> None:
    ask(web, "1.4.2")
    told = claim(web, check_mode=True)
    assert (told["claimed"], told["claim"]) == (True, "")
    assert claim(web)["claimed"] is True
    ask(web, "no version")
    with pytest.raises(HitlessError):
        claim(web, check_mode=True)
    assert web.client().key(f"deploy/{web.name}/request").value == "no version"  # type: ignore[union-attr]


class Ambiguous(Client):
    """Its compare-and-set gets no answer, once; ``written`` says whether it took place all the same."""

    def __init__(self, client: Client, written: bool) -> None:
        super().__init__(client.connection)
        self.written: bool | None = written

    def set_key(self, key: str, value: str, **params: object) -> bool:
        if self.written is None:
            return super().set_key(key, value, **params)
        if self.written:
            super().set_key(key, value, **params)
        self.written = None
        raise ConsulUnavailable("no answer")


@pytest.mark.parametrize("written", [True, False])
def test_an_answer_that_got_lost_is_read_back(web: Services, written: bool) -> None:
    ask(web, "1.4.2")
    client, keys = Ambiguous(web.client(), written), Keys(web.name)
    found = requests.find(client, keys)
    word = requests.claim(client, keys, found, requests.RolloutRequest("1.4.2"), "anna", "here")
    assert word == answer(web)["claim"]
    assert claim(web)["claimed"] is False


def test_an_answer_that_cannot_be_written_fails_nothing(web: Services) -> None:
    unable = Task({}, {"url": "http://127.0.0.1:9"}, Host(None), warn=web.warned.append)
    unable.consul.retry_for = 0
    requests.tell(unable, Keys(web.name), "x", "successful")
    assert "still says less than successful: No answer from Consul" in web.warned[0]


# -- the module of who asks ---------------------------------------------------------------------------------------


def post(web: Services, version: Any = "1.4.2", *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    about = {"service": web.name, "state": "posted", "version": version, "options": options}
    return module.perform(web.task(module, check_mode=check_mode, **about))


def read(web: Services) -> dict[str, Any]:
    return web.run(module, service=web.name, state="read")


def test_posted_read_and_followed(web: Services) -> None:
    assert read(web) == {"changed": False, "state": "", "request": {}}
    assert post(web, check_mode=True, message="ticket 17")["changed"] is True
    assert read(web)["state"] == ""
    assert post(web, message="ticket 17")["changed"] is True
    assert post(web, message="ticket 17")["changed"] is False
    assert read(web) == {
        "changed": False,
        "state": "requested",
        "request": {"version": "1.4.2", "message": "ticket 17"},
    }
    followed = claim(web)
    assert followed["options"] == {"rollout_version": "1.4.2", "rollout_message": "ticket 17"}
    with pytest.raises(HitlessError, match="is claimed: a run follows it") as error:
        post(web, "1.4.3")
    assert error.value.details == {"state": "claimed"}
    tell(web, followed["claim"], "successful", deployment=ID)
    assert read(web)["request"]["deployment"] == ID
    assert post(web, "1.4.3")["changed"] is True, "it has ended"
    ask(web, "1.4.4")
    assert read(web) == {"changed": False, "state": "requested", "request": {"version": "1.4.4"}}


@pytest.mark.parametrize(
    ("version", "options", "sentence"),
    [
        (1.1, {}, "version must be a string"),
        ("1 2", {}, "is not a version"),
        ("1", {"deploy_command": "id"}, "may not set 'deploy_command'"),
        ("1", {"batch_size": "x"}, "batch_size"),
    ],
)
def test_what_nobody_would_follow_is_not_posted(
    web: Services, version: Any, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(HitlessError, match=sentence):
        post(web, version, **options)
    assert read(web)["state"] == ""
