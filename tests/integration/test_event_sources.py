"""The event sources on a real Consul, run by their path with a queue of one, as ansible-rulebook does."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._eda import source
from ansible_collections.hitless.consul.plugins.module_utils._errors import HitlessError
from lab.agents import Authority
from lab.binaries import find_tool
from tests import link_tree
from tests.fleet import CONSUL
from tests.integration.consul_agent import Server
from tests.integration.services import Services, started

SOURCES = link_tree.COLLECTIONS / "ansible_collections/hitless/consul/extensions/eda/plugins/event_source"
LIMIT = 30.0
"""Seconds an event may take on a machine that does much else."""


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    yield from started(CONSUL)


@pytest.fixture
def mine() -> Iterator[Server]:
    """A server that a test may kill."""
    yield from started(CONSUL)


def load(name: str) -> ModuleType:
    """The file, executed anew; runpy does not get along with Ansible's importer, which only this process has."""
    spec = importlib.util.spec_from_file_location(f"event_source_{name}", SOURCES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Running:
    """A source under way."""

    def __init__(self, queue: asyncio.Queue[dict[str, Any]], task: asyncio.Task[None]) -> None:
        self.queue = queue
        self.task = task

    async def event(self) -> dict[str, Any]:
        """The next event; fails where the source has ended instead."""
        getting = asyncio.ensure_future(self.queue.get())
        await asyncio.wait({getting, self.task}, timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            if self.task.done():
                self.task.result()
            raise AssertionError("no event came")
        return getting.result()

    async def seen(self, field: str) -> tuple[Any, Any]:
        event = await self.event()
        return event["change"], event.get(field)


@asynccontextmanager
async def running(name: str, **args: Any) -> Any:
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1)
    task = asyncio.create_task(load(name).main(queue, args))
    try:
        yield Running(queue, task)
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=LIMIT)
        assert task.done(), "it does not end when it is cancelled"


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


async def put(server: Server, key: str, value: str) -> None:
    assert await call(server.http.call, "PUT", f"kv/{key}", value.encode())


async def delete(server: Server, key: str) -> None:
    await call(server.http.call, "DELETE", f"kv/{key}")


async def settled(follow: Callable[[], bool]) -> None:
    """Return when that is so."""
    for _ in range(int(LIMIT * 20)):
        if await call(follow):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come about")


@pytest.mark.oldest
def test_each_change_of_a_key_is_one_event(consul: Server) -> None:
    async def scene() -> None:
        await put(consul, "one/key", "before")
        async with running("kv", key="one/key", url=consul.url, existing=True) as kv:
            assert await kv.seen("value") == ("existing", "before")
            await put(consul, "one/other", "not watched")
            await put(consul, "one/key", "before")  # Consul takes the same value for no change
            await put(consul, "one/key", '{"state": "é"}')
            event = await kv.event()
            assert (event["key"], event["change"], event["data"]) == ("one/key", "updated", {"state": "é"})
            await call(consul.http.call, "PUT", "kv/one/key", b"\xff\x00")
            event = await kv.event()
            assert (event["value_base64"], "value" in event, "data" in event) == ("/wA=", False, False)
            await delete(consul, "one/key")
            assert await kv.event() == {"key": "one/key", "change": "deleted"}
            await put(consul, "one/key", "again")
            assert await kv.seen("value") == ("created", "again")

    asyncio.run(scene())


def test_a_lock_that_is_taken_and_lost_is_told(consul: Server) -> None:
    async def scene() -> None:
        session = (await call(consul.put, "session/create", {"LockDelay": "0s"}))["ID"]
        await put(consul, "locked/lock", "")
        async with running("kv", key="locked/lock", url=consul.url, existing=True) as kv:
            assert await kv.seen("session") == ("existing", None)
            await call(consul.http.call, "PUT", f"kv/locked/lock?acquire={session}", b"me")
            event = await kv.event()
            assert (event["change"], event["session"], event["value"]) == ("updated", session, "me")
            await call(consul.put, f"session/destroy/{session}")
            event = await kv.event()
            assert (event["change"], "session" in event, event["value"]) == ("updated", False, "me")

    asyncio.run(scene())


