"""What becomes of the recorded version and the previous one."""

from __future__ import annotations

import pytest

from ansible_collections.hitless.consul.plugins.module_utils._rollout.keys import Keys
from ansible_collections.hitless.consul.plugins.module_utils._rollout.versions import (
    FORGET,
    NodeVersion,
    previous_after,
    version_ops,
)


@pytest.mark.parametrize(
    ("version", "previous", "expected"),
    [("release/1.0", "0.9", "0.9"), ("1.0", "release/0.9", "1.0"), ("2.0", "release/1.0", None)],
)
def test_what_cannot_be_deployed_is_no_previous_version(version: str, previous: str, expected: str | None) -> None:
    assert previous_after(NodeVersion("web1", version, previous), "2.0") == expected


@pytest.mark.parametrize(
    ("before", "version", "expected"),
    [
        (NodeVersion("n"), "2", None),
        (NodeVersion("n", "1"), "2", "1"),
        (NodeVersion("n", "1", "0"), "2", "1"),
        (NodeVersion("n", "2", "1"), "2", "1"),
    ],
)
def test_the_previous_version_is_kept_where_the_version_does_not_change(
    before: NodeVersion, version: str, expected: str | None
) -> None:
    assert previous_after(before, version) == expected


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        (None, [("set", "version")]),
        ("2", [("set", "version")]),
        ("1", [("set", "version"), ("set", "previous")]),
        (FORGET, [("set", "version"), ("delete", "previous")]),
    ],
)
def test_what_becomes_of_the_previous_version(previous: str | None, expected: list[tuple[str, str]]) -> None:
    operations = version_ops(Keys("web"), "n1", "2", previous)
    assert [(one["Verb"], one["Key"].rpartition("/")[2]) for one in operations] == expected
