"""Requests in a key, on a real Consul: read, claimed once, answered, and never overwritten by an old answer."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hitless.consul.plugins.module_utils._consul.client import Client, ConsulUnavailable
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from ansible_collections.hitless.consul.plugins.module_utils._rollout import trigger as requests
from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import VERSION, Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.record import Record
from ansible_collections.hitless.consul.plugins.action import rollout_request as module
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import Services, started

ID = "20261123T142233Z-1.4.2-7f3a"


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


def claim(web: Services, **more: Any) -> dict[str, Any]:
    return web.run(module, service=web.name, state="claimed", **more)


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
    of_run = {"service": web.name, "claim": told["claim"]}
    web.run(module, **of_run, state="running", deployment=ID)
    assert answer(web).items() >= {"state": "running", "deployment": ID}.items()
    web.run(module, **of_run, state="ended", result="failed", reason="web2 was rolled back")
    assert answer(web).items() >= {"state": "failed", "deployment": ID, "reason": "web2 was rolled back"}.items()
    assert web.run(module, service=web.name, state="recovered", left=["web2"])["state"] == "failed"
    assert answer(web)["recovered"]["left"] == ["web2"]
    assert web.run(module, service=web.name, state="recovered")["changed"] is False, "once is enough"
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
    "a number": ('{"version": 1.10}', "version must be a string, and 1.1 is a float"),
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
            wish = requests.read_wish(text)
            assert VERSION.fullmatch(wish.version)
            assert not wish.options


def test_only_harmless_options_can_be_allowed(web: Services) -> None:
    ask(web, "1")
    for name in ("deploy_command", "become", "hosts", "service", "prepare_tasks", "health_url", "rollout_message"):
        with pytest.raises(HitlessError, match="cannot be allowed to a request"):
            claim(web, allow=[name])
    assert requests.BY_NAME.keys() > set(requests.ALLOWABLE) > set(requests.ALLOWED)
    assert module.ARGUMENT_SPEC["allow"]["default"] == list(requests.ALLOWED)


@pytest.mark.oldest
def test_of_many_one_gets_it(web: Services) -> None:
    for number in range(5):
        ask(web, f"1.{number}")
        start, results = threading.Barrier(6), []

        def race() -> None:
            task = web.task(module, service=web.name, state="claimed")
            assert task.consul.requests == 0
            start.wait()  # noqa: B023 - the race of this round
            results.append(module.perform(task)["claimed"])  # noqa: B023

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
    told = web.run(module, service=web.name, state="ended", claim=word, result="successful")
    assert (told["changed"], "was replaced meanwhile" in told["text"]) == (False, True)
    assert claim(web)["options"]["rollout_version"] == "1.4.3"


def test_a_run_that_died_is_answered_by_the_next(web: Services) -> None:
    ask(web, "1.4.2")
    word = claim(web)["claim"]
    session = run_record(web)
    web.run(module, service=web.name, state="running", claim=word, deployment=ID)
    alive = claim(web)
    assert (alive["state"], alive["changed"]) == ("running", False)
    web.server.put(f"session/destroy/{session}")
    assert claim(web)["state"] == "interrupted"
    assert answer(web).items() >= {"state": "interrupted", "reason": "the run died", "version": "1.4.2"}.items()


def test_a_recovery_answers_for_a_run_that_died(web: Services) -> None:
    ask(web, "1.4.2")
    word = claim(web)["claim"]
    session = run_record(web)
    web.run(module, service=web.name, state="running", claim=word, deployment=ID)
    web.server.put(f"session/destroy/{session}")
    assert web.run(module, service=web.name, state="recovered")["state"] == "interrupted"
    assert answer(web)["recovered"]["left"] == []


def test_check_mode_writes_nothing(web: Services) -> None:
    ask(web, "1.4.2")
    told = module.perform(web.task(module, service=web.name, state="claimed", check_mode=True))
    assert (told["claimed"], told["claim"]) == (True, "")
    assert claim(web)["claimed"] is True
    ask(web, "no version")
    with pytest.raises(HitlessError):
        module.perform(web.task(module, service=web.name, state="claimed", check_mode=True))
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
    word = requests.claim(client, keys, found, requests.Wish("1.4.2"), "anna", "here")
    assert word == answer(web)["claim"]
    assert claim(web)["claimed"] is False


def test_an_answer_that_cannot_be_written_fails_nothing(web: Services) -> None:
    task = web.task(module, service=web.name, state="ended", claim="x", result="successful")
    task.options["url"] = "http://127.0.0.1:9"
    task.consul.retry_for = 0
    warned: list[str] = []
    task.warn = warned.append
    assert "No answer from Consul" in module.perform(task)["unrecorded"]
    assert "still says less than successful" in warned[0]