@pytest.mark.oldest
@pytest.mark.parametrize("where", ["remember_key", "remember_file"])
def test_nothing_is_repeated_after_a_restart_and_nothing_is_left_out(
    consul: Server, tmp_path: Path, where: str
) -> None:
    prefix = f"restart/{where}/"
    args = {"prefix": prefix, "url": consul.url, where: f"memory/{where}" if "key" in where else str(tmp_path / "m")}

    async def scene() -> None:
        await put(consul, f"{prefix}a", "1")
        await put(consul, f"{prefix}b", "1")
        async with running("kv", **args, existing=True) as kv:
            assert {(await kv.event())["key"] for _ in range(2)} == {f"{prefix}a", f"{prefix}b"}
            await put(consul, f"{prefix}a", "2")
            assert await kv.seen("value") == ("updated", "2")
            await settled(lambda: _remembers(args, consul, f"{prefix}a"))
        # Not running.
        await put(consul, f"{prefix}c", "1")
        await put(consul, f"{prefix}a", "3")
        await delete(consul, f"{prefix}b")
        async with running("kv", **args, existing=True) as kv:
            told = [await kv.event() for _ in range(3)]
            assert [(one["change"], one["key"]) for one in told] == [
                ("updated", f"{prefix}a"),
                ("created", f"{prefix}c"),
                ("deleted", f"{prefix}b"),
            ]
            await settled(lambda: _remembers(args, consul, f"{prefix}c"))
        async with running("kv", **args, existing=True) as kv:
            await put(consul, f"{prefix}d", "1")
            assert (await kv.event())["key"] == f"{prefix}d", "the first event is the first news"

    asyncio.run(scene())


def _remembers(args: dict[str, Any], consul: Server, key: str) -> bool:
    """Whether that key is remembered as it is now."""
    index = consul.get(f"kv/{key}")[0]["ModifyIndex"]
    memory = source.read_options(args, ("prefix",), {}).memory
    position = memory.load(f"{args['prefix']}*")
    return position is not None and position.marks.get(key, [0])[0] == index


def test_without_a_memory_a_start_tells_nothing(consul: Server) -> None:
    async def scene() -> None:
        await put(consul, "silent/a", "1")
        async with running("kv", prefix="silent/", url=consul.url) as kv:
            # The first change that it can have seen: writes go on until there is one.
            writing = asyncio.create_task(_write_on(consul, "silent/b"))
            event = await kv.event()
            writing.cancel()
            assert event["key"] == "silent/b"

    asyncio.run(scene())


async def _write_on(server: Server, key: str) -> None:
    number = 0
    while True:
        number += 1
        await put(server, key, str(number))
        await asyncio.sleep(0.2)


