"""What is said where a run is interrupted, by the notes that its workers have left."""

from __future__ import annotations

import json

from ansible_collections.hitless.consul.plugins.plugin_utils._interruption import told


def notes(*entries: tuple[str, str]) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def test_nothing_is_said_where_nothing_was_begun_or_its_end_is_told() -> None:
    assert told(b"") == ""
    assert told(notes(("begun", "web"), ("in", "web1"), ("out", "web1"), ("ended", ""))) == ""


def test_the_hosts_in_their_turns_are_named() -> None:
    text = told(notes(("begun", "web"), ("in", "web1"), ("in", "web2"), ("out", "web1"), ("in", "web3")))
    assert text.startswith("The rollout of web was interrupted. In its turn: web2, web3; what is in maintenance stays")
    assert "hitless.consul.recover -e rollout_service=web" in text


def test_between_two_hosts_there_is_none() -> None:
    text = told(notes(("begun", "web"), ("in", "web1"), ("out", "web1")))
    assert text.startswith("The rollout of web was interrupted. The same command again goes on from here;")


def test_many_are_counted() -> None:
    many = [("in", f"web{number}") for number in range(1, 15)]
    assert "web10 and 4 more;" in told(notes(("begun", "web"), *many))