def test_it_outlives_a_consul_that_is_away(mine: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LONGEST_DELAY", 1.0)

    async def scene() -> None:
        await put(mine, "away/a", "1")
        await put(mine, "away/b", "1")
        async with running("kv", prefix="away/", url=mine.url, existing=True) as kv:
            assert {(await kv.event())["key"] for _ in range(2)} == {"away/a", "away/b"}
            await call(mine.kill)
            await call(mine.start)
            await put(mine, "away/a", "2")
            assert await kv.seen("value") == ("updated", "2")
            await delete(mine, "away/a")
            assert await kv.seen("key") == ("deleted", "away/a")

    asyncio.run(scene())


@pytest.mark.slow
def test_a_consul_that_was_built_anew_is_no_change(mine: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its indexes begin anew, and its keys come back from a copy: only what differs is told."""
    monkeypatch.setattr(source, "LONGEST_DELAY", 1.0)

    async def scene() -> None:
        for number in range(30):
            await put(mine, "anew/busy", str(number))
        await put(mine, "anew/a", "1")
        args = {"prefix": "anew/", "url": mine.url, "remember_file": f"{mine._folder.name}/memory"}
        async with running("kv", **args, existing=True) as kv:
            assert {(await kv.event())["key"] for _ in range(2)} == {"anew/a", "anew/busy"}
            await settled(lambda: _remembers(args, mine, "anew/a"))
        before = (await call(mine.get, "kv/anew/a"))[0]["ModifyIndex"]
        await call(mine.kill)
        shutil.rmtree(f"{mine._folder.name}/data")
        await call(mine.start)
        await put(mine, "anew/a", "1")
        await put(mine, "anew/busy", "other")
        assert (await call(mine.get, "kv/anew/busy"))[0]["ModifyIndex"] < before
        async with running("kv", **args, existing=True) as kv:
            event = await kv.event()
            assert (event["key"], event["value"]) == ("anew/busy", "other")
            await put(mine, "anew/a", "2")
            assert await kv.seen("value") == ("updated", "2")

    asyncio.run(scene())


@pytest.mark.slow
def test_a_token_that_may_not_read_is_waited_out(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(CONSUL, 199, token="4d2b9a3e-0d8f-4c7e-9c1b-5f6a7b8c9d0e")

    async def scene() -> None:
        async with running("kv", key="secret/a", url=server.url, token="no such token"):
            await settled(lambda: "ACL not found" in caplog.text)
        async with running("kv", key="secret/a", url=server.url, token=server.token, existing=True) as kv:
            await put(server, "secret/a", "1")
            assert (await kv.event())["value"] == "1"

    try:
        server.start()
        asyncio.run(scene())
    finally:
        server.close()
    assert caplog.text.count("It is tried again") == 1, "said once, however often it is tried"
    assert server.token not in caplog.text


@pytest.mark.slow
def test_tls_with_client_certificates(tmp_path: Path) -> None:
    files = Authority(find_tool("openssl", "openssl"), tmp_path / "tls").issue("server", "127.0.32.198", True)
    server = Server(CONSUL, 198, certificate=files)
    tls = {"ca_path": str(files.ca), "client_cert": str(files.certificate), "client_key": str(files.key)}

    async def scene() -> None:
        async with running("kv", key="tls/a", url=server.url, existing=True, **tls) as kv:
            await put(server, "tls/a", "1")
            assert (await kv.event())["value"] == "1"

    try:
        server.start()
        asyncio.run(scene())
    finally:
        server.close()


@pytest.mark.oldest
def test_instances_that_change_their_state(consul: Server, tmp_path: Path) -> None:
    web, api = Services(consul), Services(consul)
    args = {"services": [web.name, api.name], "url": consul.url, "remember_file": str(tmp_path / "memory")}

    async def scene() -> None:
        await call(web.register)
        async with running("health", **args, existing=True) as health:
            event = await health.event()
            assert (event["change"], event["service"], event["node"]) == ("existing", web.name, web.node)
            assert (event["status"], event["id"]) == ("passing", web.name)
            await call(web.set, "critical", "no answer")
            event = await health.event()
            assert (event["status"], event["previous"]) == ("critical", "passing")
            assert event["failing"] == ["answers is critical (no answer)"]
            await call(web.operator, "a new disk")
            event = await health.event()
            assert (event["status"], event["maintenance"]) == ("maintenance", "a new disk")
            await call(api.register)
            event = await health.event()
            assert (event["change"], event["service"], event["status"]) == ("created", api.name, "passing")
            kept = Path(args["remember_file"])
            await settled(lambda: f"{api.node}/{api.name}" in kept.read_text(encoding="utf-8"))
        await call(web.deregister)
        async with running("health", **args, existing=True) as health:
            event = await health.event()
            assert (event["change"], event["status"], event["previous"]) == ("deleted", "gone", "maintenance")
            await call(api.set, "warning")
            event = await health.event()
            assert (event["service"], event["status"], event["previous"]) == (api.name, "warning", "passing")

    asyncio.run(scene())


REFUSED = {
    "no key": ("kv", {}, "One of key and prefix is required."),
    "both": ("kv", {"key": "a", "prefix": "a/"}, "Only one of key and prefix can be set."),
    "not a key": ("kv", {"key": "a?raw"}, "key 'a?raw' is not a key of Consul's KV store."),
    "unknown option": ("kv", {"key": "a", "tokn": "x"}, "tokn is not an option of this event source."),
    "memory within": ("kv", {"prefix": "a/", "remember_key": "a/memory"}, "each event would cause another"),
    "two memories": ("kv", {"key": "a", "remember_key": "b", "remember_file": "/c"}, "one place to remember is enough"),
    "no flag": ("kv", {"key": "a", "existing": "perhaps"}, "existing must be true or false"),
    "address": ("kv", {"key": "a", "url": "ftp://consul"}, "is not of the form http://host:port"),
    "no services": ("health", {}, "services must be a list of names of services"),
    "service": ("health", {"services": "a b"}, "The service name 'a b' cannot be used"),
    "file that cannot be": ("kv", {"key": "a", "remember_file": "/dev/null/x"}, "cannot be read"),
    "file of another": ("kv", {"key": "a", "remember_file": "/etc/passwd"}, "and holds something else"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_at_the_start(case: str) -> None:
    name, args, sentence = REFUSED[case]

    async def scene() -> None:
        async with running(name, **args) as refused:
            with pytest.raises(HitlessError) as error:
                await asyncio.wait_for(refused.task, LIMIT)
            assert sentence in str(error.value)

    asyncio.run(scene())


def test_the_environment_is_that_of_the_consul_command(consul: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", consul.url.removeprefix("http://"))

    async def scene() -> None:
        await put(consul, "environment/a", "1")
        async with running("kv", key="environment/a", existing=True, url="", token="") as kv:
            assert (await kv.event())["value"] == "1"

    asyncio.run(scene())


def test_what_is_remembered_is_readable(consul: Server) -> None:
    async def scene() -> None:
        await put(consul, "readable/a", "1")
        async with running("kv", key="readable/a", url=consul.url, remember_key="memory/readable"):
            await settled(lambda: consul.get("kv/memory/readable") is not None)

    asyncio.run(scene())
    raw = consul.http.call("GET", "kv/memory/readable?raw")
    kept = raw if isinstance(raw, dict) else json.loads(raw)
    index = consul.get("kv/readable/a")[0]["ModifyIndex"]
    assert kept["readable/a"]["index"] == kept["readable/a"]["marks"]["readable/a"][0] == index
